//! Payloads through a real broker: encrypted, kept elsewhere, in another format; and consumers that cannot read them.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;

use amends::{Codec, Encoding, EncodingError, MAX_NAME_BYTES, MAX_PAYLOAD_BYTES, Message, OutboxMessage, Payloads};
use amends_postgres::testing::TestDatabase;
use amends_postgres::{Outbox, PgPayloads};
use amends_relay::{Consumer, Handler, HandlerError, Incoming, QueueTopology};
use async_trait::async_trait;
use lapin::options::BasicGetOptions;
use lapin::types::AMQPValue;
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgPool};
use support::{Consuming, World, until};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Headers = BTreeMap<String, String>;

/// No cipher that anybody should use.
struct Xor(u8);

impl Codec for Xor {
    fn name(&self) -> &'static str {
        "xor"
    }

    fn encode(&self, payload: Vec<u8>, headers: &mut Headers) -> Result<Vec<u8>, BoxError> {
        headers.insert("xor-key".into(), self.0.to_string());
        Ok(payload.into_iter().map(|byte| byte ^ self.0).collect())
    }

    fn decode(&self, payload: Vec<u8>, headers: &Headers) -> Result<Vec<u8>, BoxError> {
        let key: u8 = headers.get("xor-key").ok_or("no key")?.parse()?;
        Ok(payload.into_iter().map(|byte| byte ^ key).collect())
    }
}

#[derive(Serialize, Deserialize, Message)]
#[message(name = "letter.sent", packed)]
struct Letter {
    text: String,
}

/// Without serde.
#[derive(Message)]
#[message(name = "meter.read", encoding = BigEndian, key = meter)]
struct MeterRead {
    meter: u32,
}

struct BigEndian;

impl Encoding<MeterRead> for BigEndian {
    const CONTENT_TYPE: &'static str = "application/x-meter";

    fn encode(message: &MeterRead) -> Result<Vec<u8>, EncodingError> {
        Ok(message.meter.to_be_bytes().to_vec())
    }

    fn decode(payload: &[u8]) -> Result<MeterRead, EncodingError> {
        let bytes = payload.try_into().map_err(EncodingError::other)?;
        Ok(MeterRead { meter: u32::from_be_bytes(bytes) })
    }
}

/// Writes down how long the letters are that it can read, and the meters.
struct Reader;

#[async_trait]
impl Handler for Reader {
    async fn handle(&self, tx: &mut PgConnection, message: &Incoming) -> Result<(), HandlerError> {
        let value = if let Some(letter) = message.read::<Letter>()? {
            letter.text.len() as i64
        } else if let Some(read) = message.read::<MeterRead>()? {
            -i64::from(read.meter)
        } else {
            return Ok(());
        };
        sqlx::query("insert into seen (value) values ($1)").bind(value).execute(tx).await?;
        Ok(())
    }
}

async fn with_table() -> World {
    let world = World::create().await;
    sqlx::query("create table seen (value bigint not null)").execute(world.pool()).await.unwrap();
    world
}

fn consume(world: &World, queue: &QueueTopology, payloads: Option<Payloads>) -> Consuming {
    let builder =
        Consumer::builder(world.pool().clone(), World::url()).name("reader").queue(queue.clone()).handler(Reader);
    Consuming::start(match payloads {
        Some(payloads) => builder.payloads(payloads),
        None => builder,
    })
}

