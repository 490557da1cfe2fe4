//! Reads sagas with their journals.

use std::collections::HashMap;

use amends::event::{JournalRow, parse_events};
use amends::store::{Loaded, Priority, Status};
use amends::{Json, SagaId, WorkerId};
use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgPool};
use uuid::Uuid;

use crate::columns;

/// What is selected of a head row.
macro_rules! head_columns {
    () => {
        "id, name, version, fingerprint, status, owner, trace, input::text as input, clock_timestamp() as now,
         started_at, priority, parent, lock"
    };
}
pub(crate) use head_columns;

/// A head row as it was selected.
#[derive(Debug, FromRow)]
pub(crate) struct HeadRow {
    id: Uuid,
    name: String,
    version: i32,
    fingerprint: Uuid,
    status: String,
    owner: Option<Uuid>,
    trace: Option<String>,
    input: String,
    now: DateTime<Utc>,
    started_at: DateTime<Utc>,
    priority: i16,
    parent: Option<Uuid>,
    lock: Option<String>,
}

pub(crate) async fn one(pool: &PgPool, saga: SagaId) -> Result<Option<Loaded>, sqlx::Error> {
    Ok(many(pool, &[saga]).await?.pop())
}

pub(crate) async fn many(pool: &PgPool, sagas: &[SagaId]) -> Result<Vec<Loaded>, sqlx::Error> {
    if sagas.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<Uuid> = sagas.iter().map(|saga| saga.0).collect();
    crate::hook::before("load heads");
    let heads = sqlx::query_as(concat!("select ", head_columns!(), " from amends.saga where id = any($1)"))
        .bind(&ids)
        .fetch_all(pool)
        .await?;
    with_journals(pool, heads).await
}

/// Those of these sagas that have ended or are not there.
pub(crate) async fn ended(pool: &PgPool, sagas: &[SagaId]) -> Result<Vec<SagaId>, sqlx::Error> {
    crate::hook::before("ended");
    let ended: Vec<Uuid> = sqlx::query_scalar(
        "select asked.id from unnest($1::uuid[]) as asked(id)
         where not exists (
            select from amends.saga s where s.id = asked.id and s.status not in ('completed', 'compensated')
         )",
    )
    .bind(sagas.iter().map(|saga| saga.0).collect::<Vec<_>>())
    .fetch_all(pool)
    .await?;
    Ok(ended.into_iter().map(SagaId).collect())
}

/// Parked sagas behind `after`, in the order of their ids.
pub(crate) async fn parked(
    pool: &PgPool,
    fingerprint: Option<Uuid>,
    after: Option<SagaId>,
    limit: usize,
) -> Result<Vec<SagaId>, sqlx::Error> {
    crate::hook::before("parked");
    let query = match fingerprint {
        Some(fingerprint) => sqlx::query_scalar(
            "select id from amends.saga where status = 'parked' and id > $1 and parked_as = $3 order by id limit $2",
        )
        .bind(behind(after))
        .bind(columns::limit(limit))
        .bind(fingerprint),
        None => {
            sqlx::query_scalar("select id from amends.saga where status = 'parked' and id > $1 order by id limit $2")
                .bind(behind(after))
                .bind(columns::limit(limit))
        }
    };
    let parked: Vec<Uuid> = query.fetch_all(pool).await?;
    Ok(parked.into_iter().map(SagaId).collect())
}

/// Sagas of these names that have not ended and were started with none of these fingerprints, behind `after`. It is asked
/// at start-up only, so no index serves it.
pub(crate) async fn live(
    pool: &PgPool,
    names: &[String],
    fingerprints: &[Uuid],
    after: Option<SagaId>,
    limit: usize,
) -> Result<Vec<Loaded>, sqlx::Error> {
    crate::hook::before("live");
    let heads = sqlx::query_as(concat!(
        "select ",
        head_columns!(),
        " from amends.saga
         where name = any($1) and fingerprint <> all($2) and id > $3 and status not in ('completed', 'compensated')
         order by id limit $4",
    ))
    .bind(names)
    .bind(fingerprints)
    .bind(behind(after))
    .bind(columns::limit(limit))
    .fetch_all(pool)
    .await?;
    with_journals(pool, heads).await
}

/// Every id is greater than the nil one.
fn behind(after: Option<SagaId>) -> Uuid {
    after.map_or(Uuid::nil(), Uuid::from)
}

/// The journals are read after the heads, so they are never older than what the heads say.
pub(crate) async fn with_journals(pool: &PgPool, heads: Vec<HeadRow>) -> Result<Vec<Loaded>, sqlx::Error> {
    if heads.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<Uuid> = heads.iter().map(|head| head.id).collect();
    crate::hook::before("load journals");
    let rows: Vec<(Uuid, i32, DateTime<Utc>, String)> = sqlx::query_as(
        "select saga_id, seq, at, events::text from amends.journal where saga_id = any($1) order by saga_id, seq",
    )
    .bind(&ids)
    .fetch_all(pool)
    .await?;
    let mut journals: HashMap<Uuid, Vec<JournalRow>> = HashMap::new();
    for (saga, seq, at, events) in rows {
        let events = parse_events(&events).map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
        journals.entry(saga).or_default().push(JournalRow { saga: SagaId(saga), seq: i64::from(seq), events, at });
    }
    heads.into_iter().map(|head| loaded(head, &mut journals)).collect()
}

fn loaded(head: HeadRow, journals: &mut HashMap<Uuid, Vec<JournalRow>>) -> Result<Loaded, sqlx::Error> {
    let status =
        Status::parse(&head.status).ok_or_else(|| sqlx::Error::Decode(format!("status {}", head.status).into()))?;
    let priority = Priority::ALL
        .into_iter()
        .find(|priority| priority.as_i16() == head.priority)
        .ok_or_else(|| sqlx::Error::Decode(format!("priority {}", head.priority).into()))?;
    // An input that another language wrote and that is beyond our limits is still readable JSON.
    let input = serde_json::from_str::<Json>(&head.input).map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    Ok(Loaded {
        journal: journals.remove(&head.id).unwrap_or_default(),
        id: SagaId(head.id),
        name: head.name,
        version: head.version as u32,
        fingerprint: head.fingerprint,
        input,
        trace: head.trace,
        status,
        now: head.now,
        owner: head.owner.map(WorkerId),
        started_at: head.started_at,
        priority,
        parent: head.parent.map(SagaId),
        lock: head.lock,
    })
}
