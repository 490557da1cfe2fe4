//! The timetable of sagas that start by themselves.

use amends::Error;
use amends::store::NewSaga;
use chrono::{DateTime, Utc};
use sqlx::PgPool;

use crate::error::start_error;
use crate::hints::Hints;
use crate::{hook, start};

pub(crate) async fn set(pool: &PgPool, name: &str, timetable: &str, next: DateTime<Utc>) -> Result<(), sqlx::Error> {
    hook::before("schedule");
    sqlx::query(
        "insert into amends.schedule as s (name, timetable, next_at) values ($1, $2, $3)
         on conflict (name) do update set timetable = excluded.timetable,
            next_at = case when s.timetable = excluded.timetable then least(s.next_at, excluded.next_at) else excluded.next_at end",
    )
    .bind(name)
    .bind(timetable)
    .bind(next)
    .execute(pool)
    .await
    .map(drop)
}

type Overdue = (Vec<(String, DateTime<Utc>)>, DateTime<Utc>);

pub(crate) async fn overdue(pool: &PgPool, names: &[String]) -> Result<Overdue, sqlx::Error> {
    type Row = (DateTime<Utc>, Option<String>, Option<DateTime<Utc>>);
    hook::before("overdue");
    let rows: Vec<Row> = sqlx::query_as(
        "select t.now, s.name, s.next_at from (select clock_timestamp() as now) t
         left join amends.schedule s on s.name = any($1) and s.next_at <= t.now",
    )
    .bind(names)
    .fetch_all(pool)
    .await?;
    let now = rows.first().map(|(now, ..)| *now).unwrap_or_default();
    Ok((rows.into_iter().filter_map(|(_, name, at)| name.zip(at)).collect(), now))
}

/// Moving the timetable and the start commit together: whoever moves it starts the saga.
pub(crate) async fn start(
    pool: &PgPool,
    saga: NewSaga,
    at: DateTime<Utc>,
    next: Option<DateTime<Utc>>,
    hints: &Hints,
) -> Result<bool, Error> {
    hook::before("start scheduled");
    let mut tx = pool.begin().await.map_err(start_error)?;
    let moved =
        sqlx::query("update amends.schedule set next_at = coalesce($3, 'infinity') where name = $1 and next_at = $2")
            .bind(&saga.name)
            .bind(at)
            .bind(next)
            .execute(&mut *tx)
            .await
            .map_err(start_error)?;
    let is_mine = moved.rows_affected() == 1;
    if is_mine {
        start::in_transaction(&mut tx, saga, None, hints).await?;
    }
    tx.commit().await.map_err(start_error)?;
    Ok(is_mine)
}
