//! A consumer whose handler takes effect once: it runs in the transaction that writes the inbox row.

use std::sync::Arc;
use std::time::Duration;

use amends::{Error, StoreError};
use amends_postgres::Inbox;
use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions};
use lapin::types::FieldTable;
use sqlx::{PgConnection, PgPool};
use thiserror::Error;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::broker::{self, AmqpUrl, short, soon};
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
            Error::Json { .. } | Error::KeyConflict { .. } | Error::Store(StoreError::Refused(_)) => {
                Self::Reject(error.to_string())
            }
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
    /// How many messages are handled at once. 1, which keeps their order.
    pub concurrency: usize,
    /// How many messages the broker sends ahead. 100.
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
        Self { pool, url, options, handler: Arc::new(handler) }
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
        soon("limit the prefetch", channel.basic_qos(self.options.prefetch, BasicQosOptions::default())).await?;
        let (queue, tag) = (short("queue", &self.options.queue.name)?, short("consumer", &self.options.name)?);
        let consuming = channel.basic_consume(queue, tag, BasicConsumeOptions::default(), FieldTable::default());
        let mut deliveries = soon("consume", consuming).await?;
        let mut under_way = FuturesUnordered::new();
        loop {
            let has_room = under_way.len() < self.options.concurrency.max(1);
            let delivery = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(settled) = under_way.next() => {
                    settled?;
                    continue;
                }
                delivery = deliveries.next(), if has_room => delivery,
            };
            let Some(delivery) = delivery.transpose()? else {
                return Err(RelayError::Deadline { what: "deliveries: the queue is gone", limit: Duration::ZERO });
            };
            *pause = Duration::from_millis(100);
            under_way.push(self.settle(delivery, shutdown));
        }
        while let Some(settled) = under_way.next().await {
            settled?;
        }
        Ok(())
    }

    /// Handles a delivery until it is handled, and tells the broker; at shutdown it is left to be delivered again.
    async fn settle(&self, delivery: Delivery, shutdown: &CancellationToken) -> Result<(), RelayError> {
        let mut pause = Duration::from_millis(100);
        loop {
            let (handled, result) = match self.handle(&delivery).await {
                Ok(Handled::Done) => (Ok(()), "handled"),
                Ok(Handled::Duplicate) => (Ok(()), "duplicate"),
                Ok(Handled::Rejected(reason)) => (Err(reason), "rejected"),
                Err(error) => {
                    tracing::warn!(consumer = self.options.name, %error, retry_in = ?pause, "cannot handle a message now");
                    metrics::counter!(telemetry::HANDLED, "consumer" => self.options.name.clone(), "result" => "retried").increment(1);
                    // Tried again here, so that the messages behind it do not overtake it.
                    tokio::select! {
                        () = sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)) => pause = (pause * 2).min(self.options.longest_pause),
                        () = shutdown.cancelled() => return Ok(()),
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
            return Ok(());
        }
    }

    /// In a task of its own: a transaction is never cancelled in the middle of its commit.
    async fn handle(&self, delivery: &Delivery) -> Result<Handled, HandlerError> {
        let message = match Incoming::of(delivery) {
            Ok(message) => message,
            Err(reason) => return Ok(Handled::Rejected(reason)),
        };
        let (pool, handler, consumer) = (self.pool.clone(), Arc::clone(&self.handler), self.options.name.clone());
        let handling = tokio::spawn(async move {
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
        });
        handling.await.unwrap_or_else(|panic| Err(HandlerError::Retry(Box::new(panic))))
    }
}
