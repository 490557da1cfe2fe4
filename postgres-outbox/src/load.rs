//! Reads sagas with their journals.

use std::collections::HashMap;

use amends::event::{JournalRow, parse_events};
use amends::store::{Loaded, Status};
use amends::{Json, SagaId, WorkerId};
use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgPool};
use uuid::Uuid;

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
    let heads = sqlx::query_as(
        "select id, name, version, fingerprint, status, owner, trace, input::text as input, clock_timestamp() as now
         from amends.saga where id = any($1)",
    )
    .bind(&ids)
    .fetch_all(pool)
    .await?;
    with_journals(pool, heads).await
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
    })
}
