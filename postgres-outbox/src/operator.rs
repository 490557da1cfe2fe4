//! What an operator does about messages: those that are held, and the flow of all.

use amends::{Error, MAX_NAME_BYTES, MessageId};
use chrono::{DateTime, Utc};
use sqlx::PgPool;
use uuid::Uuid;

use crate::columns::Bound;
use crate::error::start_error;
use crate::hook;

/// Which held messages are meant; all, if nothing is said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Which {
    /// Those of this key.
    pub key: Option<String>,
    /// This one.
    pub id: Option<MessageId>,
    /// Those of this type.
    pub name: Option<String>,
    /// Those that are parked.
    pub parked: bool,
}

/// A held message.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct HeldLine {
    /// Its place in the outbox.
    pub seq: i64,
    /// Its id.
    pub id: Uuid,
    /// Its ordering key.
    pub key: Option<String>,
    /// Its type.
    pub name: String,
    /// Its topic.
    pub topic: String,
    /// How often the broker has refused it; 0 if it waits for another of its key, or for its exchange.
    pub attempts: i32,
    /// It waits for an operator.
    pub parked: bool,
    /// When it is tried again, if it is the first of its key and not parked.
    pub retry_at: DateTime<Utc>,
    /// Since when it is held.
    pub held_at: DateTime<Utc>,
    /// Why.
    pub reason: String,
}

impl Which {
    /// `$1` to `$4` of `which!`.
    fn bound(&self) -> Bound {
        let mut bound = Bound::default();
        bound.add(&self.key);
        bound.add(self.id.map(|id| id.0));
        bound.add(&self.name);
        bound.add(self.parked);
        bound
    }
}

/// `$1` to `$4` are those of [`Which`].
macro_rules! which {
    ($before:literal) => {
        concat!(
            $before,
            " where ($1::text is null or key = $1) and ($2::uuid is null or id = $2) and ($3::text is null or name = $3)
                and (parked or not $4)"
        )
    };
}

/// Held messages, in the order in which they are published.
///
/// # Errors
/// Returns the database's error.
pub async fn held(pool: &PgPool, which: &Which, limit: u32) -> Result<Vec<HeldLine>, sqlx::Error> {
    let mut bound = which.bound();
    bound.add(i64::from(limit));
    hook::before("list held");
    let held = concat!(
        which!(
            "select seq, id, key, name, topic, attempts, parked, retry_at, held_at, reason from amends.held_message"
        ),
        " order by seq limit $5"
    );
    sqlx::query_as_with(held, bound.finish()?).fetch_all(pool).await
}

/// They are tried again at once, and counted anew; those behind them follow in order. The answer is how many.
///
/// # Errors
/// Returns the database's error.
pub async fn release(pool: &PgPool, which: &Which) -> Result<u64, sqlx::Error> {
    let release = which!("update amends.held_message set parked = false, attempts = 0, retry_at = clock_timestamp()");
    act(pool, release, which.bound()).await
}

/// They are never published, unless they are on their way just now; those behind them follow. They stay in the outbox for as long as it is retained. The answer is how
/// many.
///
/// # Errors
/// Returns the database's error.
pub async fn discard(pool: &PgPool, which: &Which) -> Result<u64, sqlx::Error> {
    act(pool, which!("delete from amends.held_message"), which.bound()).await
}

async fn act(pool: &PgPool, statement: &'static str, bound: Bound) -> Result<u64, sqlx::Error> {
    hook::before("act on held");
    Ok(sqlx::query_with(statement, bound.finish()?).execute(pool).await?.rows_affected())
}

/// They go to another exchange, under another routing key, or both, and are tried again at once. The answer is how many.
///
/// # Errors
/// Returns the database's error, or [`sqlx::Error::InvalidArgument`] for a name that AMQP cannot carry.
pub async fn reroute(
    pool: &PgPool,
    which: &Which,
    exchange: Option<&str>,
    topic: Option<&str>,
) -> Result<u64, sqlx::Error> {
    for (what, name) in [("exchange", exchange), ("topic", topic)] {
        if name.is_some_and(|name| name.len() > MAX_NAME_BYTES) {
            return Err(sqlx::Error::InvalidArgument(format!("the {what} may have {MAX_NAME_BYTES} bytes at most")));
        }
    }
    let mut bound = which.bound();
    bound.add(exchange);
    bound.add(topic);
    let reroute = which!(
        "update amends.held_message set parked = false, attempts = 0, retry_at = clock_timestamp(),
            exchange = coalesce($5, exchange), topic = coalesce($6, topic)"
    );
    act(pool, reroute, bound).await
}

/// All relays stop within a few seconds: they finish what they have read. Messages wait in the outbox.
///
/// # Errors
/// Returns the database's error.
pub async fn pause(pool: &PgPool) -> Result<(), sqlx::Error> {
    set_paused(pool, true).await
}

/// All relays go on.
///
/// # Errors
/// Returns the database's error.
pub async fn resume(pool: &PgPool) -> Result<(), sqlx::Error> {
    set_paused(pool, false).await
}

async fn set_paused(pool: &PgPool, paused: bool) -> Result<(), sqlx::Error> {
    hook::before("pause relays");
    sqlx::query("update amends.layout set paused = $1").bind(paused).execute(pool).await.map(drop)
}

/// Spreads the keys over so many lanes, from 1 to 64, without loss of order: as many relays can publish at once. It takes effect
/// once running relays have published what is there now.
///
/// # Errors
/// [`Error::Store`] if there cannot be so many, or another change is under way.
pub async fn set_lanes(pool: &PgPool, lanes: i32) -> Result<(), Error> {
    hook::before("set lanes");
    sqlx::query("select amends.set_lanes($1)").bind(lanes).execute(pool).await.map(drop).map_err(start_error)
}
