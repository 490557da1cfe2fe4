//! What is old enough goes: whole partitions at once, and some rows at a time where there are none.

use std::time::Duration;

use sqlx::{AssertSqlSafe, PgPool};

use crate::columns::{LONGEST_PAUSE, millis};
use crate::{Barrier, PgPayloads};
use crate::{hook, partitions};

/// How long things are kept.
///
/// Partitions of the outbox and of sagas are dropped when nothing in them is needed any more *and* the last of it is older
/// than this: a message that is not published, or a saga that has not ended, is never dropped. A lock is waited for a fifth of a
/// second at the most, else it is tried the next time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Published messages, for a replay. 7 days.
    pub outbox: Duration,
    /// Sagas that have ended, with their journals. 90 days.
    pub sagas: Duration,
    /// Business keys: after this the same key starts another saga. A year.
    pub keys: Duration,
    /// Which messages a consumer has handled; it must be longer than the consumers' window (29 days), beyond which they refuse
    /// what they do not know. 30 days.
    pub inbox: Duration,
    /// What a participant has done and undone; see [`Barrier::prune`]. 90 days.
    pub barrier: Duration,
    /// Large payloads, since they were last put there; see [`PgPayloads`]. 90 days.
    pub payloads: Duration,
}

const DAY: Duration = Duration::from_hours(24);
/// So many rows are deleted in one statement.
const BATCH: i64 = 1000;

impl Default for Retention {
    fn default() -> Self {
        Self {
            outbox: 7 * DAY,
            sagas: 90 * DAY,
            keys: 365 * DAY,
            inbox: 30 * DAY,
            barrier: 90 * DAY,
            payloads: 90 * DAY,
        }
    }
}

/// What has gone, and what is kept although its time may have come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retained {
    /// The partitions that were dropped.
    pub dropped: Vec<String>,
    /// Partitions that could not be dropped yet, and why.
    pub kept: Vec<(String, String)>,
    /// How many rows were deleted elsewhere.
    pub deleted: u64,
}

impl Retention {
    /// Makes the partitions of the next four weeks, and of the next three million messages. What falls outside of all goes to
    /// default partitions, so that running out of them fails no write.
    ///
    /// # Errors
    /// Returns the database's error if there is no connection.
    pub async fn make_ahead(pool: &PgPool) -> Result<(), sqlx::Error> {
        partitions::make_ahead(&mut *pool.acquire().await?).await;
        Ok(())
    }

    /// Drops and deletes what is old enough. To run it again, or several times at once, does no harm.
    ///
    /// # Errors
    /// Returns the first of the database's errors; what could go besides is gone.
    pub async fn apply(&self, pool: &PgPool) -> Result<Retained, sqlx::Error> {
        let mut retained = Retained::default();
        // What fails for one is no reason to keep the others.
        let mut failed = Ok(());
        for part in [
            Part::Outbox(self.outbox),
            Part::Weeks(OLD_SAGAS, "select amends.drop_saga_week($1, $2)", self.sagas),
            Part::Weeks(OLD_INBOX, "select amends.drop_inbox_week($1, $2)", self.inbox),
            Part::Rows(OLD_SAGA_ROWS, self.sagas),
            Part::Rows(OLD_KEYS, self.keys),
            Part::Rows(OLD_FOREIGN_ROWS, self.inbox),
            Part::Rows(OLD_INBOX_ROWS, self.inbox),
            Part::Rows(OLD_OUTBOX_ROWS, self.outbox),
            Part::Barrier(self.barrier),
            Part::Payloads(self.payloads),
        ] {
            let applied = part.apply(pool, &mut retained).await;
            failed = failed.and(applied);
        }
        failed.map(|()| retained)
    }
}

