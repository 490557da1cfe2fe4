//! A consumer whose handlers take effect once: they run in the transaction that writes the inbox row.

mod attempt;
mod batch;
mod builder;
mod dead_letters;
mod handler;
mod lines;
mod routes;
mod session;
mod settle;
mod telemetry;

use std::sync::Arc;
use std::time::Duration;

use amends_postgres::{Hints, Retention};
use sqlx::PgPool;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

pub use builder::{ConsumerBuilder, ConsumerError};
pub use dead_letters::{ATTEMPTS_HEADER, CONSUMER_HEADER, EXCHANGE_HEADER, REASON_HEADER, ROUTING_KEY_HEADER};
pub use handler::{Handle, HandleBatch, Handler, HandlerError};

use self::batch::{Batching, Work};
use self::dead_letters::DeadLetters;
use crate::broker::{self, Broker};
use crate::pauses::Pauses;
use crate::{QueueTopology, RelayError};

/// They are made for four weeks.
const MAKE_PARTITIONS_EVERY: Duration = Duration::from_hours(24);

/// Consumes a queue until it is asked to stop. Each message takes effect once.
///
/// The handler's writes, the messages that it publishes and the inbox row of what it handled commit together; the
/// acknowledgement follows. What fails is tried again where it stands, so that those behind it in its line ([`Order`]) do not
/// overtake it. What can never be handled goes to the dead letters, with the reason in the header `amends-reason`, and is let go
/// of once the broker has confirmed that a queue has it there. See [`docs/CONSUMERS.md`](https://github.com/amends-rs/amends/blob/main/docs/CONSUMERS.md).
///
/// ```no_run
/// # use amends::Message;
/// # use amends_postgres::Outbox;
/// # use amends_relay::{Consumer, HandlerError, Incoming, QueueTopology};
/// # use serde::{Deserialize, Serialize};
/// # use sqlx::PgConnection;
/// # use tokio_util::sync::CancellationToken;
/// # #[derive(Serialize, Deserialize, Message)]
/// # #[message(name = "stock.reserved")]
/// # struct StockReserved { sku: String, qty: i32 }
/// # #[derive(Serialize, Deserialize, Message)]
/// # #[message(name = "stock.released")]
/// # struct StockReleased { sku: String, qty: i32 }
/// async fn reserved(tx: &mut PgConnection, event: StockReserved, _: &Incoming) -> Result<(), HandlerError> {
///     set_aside(tx, &event.sku, event.qty).await
/// }
///
/// # async fn set_aside(tx: &mut PgConnection, sku: &str, qty: i32) -> Result<(), HandlerError> { Ok(()) }
/// # async fn example(pool: sqlx::PgPool, queue: QueueTopology) -> Result<(), Box<dyn std::error::Error>> {
/// let consumer = Consumer::builder(pool, "amqp://localhost:5672/%2f".parse()?)
///     .name("warehouse")
///     .queue(queue)
///     .on(reserved)
///     .on(async |tx: &mut PgConnection, event: StockReleased, _: &Incoming| set_aside(tx, &event.sku, -event.qty).await)
///     .build()?;
/// consumer.run(CancellationToken::new()).await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Consumer(Arc<Inner>);

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Inner { name, queue, settings, .. } = &*self.0;
        f.debug_struct("Consumer")
            .field("name", name)
            .field("queue", queue)
            .field("settings", settings)
            .finish_non_exhaustive()
    }
}

struct Inner {
    pool: PgPool,
    url: Broker,
    name: String,
    queue: QueueTopology,
    settings: Settings,
    batching: Option<Batching>,
    work: Arc<dyn Work>,
    dead_letters: DeadLetters,
    /// For what its handlers publish and answer.
    _hints: Hints,
}

/// Which messages of a queue wait for each other.
///
/// With several consumers on one queue, only a *single active consumer*
/// ([`QueueTopology::single_active_consumer`]) keeps an order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    /// One is handled after the other, as they stand in the queue; one that fails holds up all behind it.
    #[default]
    Queue,
    /// Those of one key are; one that fails holds up its key alone. Those without a key wait for none.
    Key,
    /// None waits for another.
    Any,
}

/// What the builder's methods of the same names set.
#[derive(Debug, Clone)]
struct Settings {
    declare: bool,
    order: Order,
    concurrency: usize,
    prefetch: u16,
    attempts: u32,
    longest_pause: Duration,
    window: Duration,
    accept_older: bool,
    idle: Duration,
    drain: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            declare: true,
            order: Order::Queue,
            concurrency: 1,
            prefetch: 100,
            attempts: 10,
            longest_pause: Duration::from_secs(10),
            // A day less than the inbox is kept, for clocks that differ.
            window: Duration::from_hours(29 * 24),
            accept_older: false,
            idle: Duration::from_secs(30),
            drain: Duration::from_secs(10),
        }
    }
}

impl Consumer {
    /// A consumer that handles messages in the database of `pool`.
    pub fn builder(pool: PgPool, url: Broker) -> ConsumerBuilder {
        ConsumerBuilder::new(pool, url)
    }

    /// Runs until `shutdown`, through every failure of the broker and of the database; then finishes what it has begun, within
    /// [`drain`](ConsumerBuilder::drain), and gives the rest back.
    pub async fn run(&self, shutdown: CancellationToken) {
        tokio::join!(self.consume(&shutdown), self.make_partitions(&shutdown));
    }

    /// There may be no relay on this database. To drop what is old is left to whoever knows how long it is to be kept.
    async fn make_partitions(&self, shutdown: &CancellationToken) {
        while !shutdown.is_cancelled() {
            // In a task of its own: what is under way in the database is never cancelled.
            let pool = self.0.pool.clone();
            tokio::spawn(async move {
                if let Err(error) = Retention::make_ahead(&pool).await {
                    tracing::warn!(%error, "cannot make partitions now; the default partitions take what comes");
                }
            });
            tokio::select! {
                () = sleep(MAKE_PARTITIONS_EVERY) => {}
                () = shutdown.cancelled() => {}
            }
        }
    }

    async fn consume(&self, shutdown: &CancellationToken) {
        let mut pauses = Pauses::up_to(self.0.settings.longest_pause);
        while !shutdown.is_cancelled() {
            let pause = match self.session(shutdown, &mut pauses).await {
                Ok(()) => break,
                Err(error) => {
                    let pause = pauses.take();
                    tracing::warn!(consumer = self.0.name, %error, retry_in = ?pause, "the consumer's session ended; connecting anew");
                    pause
                }
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = shutdown.cancelled() => break,
            }
        }
        self.0.dead_letters.close().await;
    }

    async fn session(&self, shutdown: &CancellationToken, pauses: &mut Pauses) -> Result<(), RelayError> {
        let connection = broker::connect(&self.0.url, &self.0.name).await?;
        let result = session::run(&self.0, &connection, shutdown, || pauses.restart()).await;
        broker::close(&connection).await;
        result.map_err(|error| match error {
            RelayError::Broker(error) if matches!(error.kind(), lapin::ErrorKind::ParsingError(_)) => {
                RelayError::Unreadable(self.0.queue.name.clone())
            }
            error => error,
        })
    }
}
