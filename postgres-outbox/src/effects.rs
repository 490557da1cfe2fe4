//! What an append brings about beside its journal row: messages, and sagas that are started.

use amends::store::Append;
use uuid::Uuid;

use crate::columns::{Bound, OutboxColumns, StartColumns, encode};

/// CTEs that write the effects `$1` to `$18`. Each joins the row of `written` that it hangs on: a conflicted append leaves no
/// trace.
macro_rules! effects {
    () => {
        "published as (
            insert into amends.outbox (id, key, topic, name, content_type, headers, payload)
            select o.id, o.key, o.topic, o.name, o.content_type, o.headers::json, o.payload
            from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bytea[])
                with ordinality as o(saga_id, id, key, topic, name, content_type, headers, payload, position)
            join written on written.saga_id = o.saga_id
            order by o.position
        ), started as (
            insert into amends.saga (id, name, version, fingerprint, key, input, trace, priority, parent)
            select n.id, n.name, n.version, n.fingerprint, n.key, n.input::json, n.trace, n.priority, n.parent
            from unnest($9::uuid[], $10::uuid[], $11::text[], $12::int[], $13::uuid[], $14::text[], $15::text[], $16::text[],
                    $17::smallint[], $18::uuid[])
                as n(saga_id, id, name, version, fingerprint, key, input, trace, priority, parent)
            join written on written.saga_id = n.saga_id
        )"
    };
}
pub(crate) use effects;

/// Whether a journal row follows the last one: the first follows its saga's head. One look at a page that is about to be
/// written, and no saga that is gone, and no writer that has miscounted, gets a row.
///
/// Not `exists`, which PostgreSQL may answer by hashing the whole journal, in a plan that it made while that was small.
macro_rules! follows {
    ($saga:literal, $seq:literal) => {
        concat!(
            "case when ",
            $seq,
            " = 1 then (select true from amends.saga f where f.id = ",
            $saga,
            ") else (select true from amends.journal f where f.saga_id = ",
            $saga,
            " and f.seq = ",
            $seq,
            " - 1) end"
        )
    };
}
pub(crate) use follows;

/// The columns of [`effects!`].
#[derive(Debug, Default)]
pub(crate) struct EffectColumns<'a> {
    publishers: Vec<Uuid>,
    outbox: OutboxColumns,
    starters: Vec<Uuid>,
    starts: StartColumns<'a>,
}

impl<'a> EffectColumns<'a> {
    pub(crate) fn push(&mut self, append: &'a Append) -> Result<(), sqlx::Error> {
        for message in &append.outbox {
            self.publishers.push(append.saga.0);
            self.outbox.push(message);
        }
        for start in &append.starts {
            // A key, or a lock, may be another transaction's to decide, and appends never wait for one.
            if start.key.is_some() || start.lock.is_some() {
                return Err(encode("a saga that another one starts has no business key and no lock"));
            }
            self.starters.push(append.saga.0);
            self.starts.push(start);
        }
        Ok(())
    }

    /// They come first, so that every statement numbers them alike.
    pub(crate) fn bind(&self) -> Bound {
        let mut bound = Bound::default();
        bound.add(&self.publishers);
        self.outbox.bind(&mut bound);
        bound.add(&self.starters);
        self.starts.bind(&mut bound);
        bound
    }
}
