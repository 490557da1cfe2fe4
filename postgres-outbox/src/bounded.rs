//! Claims of sagas of which only so many may go forward at once, in all workers together.

use amends::store::Claim;
use sqlx::PgPool;

use crate::columns::{limit as rows, registered};
use crate::load::{HeadRow, head_columns};

/// One claim at a time counts what goes forward and takes as many as are left.
///
/// The row lock alone would not do: a claim whose snapshot is older than another's commit would get the lock and count
/// without what that one took. So each claim moves `turn`, and one that finds under the lock another turn than its snapshot
/// has takes nothing; it comes again. `skip locked`: who is second need not wait for the first.
///
/// An idle claim locks no row, and so costs no transaction id: there must be a place and somebody who is due.
const CLAIM: &str = concat!(
    "with bounds as (
        select name, most - (
            select count(*) from amends.saga s where s.name = b.name and s.owner is not null and s.status = 'running'
        ) as places
        from unnest($4::text[], $5::int[]) as b(name, most)
    ), registered as (
        select r.name, r.version, p.priority, b.places
        from unnest($2::text[], $3::int[]) as r(name, version) join bounds b on b.name = r.name and b.places > 0
        cross join (values (1::smallint), (0::smallint), (-1::smallint)) as p(priority)
    ), locked as (
        select b.name, b.turn from amends.saga_bound b
        where exists (
            select from registered r join amends.saga s
                on s.name = r.name and s.version = r.version and s.status = 'running' and s.priority = r.priority
            where r.name = b.name and s.owner is null and s.wake_at <= now()
        )
        for update skip locked
    ), turns as (
        select l.name from locked l join amends.saga_bound seen on seen.name = l.name and seen.turn = l.turn
    ), due as (
        select d.id, r.name, r.places,
            row_number() over (partition by r.name order by r.priority desc, d.wake_at) as place
        from turns t join registered r on r.name = t.name
        cross join lateral (
            select s.id, s.wake_at from amends.saga s
            where s.name = r.name and s.version = r.version and s.status = 'running' and s.priority = r.priority
                and s.owner is null and s.wake_at <= now()
            order by s.wake_at limit r.places
            for update skip locked
        ) d
    ), chosen as (
        select id, name from due where place <= places limit $6
    ), moved as (
        update amends.saga_bound b set turn = turn + 1 where b.name in (select name from chosen)
    ), taken as (
        update amends.saga s set owner = $1, wake_at = null where s.id in (select id from chosen) and s.owner is null
        returning *
    )
    select ",
    head_columns!(),
    " from taken s"
);

/// At most `limit` of them.
pub(crate) async fn due(pool: &PgPool, claim: &Claim, limit: usize) -> Result<Vec<HeadRow>, sqlx::Error> {
    if claim.bounds.is_empty() || limit == 0 {
        return Ok(Vec::new());
    }
    let (names, versions) = registered(claim);
    let (bounded, most): (Vec<&str>, Vec<i32>) =
        claim.bounds.iter().map(|(name, most)| (name.as_str(), i32::try_from(*most).unwrap_or(i32::MAX))).unzip();
    crate::hook::before("claim bounded");
    sqlx::query_as(CLAIM)
        .bind(claim.worker.0)
        .bind(names)
        .bind(versions)
        .bind(bounded)
        .bind(most)
        .bind(rows(limit))
        .fetch_all(pool)
        .await
}

/// Makes the rows that claims count under.
pub(crate) async fn define(pool: &PgPool, names: &[String]) -> Result<(), sqlx::Error> {
    if names.is_empty() {
        return Ok(());
    }
    crate::hook::before("define bounds");
    sqlx::query("insert into amends.saga_bound (name) select * from unnest($1::text[]) on conflict do nothing")
        .bind(names)
        .execute(pool)
        .await
        .map(drop)
}
