//! The warehouse's ledger: what it heard, in which order, and what it did about it.

use amends::Message;
use serde::de::DeserializeOwned;
use shop::events::{OrderCompleted, OrderPlaced, OrderRefused, OrderShipped, StockReleased, StockReserved};
use shop::service::Failure;
use sqlx::PgConnection;
use uuid::Uuid;

/// Takes one event into the ledger, in the transaction that also writes the inbox row.
pub(crate) async fn record(conn: &mut PgConnection, id: Uuid, name: &str, payload: &[u8]) -> Result<(), Failure> {
    let (key, version) = match name {
        OrderPlaced::NAME => {
            let placed: OrderPlaced = read(payload)?;
            (placed.order.to_string(), placed.version)
        }
        OrderShipped::NAME => {
            let shipped: OrderShipped = read(payload)?;
            send(conn, &shipped).await?;
            (shipped.order.to_string(), shipped.version)
        }
        OrderCompleted::NAME => {
            let completed: OrderCompleted = read(payload)?;
            (completed.order.to_string(), completed.version)
        }
        OrderRefused::NAME => {
            let refused: OrderRefused = read(payload)?;
            (refused.order.to_string(), refused.version)
        }
        StockReserved::NAME => {
            let reserved: StockReserved = read(payload)?;
            set_aside(conn, &reserved.sku, i64::from(reserved.qty)).await?;
            (reserved.sku, reserved.version)
        }
        StockReleased::NAME => {
            let released: StockReleased = read(payload)?;
            set_aside(conn, &released.sku, -i64::from(released.qty)).await?;
            (released.sku, released.version)
        }
        other => return Err(format!("the warehouse knows no event `{other}`").into()),
    };
    check_order(conn, id, &key, version).await?;
    sqlx::query("insert into received (message_id, name, key, version) values ($1, $2, $3, $4)")
        .bind(id)
        .bind(name)
        .bind(key)
        .bind(version)
        .execute(conn)
        .await?;
    Ok(())
}

fn read<M: DeserializeOwned>(payload: &[u8]) -> serde_json::Result<M> {
    serde_json::from_slice(payload)
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
async fn check_order(conn: &mut PgConnection, id: Uuid, key: &str, version: i64) -> sqlx::Result<()> {
    let last: Option<i64> = sqlx::query_scalar("select version from last_heard where key = $1 for update")
        .bind(key)
        .fetch_optional(&mut *conn)
        .await?;
    let expected = last.unwrap_or_default() + 1;
    if version != expected {
        tracing::warn!(message = %id, key, version, expected, "an event came out of order");
        sqlx::query("insert into disorder (message_id, key, version, expected) values ($1, $2, $3, $4)")
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
