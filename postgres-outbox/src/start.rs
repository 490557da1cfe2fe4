//! Starts, of one saga in the application's own transaction or of many in one of their own.

use std::collections::HashMap;

use amends::store::{NewSaga, Started};
use amends::{Error, SagaId, WorkerId};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::columns::{Bound, StartColumns};
use crate::error::start_error;
use crate::hints::{Hints, News};
use crate::lock;

/// Keys are taken in one order by everybody, or two batches could deadlock. A key that is already this very saga's comes
/// from a statement whose answer was lost.
const START: &str = "
    with batch as (
        select * from unnest($1::uuid[], $2::text[], $3::int[], $4::uuid[], $5::text[], $6::text[], $7::text[],
                $8::smallint[], $9::uuid[], $10::uuid[], $11::text[])
            as b(id, name, version, fingerprint, key, input, trace, priority, parent, owner, lock)
    ), taken as (
        insert into amends.saga_key (name, key, saga_id)
        select name, key, id from batch where key is not null order by name, key
        on conflict do nothing
        returning saga_id
    ), head as (
        insert into amends.saga (id, name, version, fingerprint, key, input, trace, priority, parent, owner, lock, wake_at)
        select id, name, version, fingerprint, key, input::json, trace, priority, parent, owner, lock,
            case when owner is null then clock_timestamp() end
        from batch where key is null or id in (select saga_id from taken)
        on conflict do nothing
        returning id
    )
    select id, pg_current_xact_id()::text::bigint from head
    union
    select s.id, pg_current_xact_id()::text::bigint from amends.saga s join batch b on b.id = s.id";

/// Those that are new, with the transaction; the keys of the others are taken.
pub(crate) async fn all(
    conn: &mut PgConnection,
    starts: &[&(NewSaga, Option<WorkerId>)],
) -> Result<HashMap<Uuid, i64>, sqlx::Error> {
    let columns: StartColumns<'_> = starts.iter().map(|(saga, _)| saga).collect();
    let mut bound = Bound::default();
    columns.bind(&mut bound);
    bound.add(starts.iter().map(|(_, owner)| owner.map(Uuid::from)).collect::<Vec<_>>());
    bound.add(starts.iter().map(|(saga, _)| saga.lock.as_ref().map(|lock| lock.key.as_str())).collect::<Vec<_>>());
    Ok(sqlx::query_as_with(START, bound.finish()?).fetch_all(conn).await?.into_iter().collect())
}

pub(crate) async fn in_transaction(
    conn: &mut PgConnection,
    saga: NewSaga,
    owner: Option<WorkerId>,
    hints: &Hints,
) -> Result<Started, Error> {
    lock::refuse_if_taken(conn, &saga).await?;
    crate::hook::before("start in transaction");
    let start = (saga, owner);
    let started = all(conn, &[&start]).await.map_err(start_error)?;
    let Some(&xid) = started.get(&start.0.id.0) else { return existing(conn, &start.0).await };
    if owner.is_none() {
        hints.written(xid, News::SAGAS);
    }
    Ok(Started::New(start.0.id))
}

/// In a transaction of its own, unlike others: it may wait for another start.
pub(crate) async fn alone(
    pool: &PgPool,
    saga: NewSaga,
    owner: Option<WorkerId>,
    hints: &Hints,
) -> Result<Started, Error> {
    let mut tx = pool.begin().await.map_err(start_error)?;
    let started = in_transaction(&mut tx, saga, owner, hints).await?;
    tx.commit().await.map_err(start_error)?;
    Ok(started)
}

/// The saga that has the key. Inputs are compared as `jsonb`: white space and the order of fields do not matter.
pub(crate) async fn existing(conn: &mut PgConnection, saga: &NewSaga) -> Result<Started, Error> {
    crate::hook::before("find by key");
    let (existing, same): (Uuid, Option<bool>) = sqlx::query_as(
        "select k.saga_id, s.input::jsonb = $3::jsonb
         from amends.saga_key k left join amends.saga s on s.id = k.saga_id
         where k.name = $1 and k.key = $2",
    )
    .bind(&saga.name)
    .bind(&saga.key)
    .bind(saga.input.as_str())
    .fetch_one(conn)
    .await
    .map_err(start_error)?;
    match same {
        Some(false) => Err(Error::KeyConflict {
            name: saga.name.clone(),
            key: saga.key.clone().unwrap_or_default(),
            existing: SagaId(existing),
        }),
        // The saga may be gone while its key is still kept.
        Some(true) | None => Ok(Started::Existing(SagaId(existing))),
    }
}
