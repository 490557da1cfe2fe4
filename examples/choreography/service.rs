//! What all four services are: tables, a relay that publishes their outbox, and a consumer of the events they hear.

use amends::asyncapi::Document;
use amends_relay::{Broker, Consumer, ConsumerBuilder, Order, QueueTopology, Relay, RelayOptions, Topology};
use shop::service::Failure;
use sqlx::{AssertSqlSafe, Executor, PgPool};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A service: whatever it hears, it handles in the transaction of its own database in which it publishes what follows.
pub(crate) trait Service {
    const NAME: &'static str;
    const TABLES: &'static str;
    const HEARS: &'static [&'static str];

    /// Says who handles what it hears.
    fn handle(consumer: ConsumerBuilder) -> ConsumerBuilder;

    /// Its interface, for others.
    fn describe(document: Document) -> Document;
}

/// A service at work.
pub(crate) struct Running {
    pub(crate) pool: PgPool,
    relay: Relay,
    tasks: [JoinHandle<()>; 2],
}

impl Running {
    pub(crate) async fn start<S: Service>(
        pool: PgPool,
        amqp: &Broker,
        exchange: &str,
        shutdown: &CancellationToken,
    ) -> Result<Self, Failure> {
        amends_migrations::migrator().run(&pool).await?;
        pool.execute(AssertSqlSafe(S::TABLES)).await?;
        let queue = queue::<S>(exchange);
        let relay = Relay::new(
            pool.clone(),
            amqp.clone(),
            RelayOptions {
                exchange: exchange.to_owned(),
                source: format!("/{}", S::NAME),
                // The queue is there before anybody publishes: an event without a queue would have to wait for it.
                topology: Topology {
                    exchanges: vec![exchange.into()],
                    queues: vec![queue.clone()],
                    ..Topology::default()
                },
                replies: None,
                ..RelayOptions::default()
            },
        );
        // Events of one order come in order; orders do not wait for each other.
        let consumer = Consumer::builder(pool.clone(), amqp.clone()).name(S::NAME).queue(queue);
        let consumer = S::handle(consumer.order(Order::Key).concurrency(4)).build()?;
        let (publishing, until, stop) = (relay.clone(), shutdown.clone(), shutdown.clone());
        let tasks = [
            tokio::spawn(async move { publishing.run(until).await }),
            tokio::spawn(async move { consumer.run(stop).await }),
        ];
        Ok(Self { pool, relay, tasks })
    }

    /// Its queue is bound, and its relay publishes.
    pub(crate) fn is_ready(&self) -> bool {
        self.relay.state().is_active()
    }

    pub(crate) async fn stopped(self) -> PgPool {
        for task in self.tasks {
            // A panic of a task is in the log, and shows in the audit.
            let _ = task.await;
        }
        self.pool
    }
}

fn queue<S: Service>(exchange: &str) -> QueueTopology {
    QueueTopology::new(queue_name(exchange, S::NAME), exchange, S::HEARS.iter().copied())
}

pub(crate) fn queue_name(exchange: &str, service: &str) -> String {
    format!("{exchange}.{service}")
}
