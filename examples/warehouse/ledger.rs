//! The warehouse's ledger: what it heard, in which order, and what it did about it.

use amends_relay::{HandlerError, Incoming};
use shop::events::{OrderCompleted, OrderPlaced, OrderRefused, OrderShipped, StockReleased, StockReserved};
use sqlx::PgConnection;

/// Takes one event into the ledger.
pub(crate) async fn record(conn: &mut PgConnection, event: &Incoming) -> Result<(), HandlerError> {
    let (key, version) = if let Some(placed) = event.read::<OrderPlaced>()? {
        (placed.order.to_string(), placed.version)
    } else if let Some(shipped) = event.read::<OrderShipped>()? {
        send(conn, &shipped).await?;
        (shipped.order.to_string(), shipped.version)
    } else if let Some(completed) = event.read::<OrderCompleted>()? {
        (completed.order.to_string(), completed.version)
    } else if let Some(refused) = event.read::<OrderRefused>()? {
        (refused.order.to_string(), refused.version)
    } else if let Some(reserved) = event.read::<StockReserved>()? {
        set_aside(conn, &reserved.sku, i64::from(reserved.qty)).await?;
        (reserved.sku, reserved.version)
    } else if let Some(released) = event.read::<StockReleased>()? {
        set_aside(conn, &released.sku, -i64::from(released.qty)).await?;
        (released.sku, released.version)
    } else {
        return Err(HandlerError::Reject(format!("the warehouse knows no event `{}`", event.name)));
    };
    check_order(conn, &event.id, &key, version).await?;
    sqlx::query("insert into received (message_id, name, key, version) values ($1::uuid, $2, $3, $4)")
        .bind(&event.id)
        .bind(&event.name)
        .bind(key)
        .bind(version)
        .execute(conn)
        .await?;
    Ok(())
}

async fn send(conn: &mut PgConnection, shipped: &OrderShipped) -> sqlx::Result<()> {
    sqlx::query("insert into parcel (order_id, sku, qty) values ($1, $2, $3)")
        .bind(shipped.order)
        .bind(&shipped.sku)
        .bind(shipped.qty)
        .execute(conn)
        .await
        .map(drop)
}

async fn set_aside(conn: &mut PgConnection, sku: &str, qty: i64) -> sqlx::Result<()> {
    sqlx::query(
        "insert into set_aside (sku, qty) values ($1, $2)
         on conflict (sku) do update set qty = set_aside.qty + excluded.qty",
    )
    .bind(sku)
    .bind(qty)
    .execute(conn)
    .await
    .map(drop)
}

/// Notes an event that does not come right after the last one of its key.
async fn check_order(conn: &mut PgConnection, id: &str, key: &str, version: i64) -> sqlx::Result<()> {
    let last: Option<i64> = sqlx::query_scalar("select version from last_heard where key = $1 for update")
        .bind(key)
        .fetch_optional(&mut *conn)
        .await?;
    let expected = last.unwrap_or_default() + 1;
    if version != expected {
        tracing::warn!(message = id, key, version, expected, "an event came out of order");
        sqlx::query("insert into disorder (message_id, key, version, expected) values ($1::uuid, $2, $3, $4)")
            .bind(id)
            .bind(key)
            .bind(version)
            .bind(expected)
            .execute(&mut *conn)
            .await?;
    }
    sqlx::query(
        "insert into last_heard (key, version) values ($1, $2)
         on conflict (key) do update set version = greatest(last_heard.version, excluded.version)",
    )
    .bind(key)
    .bind(version)
    .execute(conn)
    .await
    .map(drop)
}
