//! Messages that are published already, once more.

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use crate::cursor::Sequenced;
use crate::cursor::read::Row;
use crate::hook;

/// Retained messages that their lanes have passed, read page by page in the order of the outbox.
///
/// What is not published yet, or is held, is not among them: it must not overtake those before it.
#[derive(Debug, Clone)]
pub struct Retold {
    /// Written at this time or later.
    pub since: DateTime<Utc>,
    /// Written before this time.
    pub until: Option<DateTime<Utc>>,
    /// Of this key only.
    pub key: Option<String>,
    /// Behind this one.
    pub after: i64,
}

impl Retold {
    /// The next page; the last one is empty.
    ///
    /// # Errors
    /// Returns the database's error.
    pub async fn page(&mut self, pool: &PgPool, limit: usize) -> Result<Vec<Sequenced>, sqlx::Error> {
        hook::before("replay page");
        let rows: Vec<Row> = sqlx::query_as(
            "select o.seq, o.id, o.key, o.topic, o.name, o.content_type, o.headers::text as headers, o.payload, o.created_at
             from amends.outbox o
             where o.seq > $1 and o.created_at >= $2 and ($3::timestamptz is null or o.created_at < $3)
                and ($4::text is null or o.key = $4)
                and exists (
                    select from amends.layout l join amends.cursor c on c.lane = amends.lane_of(o.key, o.id, l.lanes)
                    where pg_visible_in_snapshot(o.xid, c.prev)
                )
                and not exists (select from amends.held_message h where h.seq = o.seq)
             order by o.seq limit $5",
        )
        .bind(self.after)
        .bind(self.since)
        .bind(self.until)
        .bind(&self.key)
        .bind(limit as i64)
        .fetch_all(pool)
        .await?;
        let messages: Vec<Sequenced> = rows.into_iter().filter_map(Row::message).collect();
        self.after = messages.last().map_or(self.after, |last| last.seq);
        Ok(messages)
    }

    /// When the oldest message was written that is retained: what was before cannot be told again.
    ///
    /// # Errors
    /// Returns the database's error.
    pub async fn oldest(pool: &PgPool) -> Result<Option<DateTime<Utc>>, sqlx::Error> {
        hook::before("oldest message");
        sqlx::query_scalar("select created_at from amends.outbox order by seq limit 1").fetch_optional(pool).await
    }
}
