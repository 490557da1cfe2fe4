//! A minute of steady flow at the relay's full rate, while somebody else keeps a transaction open.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering as Atomic};
use std::time::{Duration, Instant};

use amends_relay::{Broker, QueueTopology, Relay, RelayOptions, Topology};
use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, ExchangeDeleteOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ConnectionProperties};
use sqlx::{Executor, PgPool};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{Fault, broker};

const NAME: &str = "amends-bench-flow";
/// So many are written at once, and so many wait at least while the relay publishes.
const BACKLOG: i64 = 10_000;

/// What somebody else does meanwhile.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Meanwhile {
    Nothing,
    /// A transaction that looks at the database as it was.
    OldSnapshot,
    /// A transaction that has written a message, and whatever else.
    HasWritten,
}

/// A relay, a writer that never lets it run dry, and a consumer that counts.
pub(crate) struct Flow {
    pool: PgPool,
    received: Arc<AtomicU64>,
    channel: Channel,
    connection: Connection,
    shutdown: CancellationToken,
    tasks: Vec<JoinHandle<Result<(), Fault>>>,
}

impl Flow {
    pub(crate) async fn start(pool: &PgPool, url: &str) -> Result<Self, Fault> {
        broker::forget(pool).await?;
        let address: Broker = url.parse()?;
        let topology = Topology { queues: vec![QueueTopology::new(NAME, NAME, ["#"])], ..Topology::default() };
        topology.ensure(&address).await?;
        let connection = Connection::connect(url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        let received = Arc::new(AtomicU64::new(0));
        let shutdown = CancellationToken::new();
        let options = RelayOptions { exchange: NAME.into(), topology, replies: None, ..RelayOptions::default() };
        let relay = Relay::new(pool.clone(), address, options);
        let tasks = vec![
            tokio::spawn(count(channel.clone(), Arc::clone(&received), shutdown.clone())),
            tokio::spawn(feed(pool.clone(), Arc::clone(&received), shutdown.clone())),
            tokio::spawn({
                let shutdown = shutdown.clone();
                async move {
                    relay.run(shutdown).await;
                    Ok(())
                }
            }),
        ];
        Ok(Self { pool: pool.clone(), received, channel, connection, shutdown, tasks })
    }

    /// Messages a second that reach the consumer.
    pub(crate) async fn rate(&self, meanwhile: Meanwhile, time: Duration) -> Result<f64, Fault> {
        let mut open = self.pool.begin().await?;
        match meanwhile {
            Meanwhile::Nothing => {}
            Meanwhile::OldSnapshot => {
                open.execute("set transaction isolation level repeatable read").await?;
                open.execute("select count(*) from amends.cursor").await?;
            }
            Meanwhile::HasWritten => {
                open.execute(
                    "insert into amends.outbox (id, topic, name, payload) values (gen_random_uuid(), 't', 't', '')",
                )
                .await?;
            }
        }
        let (began, before) = (Instant::now(), self.received.load(Atomic::Relaxed));
        sleep(time).await;
        let rate = (self.received.load(Atomic::Relaxed) - before) as f64 / began.elapsed().as_secs_f64();
        open.rollback().await?;
        Ok(rate)
    }

    pub(crate) async fn finish(self) -> Result<(), Fault> {
        self.shutdown.cancel();
        for task in self.tasks {
            task.await??;
        }
        self.channel.queue_delete(NAME.into(), QueueDeleteOptions::default()).await?;
        self.channel.exchange_delete(NAME.into(), ExchangeDeleteOptions::default()).await?;
        Ok(self.connection.close(200, "bye".into()).await?)
    }
}

async fn count(channel: Channel, received: Arc<AtomicU64>, shutdown: CancellationToken) -> Result<(), Fault> {
    let no_ack = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let mut deliveries = channel.basic_consume(NAME.into(), "".into(), no_ack, FieldTable::default()).await?;
    while let Some(Some(delivery)) = shutdown.run_until_cancelled(deliveries.next()).await {
        delivery?;
        received.fetch_add(1, Atomic::Relaxed);
    }
    Ok(())
}

async fn feed(pool: PgPool, received: Arc<AtomicU64>, shutdown: CancellationToken) -> Result<(), Fault> {
    let mut written: u64 = 0;
    while !shutdown.is_cancelled() {
        if written < received.load(Atomic::Relaxed) + BACKLOG as u64 {
            broker::write(&mut *pool.acquire().await?, BACKLOG).await?;
            written += BACKLOG as u64;
        } else {
            sleep(Duration::from_millis(10)).await;
        }
    }
    Ok(())
}
