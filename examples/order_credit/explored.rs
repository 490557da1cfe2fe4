//! The saga, explored on real PostgreSQL, with a fake of the customers' service.

use std::collections::BTreeMap;

use amends::Rejection;
use amends::testing::{Explorer, When};
use amends_postgres::testing::{Sandbox, TestDatabase, sql, world};
use sqlx::Executor;

use crate::{CreateOrder, CreditReserved, Order, ReserveCredit};

/// What each request was told, so that its repetition is told the same.
type Told = BTreeMap<String, Option<i64>>;

#[tokio::test]
async fn an_order_is_approved_with_its_credit_or_rejected_in_every_schedule() {
    let database = TestDatabase::create().await;
    database
        .pool()
        .execute("create table orders (id bigint primary key, state text not null)")
        .await
        .expect("it is new");
    let sandbox = Sandbox::open(database.pool(), Told::new()).await.expect("the server answers").tables(&["orders"]);
    let told = sandbox.world();

    let report = Explorer::new(sandbox)
        .saga_made(|| CreateOrder, &Order { id: 1, customer: "Ann".into(), cents: 6_000 })
        .participant_made(move |ask: &ReserveCredit, key: &str| {
            let left = told.with(|told| *told.entry(key.to_owned()).or_insert((ask.cents <= 10_000).then_some(4_000)));
            Some(left.map(|left| CreditReserved { left }).ok_or_else(|| Rejection::new("credit_limit_exceeded")))
        })
        .crashes(2)
        .transient(1)
        .zombies(1)
        .duplicates(1)
        .rule(When::Completed, "it is approved", sql("select state = 'approved' from orders"))
        .rule(When::Completed, "credit is reserved once", world(|told: &Told| told.values().flatten().count() == 1))
        .rule(
            When::Compensated,
            "it is not approved",
            sql("select not exists (select from orders where state = 'approved')"),
        )
        .never_parked()
        .explore()
        .await
        .unwrap_or_else(|violation| panic!("{violation}"));

    println!("{report}");
    assert!(report.is_exhaustive());
}
