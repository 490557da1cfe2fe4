//! A relay hears of what others publish, asks little when there is nothing, and needs no hint.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

use amends::{Message, OutboxMessage};
use amends_postgres::{Hints, Outbox};
use amends_relay::RelayOptions;
use futures_util::StreamExt;
use lapin::options::BasicConsumeOptions;
use lapin::types::FieldTable;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use support::{World, publish, until};
use tokio::time::{Instant, timeout};

#[derive(Debug, Serialize, Deserialize, Message)]
#[message(name = "thing.happened")]
struct Happened {
    number: i64,
}

/// Set for the other process: the database.
const OTHER: &str = "AMENDS_TEST_OTHER";

/// A hint takes milliseconds.
const SOON: Duration = Duration::from_secs(10);
/// Far longer than a test takes.
const HARDLY_EVER: Duration = Duration::from_mins(10);

const ACTIVE: &str = "select exists (select from amends.cursor where owner is not null)";

#[test]
fn an_event_of_another_process_wakes_a_relay_that_hardly_polls() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if let Ok(url) = std::env::var(OTHER) {
        return runtime.block_on(publish_and_stay(&url));
    }
    runtime.block_on(async {
        let mut world = World::create().await;
        let queue = world.queue("all", &["#"]);
        let relay = world.relay(RelayOptions { poll: HARDLY_EVER, ..world.options(vec![queue.clone()]) });
        asleep(&world).await;
        let channel = world.connection.create_channel().await.unwrap();
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let consuming = channel.basic_consume(queue.name.as_str().into(), "".into(), options, FieldTable::default());
        let mut deliveries = consuming.await.unwrap();
        let mut other = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "an_event_of_another_process_wakes_a_relay_that_hardly_polls"])
            .env(OTHER, world.database.url())
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let delivery = timeout(SOON, deliveries.next()).await.expect("it is woken").unwrap().unwrap();
        assert_eq!(delivery.routing_key.as_str(), "thing.happened");
        drop(other.stdin.take());
        assert!(other.wait().unwrap().success());
        relay.stop().await;
        world.clean_up().await;
    });
}

async fn publish_and_stay(url: &str) {
    let pool = PgPool::connect(url).await.unwrap();
    let _hints = Hints::of(&pool);
    let mut tx = pool.begin().await.unwrap();
    Outbox::publish(&mut tx, &Happened { number: 1 }).await.unwrap();
    tx.commit().await.unwrap();
    // Until the test closes it.
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_hints_at_is_found_by_polling() {
    let mut world = World::create().await;
    let queue = world.queue("all", &["#"]);
    let relay = world.relay(RelayOptions { poll: RelayOptions::default().poll, ..world.options(vec![queue.clone()]) });
    asleep(&world).await;
    publish(world.pool(), "thing.happened", "sql", 1..=3).await;
    assert_eq!(world.drain(&queue, 3).await.len(), 3);
    relay.stop().await;
    world.clean_up().await;
}

/// The hints of this process are on their way, too: an embedded relay.
#[tokio::test(flavor = "multi_thread")]
async fn an_embedded_relay_that_hardly_polls_hears_of_a_thousand_events_in_a_hundred_transactions() {
    let mut world = World::create().await;
    let queue = world.queue("all", &["#"]);
    let relay = world.relay(RelayOptions { poll: HARDLY_EVER, ..world.options(vec![queue.clone()]) });
    asleep(&world).await;
    for _ in 0..100 {
        let messages: Vec<_> = (0..10).map(|number| OutboxMessage::new(&Happened { number }).unwrap()).collect();
        let mut tx = world.pool().begin().await.unwrap();
        Outbox::publish_all(&mut tx, &messages).await.unwrap();
        tx.commit().await.unwrap();
    }
    assert_eq!(timeout(SOON, world.drain(&queue, 1000)).await.expect("it is woken").len(), 1000);
    relay.stop().await;
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_relay_asks_little() {
    let mut world = World::create().await;
    let queue = world.queue("all", &["#"]);
    let defaults = RelayOptions::default();
    let options = RelayOptions { poll: defaults.poll, lease: defaults.lease, ..world.options(vec![queue]) };
    let relay = world.relay(options);
    asleep(&world).await;
    let mut asked = f64::INFINITY;
    // To start costs more, and the server itself looks at a new database.
    for _ in 0..5 {
        asked = asked.min(transactions_a_minute(&world, Duration::from_secs(6)).await);
        if asked < 220.0 {
            break;
        }
    }
    relay.stop().await;
    world.clean_up().await;
    eprintln!("an idle relay asks {asked:.0} times a minute");
    assert!(asked < 220.0, "{asked} a minute; README says 150");
}

/// Until the relay has its lane, hears, and has seen that there is nothing.
async fn asleep(world: &World) {
    until(world.pool(), ACTIVE).await;
    let mut bell = Hints::of(world.pool()).outbox();
    let heard = async {
        while !bell.is_reliable() {
            bell.rung().await;
        }
        while timeout(Duration::from_secs(1), bell.rung()).await.is_ok() {}
    };
    timeout(SOON, heard).await.expect("the listener is up");
}

/// As the database counts them, asked from another one.
async fn transactions_a_minute(world: &World, during: Duration) -> f64 {
    let name = world.pool().connect_options().get_database().unwrap().to_owned();
    let elsewhere = PgPool::connect(&std::env::var("DATABASE_URL").unwrap()).await.unwrap();
    let transactions = || async {
        sqlx::query_scalar::<_, i64>("select xact_commit + xact_rollback from pg_stat_database where datname = $1")
            .bind(&name)
            .fetch_one(&elsewhere)
            .await
            .unwrap()
    };
    let (began, before) = (Instant::now(), transactions().await);
    tokio::time::sleep(during).await;
    (transactions().await - before) as f64 * 60.0 / began.elapsed().as_secs_f64()
}
