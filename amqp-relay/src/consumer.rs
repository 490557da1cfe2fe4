//! A consumer whose handler takes effect once: it runs in the transaction that writes the inbox row.

use std::sync::Arc;
use std::time::Duration;

use amends::{Error, StoreError};
use amends_postgres::{Hints, Inbox};
use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions};
use lapin::types::FieldTable;
use sqlx::{PgConnection, PgPool};
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::broker::{self, AmqpUrl, short, soon};
use crate::lines::{Arrived, Lines};
use crate::{Incoming, QueueTopology, RelayError, telemetry};

/// Handles the messages of a queue.
///
/// # Idempotency
/// The effects that it makes through `tx` happen once for each message id, within the retention of the inbox. Whatever
/// it does elsewhere may happen again.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Handles a message in the transaction that records it as handled.
    ///
    /// # Errors
    /// [`HandlerError::Retry`], which every error becomes with `?`, rolls back and tries again after a pause;
    /// [`HandlerError::Reject`] sends the message to the dead-letter exchange.
    async fn handle(&self, tx: &mut PgConnection, message: &Incoming) -> Result<(), HandlerError>;
}

/// Why a message was not handled.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HandlerError {
    /// Try it again.
    #[error(transparent)]
    Retry(Box<dyn std::error::Error + Send + Sync>),
    /// It can never be handled.
    #[error("{0}")]
    Reject(String),
}

impl From<sqlx::Error> for HandlerError {
    fn from(error: sqlx::Error) -> Self {
        Self::Retry(Box::new(error))
    }
}

impl From<Error> for HandlerError {
    /// What can never be stored is rejected; the rest is tried again.
    fn from(error: Error) -> Self {
        match error {
            Error::Json { .. }
            | Error::Encoding { .. }
            | Error::TooLarge { .. }
            | Error::NotPacked { .. }
            | Error::KeyConflict { .. }
            | Error::Store(StoreError::Refused(_)) => Self::Reject(error.to_string()),
            error => Self::Retry(Box::new(error)),
        }
    }
}

/// Consumes a queue, by default one message at a time and in order, until it is asked to stop.
#[derive(Debug)]
pub struct Consumer<H> {
    pool: PgPool,
    url: AmqpUrl,
    options: ConsumerOptions,
    handler: Arc<H>,
    /// For what its handler publishes and answers.
    _hints: Hints,
}

/// Which messages of a queue wait for each other.
///
/// With several consumers on one queue, only *single active consumer* (`x-single-active-consumer`) keeps an order.
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

/// Settings of a consumer.
#[derive(Debug, Clone)]
pub struct ConsumerOptions {
    /// Names it in the inbox: consumers of one name handle each message once between them.
    pub name: String,
    /// The queue, with its bindings.
    pub queue: QueueTopology,
    /// Declare the queue with its bindings at every connection. Yes.
    pub declare: bool,
    /// Which messages wait for each other. All, as they stand in the queue.
    pub order: Order,
    /// How many messages are handled at once, where they need not wait for each other. 1.
    pub concurrency: usize,
    /// How many messages the broker sends ahead: so many can wait behind one that fails. 100.
    pub prefetch: u16,
    /// The longest pause before a message is tried again. 10 s.
    pub longest_pause: Duration,
}

impl ConsumerOptions {
    /// A consumer of this queue, with the defaults.
    pub fn new(name: impl Into<String>, queue: QueueTopology) -> Self {
        Self {
            name: name.into(),
            queue,
            declare: true,
            order: Order::Queue,
            concurrency: 1,
            prefetch: 100,
            longest_pause: Duration::from_secs(10),
        }
    }
}

/// What became of one delivery.
enum Handled {
    Done,
    Duplicate,
    Rejected(String),
}

impl<H: Handler> Consumer<H> {
    /// A consumer that handles messages in the database of `pool`.
    pub fn new(pool: PgPool, url: AmqpUrl, options: ConsumerOptions, handler: H) -> Self {
        let hints = Hints::of(&pool);
        Self { pool, url, options, handler: Arc::new(handler), _hints: hints }
    }

