//! The saga, explored on real PostgreSQL: whatever crashes, is refused, times out or comes too late.

use std::collections::BTreeMap;

use amends::testing::{Explorer, Handle, When};
use amends::{Call, StepResult};
use amends_postgres::testing::{Sandbox, TestDatabase, sql, world};
use shop::api::Order;
use sqlx::Executor;
use uuid::Uuid;

use crate::payments::{Answer, Pay};
use crate::saga::PlaceOrder;

/// A bank that keeps its promises: a charge happens once for a key, and never after it was refunded.
type Bank = BTreeMap<String, Booking>;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Booking {
    Charged(i64),
    Refunded,
}

impl Pay for Handle<Bank> {
    async fn charge(&self, call: &Call, order: &Order) -> StepResult<Answer> {
        let booking =
            self.with(|bank| *bank.entry(call.idempotency_key().to_owned()).or_insert(Booking::Charged(order.cents)));
        Ok(match booking {
            Booking::Charged(cents) => Answer::Charged { cents },
            Booking::Refunded => Answer::Refused { code: "already_undone".into() },
        })
    }

    async fn refund(&self, call: &Call) -> StepResult<()> {
        self.with(|bank| bank.insert(call.step_key().to_owned(), Booking::Refunded));
        Ok(())
    }
}

fn taken(bank: &Bank) -> i64 {
    bank.values().map(|booking| if let Booking::Charged(cents) = booking { *cents } else { 0 }).sum()
}

#[tokio::test]
async fn an_order_is_carried_out_or_given_back_in_every_schedule() {
    let database = TestDatabase::create().await;
    let order = Order {
        id: Uuid::from_u128(7),
        account: "ann".into(),
        sku: "pen".into(),
        qty: 2,
        cents: 700,
        card: "good".into(),
    };
    database.pool().execute(include_str!("schema.sql")).await.expect("the schema applies");
    let rows = "insert into stock values ('pen', 5);
        insert into orders (id, account, sku, qty, cents, saga)
        values ('00000000-0000-0000-0000-000000000007', 'ann', 'pen', 2, 700, gen_random_uuid())";
    let sandbox = Sandbox::open(database.pool(), Bank::new())
        .await
        .expect("the server answers")
        .setup(rows)
        .await
        .expect("the rows fit")
        .tables(&["stock", "orders", "reservation", "shipment"]);
    let bank = sandbox.world();

    let report = Explorer::new(sandbox)
        .saga_made(move || PlaceOrder { payments: bank.clone() }, &order)
        .crashes(2)
        .transient(1)
        .zombies(1)
        .rule(When::Always, "no pen is lost", sql("select available + (select coalesce(sum(qty), 0) from reservation where status = 'held') = 5 from stock"))
        .rule(When::Completed, "it is paid", world(|bank: &Bank| taken(bank) == 700))
        .rule(When::Completed, "it is shipped", sql("select count(*) = 1 from shipment"))
        .rule(When::Completed, "the order says so", sql("select status = 'completed' from orders"))
        .rule(When::Compensated, "nothing is paid", world(|bank: &Bank| taken(bank) == 0))
        .rule(When::Compensated, "all are for sale", sql("select available = 5 from stock"))
        .rule(When::Compensated, "nothing is shipped", sql("select count(*) = 0 from shipment"))
        .never_parked()
        .explore()
        .await
        .unwrap_or_else(|violation| panic!("{violation}"));

    println!("{report}");
    assert!(report.is_exhaustive());
}
