//! The reading statement. It returns its own snapshot, and the value of the sequence.

use std::collections::BTreeMap;

use amends::{MessageId, OutboxMessage};
use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use crate::cursor::{Position, Read, Sequenced};

/// Two ranges that cannot overlap: rows of transactions that began to be visible after `prev`, which have a seq above the
/// floor, and rows of those that were open in `prev`, looked up one by one, each in the order of the index, so that a page
/// of one that wrote millions costs no more than another. During a pass both are cut to what its snapshot could see. Of
/// several lanes each reads all rows and takes its own: to read is cheap, to publish is not.
///
/// `coalesce` keeps the planner from the index on `xid`: no statistics know of the newest transactions, so it would expect no rows of
/// them, and sort all of a backlog for every page.
const PAGE: &str = "
    with state as materialized (
        select pg_current_snapshot() as snapshot,
            (select case when is_called then last_value else 0 end from amends.outbox_seq) as value
    ), fresh as (
        select * from amends.outbox o
        where ($7 = 1::smallint or amends.lane_of(o.key, o.id, $7) = $1) and o.seq > greatest($3, $5)
            and coalesce(o.xid >= pg_snapshot_xmax($2::pg_snapshot), false)
            and ($4::pg_snapshot is null or pg_visible_in_snapshot(o.xid, $4::pg_snapshot))
        order by o.seq limit $6
    ), late as (
        select o.* from pg_snapshot_xip($2::pg_snapshot) as open(xid) cross join lateral (
            select * from amends.outbox o
            where o.xid = open.xid and ($7 = 1::smallint or amends.lane_of(o.key, o.id, $7) = $1) and o.seq > $5
                and ($4::pg_snapshot is null or pg_visible_in_snapshot(o.xid, $4::pg_snapshot))
            order by o.seq limit $6
        ) o
        order by o.seq limit $6
    ), page as (
        select * from (
            select u.*, lead(u.seq) over by_seq is not null as more,
                sum(u.bytes) over by_seq - u.bytes as bytes_before
            from (
                select *, 200 + octet_length(payload) + octet_length(headers::text) + coalesce(octet_length(key), 0) as bytes
                from (select * from fresh union all select * from late) u
            ) u
            window by_seq as (order by u.seq)
        ) u where bytes_before < $8 order by seq limit $6
    )
    select state.snapshot::text as snapshot, state.value, null::bigint as seq, null::uuid as id, null as key, null as topic,
        null as name, null as content_type, null as headers, null::bytea as payload, null::timestamptz as created_at, false as more
    from state
    union all
    select null, null, seq, id, key, topic, name, content_type, headers::text, payload, created_at, more from page
    order by seq nulls first";

/// A page, or what is due of the held ones, takes no further message beyond so many bytes: it is in memory.
pub(super) const MOST_BYTES: i64 = 8 << 20;

#[derive(FromRow)]
pub(super) struct Row {
    /// Of the first row only, which has nothing else.
    #[sqlx(default)]
    snapshot: Option<String>,
    #[sqlx(default)]
    value: Option<i64>,
    seq: Option<i64>,
    id: Option<Uuid>,
    key: Option<String>,
    topic: Option<String>,
    name: Option<String>,
    content_type: Option<String>,
    headers: Option<String>,
    payload: Option<Vec<u8>>,
    created_at: Option<DateTime<Utc>>,
    #[sqlx(default)]
    more: bool,
}

pub(super) async fn page(
    conn: &mut PgConnection,
    (lane, lanes): (i16, i16),
    position: &Position,
    limit: usize,
) -> Result<(Vec<Sequenced>, Read, i64), sqlx::Error> {
    let pass = position.pass.as_ref();
    crate::hook::before("read page");
    let mut rows: Vec<Row> = sqlx::query_as(PAGE)
        .bind(lane)
        .bind(&position.prev)
        .bind(position.floor)
        .bind(pass.map(|pass| &pass.snapshot))
        .bind(pass.map_or(0, |pass| pass.seq))
        .bind(limit as i64)
        .bind(lanes)
        .bind(MOST_BYTES)
        .fetch_all(conn)
        .await?;
    let first = rows.first_mut().and_then(|row| row.snapshot.take().zip(row.value));
    let (snapshot, value) = first.ok_or(sqlx::Error::RowNotFound)?;
    let more = rows.last().is_some_and(|last| last.more);
    let messages: Vec<Sequenced> = rows.into_iter().filter_map(Row::message).collect();
    let last_seq = messages.last().map(|message| message.seq);
    let read = Read { snapshot, last_seq, full: more || messages.len() == limit };
    Ok((messages, read, value))
}

impl Row {
    pub(super) fn message(self) -> Option<Sequenced> {
        let message = OutboxMessage {
            id: MessageId(self.id?),
            topic: self.topic?,
            name: self.name?,
            key: self.key,
            content_type: self.content_type?,
            // Headers that another writer made of something else than texts are not worth stopping a lane for.
            headers: match self.headers?.as_str() {
                "{}" => BTreeMap::new(),
                headers => serde_json::from_str(headers).unwrap_or_default(),
            },
            payload: self.payload?,
        };
        Some(Sequenced { seq: self.seq?, created_at: self.created_at?, message })
    }
}
