//! Starts outside of any application transaction, many in one statement.

use std::collections::HashSet;

use amends::WorkerId;
use amends::store::NewSaga;
use async_trait::async_trait;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::writer::Statement;

/// They never share a statement with appends: a key that waits for another transaction must not hold up a step.
pub(crate) struct Starts;

/// Keys are taken in one order by everybody, or two batches could deadlock. A key that is already this very saga's comes
/// from a statement whose answer was lost.
const START: &str = "
    with batch as (
        select * from unnest($1::uuid[], $2::text[], $3::int[], $4::uuid[], $5::text[], $6::text[], $7::text[], $8::uuid[])
            as b(id, name, version, fingerprint, key, input, trace, owner)
    ), taken as (
        insert into amends.saga_key (name, key, saga_id)
        select name, key, id from batch where key is not null order by name, key
        on conflict do nothing
        returning saga_id
    ), head as (
        insert into amends.saga (id, name, version, fingerprint, key, input, trace, owner, wake_at)
        select id, name, version, fingerprint, key, input::json, trace, owner, case when owner is null then clock_timestamp() end
        from batch where key is null or id in (select saga_id from taken)
        on conflict do nothing
        returning id
    )
    select id from head
    union
    select s.id from amends.saga s join batch b on b.id = s.id";

#[async_trait]
impl Statement for Starts {
    type Op = (NewSaga, Option<WorkerId>);
    /// Whether it is new; otherwise its key is taken.
    type Answer = bool;

    fn bytes((saga, _): &Self::Op) -> usize {
        saga.input.as_str().len()
    }

    async fn perform(&self, conn: &mut PgConnection, ops: &[&Self::Op]) -> Result<Vec<bool>, sqlx::Error> {
        fn column<'a, T>(ops: &[&'a (NewSaga, Option<WorkerId>)], of: impl Fn(&'a NewSaga) -> T) -> Vec<T> {
            ops.iter().map(|(saga, _)| of(saga)).collect()
        }
        crate::hook::before("start");
        let started: HashSet<Uuid> = sqlx::query_scalar(START)
            .bind(column(ops, |saga| saga.id.0))
            .bind(column(ops, |saga| saga.name.as_str()))
            .bind(column(ops, |saga| saga.version as i32))
            .bind(column(ops, |saga| saga.fingerprint))
            .bind(column(ops, |saga| saga.key.as_deref()))
            .bind(column(ops, |saga| saga.input.as_str()))
            .bind(column(ops, |saga| saga.trace.as_deref()))
            .bind(ops.iter().map(|(_, owner)| owner.map(Uuid::from)).collect::<Vec<_>>())
            .fetch_all(conn)
            .await?
            .into_iter()
            .collect();
        Ok(ops.iter().map(|(saga, _)| started.contains(&saga.id.0)).collect())
    }
}
