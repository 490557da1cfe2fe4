//! Starts in the application's own transaction.

use amends::store::{NewSaga, Started};
use amends::{Error, SagaId};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::start_error;

const START: &str = "
    with taken as (
        insert into amends.saga_key (name, key, saga_id)
        select $2, $5, $1 where $5 is not null
        on conflict do nothing
        returning saga_id
    )
    insert into amends.saga (id, name, version, fingerprint, key, input, trace)
    select $1, $2, $3, $4, $5, $6::json, $7 where $5 is null or exists (select from taken)";

pub(crate) async fn in_transaction(conn: &mut PgConnection, saga: &NewSaga) -> Result<Started, Error> {
    crate::hook::before("start in transaction");
    let inserted = sqlx::query(START)
        .bind(saga.id.0)
        .bind(&saga.name)
        .bind(saga.version as i32)
        .bind(saga.fingerprint)
        .bind(&saga.key)
        .bind(saga.input.as_str())
        .bind(&saga.trace)
        .execute(&mut *conn)
        .await
        .map_err(start_error)?;
    if inserted.rows_affected() == 1 {
        return Ok(Started::New(saga.id));
    }
    existing(conn, saga).await
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
