//! How many lanes there are, and which relay has which.

use std::time::Duration;

use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::cursor::{LaneError, within};
use crate::hook;

/// The lanes of the outbox as a relay sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// An operator has paused the relays.
    pub paused: bool,
    /// Their number is being changed.
    pub changing: bool,
    /// The lanes, by number.
    pub lanes: Vec<LaneView>,
    /// The relays that could publish, itself among them.
    pub relays: Relays,
}

/// A lane, and who has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneView {
    /// Its number.
    pub lane: i16,
    /// The relay whose lease has not run out; `None` if it is free.
    pub owner: Option<Uuid>,
    /// The number of lanes is being changed, and this one has nothing left to do before.
    pub arrived: bool,
}

/// How many relays there are, and where this one stands among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relays {
    /// All of them.
    pub count: usize,
    /// So many are older.
    pub before: usize,
}

#[derive(sqlx::FromRow)]
struct Row {
    paused: bool,
    changing: bool,
    lane: i16,
    owner: Option<Uuid>,
    arrived: bool,
    others: i64,
    before: i64,
}

impl Layout {
    /// Tells the others for so long that this relay could publish, and looks at the lanes.
    ///
    /// # Errors
    /// Returns the database's error, or [`LaneError::Silent`].
    pub async fn look(pool: &PgPool, relay: Uuid, name: &str, lease: Duration) -> Result<Self, LaneError> {
        hook::before("look at the lanes");
        let look = sqlx::query_as(
            "with beat as (
                insert into amends.relay (id, name, expires_at) values ($1, $2, clock_timestamp() + $3)
                on conflict (id) do update set expires_at = excluded.expires_at
             ), gone as (
                delete from amends.relay where expires_at < clock_timestamp() - interval '1 hour' and id <> $1
             ), others as (
                select count(*) as others, count(*) filter (where id < $1) as before
                from amends.relay where id <> $1 and expires_at > clock_timestamp()
             )
             select l.paused, l.meeting is not null as changing, lane::smallint as lane,
                case when c.expires_at > clock_timestamp() then c.owner end as owner,
                coalesce(c.prev::text = l.meeting::text and c.pass is null, false) as arrived, others, before
             from amends.layout l cross join others cross join generate_series(0, l.lanes - 1) lane
                left join amends.cursor c using (lane)
             order by lane",
        )
        .bind(relay)
        .bind(name)
        .bind(lease);
        let rows: Vec<Row> = ask(pool, async |conn| look.fetch_all(conn).await).await?;
        let first = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        let relays = Relays { count: first.others as usize + 1, before: first.before as usize };
        let (paused, changing) = (first.paused, first.changing);
        let lanes = rows.into_iter().map(|row| LaneView { lane: row.lane, owner: row.owner, arrived: row.arrived });
        Ok(Self { paused, changing, lanes: lanes.collect(), relays })
    }

    /// Begins with the new lanes, if their number is being changed and the old ones have all met. It is safe for many to try.
    ///
    /// # Errors
    /// Returns the database's error, or [`LaneError::Silent`].
    pub async fn finish(pool: &PgPool) -> Result<bool, LaneError> {
        hook::before("finish the lanes");
        let finish = sqlx::query_scalar("select amends.finish_lanes()");
        ask(pool, async |conn| finish.fetch_one(conn).await).await
    }

    /// Tells the others that this relay is gone, so that they take its share at once.
    ///
    /// # Errors
    /// Returns the database's error, or [`LaneError::Silent`].
    pub async fn leave(pool: &PgPool, relay: Uuid) -> Result<(), LaneError> {
        hook::before("leave the lanes");
        let leave = sqlx::query("delete from amends.relay where id = $1").bind(relay);
        ask(pool, async |conn| leave.execute(conn).await).await.map(drop)
    }
}

/// The statements here are small.
const ANSWER: Duration = Duration::from_secs(10);

/// A connection that is silent must not go back to its pool, which would wait for what it still has to say.
async fn ask<T>(
    pool: &PgPool,
    statement: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
) -> Result<T, LaneError> {
    let mut conn = pool.acquire().await?;
    let answer = within(ANSWER, statement(&mut conn)).await;
    if matches!(answer, Err(LaneError::Silent(_))) {
        drop(conn.detach());
    }
    answer
}