    /// Runs until `shutdown`, through every failure of the broker and of the database. A message that was being handled is
    /// finished first.
    pub async fn run(&self, shutdown: CancellationToken) {
        let mut pause = Duration::from_millis(100);
        while !shutdown.is_cancelled() {
            match self.session(&shutdown, &mut pause).await {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(%error, retry_in = ?pause, "the consumer's session ended; connecting anew");
                }
            }
            tokio::select! {
                () = sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)) => pause = (pause * 2).min(self.options.longest_pause),
                () = shutdown.cancelled() => return,
            }
        }
    }

    async fn session(&self, shutdown: &CancellationToken, pause: &mut Duration) -> Result<(), RelayError> {
        let connection = broker::connect(&self.url, &self.options.name).await?;
        let result = self.consume(&connection, shutdown, pause).await;
        broker::close(&connection).await;
        result
    }

    async fn consume(
        &self,
        connection: &lapin::Connection,
        shutdown: &CancellationToken,
        pause: &mut Duration,
    ) -> Result<(), RelayError> {
        let channel = soon("open a channel", connection.create_channel()).await?;
        if self.options.declare {
            self.options.queue.declare(&channel).await?;
        }
        soon("limit the prefetch", channel.basic_qos(self.options.prefetch.max(1), BasicQosOptions::default())).await?;
        let (queue, tag) = (short("queue", &self.options.queue.name)?, short("consumer", &self.options.name)?);
        let consuming = channel.basic_consume(queue, tag, BasicConsumeOptions::default(), FieldTable::default());
        let mut deliveries = soon("consume", consuming).await?;
        // Whoever pauses before it tries again takes no place; the prefetch bounds how many there are.
        let places = Semaphore::new(self.options.concurrency.max(1));
        let mut under_way = FuturesUnordered::new();
        let mut lines = Lines::new(self.options.order);
        loop {
            let delivery = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(settled) = under_way.next() => {
                    let line: Option<String> = settled?;
                    if let Some(next) = line.and_then(|line| lines.next(&line)) {
                        under_way.push(self.settle(next, &places, shutdown));
                    }
                    continue;
                }
                delivery = deliveries.next() => delivery,
            };
            let Some(delivery) = delivery.transpose()? else {
                return Err(RelayError::Deadline { what: "deliveries: the queue is gone", limit: Duration::ZERO });
            };
            *pause = Duration::from_millis(100);
            if let Some(first) = lines.queue(Arrived::new(delivery)) {
                under_way.push(self.settle(first, &places, shutdown));
            }
        }
        while let Some(settled) = under_way.next().await {
            settled?;
        }
        Ok(())
    }

    /// Handles a delivery until it is handled, and tells the broker; at shutdown it is left to be delivered again. The answer
    /// is the line in which others wait behind it.
    async fn settle(
        &self,
        arrived: Arrived,
        places: &Semaphore,
        shutdown: &CancellationToken,
    ) -> Result<Option<String>, RelayError> {
        let Arrived { delivery, message, line } = arrived;
        let mut pause = Duration::from_millis(100);
        loop {
            let tried = tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(None),
                place = places.acquire() => place,
            };
            let tried = match tried {
                Ok(_place) => self.handle(&message).await,
                Err(closed) => Err(HandlerError::Retry(Box::new(closed))),
            };
            let (handled, result) = match tried {
                Ok(Handled::Done) => (Ok(()), "handled"),
                Ok(Handled::Duplicate) => (Ok(()), "duplicate"),
                Ok(Handled::Rejected(reason)) => (Err(reason), "rejected"),
                Err(error) => {
                    tracing::warn!(consumer = self.options.name, %error, retry_in = ?pause, "cannot handle a message now");
                    metrics::counter!(telemetry::HANDLED, "consumer" => self.options.name.clone(), "result" => "retried").increment(1);
                    // Tried again here, so that the messages behind it do not overtake it.
                    tokio::select! {
                        () = sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)) => pause = (pause * 2).min(self.options.longest_pause),
                        () = shutdown.cancelled() => return Ok(None),
                    }
                    continue;
                }
            };
            metrics::counter!(telemetry::HANDLED, "consumer" => self.options.name.clone(), "result" => result)
                .increment(1);
            // After the commit: a message whose acknowledgement is lost comes again and is recognised.
            match handled {
                Ok(()) => soon("acknowledge", delivery.acker.ack(BasicAckOptions::default())).await?,
                Err(reason) => {
                    tracing::error!(
                        consumer = self.options.name,
                        reason,
                        "a message can never be handled; it goes to the dead letters"
                    );
                    let options = BasicNackOptions { requeue: false, ..BasicNackOptions::default() };
                    soon("refuse", delivery.acker.nack(options)).await?
                }
            };
            return Ok(line);
        }
    }

    /// In a task of its own: a transaction is never cancelled in the middle of its commit.
    async fn handle(&self, message: &Result<Incoming, String>) -> Result<Handled, HandlerError> {
        let message = match message {
            Ok(message) => message.clone(),
            Err(reason) => return Ok(Handled::Rejected(reason.clone())),
        };
        let (pool, handler, consumer) = (self.pool.clone(), Arc::clone(&self.handler), self.options.name.clone());
        let span = telemetry::process_span(&consumer, &self.options.queue.name, &message);
        let handling = async move {
            let mut tx = pool.begin().await?;
            if !Inbox::insert(&mut tx, &consumer, &message.id).await? {
                tx.rollback().await?;
                return Ok(Handled::Duplicate);
            }
            match handler.handle(&mut tx, &message).await {
                Ok(()) => tx.commit().await.map(|()| Handled::Done).map_err(HandlerError::from),
                Err(HandlerError::Reject(reason)) => {
                    tx.rollback().await.map(|()| Handled::Rejected(reason)).map_err(HandlerError::from)
                }
                Err(error) => {
                    tx.rollback().await?;
                    Err(error)
                }
            }
        };
        tokio::spawn(handling.instrument(span)).await.unwrap_or_else(|panic| Err(HandlerError::Retry(Box::new(panic))))
    }
}
