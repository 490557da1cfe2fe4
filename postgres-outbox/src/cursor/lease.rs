//! The lease on a lane and the moves of its cursor. Every write is guarded by the epoch; only the database's clock counts.

use std::time::Duration;

use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::columns::{Bound, OutboxColumns};
use crate::cursor::{LaneError, Pass, Position, Snapshot, Unpublished};
use crate::hook;

type CursorRow = (i64, i64, String, i64, Option<String>, Option<i64>, Option<i64>, i16, Option<String>);

/// A lane as it was left.
pub(super) struct Taken {
    pub(super) epoch: i64,
    pub(super) position: Position,
    /// How many lanes there are.
    pub(super) lanes: i16,
    /// Their number is being changed: so far this one goes.
    pub(super) meeting: Option<Snapshot>,
    /// Of the sequence, before it was taken.
    pub(super) value: i64,
    /// Its position is of another cluster than this one.
    pub(super) restored_into: Option<i64>,
}

/// Takes the lease. Under the lock of the layout: while the number of lanes is changed, a lane of the old ones must not
/// be taken without knowledge of it.
pub(super) async fn take(
    conn: &mut PgConnection,
    lane: i16,
    owner: Uuid,
    name: &str,
    lease: Duration,
) -> Result<Option<Taken>, sqlx::Error> {
    let system = system_id(conn).await?;
    let value = "select case when is_called then last_value else 0 end from amends.outbox_seq";
    let value: i64 = sqlx::query_scalar(value).fetch_one(&mut *conn).await?;
    let start = Position::start();
    hook::before("take lane");
    sqlx::query(
        "insert into amends.cursor (lane, system_id, prev)
         select $1, $2, $3::pg_snapshot from (select lanes from amends.layout for share) layout where $1 < lanes
         on conflict do nothing",
    )
    .bind(lane)
    .bind(system)
    .bind(&start.prev)
    .execute(&mut *conn)
    .await?;
    let taken: Option<CursorRow> = sqlx::query_as(
        "update amends.cursor c set owner = $2, owner_name = $3, epoch = epoch + 1, expires_at = clock_timestamp() + $4
         from (select lanes, meeting from amends.layout for share) layout
         where lane = $1 and lane < lanes and (owner is null or owner = $2 or expires_at <= clock_timestamp())
         returning epoch, system_id, prev::text, floor, pass::text, pass_seq, pass_floor, lanes, meeting::text",
    )
    .bind(lane)
    .bind(owner)
    .bind(name)
    .bind(lease)
    .fetch_optional(&mut *conn)
    .await?;
    if taken.is_some() {
        crate::partitions::make_ahead(conn).await;
    }
    let Some((epoch, written_in, prev, floor, pass, pass_seq, pass_floor, lanes, meeting)) = taken else {
        return Ok(None);
    };
    if written_in == 0 && system != 0 {
        // It was made by a role that may not know.
        hook::before("name the system of a lane");
        let name =
            sqlx::query("update amends.cursor set system_id = $3 where lane = $1 and epoch = $2 and system_id = 0");
        name.bind(lane).bind(epoch).bind(system).execute(conn).await?;
    }
    let pass = pass.zip(pass_seq).zip(pass_floor).map(|((snapshot, seq), floor)| Pass { snapshot, seq, floor });
    let restored_into = (![0, system].contains(&written_in) && system != 0).then_some(system);
    Ok(Some(Taken { epoch, position: Position { prev, floor, pass }, lanes, meeting, value, restored_into }))
}

/// It touches every retained message, which may take long.
pub(super) async fn restart(conn: &mut PgConnection, lane: i16, system: i64) -> Result<(), sqlx::Error> {
    hook::before("restart lane");
    let mut tx = conn.begin().await?;
    sqlx::query("set local statement_timeout = 0").execute(&mut *tx).await?;
    sqlx::query("select amends.restart_lane($1, $2)").bind(lane).bind(system).execute(&mut *tx).await?;
    tx.commit().await
}

