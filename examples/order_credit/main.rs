//! Orders and customers' credit, as in Eventuate: two services with a database each, and a saga that asks the other one by
//! a message. `cargo run -p amends-examples --example order_credit`, with `DATABASE_URL` and `AMQP_URL` set as
//! `cargo xtask services up` says.

#[cfg(test)]
mod explored;
mod services;

use amends::{Ended, Message, Request, StepResult, saga};
use amends_postgres::{Barrier, StepTx};
use amends_relay::{Handler, HandlerError, Incoming};
use serde::{Deserialize, Serialize};
use services::{AnyResult, Services};
use sqlx::PgConnection;

#[derive(Serialize, Deserialize)]
struct Order {
    id: i64,
    customer: String,
    cents: i64,
}

#[derive(Serialize, Deserialize, Message)]
#[message(name = "credit.reserve", key = customer)]
struct ReserveCredit {
    customer: String,
    cents: i64,
}

#[derive(Serialize, Deserialize, Message)]
#[message(name = "credit.reserved")]
struct CreditReserved {
    left: i64,
}

struct CreateOrder;

#[saga(name = "create-order", version = 1, input = Order)]
impl CreateOrder {
    /// Others see it as pending until the customer's credit is known.
    #[step(tx, compensate = reject)]
    async fn create(&self, tx: &mut StepTx, input: &Order) -> StepResult<()> {
        let insert = sqlx::query("insert into orders (id, state) values ($1, 'pending')").bind(input.id);
        insert.execute(tx.conn()).await?;
        Ok(())
    }

    /// The saga sleeps in the database until the answer; no worker holds it.
    #[step(request, pivot, timeout = "1h")]
    fn reserve_credit(&self, input: &Order) -> Request<ReserveCredit, CreditReserved> {
        Request::new(ReserveCredit { customer: input.customer.clone(), cents: input.cents })
    }

    #[step(tx)]
    async fn approve(&self, tx: &mut StepTx, input: &Order, reserve_credit: &CreditReserved) -> StepResult<i64> {
        set_state(tx, input.id, "approved").await?;
        Ok(reserve_credit.left)
    }

    #[compensate]
    async fn reject(&self, tx: &mut StepTx, input: &Order) -> StepResult<()> {
        set_state(tx, input.id, "rejected").await
    }
}

async fn set_state(tx: &mut StepTx, order: i64, state: &str) -> StepResult<()> {
    sqlx::query("update orders set state = $2 where id = $1").bind(order).bind(state).execute(tx.conn()).await?;
    Ok(())
}

/// The other service: behind the barrier it takes the credit and answers in one transaction, once for each request.
struct Customers;

#[async_trait::async_trait]
impl Handler for Customers {
    async fn handle(&self, tx: &mut PgConnection, message: &Incoming) -> Result<(), HandlerError> {
        let Some(work) = message.through(Barrier::new("customers"), tx).await? else { return Ok(()) };
        let Some(ask) = message.read::<ReserveCredit>()? else { return work.reject(tx, "unknown_request", "").await };
        let left: Option<i64> = sqlx::query_scalar(
            "update customer set credit = credit - $2 where name = $1 and credit >= $2 returning credit",
        )
        .bind(&ask.customer)
        .bind(ask.cents)
        .fetch_optional(&mut *tx)
        .await?;
        let Some(left) = left else {
            let why = format!("{} cannot pay {}", ask.customer, ask.cents);
            return work.reject(tx, "credit_limit_exceeded", &why).await;
        };
        work.reply(tx, &CreditReserved { left }).await
    }
}

#[tokio::main]
async fn main() -> AnyResult<()> {
    run().await.map(drop)
}

/// Ann has 10 000; three orders want more than that.
async fn run() -> AnyResult<Vec<Ended<i64>>> {
    let services = Services::start().await?;
    let mut decided = Vec::new();
    for (id, cents) in [(1, 6_000), (2, 6_000), (3, 4_000)] {
        let order = Order { id, customer: "Ann".to_owned(), cents };
        let saga = services.sagas.start_now(CreateOrder::key(id), &order).await?.id();
        let ended = services.sagas.outcome::<CreateOrder>(saga).await?;
        println!("order {id} over {cents}: {ended:?}");
        decided.push(ended);
    }
    services.stop().await?;
    Ok(decided)
}

#[cfg(test)]
#[allow(clippy::needless_raw_string_hashes, reason = "expect-test writes them")]
#[tokio::test]
async fn credit_is_reserved_while_there_is_some() {
    expect_test::expect![[r#"
        saga create-order v1
          tx create, undone by tx reject
          request reserve_credit after create, pivot
          tx approve after reserve_credit"#]]
    .assert_eq(&CreateOrder::DEFINITION.to_string());
    let decided = run().await.expect("both servers are there");
    let refused =
        |why: &amends::Compensated| why.rejection.as_ref().is_some_and(|it| it.code == "credit_limit_exceeded");
    assert!(
        matches!(&decided[..], [Ended::Completed(4_000), Ended::Compensated(why), Ended::Completed(0)] if refused(why)),
        "{decided:?}"
    );
}
