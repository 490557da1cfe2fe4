//! What must hold in the four databases together, whatever happened on the way.

use std::collections::BTreeMap;
use std::fmt;

use shop::service::Failure;
use sqlx::PgPool;

/// What became of the orders.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) shipped: usize,
    pub(crate) cancelled: usize,
    /// What does not hold; empty, if all is well.
    pub(crate) broken: Vec<String>,
}

/// One order in every service's eyes.
#[derive(Debug, Default)]
struct Seen {
    status: Option<String>,
    price: i64,
    /// Cents that were not given back.
    paid: i64,
    reserved: bool,
    parcel: bool,
}

pub(crate) async fn audit(
    orders: &PgPool,
    payments: &PgPool,
    inventory: &PgPool,
    shipping: &PgPool,
) -> Result<Outcome, Failure> {
    let mut seen: BTreeMap<i64, Seen> = BTreeMap::new();
    let rows: Vec<(i64, String, i64)> =
        sqlx::query_as("select id, status, cents from orders").fetch_all(orders).await?;
    for (id, status, price) in rows {
        seen.insert(id, Seen { status: Some(status), price, ..Seen::default() });
    }
    let paid: Vec<(i64, i64)> =
        sqlx::query_as("select order_id, cents from payment where not refunded").fetch_all(payments).await?;
    for (id, cents) in paid {
        seen.entry(id).or_default().paid = cents;
    }
    let reserved: Vec<i64> = sqlx::query_scalar("select order_id from reservation").fetch_all(inventory).await?;
    for id in reserved {
        seen.entry(id).or_default().reserved = true;
    }
    let parcels: Vec<i64> = sqlx::query_scalar("select order_id from parcel").fetch_all(shipping).await?;
    for id in parcels {
        seen.entry(id).or_default().parcel = true;
    }
    let mut outcome = Outcome::default();
    for (id, order) in &seen {
        match (order.status.as_deref(), order.reserved, order.parcel) {
            (Some("shipped"), true, true) if order.paid == order.price => outcome.shipped += 1,
            (Some("cancelled"), false, false) if order.paid == 0 => outcome.cancelled += 1,
            _ => outcome.broken.push(format!("order {id} is neither shipped nor cancelled as it should be: {order:?}")),
        }
    }
    let stock = "select sku from stock s where delivered <> qty
        + (select coalesce(sum(r.qty), 0) from reservation r where r.sku = s.sku)";
    let wrong: Vec<String> = sqlx::query_scalar(stock).fetch_all(inventory).await?;
    outcome.broken.extend(wrong.iter().map(|sku| format!("the stock of {sku} does not add up")));
    let money = "select 2000100 = (select sum(cents) from customer)
        + (select coalesce(sum(cents), 0) from payment where not refunded)";
    if !sqlx::query_scalar::<_, bool>(money).fetch_one(payments).await? {
        outcome.broken.push("money was made or lost".into());
    }
    Ok(outcome)
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} shipped, {} cancelled and paid back", self.shipped, self.cancelled)?;
        self.broken.iter().try_for_each(|broken| write!(f, "\nBROKEN: {broken}"))
    }
}
