//! From the return of a commit to the receipt by a consumer, for events that an application publishes with [`Outbox::publish`].

use std::collections::HashMap;
use std::time::{Duration, Instant};

use amends::Message;
use amends_postgres::{Hints, Outbox};
use amends_relay::{QueueTopology, Relay, RelayOptions, ReplyQueue, Topology};
use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, ExchangeDeleteOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ConnectionProperties, Consumer};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::{Fault, broker};

const NAME: &str = "amends-bench-latency";
/// How many at once keep the relay half busy.
const LOAD_BATCH: usize = 50;

#[derive(Debug, Serialize, Deserialize, Message)]
#[message(name = "thing.happened", key = key)]
struct Happened {
    key: String,
    text: String,
}

/// Relay, queue and consumer, in a process that publishes through a pool.
pub(crate) struct Bench<'a> {
    pool: &'a PgPool,
    connection: Connection,
    channel: Channel,
    consumer: Consumer,
    relay: tokio::task::JoinHandle<()>,
    shutdown: CancellationToken,
    _hints: Hints,
}

impl<'a> Bench<'a> {
    /// Begins with an empty outbox.
    pub(crate) async fn start(pool: &'a PgPool, url: &str) -> Result<Self, Fault> {
        broker::forget(pool).await?;
        let queue = QueueTopology::new(NAME, NAME, ["#"]);
        let options = RelayOptions {
            exchange: NAME.into(),
            topology: Topology { queues: vec![queue], ..Topology::default() },
            replies: Some(ReplyQueue { name: format!("{NAME}-replies"), ..ReplyQueue::default() }),
            ..RelayOptions::default()
        };
        let shutdown = CancellationToken::new();
        let relay = tokio::spawn({
            let (relay, shutdown) = (Relay::new(pool.clone(), url.parse()?, options), shutdown.clone());
            async move { relay.run(shutdown).await }
        });
        let active = "select exists (select from amends.cursor where owner is not null)";
        while !sqlx::query_scalar::<_, bool>(active).fetch_one(pool).await? {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let connection = Connection::connect(url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        let no_ack = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let consumer = channel.basic_consume(NAME.into(), "".into(), no_ack, FieldTable::default()).await?;
        Ok(Self { pool, connection, channel, consumer, relay, shutdown, _hints: Hints::of(pool) })
    }

    /// The median in milliseconds of `events`, one at a time with pauses between them; `load` messages a second are published by
    /// others meanwhile.
    pub(crate) async fn p50_ms(&mut self, events: usize, load: f64) -> Result<f64, Fault> {
        let done = CancellationToken::new();
        let others = tokio::spawn(publish_others(self.pool.clone(), load, done.clone()));
        if load > 0.0 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let (sent, all_sent) = tokio::sync::oneshot::channel();
        let probes = tokio::spawn(publish_probes(self.pool.clone(), events));
        tokio::spawn(async move { sent.send(probes.await) });
        let (mut received, mut all_sent) = (HashMap::new(), all_sent);
        let committed = loop {
            tokio::select! {
                committed = &mut all_sent => break committed?.map_err(Fault::from)??,
                delivery = self.consumer.next() => note(delivery, &mut received)?,
            }
        };
        done.cancel();
        while committed.keys().any(|id| !received.contains_key(id)) {
            note(self.consumer.next().await, &mut received)?;
        }
        others.await??;
        let mut delays: Vec<f64> =
            committed.iter().map(|(id, at)| received[id].saturating_duration_since(*at).as_secs_f64() * 1e3).collect();
        delays.sort_by(f64::total_cmp);
        Ok(delays[delays.len() / 2])
    }

    pub(crate) async fn finish(self) -> Result<(), Fault> {
        self.shutdown.cancel();
        self.relay.await?;
        for queue in [NAME.to_owned(), format!("{NAME}-replies"), format!("{NAME}-replies.dead")] {
            self.channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await?;
        }
        for exchange in [NAME.to_owned(), format!("{NAME}-replies.dead")] {
            self.channel.exchange_delete(exchange.as_str().into(), ExchangeDeleteOptions::default()).await?;
        }
        Ok(self.connection.close(200, "bye".into()).await?)
    }
}

fn note(
    delivery: Option<lapin::Result<lapin::message::Delivery>>,
    received: &mut HashMap<String, Instant>,
) -> Result<(), Fault> {
    let delivery = delivery.ok_or("the consumer was cancelled")??;
    let id = delivery.properties.message_id().as_ref().ok_or("a message without an id")?;
    received.entry(id.to_string()).or_insert_with(Instant::now);
    Ok(())
}

/// When the commit of each returned.
async fn publish_probes(pool: PgPool, events: usize) -> Result<HashMap<String, Instant>, Fault> {
    let mut committed = HashMap::new();
    for number in 0..events {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(5..150))).await;
        let mut tx = pool.begin().await?;
        let message = Happened { key: format!("probe-{number}"), text: "x".repeat(200) };
        let id = Outbox::publish(&mut tx, &message).await?;
        tx.commit().await?;
        committed.insert(id.to_string(), Instant::now());
    }
    Ok(committed)
}

/// In transactions of a few messages each, evenly spread.
async fn publish_others(pool: PgPool, load: f64, done: CancellationToken) -> Result<(), Fault> {
    if load <= 0.0 {
        return Ok(());
    }
    let mut tick = tokio::time::interval(Duration::from_secs_f64(LOAD_BATCH as f64 / load));
    while !done.is_cancelled() {
        tick.tick().await;
        let messages = (0..LOAD_BATCH).map(|_| {
            let message = Happened { key: format!("key-{}", fastrand::u32(0..1000)), text: "x".repeat(200) };
            amends::OutboxMessage::new(&message)
        });
        let messages = messages.collect::<Result<Vec<_>, _>>()?;
        let mut tx = pool.begin().await?;
        Outbox::publish_all(&mut tx, &messages).await?;
        tx.commit().await?;
    }
    Ok(())
}
