//! Claims: a worker takes sagas that are due and that nobody owns.

use std::sync::{Mutex, PoisonError};

use amends::store::{Claim, Loaded};
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::postgres::PgRow;
use sqlx::{FromRow, PgPool, Row};
use uuid::Uuid;

use crate::bounded;
use crate::columns::{limit, registered};
use crate::load::{self, HeadRow, head_columns};

/// Everything due before this was taken, but for starts that committed late; those are found by a hint or a full sweep.
///
/// Scanning from here instead of from the beginning keeps a claim fast when vacuum cannot remove what was claimed
/// before: under an old snapshot a scan from the start went from 0.1 to 45 ms.
///
/// It is the `now()` of the claim itself: that is taken when its transaction begins, before its snapshot, and is what `wake_at` is
/// compared with. So whatever was due by then had either committed before the snapshot, and was seen, or committed after it,
/// and thus later than `now()`: that is found by the next claim if it was no more than a second late.
#[derive(Debug, Default)]
pub(crate) struct Mark(Mutex<Option<DateTime<Utc>>>);

impl Mark {
    fn get(&self) -> Option<DateTime<Utc>> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, mark: DateTime<Utc>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(mark - TimeDelta::seconds(1));
    }
}

/// Compensating sagas are taken before all that go forward; then what is hinted at, then the others, while there is room.
///
/// What is nudged is due again soon: its owner may be letting go of it at this moment, and would not hear of the nudge. That
/// costs one needless look, if it did.
///
/// The priorities are ordered in a subquery, not in a CTE: the planner then knows that the join keeps the order, and looks
/// at the next one, and locks its rows, only if the limit is not reached.
const CLAIM: &str = concat!(
    "with registered as (
        select name, version, turn, name = any($10) as bounded
        from unnest($2::text[], $3::int[]) with ordinality as r(name, version, turn)
    ), nudged as (
        update amends.saga set wake_at = now() + interval '5 seconds'
        where owner = $1 and (wake_at <= now() or ($8 and id <> all($9) and ended_at is null)) returning *
    ), undo as (
        select d.id from (
            select * from registered cross join (values (1::smallint), (0::smallint), (-1::smallint)) as p(priority)
            order by priority desc, turn
        ) l cross join lateral (
            select s.id from amends.saga s
            where s.name = l.name and s.version = l.version and s.status = 'compensating' and s.priority = l.priority
                and s.owner is null and s.wake_at > coalesce($7, '-infinity') and s.wake_at <= now()
            order by s.wake_at limit $5
            for update skip locked
        ) d order by l.priority desc limit $5
    ), hinted as (
        select s.id from amends.saga s join registered r on r.name = s.name and r.version = s.version
        where s.id = any($4) and s.owner is null and s.wake_at <= now() and s.status = 'running'
            and not r.bounded
        limit (select least($6, $5 - count(*)) from undo)
        for update of s skip locked
    ), forward as (
        select d.id from (
            select * from registered cross join (values (1::smallint), (0::smallint), (-1::smallint)) as p(priority)
            where not bounded order by priority desc, turn
        ) l cross join lateral (
            select s.id from amends.saga s
            where s.name = l.name and s.version = l.version and s.status = 'running' and s.priority = l.priority
                and s.id <> all($4)
                and s.owner is null and s.wake_at > coalesce($7, '-infinity') and s.wake_at <= now()
            order by s.wake_at limit $6
            for update skip locked
        ) d order by l.priority desc
        limit (select least($6, $5 - (select count(*) from undo)) - count(*) from hinted)
    ), taken as (
        update amends.saga s set owner = $1, wake_at = null
        where s.id in (select id from undo union all select id from forward union all select id from hinted)
            and s.owner is null
        returning *
    )
    select t.taken_at, found.* from (select now() as taken_at) t left join (
        select ",
    head_columns!(),
    " from (select * from nudged union all select * from taken) s
    ) found on true"
);

/// When the claim was made, and a saga if there was any.
struct Claimed {
    at: DateTime<Utc>,
    head: Option<HeadRow>,
}

impl FromRow<'_, PgRow> for Claimed {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let saga: Option<Uuid> = row.try_get("id")?;
        let head = saga.map(|_| HeadRow::from_row(row)).transpose()?;
        Ok(Self { at: row.try_get("taken_at")?, head })
    }
}

pub(crate) async fn due(pool: &PgPool, claim: &Claim, mark: &Mark) -> Result<Vec<Loaded>, sqlx::Error> {
    let (names, versions) = registered(claim);
    let hints: Vec<Uuid> = claim.hints.iter().map(|saga| saga.0).collect();
    crate::hook::before("claim");
    let claimed: Vec<Claimed> = sqlx::query_as(CLAIM)
        .bind(claim.worker.0)
        .bind(names)
        .bind(versions)
        .bind(hints)
        .bind(limit(claim.limit))
        .bind(limit(claim.forward_limit))
        .bind(if claim.sweep { None } else { mark.get() })
        .bind(claim.sweep)
        .bind(claim.driven.iter().map(|saga| saga.0).collect::<Vec<Uuid>>())
        .bind(claim.bounds.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>())
        .fetch_all(pool)
        .await?;
    let at = claimed.first().map(|claimed| claimed.at);
    let mut heads: Vec<HeadRow> = claimed.into_iter().filter_map(|claimed| claimed.head).collect();
    if let (true, Some(at)) = (heads.len() < claim.forward_limit, at) {
        mark.set(at);
    }
    heads.extend(bounded::due(pool, claim, claim.forward_limit.saturating_sub(heads.len())).await?);
    load::with_journals(pool, heads).await
}
