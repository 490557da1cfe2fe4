//! Messages a second through the relay, over 1 000 keys, against a raw client with the same messages into the same queue.

use std::time::{Duration, Instant};

use amends_relay::{Broker, KEY_HEADER, Ordering, QueueKind, QueueTopology, Relay, RelayOptions, SEQ_HEADER, Topology};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions,
    QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use sqlx::{PgConnection, PgPool};
use tokio_util::sync::CancellationToken;

use crate::Fault;

pub(crate) const KEYS: i64 = 1000;
pub(crate) const PAYLOAD: i32 = 300;
const WINDOW: usize = 1000;
const NAME: &str = "amends-bench";

pub(crate) struct Bench {
    pool: PgPool,
    url: Broker,
    text: String,
    kind: QueueKind,
    messages: usize,
}

/// What some rounds gave: the best rates, in messages a second, and the medians of the ratios within a round.
#[derive(Default)]
pub(crate) struct Rates {
    pub(crate) raw: f64,
    pub(crate) strict: f64,
    pub(crate) pipelined: f64,
    pub(crate) strict_over_raw: f64,
    pub(crate) pipelined_over_raw: f64,
}

impl Bench {
    pub(crate) fn new(pool: &PgPool, url: &str, kind: QueueKind, messages: usize) -> Result<Self, Fault> {
        Ok(Self { pool: pool.clone(), url: url.parse()?, text: url.to_owned(), kind, messages })
    }

    /// In turns, so that all meet the same noise of the machine.
    pub(crate) async fn rounds(&self, rounds: usize) -> Result<Rates, Fault> {
        let (mut best, mut ratios) = (Rates::default(), (Vec::new(), Vec::new()));
        for round in 1..=rounds {
            eprint!("relay, {:?} queue: round {round}, raw, strict and pipelined …", self.kind);
            let raw = self.raw().await?;
            let strict = self.relayed(Ordering::Strict).await?;
            let pipelined = self.relayed(Ordering::Pipelined).await?;
            eprintln!(" {raw:.0}, {strict:.0}, {pipelined:.0} messages/s");
            best.raw = best.raw.max(raw);
            best.strict = best.strict.max(strict);
            best.pipelined = best.pipelined.max(pipelined);
            ratios.0.push(strict / raw);
            ratios.1.push(pipelined / raw);
        }
        (best.strict_over_raw, best.pipelined_over_raw) = (median(ratios.0), median(ratios.1));
        Ok(best)
    }

    /// The client alone: one task, a window of concurrently started publishes, persistent, mandatory, confirmed.
    async fn raw(&self) -> Result<f64, Fault> {
        let (connection, channel) = self.fresh_queue().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let payload = vec![b'x'; PAYLOAD as usize];
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

    /// A backlog in the outbox, and a relay that starts from nothing; measured from the first message that arrives.
    async fn relayed(&self, ordering: Ordering) -> Result<f64, Fault> {
        let (connection, channel) = self.fresh_queue().await?;
        forget(&self.pool).await?;
        write(&mut *self.pool.acquire().await?, self.messages as i64).await?;
        sqlx::query("analyze amends.outbox").execute(&self.pool).await?;
        let options = RelayOptions {
            exchange: NAME.into(),
            topology: Topology { queues: vec![self.queue()], ..Topology::default() },
            replies: None,
            ordering,
            ..RelayOptions::default()
        };
        let shutdown = CancellationToken::new();
        let relay = tokio::spawn({
            let (relay, shutdown) = (Relay::new(self.pool.clone(), self.url.clone(), options), shutdown.clone());
            async move { relay.run(shutdown).await }
        });
        let (first, began) = (self.until_arrived(&channel, 1).await?, Instant::now());
        let all = self.until_arrived(&channel, self.messages as u32).await?;
        let rate = f64::from(all - first) / began.elapsed().as_secs_f64();
        shutdown.cancel();
        relay.await?;
        self.clean_up(connection, &channel).await?;
        Ok(rate)
    }

    /// How many have, once it is so many at least.
    async fn until_arrived(&self, channel: &Channel, count: u32) -> Result<u32, Fault> {
        loop {
            let arrived = self.arrived(channel).await?;
            if arrived >= count {
                return Ok(arrived);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn arrived(&self, channel: &Channel) -> Result<u32, Fault> {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        Ok(channel.queue_declare(NAME.into(), passive, FieldTable::default()).await?.message_count())
    }

    async fn fresh_queue(&self) -> Result<(Connection, Channel), Fault> {
        Topology { queues: vec![self.queue()], ..Topology::default() }.ensure(&self.url).await?;
        let connection = Connection::connect(&self.text, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel.queue_purge(NAME.into(), QueuePurgeOptions::default()).await?;
        Ok((connection, channel))
    }

    async fn clean_up(&self, connection: Connection, channel: &Channel) -> Result<(), Fault> {
        channel.queue_delete(NAME.into(), QueueDeleteOptions::default()).await?;
        channel.exchange_delete(NAME.into(), ExchangeDeleteOptions::default()).await?;
        Ok(connection.close(200, "bye".into()).await?)
    }

    fn queue(&self) -> QueueTopology {
        QueueTopology { kind: self.kind, ..QueueTopology::new(NAME, NAME, ["#"]) }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Nothing was ever written or published.
pub(crate) async fn forget(pool: &PgPool) -> Result<(), Fault> {
    sqlx::query("truncate amends.outbox, amends.cursor, amends.held_message").execute(pool).await?;
    Ok(())
}

/// So many messages in one transaction.
pub(crate) async fn write(conn: &mut PgConnection, messages: i64) -> Result<(), Fault> {
    sqlx::query(
        "insert into amends.outbox (id, key, topic, name, payload)
         select gen_random_uuid(), 'key-' || i % $2, 'thing.happened', 'thing.happened', convert_to(repeat('x', $3), 'UTF8')
         from generate_series(1, $1) i",
    )
    .bind(messages)
    .bind(KEYS)
    .bind(PAYLOAD)
    .execute(conn)
    .await?;
    Ok(())
}

/// What the relay sends with each message, so that both send the same bytes.
fn envelope(number: usize) -> BasicProperties {
    let (id, time) = (uuid::Uuid::now_v7().to_string(), "2026-11-24T12:10:54.853561+00:00");
    let text = |value: &str| AMQPValue::LongString(LongString::from(value));
    let key = format!("key-{}", number as i64 % KEYS);
    let mut headers = FieldTable::default();
    headers.insert("cloudEvents_specversion".into(), text("1.0"));
    headers.insert("cloudEvents_id".into(), text(&id));
    headers.insert("cloudEvents_type".into(), text("thing.happened"));
    headers.insert("cloudEvents_source".into(), text("amends"));
    headers.insert("cloudEvents_time".into(), text(time));
    headers.insert(SEQ_HEADER.into(), AMQPValue::LongLongInt(number as i64));
    headers.insert(KEY_HEADER.into(), text(&key));
    BasicProperties::default()
        .with_delivery_mode(2)
        .with_message_id(id.as_str().into())
        .with_content_type("application/json".into())
        .with_type("thing.happened".into())
        .with_timestamp(1_795_522_254)
        .with_headers(headers)
}
