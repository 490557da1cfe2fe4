//! Sends parcels. What it sends does not come back: it decides last.

use amends::Message;
use amends::asyncapi::Document;
use amends_postgres::Outbox;
use amends_relay::{Handler, HandlerError, Incoming};
use async_trait::async_trait;
use sqlx::PgConnection;

use crate::events::{ParcelShipped, StockReserved, Undeliverable};
use crate::service::Service;

pub(crate) struct Shipping;

async fn ship(tx: &mut PgConnection, StockReserved { order, to }: StockReserved) -> Result<(), HandlerError> {
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

#[async_trait]
impl Handler for Shipping {
    async fn handle(&self, tx: &mut PgConnection, message: &Incoming) -> Result<(), HandlerError> {
        match message.read::<StockReserved>()? {
            Some(reserved) => ship(tx, reserved).await,
            None => Ok(()),
        }
    }
}

impl Service for Shipping {
    const NAME: &'static str = "shipping";
    const TABLES: &'static str = "create table parcel (order_id bigint primary key, receiver text not null)";
    const HEARS: &'static [&'static str] = &[StockReserved::NAME];

    fn describe(document: Document) -> Document {
        document.receives::<StockReserved>().sends::<ParcelShipped>().sends::<Undeliverable>()
    }
}
