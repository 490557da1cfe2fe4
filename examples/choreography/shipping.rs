//! Sends parcels. What it sends does not come back: it decides last.

use amends::Message;
use amends::asyncapi::Document;
use amends_postgres::Outbox;
use amends_relay::{ConsumerBuilder, HandlerError, Incoming};
use sqlx::PgConnection;

use crate::events::{ParcelShipped, StockReserved, Undeliverable};
use crate::service::Service;

pub(crate) struct Shipping;

async fn ship(tx: &mut PgConnection, reserved: StockReserved, _: &Incoming) -> Result<(), HandlerError> {
    let StockReserved { order, to } = reserved;
    if to == "Atlantis" {
        Outbox::publish(tx, &Undeliverable { order }).await?;
        return Ok(());
    }
    sqlx::query("insert into parcel (order_id, receiver) values ($1, $2)")
        .bind(order)
        .bind(&to)
        .execute(&mut *tx)
        .await?;
    Outbox::publish(tx, &ParcelShipped { order }).await?;
    Ok(())
}

impl Service for Shipping {
    const NAME: &'static str = "shipping";
    const TABLES: &'static str = "create table parcel (order_id bigint primary key, receiver text not null)";
    const HEARS: &'static [&'static str] = &[StockReserved::NAME];

    fn handle(consumer: ConsumerBuilder) -> ConsumerBuilder {
        consumer.on(ship)
    }

    fn describe(document: Document) -> Document {
        document.receives::<StockReserved>().sends::<ParcelShipped>().sends::<Undeliverable>()
    }
}
