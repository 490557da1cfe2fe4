//! Semantic locks: of the sagas of one name with the same lock, one is live at a time.

use amends::store::NewSaga;
use amends::{Error, SagaId};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::error::start_error;

/// The oldest in line takes a lock that is free: nobody has it, or whoever had it has ended. The primary key decides
/// between two at once.
const LOCK: &str = "
    with mine as (
        select s.id, s.name, s.lock from amends.saga s
        where s.id = $1 and s.lock is not null and s.ended_at is null
    )
    insert into amends.saga_lock as l (name, key, saga_id)
    select m.name, m.lock, m.id from mine m
    where not exists (
            select from amends.saga o
            where o.name = m.name and o.lock = m.lock and o.lock is not null and o.ended_at is null and o.id < m.id
        ) or exists (
            select from amends.saga_lock h where h.name = m.name and h.key = m.lock and h.saga_id = m.id
        )
    on conflict (name, key) do update set saga_id = excluded.saga_id, since = clock_timestamp()
        where l.saga_id = excluded.saga_id
            or not exists (select from amends.saga h where h.id = l.saga_id and h.ended_at is null)
    returning saga_id";

pub(crate) async fn take(pool: &PgPool, saga: SagaId) -> Result<bool, sqlx::Error> {
    crate::hook::before("lock");
    Ok(sqlx::query(LOCK).bind(saga.0).fetch_optional(pool).await?.is_some())
}

/// Whether somebody waits for it, and is due now.
pub(crate) async fn pass(pool: &PgPool, saga: SagaId) -> Result<bool, sqlx::Error> {
    crate::hook::before("pass lock");
    let woken = sqlx::query(
        "update amends.saga s set wake_at = clock_timestamp()
         where s.ended_at is null and s.id = (
            select o.id from amends.saga m
            join amends.saga o on o.name = m.name and o.lock = m.lock and o.lock is not null and o.ended_at is null
            where m.id = $1 order by o.id limit 1
         )",
    )
    .bind(saga.0)
    .execute(pool)
    .await?;
    Ok(woken.rows_affected() > 0)
}

/// Refuses a start while another live saga has the lock or waits for it, but not one that starts nothing, because its key
/// is taken or it was started already. Two such starts at once wait for each other's transaction, so that the second sees
/// the first.
pub(crate) async fn refuse_if_taken(conn: &mut PgConnection, saga: &NewSaga) -> Result<(), Error> {
    let Some(lock) = saga.lock.as_ref().filter(|lock| lock.refuse) else { return Ok(()) };
    crate::hook::before("queue for lock");
    sqlx::query("select pg_advisory_xact_lock(hashtextextended($1 || chr(1) || $2, 0))")
        .bind(&saga.name)
        .bind(&lock.key)
        .execute(&mut *conn)
        .await
        .map_err(start_error)?;
    // A statement of its own: only its snapshot is younger than the wait.
    let holder: Option<Uuid> = sqlx::query_scalar(
        "select s.id from amends.saga s
         where s.name = $1 and s.lock = $2 and s.lock is not null and s.ended_at is null
            and not exists (select from amends.saga o where o.id = $4)
            and not exists (select from amends.saga_key k where k.name = $1 and k.key = $3)
         order by s.id limit 1",
    )
    .bind(&saga.name)
    .bind(&lock.key)
    .bind(&saga.key)
    .bind(saga.id.0)
    .fetch_optional(conn)
    .await
    .map_err(start_error)?;
    match holder {
        Some(holder) => Err(Error::Locked { name: saga.name.clone(), lock: lock.key.clone(), holder: SagaId(holder) }),
        None => Ok(()),
    }
}
