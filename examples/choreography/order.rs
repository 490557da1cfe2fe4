//! Takes orders, and hears what became of them.

use amends::asyncapi::Document;
use amends::{Error, Message};
use amends_postgres::Outbox;
use amends_relay::{ConsumerBuilder, HandlerError, Incoming};
use sqlx::PgConnection;

use crate::events::{OrderPlaced, ParcelShipped, PaymentRefunded, PaymentRefused};
use crate::service::Service;

pub(crate) struct Orders;

/// The order and its event, in one transaction: both are there, or neither.
pub(crate) async fn place(tx: &mut PgConnection, order: &OrderPlaced) -> Result<(), Error> {
    sqlx::query("insert into orders (id, status, cents) values ($1, 'placed', $2)")
        .bind(order.order)
        .bind(order.cents)
        .execute(&mut *tx)
        .await
        .map_err(|error| amends::StoreError::Refused(error.into()))?;
    Outbox::publish(tx, order).await?;
    Ok(())
}

async fn ends(tx: &mut PgConnection, order: i64, status: &str) -> Result<(), HandlerError> {
    sqlx::query("update orders set status = $2 where id = $1").bind(order).bind(status).execute(tx).await?;
    Ok(())
}

impl Service for Orders {
    const NAME: &'static str = "order";
    const TABLES: &'static str =
        "create table orders (id bigint primary key, status text not null, cents bigint not null)";
    const HEARS: &'static [&'static str] = &[ParcelShipped::NAME, PaymentRefused::NAME, PaymentRefunded::NAME];

    fn handle(consumer: ConsumerBuilder) -> ConsumerBuilder {
        consumer
            .on(async |tx: &mut PgConnection, event: ParcelShipped, _: &Incoming| {
                ends(tx, event.order, "shipped").await
            })
            .on(async |tx: &mut PgConnection, event: PaymentRefused, _: &Incoming| {
                ends(tx, event.order, "cancelled").await
            })
            .on(async |tx: &mut PgConnection, event: PaymentRefunded, _: &Incoming| {
                ends(tx, event.order, "cancelled").await
            })
    }

    fn describe(document: Document) -> Document {
        document
            .sends::<OrderPlaced>()
            .receives::<ParcelShipped>()
            .receives::<PaymentRefused>()
            .receives::<PaymentRefunded>()
    }
}
