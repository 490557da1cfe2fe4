//! Takes money for orders, and gives it back.

use amends::Message;
use amends::asyncapi::Document;
use amends_postgres::Outbox;
use amends_relay::{ConsumerBuilder, HandlerError, Incoming};
use sqlx::PgConnection;

use crate::events::{OrderPlaced, OutOfStock, PaymentRefunded, PaymentRefused, PaymentTaken, StockReleased};
use crate::service::Service;

pub(crate) struct Payments;

async fn take(tx: &mut PgConnection, placed: OrderPlaced, _: &Incoming) -> Result<(), HandlerError> {
    let OrderPlaced { order, customer, cents, sku, qty, to } = placed;
    let paid = sqlx::query("update customer set cents = cents - $2 where name = $1 and cents >= $2")
        .bind(customer.as_str())
        .bind(cents)
        .execute(&mut *tx)
        .await?;
    if paid.rows_affected() == 0 {
        Outbox::publish(tx, &PaymentRefused { order }).await?;
        return Ok(());
    }
    sqlx::query("insert into payment (order_id, customer, cents) values ($1, $2, $3)")
        .bind(order)
        .bind(customer)
        .bind(cents)
        .execute(&mut *tx)
        .await?;
    Outbox::publish(tx, &PaymentTaken { order, sku, qty, to }).await?;
    Ok(())
}

async fn refund(tx: &mut PgConnection, order: i64) -> Result<(), HandlerError> {
    sqlx::query(
        "with back as (update payment set refunded = true where order_id = $1 and not refunded returning customer, cents)
         update customer set cents = customer.cents + back.cents from back where name = back.customer",
    )
    .bind(order)
    .execute(&mut *tx)
    .await?;
    Outbox::publish(tx, &PaymentRefunded { order }).await?;
    Ok(())
}

impl Service for Payments {
    const NAME: &'static str = "payment";
    const TABLES: &'static str = "
        create table customer (name text primary key, cents bigint not null check (cents >= 0));
        create table payment (
            order_id bigint primary key,
            customer text not null references customer,
            cents bigint not null,
            refunded boolean not null default false
        );
        insert into customer values ('ada', 1000000), ('bob', 1000000), ('poor', 100)";
    const HEARS: &'static [&'static str] = &[OrderPlaced::NAME, OutOfStock::NAME, StockReleased::NAME];

    fn handle(consumer: ConsumerBuilder) -> ConsumerBuilder {
        consumer
            .on(take)
            .on(async |tx: &mut PgConnection, event: OutOfStock, _: &Incoming| refund(tx, event.order).await)
            .on(async |tx: &mut PgConnection, event: StockReleased, _: &Incoming| refund(tx, event.order).await)
    }

    fn describe(document: Document) -> Document {
        let document = document.receives::<OrderPlaced>().receives::<OutOfStock>().receives::<StockReleased>();
        document.sends::<PaymentTaken>().sends::<PaymentRefused>().sends::<PaymentRefunded>()
    }
}
