//! Retries, and what becomes of a message that can never be handled.

use std::time::Duration;

use amends_relay::{
    ATTEMPTS_HEADER, CONSUMER_HEADER, EXCHANGE_HEADER, Handler, HandlerError, Incoming, KEY_HEADER, Order,
    QueueTopology, ROUTING_KEY_HEADER,
};
use async_trait::async_trait;
use lapin::options::{ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldArray, FieldTable};
use lapin::{BasicProperties, ExchangeKind};
use sqlx::PgConnection;

use crate::support::until;
use crate::{Calls, Consuming, Sent, consumer, dead, ledger, publish, ready, world, write};

/// Fails as its messages tell it to.
#[derive(Default)]
struct Obedient {
    calls: Calls,
}

#[async_trait]
impl Handler for Obedient {
    async fn handle(&self, tx: &mut PgConnection, message: &Incoming) -> Result<(), HandlerError> {
        write(tx, message).await?;
        match message.payload.as_slice() {
            b"fail" => {
                self.calls.next();
                Err(HandlerError::retry("no\0pe"))
            }
            b"panic" => panic!("of horror"),
            b"wait" if self.calls.next() < 6 => Err(HandlerError::unavailable("the other side is away")),
            b"reject" => Err(HandlerError::reject("never")),
            _ => Ok(()),
        }
    }
}

