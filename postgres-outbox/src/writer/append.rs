//! Appends: journal rows, head changes and messages of many sagas in one statement.

use std::collections::HashMap;

use amends::WorkerId;
use amends::store::{Append, Appended, Head};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::columns::{OutboxColumns, millis};
use crate::hook;
use crate::writer::Statement;

/// One append; with `new_owner` it is an adoption.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) append: Append,
    pub(crate) new_owner: Option<WorkerId>,
}

pub(crate) struct Appends;

/// Everything hangs on the journal rows that were really written: a conflicted append leaves no trace. Rows are inserted
/// and heads locked in the order of their ids, or two batches could deadlock.
const APPEND: &str = "
    with batch as (
        select * from unnest($1::uuid[], $2::int[], $3::uuid[], $4::bigint[], $5::text[])
            as b(saga_id, seq, writer, nonce, events)
    ), written as (
        insert into amends.journal (saga_id, seq, writer, nonce, events)
        select saga_id, seq, writer, nonce, events::json from batch order by saga_id, seq
        on conflict do nothing
        returning saga_id, at
    ), head as (
        select h.* from unnest($6::uuid[], $7::text[], $8::bigint[], $9::bool[], $10::uuid[])
            as h(id, status, wake_ms, release, new_owner)
        join written on written.saga_id = h.id
    ), locked as (
        select s.id from amends.saga s where s.id in (select id from head) order by s.id for update of s
    ), moved as (
        update amends.saga s set
            status = coalesce(h.status, s.status),
            wake_at = clock_timestamp() + h.wake_ms * interval '1 millisecond',
            owner = coalesce(h.new_owner, case when not h.release then s.owner end),
            ended_at = case when h.status in ('completed', 'compensated') then clock_timestamp() end
        from head h join locked on locked.id = h.id
        where s.id = h.id
    ), published as (
        insert into amends.outbox (id, key, topic, name, content_type, headers, payload)
        select o.id, o.key, o.topic, o.name, o.content_type, o.headers::json, o.payload
        from unnest($11::uuid[], $12::uuid[], $13::text[], $14::text[], $15::text[], $16::text[], $17::text[], $18::bytea[])
            with ordinality as o(saga_id, id, key, topic, name, content_type, headers, payload, position)
        join written on written.saga_id = o.saga_id
        order by o.position
    )
    select saga_id, at from written";

/// Which of these rows are our own, written by a statement whose answer was lost?
const READ_BACK: &str = "
    select j.saga_id, j.at
    from unnest($1::uuid[], $2::int[], $3::uuid[], $4::bigint[]) as b(saga_id, seq, writer, nonce)
    join amends.journal j on j.saga_id = b.saga_id and j.seq = b.seq and j.writer = b.writer and j.nonce = b.nonce";

#[async_trait]
impl Statement for Appends {
    type Op = Write;
    type Answer = Appended;

    fn bytes(op: &Write) -> usize {
        let messages: usize = op.append.outbox.iter().map(|message| message.payload.len()).sum();
        let outputs = op.append.events.iter().map(|event| match event {
            amends::Event::Succeeded { output, .. } => output.as_str().len(),
            _ => 0,
        });
        messages + outputs.sum::<usize>()
    }

