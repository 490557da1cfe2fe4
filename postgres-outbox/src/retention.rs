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
    /// Returns the database's error; what has gone by then is gone.
    pub async fn apply(&self, pool: &PgPool) -> Result<Retained, sqlx::Error> {
        let mut retained = Retained::default();
        hook::before("old partitions");
        let parts: Vec<String> = sqlx::query_scalar(OLD_OUTBOX).fetch_all(pool).await?;
        for part in parts {
            retained.drop(pool, "select amends.drop_outbox_partition($1, $2)", part, self.outbox).await?;
        }
        for week in old(pool, OLD_SAGAS, self.sagas).await? {
            retained.drop(pool, "select amends.drop_saga_week($1, $2)", week, self.sagas).await?;
        }
        for week in old(pool, OLD_INBOX, self.inbox).await? {
            retained.drop(pool, "select amends.drop_inbox_week($1, $2)", week, self.inbox).await?;
        }
        for (rows, age) in [
            (OLD_SAGA_ROWS, self.sagas),
            (OLD_KEYS, self.keys),
            (OLD_INBOX_ROWS, self.inbox),
            (OLD_OUTBOX_ROWS, self.outbox),
        ] {
            retained.deleted += delete(pool, rows, age).await?;
        }
        retained.deleted += Barrier::prune(pool, self.barrier).await?;
        retained.deleted += PgPayloads::prune(pool, self.payloads).await?;
        Ok(retained)
    }
}

/// All but the newest, and but what falls outside of all.
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
/// Ids that tell no time are in the default partition.
const OLD_INBOX_ROWS: &str = "
    delete from amends.inbox_default where (consumer, message_id) in (
        select consumer, message_id from amends.inbox_default
        where handled_at < clock_timestamp() - $1 * interval '1 millisecond'
        order by handled_at limit $2 for update skip locked
    )";
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

async fn old(pool: &PgPool, which: &'static str, age: Duration) -> Result<Vec<String>, sqlx::Error> {
    hook::before("old partitions");
    sqlx::query_scalar(which).bind(millis(age)).fetch_all(pool).await
}

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
        part: String,
        age: Duration,
    ) -> Result<(), sqlx::Error> {
        hook::before("drop partition");
        let kept: Option<String> =
            sqlx::query_scalar(AssertSqlSafe(call)).bind(&part).bind(age.min(LONGEST_PAUSE)).fetch_one(pool).await?;
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
        Ok(())
    }
}
