//! A handler behind the inbox takes effect once, whatever the broker delivers.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use amends_relay::{Consumer, Handler, HandlerError, Incoming, QueueTopology};
use async_trait::async_trait;
use lapin::BasicProperties;
use lapin::options::{BasicGetOptions, BasicPublishOptions};
use sqlx::{AssertSqlSafe, PgConnection, PgPool};
use support::{Consuming, World, publish, until};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Writes what it gets into a table; fails as often as it is told, and never accepts `poison`.
struct Ledger {
    failures: Arc<AtomicU32>,
}

#[async_trait]
impl Handler for Ledger {
    async fn handle(&self, tx: &mut PgConnection, message: &Incoming) -> Result<(), HandlerError> {
        let text = String::from_utf8_lossy(&message.payload).into_owned();
        if text == "poison" {
            return Err(HandlerError::Reject("it is poison".into()));
        }
        sqlx::query("insert into ledger (text) values ($1)").bind(&text).execute(tx).await?;
        let left = self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        match left {
            Ok(_) => Err(HandlerError::Retry("not now".into())),
            Err(_) => Ok(()),
        }
    }
}

/// Fails so often before it writes what it sees.
fn consume(world: &World, queue: &QueueTopology, failures: u32) -> Consuming {
    let handler = Ledger { failures: Arc::new(AtomicU32::new(failures)) };
    let builder = Consumer::builder(world.pool().clone(), World::url()).name("ledger").queue(queue.clone());
    Consuming::start(builder.handler(handler))
}

async fn with_ledger() -> World {
    let world = World::create().await;
    sqlx::query("create table ledger (position bigserial, text text not null)").execute(world.pool()).await.unwrap();
    world
}