    async fn perform(&self, conn: &mut PgConnection, writes: &[&Write]) -> Result<Vec<Appended>, sqlx::Error> {
        let rows = JournalColumns::new(writes)?;
        let heads: HeadColumns = writes.iter().filter_map(|write| HeadRow::of(write)).collect();
        let messages: Vec<_> = writes.iter().flat_map(|write| &write.append.outbox).collect();
        let message_sagas: Vec<_> =
            writes.iter().flat_map(|write| write.append.outbox.iter().map(|_| write.append.saga.0)).collect();
        let outbox: OutboxColumns = messages.into_iter().collect();

        hook::before("append");
        let mut written: HashMap<Uuid, DateTime<Utc>> = sqlx::query_as(APPEND)
            .bind(&rows.sagas)
            .bind(&rows.seqs)
            .bind(&rows.writers)
            .bind(&rows.nonces)
            .bind(&rows.events)
            .bind(&heads.ids)
            .bind(&heads.statuses)
            .bind(&heads.wake_ms)
            .bind(&heads.release)
            .bind(&heads.new_owners)
            .bind(&message_sagas)
            .bind(&outbox.ids)
            .bind(&outbox.keys)
            .bind(&outbox.topics)
            .bind(&outbox.names)
            .bind(&outbox.content_types)
            .bind(&outbox.headers)
            .bind(&outbox.payloads)
            .fetch_all(&mut *conn)
            .await?
            .into_iter()
            .collect();
        if written.len() < writes.len() {
            hook::before("read back");
            let ours: Vec<(Uuid, DateTime<Utc>)> = sqlx::query_as(READ_BACK)
                .bind(&rows.sagas)
                .bind(&rows.seqs)
                .bind(&rows.writers)
                .bind(&rows.nonces)
                .fetch_all(conn)
                .await?;
            written.extend(ours);
        }
        let answer =
            |write: &&Write| written.get(&write.append.saga.0).map_or(Appended::Conflict, |at| Appended::Done(*at));
        Ok(writes.iter().map(answer).collect())
    }
}

#[derive(Default)]
struct JournalColumns {
    sagas: Vec<Uuid>,
    seqs: Vec<i32>,
    writers: Vec<Uuid>,
    nonces: Vec<i64>,
    events: Vec<String>,
}

impl JournalColumns {
    fn new(writes: &[&Write]) -> Result<Self, sqlx::Error> {
        let mut columns = Self::default();
        for Write { append, .. } in writes {
            columns.sagas.push(append.saga.0);
            columns.seqs.push(seq(append)?);
            columns.writers.push(append.writer.0);
            columns.nonces.push(append.nonce);
            columns.events.push(events(append)?);
        }
        Ok(columns)
    }
}

pub(crate) fn seq(append: &Append) -> Result<i32, sqlx::Error> {
    i32::try_from(append.seq).map_err(|error| sqlx::Error::Encode(Box::new(error)))
}

pub(crate) fn events(append: &Append) -> Result<String, sqlx::Error> {
    serde_json::to_string(&append.events).map_err(|error| sqlx::Error::Encode(Box::new(error)))
}

struct HeadRow {
    id: Uuid,
    head: Option<Head>,
    new_owner: Option<Uuid>,
}

impl HeadRow {
    fn of(write: &Write) -> Option<Self> {
        let (id, head, new_owner) = (write.append.saga.0, write.append.head, write.new_owner.map(Uuid::from));
        (head.is_some() || new_owner.is_some()).then_some(Self { id, head, new_owner })
    }
}

/// Head changes as arrays of columns.
#[derive(Debug, Default)]
pub(crate) struct HeadColumns {
    pub(crate) ids: Vec<Uuid>,
    pub(crate) statuses: Vec<Option<&'static str>>,
    pub(crate) wake_ms: Vec<Option<i64>>,
    pub(crate) release: Vec<bool>,
    pub(crate) new_owners: Vec<Option<Uuid>>,
}

impl HeadColumns {
    fn push(&mut self, row: &HeadRow) {
        self.ids.push(row.id);
        self.statuses.push(row.head.map(|head| head.status.as_str()));
        let wake_in = row.head.and_then(|head| head.wake_in);
        self.wake_ms.push(wake_in.map(millis));
        self.release.push(row.head.is_some_and(|head| head.release));
        self.new_owners.push(row.new_owner);
    }
}

impl FromIterator<HeadRow> for HeadColumns {
    fn from_iter<T: IntoIterator<Item = HeadRow>>(rows: T) -> Self {
        let mut columns = Self::default();
        rows.into_iter().for_each(|row| columns.push(&row));
        columns
    }
}
