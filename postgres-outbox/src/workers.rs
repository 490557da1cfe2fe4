//! Workers: their leases, what they give back, and what dead ones leave behind.

use std::time::Duration;

use amends::store::{Append, Claim};
use amends::{Definition, Event, SagaId, WorkerId};
use sqlx::PgPool;
use uuid::Uuid;

use crate::columns::{encode, limit, millis, registered};
use crate::writer::Write;
use crate::{hook, partitions};

pub(crate) async fn define(pool: &PgPool, definitions: &[&Definition]) -> Result<(), sqlx::Error> {
    let json = definitions.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>().map_err(encode)?;
    hook::before("define");
    sqlx::query(
        "insert into amends.definition (fingerprint, name, version, definition)
         select fingerprint, name, version, definition::json
         from unnest($1::uuid[], $2::text[], $3::int[], $4::text[]) as d(fingerprint, name, version, definition)
         on conflict (fingerprint) do update set definition = excluded.definition, registered_at = clock_timestamp()",
    )
    .bind(definitions.iter().map(|it| it.fingerprint()).collect::<Vec<_>>())
    .bind(definitions.iter().map(|it| it.name.to_string()).collect::<Vec<_>>())
    .bind(definitions.iter().map(|it| it.version as i32).collect::<Vec<_>>())
    .bind(json)
    .execute(pool)
    .await
    .map(drop)
}

pub(crate) async fn register(pool: &PgPool, worker: WorkerId, name: &str, lease: Duration) -> Result<(), sqlx::Error> {
    hook::before("register");
    partitions::make_ahead(&mut *pool.acquire().await?).await;
    sqlx::query(
        "with gone as (
            delete from amends.worker w where w.expires_at < now() - interval '1 hour'
                and not exists (select from amends.saga s where s.owner = w.id)
         )
         insert into amends.worker (id, name, expires_at) values ($1, $2, clock_timestamp() + $3 * interval '1 millisecond')",
    )
    .bind(worker.0)
    .bind(name)
    .bind(millis(lease))
    .execute(pool)
    .await
    .map(drop)
}

/// `false` if the lease had run out.
pub(crate) async fn renew(pool: &PgPool, worker: WorkerId, lease: Duration) -> Result<bool, sqlx::Error> {
    hook::before("renew");
    let renewed = sqlx::query(
        "update amends.worker set expires_at = clock_timestamp() + $2 * interval '1 millisecond'
         where id = $1 and expires_at > clock_timestamp()",
    )
    .bind(worker.0)
    .bind(millis(lease))
    .execute(pool)
    .await?;
    Ok(renewed.rows_affected() == 1)
}

/// The row stays, expired, for as long as anything is left to adopt.
pub(crate) async fn retire(pool: &PgPool, worker: WorkerId) -> Result<(), sqlx::Error> {
    hook::before("retire");
    sqlx::query("update amends.worker set expires_at = clock_timestamp() where id = $1")
        .bind(worker.0)
        .execute(pool)
        .await
        .map(drop)
}

/// Sagas of workers whose leases have run out, with the last row of each journal.
pub(crate) async fn orphans(pool: &PgPool, claim: &Claim) -> Result<Vec<(SagaId, i64)>, sqlx::Error> {
    let (names, versions) = registered(claim);
    hook::before("orphans");
    let orphans: Vec<(Uuid, i32)> = sqlx::query_as(
        "select o.id, coalesce((select max(j.seq) from amends.journal j where j.saga_id = o.id), 0)
         from (
            select s.id from amends.worker w join amends.saga s on s.owner = w.id
            join unnest($1::text[], $2::int[]) as r(name, version) on r.name = s.name and r.version = s.version
            where w.expires_at <= clock_timestamp() and s.ended_at is null
            order by s.status = 'compensating' desc, s.priority desc
            limit $3
         ) o",
    )
    .bind(names)
    .bind(versions)
    .bind(limit(claim.limit))
    .fetch_all(pool)
    .await?;
    Ok(orphans.into_iter().map(|(saga, seq)| (SagaId(saga), i64::from(seq))).collect())
}

/// Adoption is an append like any other, and so fences whatever the dead worker still does.
pub(crate) fn adoption(worker: WorkerId, saga: SagaId, seq: i64) -> Write {
    // A worker adopts a saga once at a given seq, and its own appends count from 0 upwards.
    let append = Append::new(saga, seq + 1, worker, -1, vec![Event::Adopted { by: worker }]);
    Write { append, new_owner: Some(worker) }
}