async fn send(world: &World, id: &str, text: &str) {
    let properties = BasicProperties::default().with_message_id(id.into()).with_type("thing.happened".into());
    world
        .channel
        .basic_publish(
            world.name.as_str().into(),
            "t".into(),
            BasicPublishOptions::default(),
            text.as_bytes(),
            properties,
        )
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_of_a_message_take_effect_once_also_those_with_foreign_ids() {
    let mut world = with_ledger().await;
    let queue = world.queue("ledger", &["#"]);
    let consumers = [consume(&world, &queue, 0), consume(&world, &queue, 0)];
    world.until_consumed(&queue.name).await;
    let ours = uuid::Uuid::now_v7().to_string();
    for copy in 0..10 {
        send(&world, &ours, "one").await;
        send(&world, "order/17 of 'somebody else' 🦀", "two").await;
        send(&world, &format!("last-{copy}"), "filler").await;
    }
    until(world.pool(), "select count(*) >= 12 from ledger").await;
    let counts: Vec<(String, i64)> = sqlx::query_as("select text, count(*) from ledger group by text order by text")
        .fetch_all(world.pool())
        .await
        .unwrap();
    assert_eq!(counts, [("filler".into(), 10), ("one".into(), 1), ("two".into(), 1)]);
    for consumer in consumers {
        consumer.stop().await;
    }
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_fails_is_tried_again_and_leaves_no_trace_of_its_failures() {
    let mut world = with_ledger().await;
    let queue = world.queue("ledger", &["#"]);
    let consumer = consume(&world, &queue, 3);
    world.until_consumed(&queue.name).await;
    for text in ["a", "b", "c"] {
        send(&world, text, text).await;
    }
    until(world.pool(), "select count(*) = 3 from ledger").await;
    let order: Vec<String> =
        sqlx::query_scalar("select text from ledger order by position").fetch_all(world.pool()).await.unwrap();
    assert_eq!(order, ["a", "b", "c"], "those behind a failing one do not overtake it");
    consumer.stop().await;
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_makes_partitions_ahead_where_there_is_no_relay() {
    let mut world = with_ledger().await;
    let queue = world.queue("ledger", &["#"]);
    let last = "select max(relname::text) from pg_class where relname ~ '^inbox_[0-9]{8}$'";
    let last: String = sqlx::query_scalar(last).fetch_one(world.pool()).await.unwrap();
    sqlx::query(AssertSqlSafe(format!("drop table amends.{last}"))).execute(world.pool()).await.unwrap();
    let consumer = consume(&world, &queue, 0);
    until(world.pool(), &format!("select to_regclass('amends.{last}') is not null")).await;
    consumer.stop().await;
    world.clean_up().await;
}

/// Has done its work, and does not come to its commit.
struct Stuck {
    at_work: Arc<Notify>,
}

#[async_trait]
impl Handler for Stuck {
    async fn handle(&self, tx: &mut PgConnection, message: &Incoming) -> Result<(), HandlerError> {
        Ledger { failures: Arc::default() }.handle(tx, message).await?;
        self.at_work.notify_one();
        std::future::pending().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_consumer_dies_before_its_commit_is_handled_by_another() {
    let mut world = with_ledger().await;
    let queue = world.queue("ledger", &["#"]);
    let at_work = Arc::new(Notify::new());
    // It ends as a process does: with everything in it, between two of its moments.
    let process = tokio::runtime::Runtime::new().unwrap();
    process.spawn({
        let (url, queue, at_work) = (world.database.url().to_owned(), queue.clone(), Arc::clone(&at_work));
        async move {
            let pool = PgPool::connect(&url).await.unwrap();
            let consumer = Consumer::builder(pool, World::url()).name("ledger").queue(queue);
            let consumer = consumer.handler(Stuck { at_work }).build().unwrap();
            consumer.run(CancellationToken::new()).await;
        }
    });
    world.until_consumed(&queue.name).await;
    send(&world, "1", "one").await;
    at_work.notified().await;

    process.shutdown_background();

    let consumer = consume(&world, &queue, 0);
    until(world.pool(), "select count(*) = 1 from ledger").await;
    consumer.stop().await;
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_can_never_be_handled_goes_to_the_dead_letters_and_blocks_nobody() {
    let mut world = with_ledger().await;
    let queue =
        QueueTopology { dead_letter_exchange: Some(format!("{}-dead", world.name)), ..world.queue("ledger", &["#"]) };
    let consumer = consume(&world, &queue, 0);
    world.until_consumed(&queue.name).await;
    send(&world, "1", "poison").await;
    // Without an id nobody could tell its copies apart.
    let nameless = BasicProperties::default();
    world
        .channel
        .basic_publish(world.name.as_str().into(), "t".into(), BasicPublishOptions::default(), b"nameless", nameless)
        .await
        .unwrap();
    send(&world, "2", "good").await;
    until(world.pool(), "select count(*) = 1 from ledger").await;
    let grave = format!("{}.dead", queue.name);
    let mut dead = Vec::new();
    while dead.len() < 2 {
        if let Some(message) = world.channel.basic_get(grave.as_str().into(), BasicGetOptions::default()).await.unwrap()
        {
            dead.push(String::from_utf8(message.delivery.data.clone()).unwrap());
        }
    }
    assert_eq!(dead, ["poison", "nameless"]);
    consumer.stop().await;
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn from_the_outbox_to_the_handler_every_event_takes_effect_once_in_order() {
    let mut world = with_ledger().await;
    let queue = world.queue("ledger", &["#"]);
    let relay = world.relay(world.options(vec![queue.clone()]));
    let consumer = consume(&world, &queue, 0);
    publish(world.pool(), "thing.happened", "k", 1..=200).await;
    until(world.pool(), "select count(*) = 200 from ledger").await;
    let order: Vec<String> =
        sqlx::query_scalar("select text from ledger order by position").fetch_all(world.pool()).await.unwrap();
    assert_eq!(order, (1..=200).map(|counter| format!("k:{counter}")).collect::<Vec<_>>());
    consumer.stop().await;
    relay.stop().await;
    world.clean_up().await;
}