/// 0 where it may not be read: then a restore cannot be noticed.
async fn system_id(conn: &mut PgConnection) -> Result<i64, sqlx::Error> {
    let may: bool = sqlx::query_scalar("select has_function_privilege('pg_catalog.pg_control_system()', 'execute')")
        .fetch_one(&mut *conn)
        .await?;
    if !may {
        return Ok(0);
    }
    sqlx::query_scalar("select system_identifier from pg_control_system()").fetch_one(conn).await
}

/// One statement: the cursor moves, the lease is renewed, and what is not published goes to the held messages.
pub(super) async fn move_to(
    conn: &mut PgConnection,
    lane: i16,
    owner: Uuid,
    epoch: i64,
    lease: Duration,
    to: &Position,
    unpublished: &[Unpublished<'_>],
) -> Result<(), LaneError> {
    let columns: OutboxColumns = unpublished.iter().map(|held| &held.message.message).collect();
    let pass = to.pass.as_ref();
    let mut bound = Bound::default();
    bound.add(lane);
    bound.add(owner);
    bound.add(epoch);
    bound.add(&to.prev);
    bound.add(to.floor);
    bound.add(pass.map(|pass| &pass.snapshot));
    bound.add(pass.map(|pass| pass.seq));
    bound.add(pass.map(|pass| pass.floor));
    bound.add(lease);
    bound.add(unpublished.iter().map(|held| held.message.seq).collect::<Vec<_>>());
    columns.bind(&mut bound);
    bound.add(unpublished.iter().map(|held| held.message.created_at).collect::<Vec<_>>());
    bound.add(unpublished.iter().map(|held| i32::from(held.refused)).collect::<Vec<_>>());
    bound.add(unpublished.iter().map(|held| held.reason.as_str()).collect::<Vec<_>>());
    hook::before("move cursor");
    let moved: Option<i64> = sqlx::query_scalar_with(
        "with moved as (
            update amends.cursor set prev = $4::pg_snapshot, floor = $5, pass = $6::pg_snapshot, pass_seq = $7, pass_floor = $8,
                moved_at = clock_timestamp(), expires_at = clock_timestamp() + $9
            where lane = $1 and owner = $2 and epoch = $3
            returning epoch
         ), held as (
            insert into amends.held_message
                (lane, seq, id, key, topic, name, content_type, headers, payload, created_at, attempts, retry_at, reason)
            select $1, h.seq, h.id, h.key, h.topic, h.name, h.content_type, h.headers::json, h.payload, h.created_at,
                h.attempts, clock_timestamp() + h.attempts * interval '500 milliseconds', h.reason
            from unnest($10::bigint[], $11::uuid[], $12::text[], $13::text[], $14::text[], $15::text[], $16::text[], $17::bytea[],
                    $18::timestamptz[], $19::int[], $20::text[])
                as h(seq, id, key, topic, name, content_type, headers, payload, created_at, attempts, reason)
            where exists (select from moved)
            on conflict do nothing
         )
         select epoch from moved",
        bound.finish()?,
    )
    .fetch_optional(conn)
    .await?;
    moved.map(drop).ok_or(LaneError::Lost)
}

pub(super) async fn renew(
    conn: &mut PgConnection,
    lane: i16,
    owner: Uuid,
    epoch: i64,
    lease: Duration,
) -> Result<(), LaneError> {
    hook::before("renew lane");
    let renewed = sqlx::query(
        "update amends.cursor set expires_at = clock_timestamp() + $4 where lane = $1 and owner = $2 and epoch = $3",
    )
    .bind(lane)
    .bind(owner)
    .bind(epoch)
    .bind(lease)
    .execute(conn)
    .await?;
    if renewed.rows_affected() == 1 { Ok(()) } else { Err(LaneError::Lost) }
}

pub(super) async fn release(conn: &mut PgConnection, lane: i16, owner: Uuid, epoch: i64) -> Result<(), sqlx::Error> {
    hook::before("release lane");
    sqlx::query(
        "update amends.cursor set owner = null, expires_at = null where lane = $1 and owner = $2 and epoch = $3",
    )
    .bind(lane)
    .bind(owner)
    .bind(epoch)
    .execute(conn)
    .await
    .map(drop)
}
