//! A database, an exchange and queues for each test, and a look at what the broker really got.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use std::time::Duration;

use amends_postgres::testing::TestDatabase;
use amends_relay::{Broker, ConsumerBuilder, QueueTopology, Relay, RelayOptions, ReplyQueue, SEQ_HEADER, Topology};
use lapin::options::{
    BasicAckOptions, BasicGetOptions, ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ConnectionProperties};
use sqlx::{AssertSqlSafe, PgPool};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

pub mod courier;
pub mod private_broker;

pub const PATIENCE: Duration = Duration::from_secs(40);

pub fn amqp_url() -> String {
    std::env::var("AMQP_URL")
        .expect("AMQP_URL must name a RabbitMQ broker: run `cargo xtask test`, or eval \"$(cargo xtask services up)\"")
}

/// One test's world: names that no other test has.
pub struct World {
    pub database: TestDatabase,
    pub name: String,
    pub broker: Broker,
    pub connection: Connection,
    pub channel: Channel,
    queues: Vec<String>,
    exchanges: Vec<String>,
}

impl World {
    pub async fn create() -> Self {
        Self::create_on(&amqp_url()).await
    }

    /// On a broker of its own, for example.
    pub async fn create_on(broker: &str) -> Self {
        let connection = Connection::connect(broker, ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let name = format!("amends-test-{}", uuid::Uuid::new_v4().simple());
        let queues = vec![format!("{name}-replies"), format!("{name}-replies.dead")];
        let broker = broker.parse().unwrap();
        let exchanges = ["", "-dead", "-replies.dead"].map(|suffix| format!("{name}{suffix}")).to_vec();
        Self { database: TestDatabase::create().await, name, broker, connection, channel, queues, exchanges }
    }

    pub fn pool(&self) -> &PgPool {
        self.database.pool()
    }

    /// The broker that the tests share.
    pub fn url() -> Broker {
        amqp_url().parse().unwrap()
    }

    /// A queue of this world for these patterns.
    pub fn queue(&mut self, suffix: &str, patterns: &[&str]) -> QueueTopology {
        let name = format!("{}-{suffix}", self.name);
        self.queues.extend([name.clone(), format!("{name}.dead")]);
        QueueTopology::new(name, &self.name, patterns.iter().copied())
    }

    pub fn options(&self, queues: Vec<QueueTopology>) -> RelayOptions {
        RelayOptions {
            exchange: self.name.clone(),
            topology: Topology { exchanges: vec![self.name.as_str().into()], queues, ..Topology::default() },
            // Tests share the broker, and not the database.
            replies: Some(ReplyQueue { name: format!("{}-replies", self.name), ..ReplyQueue::default() }),
            lease: Duration::from_secs(1),
            poll: Duration::from_millis(20),
            ..RelayOptions::default()
        }
    }

    pub fn relay(&self, options: RelayOptions) -> Running {
        self.relay_by(self.pool(), options)
    }

    /// A relay that comes to the database by another way.
    pub fn relay_by(&self, pool: &PgPool, options: RelayOptions) -> Running {
        Running::start(Relay::new(pool.clone(), self.broker.clone(), options))
    }

    /// Declares a queue, with what it is bound to.
    pub async fn declare(&self, queue: &QueueTopology) {
        Topology { queues: vec![queue.clone()], ..Topology::default() }.ensure(&Self::url()).await.unwrap();
    }

    /// Everything in the queue, in order, until `count` different messages were seen.
    pub async fn drain(&self, queue: &QueueTopology, count: usize) -> Vec<Got> {
        let mut got = Vec::new();
        self.drain_into(&mut got, queue, count).await;
        got
    }

    /// Goes on until `got` holds `count` different messages.
    pub async fn drain_into(&self, got: &mut Vec<Got>, queue: &QueueTopology, count: usize) {
        // A relay declares its queues before it takes the lane.
        until(self.pool(), "select exists (select from amends.cursor where epoch > 0)").await;
        let deadline = Instant::now() + PATIENCE;
        let mut seen: std::collections::HashSet<_> = got.iter().map(|message| message.id.clone()).collect();
        while seen.len() < count {
            assert!(Instant::now() < deadline, "{} of {count} messages came", seen.len());
            match self.channel.basic_get(queue.name.as_str().into(), BasicGetOptions::default()).await.unwrap() {
                Some(message) => {
                    message.delivery.ack(BasicAckOptions::default()).await.unwrap();
                    let one = Got::of(&message.delivery);
                    seen.insert(one.id.clone());
                    got.push(one);
                }
                None => sleep(Duration::from_millis(10)).await,
            }
        }
    }

    /// What the queue holds now.
    pub async fn take_all(&self, queue: &str) -> Vec<Vec<u8>> {
        let mut taken = Vec::new();
        let options = BasicGetOptions { no_ack: true };
        while let Some(message) = self.channel.basic_get(queue.into(), options).await.unwrap() {
            taken.push(message.delivery.data);
        }
        taken
    }

    /// Waits until the queue exists.
    pub async fn until_there(&self, queue: &str) {
        let deadline = Instant::now() + PATIENCE;
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        loop {
            let channel = self.connection.create_channel().await.unwrap();
            if channel.queue_declare(queue.into(), passive, FieldTable::default()).await.is_ok() {
                return;
            }
            assert!(Instant::now() < deadline, "there is no {queue}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the queue holds nothing that could be delivered.
    pub async fn until_empty(&self, queue: &str) {
        let deadline = Instant::now() + PATIENCE;
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        while self.channel.queue_declare(queue.into(), passive, FieldTable::default()).await.unwrap().message_count()
            > 0
        {
            assert!(Instant::now() < deadline, "{queue} is not empty");
            sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn is_empty(&self, queue: &str) -> bool {
        self.channel.basic_get(queue.into(), BasicGetOptions::default()).await.unwrap().is_none()
    }

    /// Waits until somebody consumes the queue, so that it is bound and what is sent next is not lost.
    pub async fn until_consumed(&self, queue: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let channel = self.connection.create_channel().await.unwrap();
            let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            let found = channel.queue_declare(queue.into(), passive, FieldTable::default()).await;
            if found.is_ok_and(|queue| queue.consumer_count() > 0) {
                return;
            }
            assert!(Instant::now() < deadline, "nobody consumes {queue}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn also_delete_exchange(&mut self, name: String) {
        self.exchanges.push(name);
    }

    /// Connects anew, after the broker was away.
    pub async fn reconnect(&mut self, broker: &str) {
        self.connection = Connection::connect(broker, ConnectionProperties::default()).await.unwrap();
        self.channel = self.connection.create_channel().await.unwrap();
    }

    pub async fn clean_up(self) {
        for queue in &self.queues {
            let _ = self.channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await;
            // The dead letters of a consumer have an exchange of that name.
            let _ = self.channel.exchange_delete(queue.as_str().into(), ExchangeDeleteOptions::default()).await;
        }
        for exchange in &self.exchanges {
            let _ = self.channel.exchange_delete(exchange.as_str().into(), ExchangeDeleteOptions::default()).await;
        }
        let _ = self.connection.close(200, "bye".into()).await;
    }
}

/// A message as it came out of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Got {
    pub id: String,
    pub topic: String,
    pub seq: i64,
    pub payload: String,
}

impl Got {
    fn of(delivery: &lapin::message::Delivery) -> Self {
        let headers = delivery.properties.headers().clone().unwrap_or_default();
        let seq = match headers.inner().get(SEQ_HEADER) {
            Some(AMQPValue::LongLongInt(seq)) => *seq,
            other => panic!("no seq: {other:?}"),
        };
        Self {
            id: delivery.properties.message_id().as_ref().unwrap().to_string(),
            topic: delivery.routing_key.to_string(),
            seq,
            payload: String::from_utf8(delivery.data.clone()).unwrap(),
        }
    }

    /// `key:counter`.
    pub fn key(&self) -> (String, i64) {
        let (key, counter) = self.payload.split_once(':').unwrap();
        (key.to_owned(), counter.parse().unwrap())
    }
}

/// First deliveries of each key must count up from 1.
pub fn assert_order_per_key(got: &[Got]) {
    assert_order_per_key_from(1, got);
}

/// As [`assert_order_per_key`], but they count up from `first`.
pub fn assert_order_per_key_from(first: i64, got: &[Got]) {
    let mut last = std::collections::HashMap::new();
    for message in got {
        let (key, counter) = message.key();
        let before = last.entry(key.clone()).or_insert(first - 1);
        assert!(counter <= *before + 1, "key {key}: {counter} came before {}", *before + 1);
        *before = (*before).max(counter);
    }
}

/// A relay that runs in the background.
pub struct Running {
    pub relay: Relay,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    fn start(relay: Relay) -> Self {
        let shutdown = CancellationToken::new();
        let task = tokio::spawn({
            let (relay, shutdown) = (relay.clone(), shutdown.clone());
            async move { relay.run(shutdown).await }
        });
        Self { relay, shutdown, task }
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }

    /// As if its process had died: nothing is given back.
    pub async fn die(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// Writes `count` messages of a key, as an application does that locks its aggregate.
pub async fn publish(pool: &PgPool, topic: &str, key: &str, counters: std::ops::RangeInclusive<i64>) {
    for counter in counters {
        sqlx::query("insert into amends.outbox (id, key, topic, name, payload) values ($1, $2, $3, $3, $4)")
            .bind(uuid::Uuid::now_v7())
            .bind(key)
            .bind(topic)
            .bind(format!("{key}:{counter}").into_bytes())
            .execute(pool)
            .await
            .unwrap();
    }
}

/// Waits until something holds.
pub async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "still not true: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until a condition on the database holds.
pub async fn until(pool: &PgPool, condition: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !sqlx::query_scalar::<_, bool>(AssertSqlSafe(condition)).fetch_one(pool).await.unwrap() {
        assert!(Instant::now() < deadline, "still not true: {condition}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// A consumer that runs in the background.
pub struct Consuming {
    pub shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Consuming {
    pub fn start(builder: ConsumerBuilder) -> Self {
        let consumer = builder.build().unwrap();
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        Self { shutdown, task: tokio::spawn(async move { consumer.run(stop).await }) }
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}
