//! What a consumer promises: typed handlers, retries, dead letters, batches, its window, and what it does in trouble.

#![allow(missing_docs, clippy::unwrap_used)]

mod batch;
mod dead_letters;
mod drain;
mod proxy;
#[path = "../support/mod.rs"]
mod support;
mod trace;
mod trouble;
mod typed;
mod window;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use amends_relay::{Consumer, ConsumerBuilder, HandlerError, Incoming, KEY_HEADER, QueueTopology};
use lapin::BasicProperties;
use lapin::options::{BasicAckOptions, BasicGetOptions, BasicPublishOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use sqlx::PgConnection;
use support::{Consuming, PATIENCE, World};
use tokio::time::{Instant, sleep};

/// A world with a ledger of what handlers did.
async fn world() -> World {
    let world = World::create().await;
    let table =
        "create table ledger (position bigserial, key text, text text not null, xid xid8 default pg_current_xact_id())";
    sqlx::query(table).execute(world.pool()).await.unwrap();
    world
}

fn consumer(world: &World, queue: &QueueTopology) -> ConsumerBuilder {
    Consumer::builder(world.pool().clone(), World::url()).name("ledger").queue(queue.clone())
}

async fn write(tx: &mut PgConnection, message: &Incoming) -> Result<(), HandlerError> {
    let text = String::from_utf8_lossy(&message.payload).into_owned();
    let insert = sqlx::query("insert into ledger (key, text) values ($1, $2)");
    insert.bind(&message.key).bind(text).execute(tx).await?;
    Ok(())
}

async fn ledger(world: &World) -> Vec<String> {
    sqlx::query_scalar("select text from ledger order by position").fetch_all(world.pool()).await.unwrap()
}

/// What is sent to the world's exchange.
#[derive(Default)]
struct Sent<'a> {
    /// Its text, if there is none.
    id: Option<&'a str>,
    kind: Option<&'a str>,
    key: Option<&'a str>,
    text: &'a str,
    headers: FieldTable,
}

impl<'a> Sent<'a> {
    fn text(text: &'a str) -> Self {
        Self { text, ..Self::default() }
    }

    async fn to(self, world: &World) {
        let mut headers = self.headers;
        if let Some(key) = self.key {
            headers.insert(KEY_HEADER.into(), AMQPValue::LongString(key.into()));
        }
        let properties = BasicProperties::default()
            .with_message_id(self.id.unwrap_or(self.text).into())
            .with_type(self.kind.unwrap_or("thing.happened").into())
            .with_headers(headers);
        publish(world, self.text.as_bytes(), properties).await;
    }
}

async fn publish(world: &World, payload: &[u8], properties: BasicProperties) {
    let (exchange, options) = (world.name.as_str().into(), BasicPublishOptions::default());
    world.channel.basic_publish(exchange, "t".into(), options, payload, properties).await.unwrap();
}

/// A dead letter.
#[derive(Debug)]
struct Dead {
    payload: Vec<u8>,
    properties: BasicProperties,
}

impl Dead {
    fn header(&self, name: &str) -> String {
        match self.properties.headers().as_ref().and_then(|headers| headers.inner().get(name)) {
            Some(AMQPValue::LongString(text)) => String::from_utf8(text.as_bytes().to_vec()).unwrap(),
            Some(AMQPValue::LongLongInt(number)) => number.to_string(),
            other => panic!("{name}: {other:?}"),
        }
    }

    fn reason(&self) -> String {
        self.header(amends_relay::REASON_HEADER)
    }
}

/// Waits for as many dead letters.
async fn dead(world: &World, queue: &QueueTopology, count: usize) -> Vec<Dead> {
    let grave = format!("{}.dead", queue.name);
    let deadline = Instant::now() + PATIENCE;
    let mut dead = Vec::new();
    while dead.len() < count {
        assert!(Instant::now() < deadline, "{} of {count} dead letters came", dead.len());
        match world.channel.basic_get(grave.as_str().into(), BasicGetOptions::default()).await.unwrap() {
            Some(message) => {
                message.delivery.ack(BasicAckOptions::default()).await.unwrap();
                let delivery = message.delivery;
                dead.push(Dead { payload: delivery.data, properties: delivery.properties });
            }
            None => sleep(std::time::Duration::from_millis(10)).await,
        }
    }
    dead
}

/// How many messages are ready in a queue.
async fn ready(world: &World, queue: &str) -> u32 {
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let channel = world.connection.create_channel().await.unwrap();
    channel.queue_declare(queue.into(), passive, FieldTable::default()).await.unwrap().message_count()
}

/// Counts how often something was called.
#[derive(Clone, Default)]
struct Calls(Arc<AtomicU32>);

impl Calls {
    /// The number of this call, from 1.
    fn next(&self) -> u32 {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn count(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }
}
