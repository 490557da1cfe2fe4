//! A worker that was believed dead comes back, and changes nothing.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use amends_postgres::testing::TestDatabase;
use sqlx::PgPool;
use support::process::{self, Job};
use support::{DECLINED_CARD, GOOD_CARD, Order, Rescuer, assert_balanced, create_tables, until};

fn in_a_runtime(test: impl Future<Output = ()>) {
    tokio::runtime::Runtime::new().unwrap().block_on(test);
}

#[test]
fn a_stopped_worker_that_continues_in_a_call_writes_nothing() {
    if !process::is_child() {
        in_a_runtime(stop_and_continue("a_stopped_worker_that_continues_in_a_call_writes_nothing", "charge"));
    }
}

#[test]
fn a_stopped_worker_that_continues_in_a_transaction_writes_nothing() {
    if !process::is_child() {
        in_a_runtime(stop_and_continue("a_stopped_worker_that_continues_in_a_transaction_writes_nothing", "ship"));
    }
}

/// The worker is stopped in the middle of `step`; another adopts and finishes its saga; then it continues.
async fn stop_and_continue(test: &str, step: &str) {
    let database = TestDatabase::create().await;
    let pool = database.pool();
    create_tables(pool).await;
    let order = Order { id: 1, card: GOOD_CARD };
    let mut zombie = process::spawn(test, &Job::new(&database, "shop", &order).slow_at(step));
    until(pool, "select arrived from gate").await;
    process::signal(&zombie, "STOP");

    Rescuer::start(&database, &["shop".into()]).finish().await;
    let journal = everything_written(pool).await;
    sqlx::query("update gate set open = true").execute(pool).await.unwrap();
    process::signal(&zombie, "CONT");
    process::wait_for(&mut zombie, &["done"]);
    zombie.wait().unwrap();

    assert_eq!(everything_written(pool).await, journal, "the zombie must not write");
    assert_balanced(pool, &order, step).await;
    let adoptions: i64 = sqlx::query_scalar("select count(*) from amends.journal where events::text like '%adopted%'")
        .fetch_one(pool)
        .await
        .unwrap();
    assert_eq!(adoptions, 1);
}

async fn everything_written(pool: &PgPool) -> String {
    sqlx::query_scalar(
        "select concat_ws('|',
            (select string_agg(j::text, ',' order by saga_id, seq) from amends.journal j),
            (select string_agg(s::text, ',' order by id) from amends.saga s),
            (select string_agg(o::text, ',' order by seq) from amends.outbox o),
            (select string_agg(l::text, ',' order by order_id, what, amount) from ledger l))",
    )
    .fetch_one(pool)
    .await
    .unwrap()
}

#[test]
fn a_rejection_after_an_adoption_is_not_taken_as_definite() {
    if !process::is_child() {
        in_a_runtime(reject_after_adoption());
    }
}

/// The first worker may have charged before it died, however the bank answers the second one.
async fn reject_after_adoption() {
    let database = TestDatabase::create().await;
    let pool = database.pool();
    create_tables(pool).await;
    let order = Order { id: 1, card: DECLINED_CARD };
    let test = "a_rejection_after_an_adoption_is_not_taken_as_definite";
    let mut first = process::spawn(test, &Job::new(&database, "shop", &order).slow_at("charge"));
    until(pool, "select arrived from gate").await;
    first.kill().unwrap();
    first.wait().unwrap();
    Rescuer::start(&database, &["shop".into()]).finish().await;

    assert_eq!(tombstones(pool).await, 1, "the refund must run and leave a tombstone");

    // Without an adoption the same rejection is definite, and there is nothing to refund.
    let undisturbed = Order { id: 2, card: DECLINED_CARD };
    let mut second = process::spawn(test, &Job::new(&database, "calm-shop", &undisturbed));
    process::wait_for(&mut second, &["done"]);
    second.wait().unwrap();
    assert_eq!(tombstones(pool).await, 1, "no refund without a charge");
}

async fn tombstones(pool: &PgPool) -> i64 {
    sqlx::query_scalar("select count(*) from charge where not live").fetch_one(pool).await.unwrap()
}
