//! Reserves goods for what is paid, and puts them back.

use amends::Message;
use amends::asyncapi::Document;
use amends_postgres::Outbox;
use amends_relay::{ConsumerBuilder, HandlerError, Incoming};
use sqlx::PgConnection;

use crate::events::{OutOfStock, PaymentTaken, StockReleased, StockReserved, Undeliverable};
use crate::service::Service;

pub(crate) struct Inventory;

async fn reserve(tx: &mut PgConnection, paid: PaymentTaken, _: &Incoming) -> Result<(), HandlerError> {
    let PaymentTaken { order, sku, qty, to } = paid;
    let taken = sqlx::query("update stock set qty = qty - $2 where sku = $1 and qty >= $2")
        .bind(&sku)
        .bind(qty)
        .execute(&mut *tx)
        .await?;
    if taken.rows_affected() == 0 {
        Outbox::publish(tx, &OutOfStock { order }).await?;
        return Ok(());
    }
    sqlx::query("insert into reservation (order_id, sku, qty) values ($1, $2, $3)")
        .bind(order)
        .bind(&sku)
        .bind(qty)
        .execute(&mut *tx)
        .await?;
    Outbox::publish(tx, &StockReserved { order, to }).await?;
    Ok(())
}

async fn release(tx: &mut PgConnection, failed: Undeliverable, _: &Incoming) -> Result<(), HandlerError> {
    let Undeliverable { order } = failed;
    sqlx::query(
        "with back as (delete from reservation where order_id = $1 returning sku, qty)
         update stock set qty = stock.qty + back.qty from back where stock.sku = back.sku",
    )
    .bind(order)
    .execute(&mut *tx)
    .await?;
    Outbox::publish(tx, &StockReleased { order }).await?;
    Ok(())
}

impl Service for Inventory {
    const NAME: &'static str = "inventory";
    const TABLES: &'static str = "
        create table stock (sku text primary key, delivered int not null, qty int not null check (qty >= 0));
        create table reservation (order_id bigint primary key, sku text not null references stock, qty int not null);
        insert into stock values ('mug', 10000, 10000), ('lamp', 5, 5)";
    const HEARS: &'static [&'static str] = &[PaymentTaken::NAME, Undeliverable::NAME];

    fn handle(consumer: ConsumerBuilder) -> ConsumerBuilder {
        consumer.on(reserve).on(release)
    }

    fn describe(document: Document) -> Document {
        let document = document.receives::<PaymentTaken>().receives::<Undeliverable>();
        document.sends::<StockReserved>().sends::<OutOfStock>().sends::<StockReleased>()
    }
}