/// What is old enough, and how it goes.
enum Part {
    Outbox(Duration),
    /// Which there are, and what drops one.
    Weeks(&'static str, &'static str, Duration),
    Rows(&'static str, Duration),
    Barrier(Duration),
    Payloads(Duration),
}

impl Part {
    async fn apply(self, pool: &PgPool, retained: &mut Retained) -> Result<(), sqlx::Error> {
        match self {
            Self::Outbox(age) => {
                hook::before("old partitions");
                let parts = sqlx::query_scalar(OLD_OUTBOX).fetch_all(pool).await?;
                retained.drop(pool, "select amends.drop_outbox_partition($1, $2)", parts, age).await?;
            }
            Self::Weeks(which, drop, age) => {
                hook::before("old partitions");
                let weeks = sqlx::query_scalar(which).bind(millis(age)).fetch_all(pool).await?;
                retained.drop(pool, drop, weeks, age).await?;
            }
            Self::Rows(rows, age) => retained.deleted += delete(pool, rows, age).await?,
            Self::Barrier(age) => retained.deleted += Barrier::prune(pool, age).await?,
            Self::Payloads(age) => retained.deleted += PgPayloads::prune(pool, age).await?,
        }
        Ok(())
    }
}

/// All but the newest, and but what falls outside of all; how old the messages are is seen in each.
const OLD_OUTBOX: &str = "
    select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'amends.outbox'::regclass and c.relname ~ '^outbox_[0-9]+$'
        and substr(c.relname, 8)::bigint
            < (select case when is_called then last_value else 0 end from amends.outbox_seq) / 1000000
    order by substr(c.relname, 8)::bigint";

/// Weeks that ended before that age.
const OLD_SAGAS: &str = "
    select substr(c.relname, 6) from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'amends.saga'::regclass and c.relname ~ '^saga_[0-9]{8}$'
        and (to_date(substr(c.relname, 6), 'YYYYMMDD') + 7)::timestamp at time zone 'UTC' < clock_timestamp() - $1 * interval '1 millisecond'
    order by c.relname";
const OLD_INBOX: &str = "
    select substr(c.relname, 7) from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'amends.inbox'::regclass and c.relname ~ '^inbox_[0-9]{8}$'
        and (to_date(substr(c.relname, 7), 'YYYYMMDD') + 7)::timestamp at time zone 'UTC' < clock_timestamp() - $1 * interval '1 millisecond'
    order by c.relname";

/// Those of a week for which no partition was made.
const OLD_SAGA_ROWS: &str = "
    with gone as (
        delete from amends.saga_default where id in (
            select id from amends.saga_default
            where ended_at < clock_timestamp() - $1 * interval '1 millisecond'
            order by ended_at limit $2 for update skip locked
        ) returning id
    ), journals as (
        delete from amends.journal where saga_id in (select id from gone)
    ) select id from gone";
/// Of sagas that are still there the key is kept too.
const OLD_KEYS: &str = "
    delete from amends.saga_key where (name, key) in (
        select k.name, k.key from amends.saga_key k
        where k.created_at < clock_timestamp() - $1 * interval '1 millisecond'
            and not exists (select from amends.saga s where s.id = k.saga_id)
        order by k.created_at limit $2 for update skip locked
    )";
macro_rules! old_inbox_rows {
    ($partition:literal) => {
        concat!(
            "delete from ",
            $partition,
            " where (consumer, message_id) in (
                select consumer, message_id from ",
            $partition,
            " where handled_at < clock_timestamp() - $1 * interval '1 millisecond'
                order by handled_at limit $2 for update skip locked
            )"
        )
    };
}
/// Ids that tell no time, in the last of all partitions.
const OLD_FOREIGN_ROWS: &str = old_inbox_rows!("amends.inbox_foreign");
/// Those of a week for which no partition was made.
const OLD_INBOX_ROWS: &str = old_inbox_rows!("amends.inbox_default");
const OLD_OUTBOX_ROWS: &str = "
    delete from amends.outbox_default where seq in (
        select o.seq from amends.outbox_default o
        where o.created_at < clock_timestamp() - $1 * interval '1 millisecond'
            and exists (
                select from amends.layout l join amends.cursor c on c.lane = amends.lane_of(o.key, o.id, l.lanes)
                where pg_visible_in_snapshot(o.xid, c.prev)
            )
        order by o.seq limit $2 for update skip locked
    )";

/// Deletes in batches, each a statement of its own, until there is none left of that age.
pub(crate) async fn delete(pool: &PgPool, rows: &'static str, age: Duration) -> Result<u64, sqlx::Error> {
    let mut deleted = 0;
    loop {
        hook::before("delete what is old");
        let rows = sqlx::query(rows).bind(millis(age)).bind(BATCH).execute(pool).await?.rows_affected();
        deleted += rows;
        if rows < BATCH as u64 {
            return Ok(deleted);
        }
    }
}

impl Retained {
    async fn drop(
        &mut self,
        pool: &PgPool,
        call: &'static str,
        parts: Vec<String>,
        age: Duration,
    ) -> Result<(), sqlx::Error> {
        for part in parts {
            hook::before("drop partition");
            let kept: Option<String> = sqlx::query_scalar(AssertSqlSafe(call))
                .bind(&part)
                .bind(age.min(LONGEST_PAUSE))
                .fetch_one(pool)
                .await?;
            match kept {
                None => {
                    tracing::info!(partition = part, "dropped a partition");
                    self.dropped.push(part);
                }
                Some(why) => {
                    tracing::debug!(partition = part, why, "a partition is kept");
                    self.kept.push((part, why));
                }
            }
        }
        Ok(())
    }
}
