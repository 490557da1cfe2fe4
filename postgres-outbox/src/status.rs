//! What an operator asks first: what runs, what waits, what is stuck.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgPool};

/// The state of sagas, workers, outbox and held messages at one moment.
#[derive(Debug, Clone)]
pub struct Overview {
    /// Sagas by name and status.
    pub sagas: Vec<SagaCount>,
    /// Workers, and whether each is alive.
    pub workers: Vec<WorkerLine>,
    /// Lanes of the outbox.
    pub lanes: Vec<LaneLine>,
    /// What holds for all of them.
    pub layout: LayoutLine,
}

/// How many sagas of a name are in a status.
#[derive(Debug, Clone, FromRow)]
pub struct SagaCount {
    /// The saga's name.
    pub name: String,
    /// The status.
    pub status: String,
    /// How many.
    pub count: i64,
    /// Seconds since the oldest of them became due; 0 if none is overdue.
    pub overdue_seconds: f64,
}

/// A worker.
#[derive(Debug, Clone, FromRow)]
pub struct WorkerLine {
    /// Its name.
    pub name: String,
    /// Its lease has not run out.
    pub alive: bool,
    /// Sagas that it owns now.
    pub sagas: i64,
}

/// A lane of the outbox.
#[derive(Debug, Clone, FromRow)]
pub struct LaneLine {
    /// Its number.
    pub lane: i16,
    /// The relay that reads it.
    pub owner_name: Option<String>,
    /// That relay's lease has not run out.
    pub alive: bool,
    /// Messages not published yet, at most [`MAX_LAG_ROWS`]; the count stops there.
    pub lag_rows: i64,
    /// Seconds since the oldest of them was written.
    pub lag_seconds: f64,
    /// Messages that the broker refused, or behind one of them.
    pub held: i64,
    /// Of those, how many keys wait for an operator.
    pub parked: i64,
    /// When the cursor moved last.
    pub moved_at: DateTime<Utc>,
}

/// What holds for all lanes.
#[derive(Debug, Clone, FromRow)]
pub struct LayoutLine {
    /// How many lanes there are.
    pub lanes: i16,
    /// How many there will be, once the old ones have published what was there when that was asked for.
    pub next_lanes: Option<i16>,
    /// An operator has paused all relays.
    pub paused: bool,
    /// Relays that could publish.
    pub relays: i64,
}

/// The lag is counted no further than this, so that asking is cheap however long the backlog is.
pub const MAX_LAG_ROWS: i64 = 100_000;

/// Reads the overview.
///
/// # Errors
/// Returns the database's error.
pub async fn overview(pool: &PgPool) -> Result<Overview, sqlx::Error> {
    Ok(Overview {
        sagas: sagas(pool).await?,
        workers: workers(pool).await?,
        lanes: lanes(pool).await?,
        layout: layout(pool).await?,
    })
}

async fn layout(pool: &PgPool) -> Result<LayoutLine, sqlx::Error> {
    sqlx::query_as(
        "select lanes, next_lanes, paused,
            (select count(*) from amends.relay where expires_at > clock_timestamp()) as relays
         from amends.layout",
    )
    .fetch_one(pool)
    .await
}

async fn sagas(pool: &PgPool) -> Result<Vec<SagaCount>, sqlx::Error> {
    sqlx::query_as(
        "select name, status, count(*) as count,
            coalesce(greatest(extract(epoch from clock_timestamp() - min(wake_at) filter (where owner is null)), 0), 0)::float8
                as overdue_seconds
         from amends.saga group by name, status order by name, status",
    )
    .fetch_all(pool)
    .await
}

async fn workers(pool: &PgPool) -> Result<Vec<WorkerLine>, sqlx::Error> {
    sqlx::query_as(
        "select w.name, w.expires_at > clock_timestamp() as alive,
            (select count(*) from amends.saga s where s.owner = w.id) as sagas
         from amends.worker w
         where w.expires_at > clock_timestamp() - interval '1 hour'
         order by alive desc, w.name",
    )
    .fetch_all(pool)
    .await
}

/// The lanes, with what is not published yet.
///
/// # Errors
/// Returns the database's error.
pub async fn lanes(pool: &PgPool) -> Result<Vec<LaneLine>, sqlx::Error> {
    sqlx::query_as(
        "select c.lane, c.owner_name, coalesce(c.expires_at > clock_timestamp(), false) as alive, c.moved_at,
            lag.rows as lag_rows,
            coalesce(greatest(extract(epoch from clock_timestamp() - lag.oldest), 0), 0)::float8 as lag_seconds,
            (select count(*) from amends.held_message h where h.lane = c.lane) as held,
            (select count(*) from amends.held_message h where h.lane = c.lane and h.parked) as parked
         from amends.cursor c cross join amends.layout l cross join lateral (
            select count(*) as rows, min(created_at) as oldest from (
                select o.created_at from amends.outbox o
                where (l.lanes = 1 or amends.lane_of(o.key, o.id, l.lanes) = c.lane) and o.seq > greatest(c.floor, coalesce(c.pass_seq, 0))
                    and not pg_visible_in_snapshot(o.xid, c.prev)
                limit $1
            ) open
         ) lag
         order by c.lane",
    )
    .bind(MAX_LAG_ROWS)
    .fetch_all(pool)
    .await
}
