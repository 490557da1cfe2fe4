//! Held messages: those that the broker would not take, and those of the same key behind them.

use std::collections::HashSet;
use std::time::Duration;

use amends::sanitize;
use sqlx::{FromRow, PgConnection};

use crate::cursor::read::{MOST_BYTES, Row};
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
    /// First the first of each key, then those behind it; each key in its order.
    pub messages: Vec<Held>,
    /// In so long the next one may be; `None` if all others wait for an operator, or for one of their key.
    pub next: Option<Duration>,
}

/// A held message.
#[derive(Debug)]
pub struct Held {
    /// The message.
    pub message: Sequenced,
    /// The exchange to which an operator sends it, whatever the routes say.
    pub exchange: Option<String>,
}

#[derive(FromRow)]
struct HeldRow {
    #[sqlx(flatten)]
    row: Row,
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

/// Which of these keys messages are held of, and whether there is any held message at all.
pub(super) async fn still(
    conn: &mut PgConnection,
    lane: i16,
    keys: &[&str],
) -> Result<(HashSet<String>, bool), sqlx::Error> {
    hook::before("held keys");
    let (held, any): (Vec<String>, bool) = sqlx::query_as(
        "select array(
            select key from unnest($2::text[]) as asked(key) where exists (
                select from amends.held_message h
                where h.lane = $1 and hashtextextended(h.key, 0) = hashtextextended(asked.key, 0) and h.key = asked.key
            )
         ), exists (select from amends.held_message where lane = $1)",
    )
    .bind(lane)
    .bind(keys)
    .fetch_one(conn)
    .await?;
    Ok((held.into_iter().collect(), any))
}

/// So many of one key at most behind the first.
const OF_A_KEY: i64 = 100;

/// A key is due if its first message is: those behind it wait for it, also while it is parked. Whose turn was longest ago comes
/// first, so that many that fail again and again hold up no others.
pub(super) async fn due(conn: &mut PgConnection, lane: i16, limit: usize) -> Result<Due, sqlx::Error> {
    hook::before("due held");
    // `now()` is when the statement began, and unlike the clock may bound the scan of an index.
    let rows: Vec<HeldRow> = sqlx::query_as(
        "with due as (
            select h.seq, h.key from amends.held_message h
            where h.lane = $1 and not h.parked and h.retry_at <= now() and not exists (
                select from amends.held_message e
                where e.lane = $1 and hashtextextended(e.key, 0) = hashtextextended(h.key, 0) and e.key = h.key and e.seq < h.seq
            )
            order by h.retry_at limit $2
         )
         select seq, id, key, topic, name, content_type, headers::text as headers, payload, created_at, exchange
         from (
            select m.*, sum(octet_length(m.payload) + octet_length(m.headers::text)) over (order by m.nth, m.seq)
                - octet_length(m.payload) - octet_length(m.headers::text) as bytes_before
            from due cross join lateral (
                select 0::bigint as nth, h.* from amends.held_message h where h.lane = $1 and h.seq = due.seq
                union all (
                    select row_number() over (order by h.seq) as nth, h.* from amends.held_message h
                    where h.lane = $1 and hashtextextended(h.key, 0) = hashtextextended(due.key, 0) and h.key = due.key
                        and h.seq > due.seq
                    order by h.seq limit $3
                )
            ) m
         ) m
         where bytes_before < $4
         order by nth, seq limit $2",
    )
    .bind(lane)
    .bind(limit as i64)
    .bind(OF_A_KEY)
    .bind(MOST_BYTES)
    .fetch_all(&mut *conn)
    .await?;
    let next: Option<f64> = sqlx::query_scalar(
        "select extract(epoch from retry_at - now())::float8 from amends.held_message
         where lane = $1 and not parked and retry_at > now() order by retry_at limit 1",
    )
    .bind(lane)
    .fetch_optional(conn)
    .await?;
    let next = next.map(|seconds| Duration::from_secs_f64(seconds.max(0.0)));
    Ok(Due { messages: rows.into_iter().filter_map(HeldRow::held).collect(), next })
}

impl HeldRow {
    fn held(self) -> Option<Held> {
        Some(Held { message: self.row.message()?, exchange: self.exchange })
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
