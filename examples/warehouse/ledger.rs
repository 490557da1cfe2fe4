//! The warehouse's ledger: what it heard, in which order, and what it did about it.

use amends_relay::{HandlerError, Incoming};
use shop::events::{OrderCompleted, OrderPlaced, OrderRefused, OrderShipped, StockReleased, StockReserved};
use sqlx::PgConnection;

type Handled = Result<(), HandlerError>;

pub(crate) async fn placed(tx: &mut PgConnection, event: OrderPlaced, message: &Incoming) -> Handled {
    heard(tx, message, &event.order.to_string(), event.version).await
}

pub(crate) async fn shipped(tx: &mut PgConnection, event: OrderShipped, message: &Incoming) -> Handled {
    send(tx, &event).await?;
    heard(tx, message, &event.order.to_string(), event.version).await
}

pub(crate) async fn completed(tx: &mut PgConnection, event: OrderCompleted, message: &Incoming) -> Handled {
    heard(tx, message, &event.order.to_string(), event.version).await
}

pub(crate) async fn refused(tx: &mut PgConnection, event: OrderRefused, message: &Incoming) -> Handled {
    heard(tx, message, &event.order.to_string(), event.version).await
}

pub(crate) async fn reserved(tx: &mut PgConnection, event: StockReserved, message: &Incoming) -> Handled {
    set_aside(tx, &event.sku, i64::from(event.qty)).await?;
    heard(tx, message, &event.sku, event.version).await
}

pub(crate) async fn released(tx: &mut PgConnection, event: StockReleased, message: &Incoming) -> Handled {
    set_aside(tx, &event.sku, -i64::from(event.qty)).await?;
    heard(tx, message, &event.sku, event.version).await
}

/// Takes an event into the ledger, in the transaction that also records it as handled.
async fn heard(tx: &mut PgConnection, message: &Incoming, key: &str, version: i64) -> Handled {
    check_order(tx, &message.id, key, version).await?;
    sqlx::query("insert into received (message_id, name, key, version) values ($1::uuid, $2, $3, $4)")
        .bind(&message.id)
        .bind(&message.name)
        .bind(key)
        .bind(version)
        .execute(tx)
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
