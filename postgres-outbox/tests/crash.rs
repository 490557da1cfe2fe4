//! A worker dies by SIGKILL between any two statements that it sends, and every saga still ends right.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::collections::HashMap;

use amends_postgres::testing::TestDatabase;
use support::process::{self, Job, Point};
use support::{GOOD_CARD, Order, REFUSED_CARD, Rescuer, assert_balanced, create_tables};

/// Statements that repeat with the time rather than with the saga are frozen at their first few occurrences.
const MOST_OF_ONE_NAME: usize = 4;

#[test]
fn a_worker_killed_between_any_two_statements_loses_nothing() {
    if !process::is_child() {
        tokio::runtime::Runtime::new().unwrap().block_on(kill_at_every_point());
    }
}

async fn kill_at_every_point() {
    let database = TestDatabase::create().await;
    let pool = database.pool();
    create_tables(pool).await;
    let mut names = Vec::new();
    let mut orders = Vec::new();
    for card in [GOOD_CARD, REFUSED_CARD] {
        for (number, point) in points(&database, card).await.into_iter().enumerate() {
            let order = Order { id: card * 1000 + number as i64, card };
            let name = format!("shop-{}", order.id);
            let mut child = process::spawn(TEST, &Job::new(&database, &name, &order).frozen_at(&point));
            process::wait_for(&mut child, &["frozen", "done"]);
            // SIGKILL: no destructor runs, no socket is closed politely.
            child.kill().unwrap();
            child.wait().unwrap();
            names.push(name);
            orders.push((order, point));
        }
    }
    Rescuer::start(&database, &names).finish().await;
    for (order, point) in &orders {
        let placed: bool = sqlx::query_scalar("select exists (select from orders where id = $1)")
            .bind(order.id)
            .fetch_one(pool)
            .await
            .unwrap();
        if placed {
            assert_balanced(pool, order, &format!("killed before {point:?}, card {}", order.card)).await;
        } else {
            let sagas: i64 = sqlx::query_scalar("select count(*) from amends.saga where name = $1")
                .bind(format!("shop-{}", order.id))
                .fetch_one(pool)
                .await
                .unwrap();
            assert_eq!(sagas, 0, "no order, no saga: killed before {point:?}");
        }
    }
    eprintln!("killed at {} points", orders.len());
    assert!(orders.len() > 25, "the hook must see every statement, it saw {}", orders.len());
}

const TEST: &str = "a_worker_killed_between_any_two_statements_loses_nothing";

/// Every point of an undisturbed run.
async fn points(database: &TestDatabase, card: i64) -> Vec<Point> {
    let order = Order { id: card * 1000 + 999, card };
    let mut child = process::spawn(TEST, &Job::new(database, &format!("undisturbed-{card}"), &order));
    let line = process::wait_for(&mut child, &["done"]);
    child.wait().unwrap();
    assert_balanced(database.pool(), &order, "undisturbed").await;
    let seen: HashMap<String, usize> = serde_json::from_str(line.trim_start_matches("done ")).unwrap();
    let repeats = ["claim", "renew", "orphans", "load heads", "load journals"];
    seen.into_iter()
        .flat_map(|(name, times)| {
            let most = if repeats.contains(&name.as_str()) { times.min(MOST_OF_ONE_NAME) } else { times };
            (1..=most).map(move |time| (name.clone(), time))
        })
        .collect()
}
