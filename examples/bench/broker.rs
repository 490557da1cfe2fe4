//! Messages a second through the relay, in strict order over 1 000 keys, against a raw client with the same messages into
//! the same queue.

use std::time::{Duration, Instant};

use amends_relay::{AmqpUrl, KEY_HEADER, QueueTopology, Relay, RelayOptions, SEQ_HEADER, Topology};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, ExchangeDeleteOptions, QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::Fault;

const KEYS: i64 = 1000;
const PAYLOAD: usize = 300;
const WINDOW: usize = 1000;
const NAME: &str = "amends-bench";

pub(crate) struct Bench {
    pool: PgPool,
    url: AmqpUrl,
    text: String,
    messages: usize,
}

impl Bench {
    pub(crate) fn new(pool: &PgPool, url: &str, messages: usize) -> Result<Self, Fault> {
        Ok(Self { pool: pool.clone(), url: url.parse()?, text: url.to_owned(), messages })
    }

    /// The client alone: one task, a window of concurrently started publishes, persistent, mandatory, confirmed.
    pub(crate) async fn raw(&self) -> Result<f64, Fault> {
        let (connection, channel) = self.fresh_queue().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let payload = vec![b'x'; PAYLOAD];
        let began = Instant::now();
        let mut confirms = FuturesUnordered::new();
        for number in 0..self.messages {
            if confirms.len() >= WINDOW {
                confirms.next().await.ok_or("a confirm is missing")??;
            }
            let properties = envelope(number);
            let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
            let (channel, payload) = (&channel, &payload);
            confirms.push(async move {
                channel.basic_publish(NAME.into(), "thing.happened".into(), options, payload, properties).await?.await
            });
        }
        while let Some(confirm) = confirms.next().await {
            confirm?;
        }
        let rate = self.messages as f64 / began.elapsed().as_secs_f64();
        self.clean_up(connection, &channel).await?;
        Ok(rate)
    }

    /// A backlog in the outbox, and a relay that starts from nothing.
    pub(crate) async fn relayed(&self) -> Result<f64, Fault> {
        let (connection, channel) = self.fresh_queue().await?;
        sqlx::query("truncate amends.outbox, amends.cursor").execute(&self.pool).await?;
        sqlx::query(
            "insert into amends.outbox (id, key, topic, name, payload)
             select gen_random_uuid(), 'key-' || i % $2, 'thing.happened', 'thing.happened', convert_to(repeat('x', $3), 'UTF8')
             from generate_series(1, $1) i",
        )
        .bind(self.messages as i64)
        .bind(KEYS)
        .bind(PAYLOAD as i32)
        .execute(&self.pool)
        .await?;
        sqlx::query("analyze amends.outbox").execute(&self.pool).await?;
        let options = RelayOptions {
            exchange: NAME.into(),
            topology: Topology { exchanges: vec![NAME.into()], queues: vec![queue()], ..Topology::default() },
            ..RelayOptions::default()
        };
        let shutdown = CancellationToken::new();
        let began = Instant::now();
        let relay = tokio::spawn({
            let (relay, shutdown) = (Relay::new(self.pool.clone(), self.url.clone(), options), shutdown.clone());
            async move { relay.run(shutdown).await }
        });
        while !self.is_drained().await? {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let rate = self.messages as f64 / began.elapsed().as_secs_f64();
        shutdown.cancel();
        relay.await?;
        self.clean_up(connection, &channel).await?;
        Ok(rate)
    }

    /// The cursor has passed every row: it moves only past what the broker has confirmed.
    async fn is_drained(&self) -> Result<bool, Fault> {
        let drained = sqlx::query_scalar(
            "select coalesce((
                select pass is null and prev::text <> '1:1:' and not exists (select from amends.held_message)
                from amends.cursor where lane = 0), false)",
        );
        Ok(drained.fetch_one(&self.pool).await?)
    }

    async fn fresh_queue(&self) -> Result<(Connection, Channel), Fault> {
        let connection = Connection::connect(&self.text, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        let queue = queue();
        declare(&channel, &queue).await?;
        channel.queue_purge(queue.name.as_str().into(), QueuePurgeOptions::default()).await?;
        Ok((connection, channel))
    }

    async fn clean_up(&self, connection: Connection, channel: &Channel) -> Result<(), Fault> {
        channel.queue_delete(NAME.into(), QueueDeleteOptions::default()).await?;
        channel.exchange_delete(NAME.into(), ExchangeDeleteOptions::default()).await?;
        Ok(connection.close(200, "bye".into()).await?)
    }
}

/// What the relay sends with each message, so that both send the same bytes.
fn envelope(number: usize) -> BasicProperties {
    let (id, time) = (uuid::Uuid::now_v7().to_string(), "2026-11-24T12:10:54.853561Z");
    let text = |value: &str| AMQPValue::LongString(LongString::from(value));
    let mut headers = FieldTable::default();
    headers.insert("cloudEvents_specversion".into(), text("1.0"));
    headers.insert("cloudEvents_id".into(), text(&id));
    headers.insert("cloudEvents_type".into(), text("thing.happened"));
    headers.insert("cloudEvents_source".into(), text("amends"));
    headers.insert("cloudEvents_time".into(), text(time));
    headers.insert(SEQ_HEADER.into(), AMQPValue::LongLongInt(number as i64));
    let key = format!("key-{}", number as i64 % KEYS);
    headers.insert(KEY_HEADER.into(), text(&key));
    headers.insert("cloudEvents_subject".into(), text(&key));
    headers.insert("cloudEvents_partitionkey".into(), text(&key));
    BasicProperties::default()
        .with_delivery_mode(2)
        .with_message_id(id.as_str().into())
        .with_content_type("application/json".into())
        .with_type("thing.happened".into())
        .with_timestamp(1_795_522_254)
        .with_headers(headers)
}

fn queue() -> QueueTopology {
    QueueTopology::new(NAME, NAME, ["#"])
}

async fn declare(channel: &Channel, queue: &QueueTopology) -> Result<(), Fault> {
    use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(NAME.into(), lapin::ExchangeKind::Topic, durable, FieldTable::default()).await?;
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.name.as_str().into(), durable, FieldTable::default()).await?;
    let bind = QueueBindOptions::default();
    channel.queue_bind(queue.name.as_str().into(), NAME.into(), "#".into(), bind, FieldTable::default()).await?;
    Ok(())
}
