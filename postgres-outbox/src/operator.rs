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
    () => {
        "($1::text is null or key = $1) and ($2::uuid is null or id = $2) and ($3::text is null or name = $3) and (parked or not $4)"
    };
}

/// Acts on a batch of them, before `$5`, `$6`. The last first: a relay must not publish what is behind one that is gone already. And under the
/// lease, as relays do, so that neither dies in a deadlock.
macro_rules! act_on {
    ($action:literal) => {
        concat!(
            "with lease as materialized (select lane from amends.cursor order by lane for share), batch as materialized (
                select lane, seq from amends.held_message
                where (select count(*) from lease) >= 0 and (lane, seq) < ($5, $6) and ",
            which!(),
            " order by lane desc, seq desc limit 1000 for update
             ), acted as (",
            $action,
            " where h.lane = batch.lane and h.seq = batch.seq returning h.seq)
             select (select count(*) from acted), last.lane, last.seq
             from (select) one left join lateral (select lane, seq from batch order by lane, seq limit 1) last on true"
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
        "select seq, id, key, name, topic, attempts, parked, retry_at, held_at, reason from amends.held_message where ",
        which!(),
        " order by seq limit $5"
    );
    sqlx::query_as_with(held, bound.finish()?).fetch_all(pool).await
}

/// They are tried again at once, and counted anew; those behind them follow in order. The answer is how many.
///
/// # Errors
/// Returns the database's error.
pub async fn release(pool: &PgPool, which: &Which) -> Result<u64, sqlx::Error> {
    let release = act_on!(
        "update amends.held_message h set parked = false, attempts = 0, retry_at = clock_timestamp() from batch"
    );
    act(pool, release, which, &[]).await
}

/// They are never published, unless they are on their way just now; those behind them follow. They stay in the outbox for as long as it is retained. The answer is how
/// many.
///
/// # Errors
/// Returns the database's error.
pub async fn discard(pool: &PgPool, which: &Which) -> Result<u64, sqlx::Error> {
    act(pool, act_on!("delete from amends.held_message h using batch"), which, &[]).await
}

/// In batches, each a transaction of its own: a relay that is at work on them must not wait for long.
async fn act(
    pool: &PgPool,
    statement: &'static str,
    which: &Which,
    others: &[Option<&str>],
) -> Result<u64, sqlx::Error> {
    let (mut before, mut all) = ((i16::MAX, i64::MAX), 0);
    loop {
        let mut bound = which.bound();
        bound.add(before.0);
        bound.add(before.1);
        for other in others {
            bound.add(*other);
        }
        hook::before("act on held");
        let (acted, lane, seq): (i64, Option<i16>, Option<i64>) =
            sqlx::query_as_with(statement, bound.finish()?).fetch_one(pool).await?;
        all += acted.unsigned_abs();
        match lane.zip(seq) {
            Some(last) => before = last,
            None => return Ok(all),
        }
    }
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
    let reroute = act_on!(
        "update amends.held_message h set parked = false, attempts = 0, retry_at = clock_timestamp(),
            exchange = coalesce($7, exchange), topic = coalesce($8, topic) from batch"
    );
    act(pool, reroute, which, &[exchange, topic]).await
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