const QUICK: Duration = Duration::from_millis(20);

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_failing_is_given_up_after_its_attempts_with_the_reason_and_all_that_it_carried() {
    let mut world = world().await;
    let queue = world.queue("ledger", &["#"]);
    let handler = Obedient::default();
    let calls = handler.calls.clone();
    let consuming = Consuming::start(consumer(&world, &queue).attempts(3).longest_pause(QUICK).handler(handler));
    world.until_consumed(&queue.name).await;

    let mut headers = FieldTable::default();
    headers.insert("rate".into(), AMQPValue::Double(0.5));
    headers.insert("tags".into(), AMQPValue::FieldArray(FieldArray::from(vec![AMQPValue::Boolean(true)])));
    let properties = BasicProperties::default()
        .with_message_id("1".into())
        .with_type("thing.happened".into())
        .with_content_type("text/plain".into())
        .with_headers(headers.clone());
    publish(&world, b"fail", properties).await;
    Sent::text("behind it").to(&world).await;

    until(world.pool(), "select count(*) = 1 from ledger").await;
    assert_eq!(ledger(&world).await, ["behind it"], "no trace of its failures");
    assert_eq!(calls.count(), 3);
    let dead = dead(&world, &queue, 1).await.remove(0);
    assert_eq!(dead.reason(), "it failed 3 times, at last: no␀pe");
    assert_eq!((dead.payload.as_slice(), dead.header(ATTEMPTS_HEADER).as_str()), (b"fail".as_slice(), "3"));
    assert_eq!(dead.header(CONSUMER_HEADER), "ledger");
    assert_eq!((dead.header(EXCHANGE_HEADER), dead.header(ROUTING_KEY_HEADER)), (world.name.clone(), "t".to_owned()));
    let kept = dead.properties.headers().as_ref().unwrap().inner();
    assert!(headers.inner().iter().all(|(name, value)| kept.get(name) == Some(value)), "{kept:?}");
    assert_eq!(dead.properties.content_type().as_ref().unwrap().as_str(), "text/plain");
    assert_eq!(dead.properties.message_id().as_ref().unwrap().as_str(), "1");
    consuming.stop().await;
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_counts_as_a_failure_and_what_is_away_does_not() {
    let mut world = world().await;
    let queue = world.queue("ledger", &["#"]);
    let consumer = consumer(&world, &queue).attempts(2).longest_pause(QUICK).handler(Obedient::default());
    let consuming = Consuming::start(consumer);
    world.until_consumed(&queue.name).await;

    for text in ["panic", "wait", "good"] {
        Sent::text(text).to(&world).await;
    }
    until(world.pool(), "select count(*) = 2 from ledger").await;

    assert_eq!(ledger(&world).await, ["wait", "good"]);
    let dead = dead(&world, &queue, 1).await.remove(0);
    assert_eq!(dead.reason(), "it failed 2 times, at last: the handler panicked: of horror");
    consuming.stop().await;
    world.clean_up().await;
}

/// The queue of somebody who declares things himself, and forgot where dead letters go.
async fn undeclared(world: &crate::World, queue: &QueueTopology) {
    let channel = &world.channel;
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let (exchange, topic) = (world.name.as_str(), ExchangeKind::Topic);
    channel.exchange_declare(exchange.into(), topic, durable, FieldTable::default()).await.unwrap();
    declare_queue(world, &queue.name, exchange, "#").await;
}

async fn declare_queue(world: &crate::World, name: &str, exchange: &str, pattern: &str) {
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    world.channel.queue_declare(name.into(), durable, FieldTable::default()).await.unwrap();
    let options = QueueBindOptions::default();
    world
        .channel
        .queue_bind(name.into(), exchange.into(), pattern.into(), options, FieldTable::default())
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_has_nowhere_to_go_is_kept_and_goes_once_it_has_while_others_flow() {
    let mut world = world().await;
    let queue = world.queue("ledger", &["#"]);
    undeclared(&world, &queue).await;
    let consumer = consumer(&world, &queue).declare(false).order(Order::Key).longest_pause(QUICK);
    let consuming = Consuming::start(consumer.handler(Obedient::default()));
    world.until_consumed(&queue.name).await;

    Sent { key: Some("a"), ..Sent::text("reject") }.to(&world).await;
    Sent { key: Some("b"), ..Sent::text("good") }.to(&world).await;
    until(world.pool(), "select count(*) = 1 from ledger").await;
    // Its exchange comes first, without a queue: to publish there loses what nobody looks after.
    let grave = format!("{}.dead", queue.name);
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let (topic, none) = (ExchangeKind::Topic, FieldTable::default());
    world.channel.exchange_declare(grave.as_str().into(), topic, durable, none).await.unwrap();
    // So many that it is tried there meanwhile.
    for number in 2..=60 {
        Sent { key: Some("b"), ..Sent::text(&number.to_string()) }.to(&world).await;
    }
    until(world.pool(), "select count(*) = 60 from ledger").await;
    declare_queue(&world, &grave, &grave, "#").await;

    assert_eq!(dead(&world, &queue, 1).await[0].reason(), "never");
    consuming.stop().await;
    assert_eq!((ready(&world, &queue.name).await, ready(&world, &grave).await), (0, 0));
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_of_dead_letters_comes_back_after_somebody_deleted_it() {
    let mut world = world().await;
    let queue =
        QueueTopology { dead_letter_exchange: Some(format!("{}-dead", world.name)), ..world.queue("ledger", &["#"]) };
    let consumer = consumer(&world, &queue).longest_pause(QUICK).handler(Obedient::default());
    let consuming = Consuming::start(consumer);
    world.until_consumed(&queue.name).await;
    Sent { id: Some("1"), ..Sent::text("reject") }.to(&world).await;
    dead(&world, &queue, 1).await;

    let exchange = format!("{}-dead", world.name);
    world.channel.exchange_delete(exchange.as_str().into(), ExchangeDeleteOptions::default()).await.unwrap();
    Sent { id: Some("2"), key: Some("k"), ..Sent::text("reject") }.to(&world).await;

    let dead = dead(&world, &queue, 1).await.remove(0);
    assert_eq!((dead.reason().as_str(), dead.header(KEY_HEADER).as_str()), ("never", "k"), "with all that it carried");
    consuming.stop().await;
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_whose_headers_leave_no_room_for_a_reason_goes_without_them() {
    let mut world = world().await;
    let queue = world.queue("ledger", &["#"]);
    let consumer = consumer(&world, &queue).longest_pause(QUICK).handler(Obedient::default());
    let consuming = Consuming::start(consumer);
    world.until_consumed(&queue.name).await;

    // Headers travel in one frame, of 128 KiB at the most.
    let mut headers = FieldTable::default();
    headers.insert("large".into(), AMQPValue::LongString("x".repeat(131_072 - 120).into()));
    Sent { headers, ..Sent::text("reject") }.to(&world).await;
    Sent::text("good").to(&world).await;

    let dead = dead(&world, &queue, 1).await.remove(0);
    assert_eq!((dead.reason().as_str(), dead.payload.as_slice()), ("never", b"reject".as_slice()));
    assert_eq!(dead.properties.message_id().as_ref().unwrap().as_str(), "reject");
    until(world.pool(), "select count(*) = 1 from ledger").await;
    consuming.stop().await;
    world.clean_up().await;
}
