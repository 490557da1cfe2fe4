//! Held messages: those that the broker would not take, and those of the same key behind them.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

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

/// What of the held messages is due.
#[derive(Debug)]
pub struct Due {
    /// By seq; several of one key may be among them.
    pub messages: Vec<Held>,
    /// In so long the next one is; `None` if all others wait for an operator, or for one of their key.
    pub next: Option<Duration>,
}

/// A held message.
#[derive(Debug)]
pub struct Held {
    /// The message.
    pub message: Sequenced,
    /// How often the broker has refused it.
    pub attempts: i32,
    /// The exchange to which an operator sends it, whatever the routes say.
    pub exchange: Option<String>,
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
    exchange: Option<String>,
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

/// A key is due if its first message is: those behind it wait for it, also while it is parked.
pub(super) async fn due(conn: &mut PgConnection, lane: i16, limit: usize) -> Result<Due, sqlx::Error> {
    hook::before("due held");
    let rows: Vec<Row> = sqlx::query_as(
        "with first as (
            select distinct on (coalesce(key, id::text)) seq, key, parked, retry_at <= clock_timestamp() as is_due
            from amends.held_message where lane = $1
            order by coalesce(key, id::text), seq
         )
         select h.seq, h.id, h.key, h.topic, h.name, h.content_type, h.headers::text as headers, h.payload, h.created_at, h.attempts,
            h.exchange
         from amends.held_message h join first f on h.seq = f.seq or h.key = f.key
         where h.lane = $1 and not f.parked and f.is_due
         order by h.seq limit $2",
    )
    .bind(lane)
    .bind(limit as i64)
    .fetch_all(&mut *conn)
    .await?;
    let next: Option<f64> = sqlx::query_scalar(
        "select extract(epoch from min(retry_at) - clock_timestamp())::float8 from (
            select distinct on (coalesce(key, id::text)) retry_at, parked from amends.held_message where lane = $1
            order by coalesce(key, id::text), seq
         ) first where not parked and retry_at > clock_timestamp()",
    )
    .bind(lane)
    .fetch_one(conn)
    .await?;
    let next = next.map(|seconds| Duration::from_secs_f64(seconds.max(0.0)));
    Ok(Due { messages: rows.into_iter().map(Row::held).collect(), next })
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
        Held {
            message: Sequenced { seq: self.seq, created_at: self.created_at, message },
            attempts: self.attempts,
            exchange: self.exchange,
        }
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
    refused: &[(i64, &str)],
    most_attempts: i32,
) -> Result<(), LaneError> {
    hook::before("refused held");
    let (seqs, reasons) = columns(refused);
    let guarded: Option<i64> = sqlx::query_scalar(
        "with lease as (
            select epoch from amends.cursor where lane = $1 and epoch = $2 for update
         ), refused as (
            update amends.held_message h set
                attempts = attempts + 1,
                parked = attempts + 1 >= $5,
                retry_at = clock_timestamp()
                    + least(interval '1 minute', interval '500 milliseconds' * power(2, least(attempts, 8)))
                        * (0.5 + random() / 2),
                reason = r.reason
            from unnest($3::bigint[], $4::text[]) as r(seq, reason)
            where h.lane = $1 and h.seq = r.seq and exists (select from lease)
         )
         select epoch from lease",
    )
    .bind(lane)
    .bind(epoch)
    .bind(seqs)
    .bind(reasons)
    .bind(most_attempts)
    .fetch_optional(conn)
    .await?;
    guarded.map(drop).ok_or(LaneError::Lost)
}

pub(super) async fn postpone(
    conn: &mut PgConnection,
    lane: i16,
    epoch: i64,
    postponed: &[(i64, &str)],
    pause: Duration,
) -> Result<(), LaneError> {
    hook::before("postpone held");
    let (seqs, reasons) = columns(postponed);
    let guarded: Option<i64> = sqlx::query_scalar(
        "with lease as (
            select epoch from amends.cursor where lane = $1 and epoch = $2 for update
         ), postponed as (
            update amends.held_message h set retry_at = clock_timestamp() + $5, reason = p.reason
            from unnest($3::bigint[], $4::text[]) as p(seq, reason)
            where h.lane = $1 and h.seq = p.seq and exists (select from lease)
         )
         select epoch from lease",
    )
    .bind(lane)
    .bind(epoch)
    .bind(seqs)
    .bind(reasons)
    .bind(pause)
    .fetch_optional(conn)
    .await?;
    guarded.map(drop).ok_or(LaneError::Lost)
}

fn columns(messages: &[(i64, &str)]) -> (Vec<i64>, Vec<String>) {
    messages.iter().map(|(seq, reason)| (*seq, sanitize(reason))).unzip()
}
