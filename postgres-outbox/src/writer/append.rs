//! Appends: journal rows, head changes, messages and children of many sagas in one statement.

use std::collections::HashMap;

use amends::store::{Append, Appended};
use amends::{SagaId, WorkerId};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::columns::{Bound, events, millis, seq};
use crate::effects::{EffectColumns, effects, follows};
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
///
/// A saga that is moved by its own append and woken by another's is one `change`: PostgreSQL updates a row once in a
/// statement. `$32` holds the ids of all changes, so that only their partitions are looked at. What was made due from outside stays due, but not beyond an end, and not when an adopter has yet to read it.
const APPEND: &str = concat!(
    "with batch as (
        select * from unnest($19::uuid[], $20::int[], $21::uuid[], $22::bigint[], $23::text[])
            as b(saga_id, seq, writer, nonce, events)
    ), written as (
        insert into amends.journal (saga_id, seq, writer, nonce, events)
        select saga_id, seq, writer, nonce, events::json from batch b
        where ",
    follows!("b.saga_id", "b.seq"),
    "
        order by saga_id, seq
        on conflict do nothing
        returning saga_id, at
    ), head as (
        select h.* from unnest($24::uuid[], $25::text[], $26::bigint[], $27::bool[], $28::uuid[], $29::uuid[])
            as h(id, status, wake_ms, release, new_owner, parked_as)
        join written on written.saga_id = h.id
    ), woken as (
        select distinct w.id from unnest($30::uuid[], $31::uuid[]) as w(saga_id, id)
        join written on written.saga_id = w.saga_id
    ), change as (
        select coalesce(h.id, w.id) as id, h.id is not null as moves, w.id is not null as wakes,
            h.status, h.wake_ms, h.release, h.new_owner, h.parked_as
        from head h full join woken w on w.id = h.id
    ), locked as (
        select s.id from amends.saga s where s.id = any($32) and s.id in (select id from change)
        order by s.id for update of s
    ), moved as (
        update amends.saga s set
            status = coalesce(c.status, s.status),
            wake_at = case
                when coalesce(c.status, s.status) in ('completed', 'compensated') then null
                when c.wakes then clock_timestamp()
                when c.new_owner is null
                    then least(s.wake_at, clock_timestamp() + c.wake_ms * interval '1 millisecond')
            end,
            owner = coalesce(c.new_owner, case when c.release is not true then s.owner end),
            ended_at = case
                when c.status in ('completed', 'compensated') then clock_timestamp()
                when c.status is null then s.ended_at
            end,
            parked_as = case when c.status is null then s.parked_as else c.parked_as end
        from change c join locked on locked.id = c.id
        where s.id = any($32) and s.id = c.id and (c.moves or s.status not in ('completed', 'compensated'))
    ), ",
    effects!(),
    " select saga_id, at from written"
);

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
        let inputs: usize = op.append.starts.iter().map(|saga| saga.input.as_str().len()).sum();
        let outputs = op.append.events.iter().map(|event| match event {
            amends::Event::Succeeded { output, .. } => output.as_str().len(),
            _ => 0,
        });
        messages + inputs + outputs.sum::<usize>()
    }

    fn alone(op: &Write) -> Option<SagaId> {
        Some(op.append.saga)
    }

    async fn perform(&self, conn: &mut PgConnection, writes: &[&Write]) -> Result<Vec<Appended>, sqlx::Error> {
        let (mut effects, mut rows, mut heads) =
            (EffectColumns::default(), JournalColumns::default(), HeadColumns::default());
        for Write { append, new_owner } in writes {
            effects.push(append)?;
            rows.push(append)?;
            heads.push(append, *new_owner);
        }
        let mut bound = effects.bind();
        rows.bind(&mut bound);
        bound.add(&rows.events);
        heads.bind(&mut bound);
        hook::before("append");
        let mut written: HashMap<Uuid, DateTime<Utc>> =
            sqlx::query_as_with(APPEND, bound.finish()?).fetch_all(&mut *conn).await?.into_iter().collect();
        if written.len() < writes.len() {
            let mut bound = Bound::default();
            rows.bind(&mut bound);
            hook::before("read back");
            let ours: Vec<(Uuid, DateTime<Utc>)> =
                sqlx::query_as_with(READ_BACK, bound.finish()?).fetch_all(conn).await?;
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
    fn push(&mut self, append: &Append) -> Result<(), sqlx::Error> {
        self.sagas.push(append.saga.0);
        self.seqs.push(seq(append)?);
        self.writers.push(append.writer.0);
        self.nonces.push(append.nonce);
        self.events.push(events(append)?);
        Ok(())
    }

    /// What tells one's own rows; the events come behind.
    fn bind(&self, bound: &mut Bound) {
        bound.add(&self.sagas);
        bound.add(&self.seqs);
        bound.add(&self.writers);
        bound.add(&self.nonces);
    }
}

/// Head changes and wakes.
#[derive(Debug, Default)]
struct HeadColumns {
    ids: Vec<Uuid>,
    statuses: Vec<Option<&'static str>>,
    wake_ms: Vec<Option<i64>>,
    release: Vec<bool>,
    new_owners: Vec<Option<Uuid>>,
    parked: Vec<Option<Uuid>>,
    wakers: Vec<Uuid>,
    woken: Vec<Uuid>,
}

impl HeadColumns {
    fn push(&mut self, append: &Append, new_owner: Option<WorkerId>) {
        let head = append.head;
        if head.is_some() || new_owner.is_some() {
            self.ids.push(append.saga.0);
            self.statuses.push(head.map(|head| head.status.as_str()));
            self.wake_ms.push(head.and_then(|head| head.wake_in).map(millis));
            self.release.push(head.is_some_and(|head| head.release));
            self.new_owners.push(new_owner.map(Uuid::from));
            self.parked.push(head.and_then(|head| head.parked));
        }
        if let Some(woken) = append.wakes {
            self.wakers.push(append.saga.0);
            self.woken.push(woken.0);
        }
    }

    fn bind(&self, bound: &mut Bound) {
        let touched: Vec<Uuid> = self.ids.iter().chain(&self.woken).copied().collect();
        bound.add(&self.ids);
        bound.add(&self.statuses);
        bound.add(&self.wake_ms);
        bound.add(&self.release);
        bound.add(&self.new_owners);
        bound.add(&self.parked);
        bound.add(&self.wakers);
        bound.add(&self.woken);
        bound.add(touched);
    }
}