async fn publish(pool: &PgPool, message: OutboxMessage) {
    Outbox::publish_all(&mut pool.acquire().await.unwrap(), &[message]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn small_and_large_letters_arrive_as_they_were_written_through_an_old_key_and_a_new_one() {
    let mut world = with_table().await;
    // Where both sides reach it: neither the publisher's nor the consumer's.
    let shelf = TestDatabase::create().await;
    let payloads =
        |key| Payloads::new().codec(Xor(key)).store(PgPayloads::new(shelf.pool().clone()), MAX_PAYLOAD_BYTES / 2);
    let queue = world.queue("letters", &["#"]);
    let relay = world.relay(world.options(vec![queue.clone()]));
    let consumer = consume(&world, &queue, Some(payloads(2)));

    for (key, bytes) in [(1, 10), (1, 5 * MAX_PAYLOAD_BYTES), (2, 20)] {
        publish(world.pool(), payloads(key).pack(&Letter { text: "x".repeat(bytes) }).await.unwrap()).await;
    }
    until(world.pool(), "select count(*) = 3 from seen").await;

    let seen: Vec<i64> =
        sqlx::query_scalar("select value from seen order by value").fetch_all(world.pool()).await.unwrap();
    assert_eq!(seen, [10, 20, 5 * MAX_PAYLOAD_BYTES as i64]);
    consumer.stop().await;
    relay.stop().await;
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_cannot_read_a_payload_leaves_it_to_the_dead_letters_and_reads_on() {
    let mut world = with_table().await;
    let queue =
        QueueTopology { dead_letter_exchange: Some(format!("{}-dead", world.name)), ..world.queue("letters", &["#"]) };
    let relay = world.relay(world.options(vec![queue.clone()]));
    // One consumer knows of no payloads; one lacks the codec: to both it is unreadable for good.
    let blind = consume(&world, &queue, None);
    let letter = |text: &str| Letter { text: text.into() };
    publish(world.pool(), Payloads::new().codec(Xor(7)).pack(&letter("secret")).await.unwrap()).await;
    publish(world.pool(), Payloads::new().pack(&letter("open")).await.unwrap()).await;
    until(world.pool(), "select count(*) = 1 from seen").await;
    blind.stop().await;
    let without = consume(&world, &queue, Some(Payloads::new()));
    publish(world.pool(), Payloads::new().codec(Xor(8)).pack(&letter("secret too")).await.unwrap()).await;
    let json = OutboxMessage {
        content_type: "application/json".into(),
        ..OutboxMessage::new(&MeterRead { meter: 4 }).unwrap()
    };
    publish(world.pool(), json).await;
    publish(world.pool(), OutboxMessage::new(&MeterRead { meter: 5 }).unwrap()).await;
    until(world.pool(), "select count(*) = 2 from seen").await;

    let grave = format!("{}.dead", queue.name);
    let mut dead = Vec::new();
    while dead.len() < 3 {
        if let Some(found) = world.channel.basic_get(grave.as_str().into(), BasicGetOptions::default()).await.unwrap() {
            dead.push(found.delivery);
        }
    }
    let seen: Vec<i64> =
        sqlx::query_scalar("select value from seen order by value").fetch_all(world.pool()).await.unwrap();
    assert_eq!(seen, [-5, 4], "the meter and the open letter");
    assert_eq!(dead[0].properties.content_encoding().as_ref().map(ToString::to_string).as_deref(), Some("xor"));
    let header = |name: &str| dead[0].properties.headers().as_ref().unwrap().inner().get(name).cloned();
    assert_eq!(header("content-encoding"), Some(AMQPValue::LongString("xor".into())));
    assert_eq!(header("xor-key"), Some(AMQPValue::LongString("7".into())));
    without.stop().await;
    relay.stop().await;
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_message_that_may_be_published_arrives() {
    let mut world = with_table().await;
    let queue = world.queue("large", &["#"]);
    let relay = world.relay(world.options(vec![queue.clone()]));
    let longest = "n".repeat(MAX_NAME_BYTES);
    let mut message = OutboxMessage {
        topic: longest.clone(),
        name: longest.clone(),
        content_type: longest.clone(),
        payload: vec![b'x'; MAX_PAYLOAD_BYTES],
        key: Some("k".repeat(10_000)),
        headers: Headers::from([("tracestate".into(), "t".repeat(10_000)), ("h".into(), String::new())]),
        ..OutboxMessage::new(&MeterRead { meter: 1 }).unwrap()
    };
    while message.check().is_ok() {
        message.headers.get_mut("h").unwrap().push_str("0123456789");
    }
    let fits = message.headers["h"].len() - 10;
    message.headers.get_mut("h").unwrap().truncate(fits);
    publish(world.pool(), message.clone()).await;

    let got = world.drain(&queue, 1).await;

    assert_eq!((got[0].topic.as_str(), got[0].payload.len()), (longest.as_str(), MAX_PAYLOAD_BYTES));
    relay.stop().await;
    world.clean_up().await;
}
