//! Held messages: those that the broker would not take, and those of the same key behind them.

use std::collections::{BTreeMap, HashSet};

use amends::{MessageId, OutboxMessage, sanitize};
use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use crate::cursor::{LaneError, Sequenced};
use crate::hook;

/// A message of a page that is not published.
#[derive(Debug)]
pub struct Unpublished<'a> {
    /// The message.
    pub message: &'a Sequenced,
    /// The broker refused it; otherwise it waits behind another of its key.
    pub refused: bool,
    /// Why.
    pub reason: String,
}

/// A held message that is due.
#[derive(Debug)]
pub struct Held {
    /// The message.
    pub message: Sequenced,
    /// How often the broker has refused it.
    pub attempts: i32,
}

#[derive(FromRow)]
struct Row {
    seq: i64,
    id: Uuid,
    key: Option<String>,
    topic: String,
    name: String,
    content_type: String,
    headers: String,
    payload: Vec<u8>,
    created_at: DateTime<Utc>,
    attempts: i32,
}

/// The keys of held messages, and whether there is any held message at all.
pub(super) async fn keys(conn: &mut PgConnection, lane: i16) -> Result<(HashSet<String>, bool), sqlx::Error> {
    hook::before("held keys");
    let keys: Vec<Option<String>> = sqlx::query_scalar("select distinct key from amends.held_message where lane = $1")
        .bind(lane)
        .fetch_all(conn)
        .await?;
    let any = !keys.is_empty();
    Ok((keys.into_iter().flatten().collect(), any))
}

/// Only the first of a key is ever due: those behind it wait for it, also while it is parked.
pub(super) async fn due(conn: &mut PgConnection, lane: i16, limit: usize) -> Result<Vec<Held>, sqlx::Error> {
    hook::before("due held");
    let rows: Vec<Row> = sqlx::query_as(
        "select seq, id, key, topic, name, content_type, headers::text as headers, payload, created_at, attempts
         from (
            select distinct on (coalesce(key, id::text)) * from amends.held_message where lane = $1
            order by coalesce(key, id::text), seq
         ) first
         where not parked and retry_at <= clock_timestamp()
         order by seq limit $2",
    )
    .bind(lane)
    .bind(limit as i64)
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(Row::held).collect())
}

impl Row {
    fn held(self) -> Held {
        let headers: BTreeMap<String, String> = serde_json::from_str(&self.headers).unwrap_or_default();
        let message = OutboxMessage {
            id: MessageId(self.id),
            topic: self.topic,
            name: self.name,
            key: self.key,
            content_type: self.content_type,
            headers,
            payload: self.payload,
        };
        Held { message: Sequenced { seq: self.seq, created_at: self.created_at, message }, attempts: self.attempts }
    }
}

/// Those behind a published one become due at once.
pub(super) async fn remove(conn: &mut PgConnection, lane: i16, epoch: i64, seqs: &[i64]) -> Result<(), LaneError> {
    hook::before("remove held");
    let guarded: Option<i64> = sqlx::query_scalar(
        "with lease as (
            select epoch from amends.cursor where lane = $1 and epoch = $2 for update
         ), removed as (
            delete from amends.held_message where lane = $1 and seq = any($3) and exists (select from lease)
         )
         select epoch from lease",
    )
    .bind(lane)
    .bind(epoch)
    .bind(seqs)
    .fetch_optional(conn)
    .await?;
    guarded.map(drop).ok_or(LaneError::Lost)
}

/// The pause doubles from half a second to a minute.
pub(super) async fn refused(
    conn: &mut PgConnection,
    lane: i16,
    epoch: i64,
    seq: i64,
    reason: &str,
    most_attempts: i32,
) -> Result<(), LaneError> {
    hook::before("refused held");
    let guarded: Option<i64> = sqlx::query_scalar(
        "with lease as (
            select epoch from amends.cursor where lane = $1 and epoch = $2 for update
         ), refused as (
            update amends.held_message set
                attempts = attempts + 1,
                parked = attempts + 1 >= $5,
                retry_at = clock_timestamp()
                    + least(interval '1 minute', interval '500 milliseconds' * power(2, least(attempts, 8)))
                        * (0.5 + random() / 2),
                reason = $4
            where lane = $1 and seq = $3 and exists (select from lease)
         )
         select epoch from lease",
    )
    .bind(lane)
    .bind(epoch)
    .bind(seq)
    .bind(sanitize(reason))
    .bind(most_attempts)
    .fetch_optional(conn)
    .await?;
    guarded.map(drop).ok_or(LaneError::Lost)
}
