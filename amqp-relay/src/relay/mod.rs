//! The relay: publishes a lane of the outbox, and moves its cursor only past what is settled.

#[cfg(test)]
mod model;
mod pump;
mod wake;
mod wave;
mod window;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering as Atomic};
use std::time::Duration;

use amends_postgres::cursor::Lane;
use amends_postgres::{Hints, Retained, Retention};
use sqlx::PgPool;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::broker::{self, AmqpUrl};
use crate::{RelayError, ReplyQueue, Topology, telemetry};

use wake::Wake;
pub use window::Ordering;

/// Publishes the outbox of a database to a broker, and delivers the replies to its sagas.
///
/// Of several relays on one lane, one publishes and the others stand by; all of them deliver replies.
#[derive(Debug, Clone)]
pub struct Relay {
    pool: PgPool,
    url: AmqpUrl,
    id: Uuid,
    options: RelayOptions,
    state: Arc<RelayState>,
    hints: Hints,
}

/// What a relay is doing, for health checks.
#[derive(Debug, Default)]
pub struct RelayState {
    connected: AtomicBool,
    active: AtomicBool,
}

impl RelayState {
    /// It has a connection to the broker.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Atomic::Relaxed)
    }

    /// It reads the lane; otherwise it stands by.
    pub fn is_active(&self) -> bool {
        self.active.load(Atomic::Relaxed)
    }
}

/// Settings of a relay; the defaults suit one service.
#[derive(Debug, Clone)]
pub struct RelayOptions {
    /// A name for people, such as the host and process id.
    pub name: String,
    /// The lane of the outbox that it reads. 0.
    pub lane: i16,
    /// The topic exchange that it publishes to. `amends`.
    pub exchange: String,
    /// `CloudEvents` source of its messages. `amends`.
    pub source: String,
    /// What is declared at every connection. The exchange only.
    pub topology: Topology,
    /// Where the replies to requests of sagas arrive; `None` if none are awaited. `amends.replies`.
    pub replies: Option<ReplyQueue>,
    /// Which order is kept within a key. Strict.
    pub ordering: Ordering,
    /// A relay that has not renewed for this long has lost its lane. 10 s.
    pub lease: Duration,
    /// How many messages it reads at once. 2 000.
    pub page: usize,
    /// How many messages it publishes before it waits for their confirms. 500.
    pub wave: usize,
    /// How long the broker may take to confirm a wave. 30 s.
    pub confirm_deadline: Duration,
    /// A message that the broker has refused this often is parked. 10.
    pub most_attempts: i32,
    /// The longest pause between two looks for messages when nothing wakes it. 500 ms; 100 ms at most while it cannot hear what
    /// others commit. What is published by SQL alone, without a hint, waits for as long.
    pub poll: Duration,
    /// How long things are kept in the database; `None` keeps them for ever, or leaves it to another process.
    pub retention: Option<Retention>,
}

impl Default for RelayOptions {
    fn default() -> Self {
        let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "relay".into());
        Self {
            name: format!("{host}:{}", std::process::id()),
            lane: 0,
            exchange: "amends".into(),
            source: "amends".into(),
            topology: Topology { exchanges: vec!["amends".into()], queues: Vec::new() },
            replies: Some(ReplyQueue::default()),
            ordering: Ordering::Strict,
            lease: Duration::from_secs(10),
            page: 2000,
            wave: 250,
            confirm_deadline: Duration::from_secs(30),
            most_attempts: 10,
            poll: Duration::from_millis(500),
            retention: Some(Retention::default()),
        }
    }
}

/// Waves on so many channels overlap: while one waits for its last confirms, others are on their way.
const CHANNELS: usize = 4;

/// Partitions are made ahead, and old ones dropped, this often; two relays that meet do it once.
const RETAIN_EVERY: Duration = Duration::from_mins(10);

/// The longest pause before a new connection is tried.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

impl Relay {
    /// A relay from a database to a broker.
    pub fn new(pool: PgPool, url: AmqpUrl, options: RelayOptions) -> Self {
        let hints = Hints::of(&pool);
        Self { pool, url, id: Uuid::now_v7(), options, state: Arc::default(), hints }
    }

    /// What it is doing, for health checks.
    pub fn state(&self) -> Arc<RelayState> {
        Arc::clone(&self.state)
    }

    /// Runs until `shutdown`, through every failure of the broker and of the database: it backs off, connects anew and
    /// goes on from the cursor. What had no confirm by then is published again.
    pub async fn run(&self, shutdown: CancellationToken) {
        tokio::join!(self.publish(&shutdown), self.deliver_replies(&shutdown), self.retain(&shutdown));
    }

    /// Every relay does it, one after another and at once: to drop what is gone does no harm.
    async fn retain(&self, shutdown: &CancellationToken) {
        loop {
            tokio::select! {
                () = sleep(RETAIN_EVERY.mul_f64(jitter())) => {}
                () = shutdown.cancelled() => return,
            }
            // In a task of its own: what is under way in the database is never cancelled.
            let (pool, retention) = (self.pool.clone(), self.options.retention);
            let retained = tokio::spawn(async move {
                Retention::make_ahead(&pool).await?;
                match retention {
                    Some(retention) => retention.apply(&pool).await,
                    None => Ok(Retained::default()),
                }
            });
            match retained.await {
                Ok(Ok(retained)) => {
                    metrics::counter!(telemetry::PARTITIONS_DROPPED).increment(retained.dropped.len() as u64);
                }
                Ok(Err(error)) => tracing::warn!(%error, "cannot drop what is old now; trying again later"),
                Err(panic) => tracing::error!(%panic, "dropping what is old panicked; that is a bug of amends"),
            }
        }
    }

    /// On a connection of its own: a broker that blocks its publishers does not block replies.
    async fn deliver_replies(&self, shutdown: &CancellationToken) {
        if let Some(queue) = &self.options.replies {
            let consumer = queue.consumer(self.pool.clone(), self.url.clone(), &self.options.exchange);
            consumer.run(shutdown.clone()).await;
        }
    }

    async fn publish(&self, shutdown: &CancellationToken) {
        let mut pause = Duration::from_millis(100);
        while !shutdown.is_cancelled() {
            let session = self.session(shutdown).await;
            self.state.connected.store(false, Atomic::Relaxed);
            self.set_active(false);
            match session {
                Ok(()) => return,
                Err((error, did_work)) => {
                    if did_work {
                        pause = Duration::from_millis(100);
                    }
                    tracing::warn!(%error, retry_in = ?pause, "the relay's session ended; connecting anew");
                    metrics::counter!(telemetry::RECONNECTS).increment(1);
                }
            }
            tokio::select! {
                () = sleep(pause.mul_f64(jitter())) => pause = (pause * 2).min(LONGEST_PAUSE),
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// One connection to the broker and one to the database. The broker comes first: a relay that cannot publish must not
    /// hold the lane.
    async fn session(&self, shutdown: &CancellationToken) -> Result<(), (RelayError, bool)> {
        let connection = broker::connect(&self.url, &self.options.name).await.map_err(|error| (error, false))?;
        self.state.connected.store(true, Atomic::Relaxed);
        let result = self.work(&connection, shutdown).await;
        broker::close(&connection).await;
        result
    }

    async fn work(
        &self,
        connection: &lapin::Connection,
        shutdown: &CancellationToken,
    ) -> Result<(), (RelayError, bool)> {
        let early = |error: RelayError| (error, false);
        let mut channels = Vec::with_capacity(CHANNELS);
        while channels.len() < CHANNELS {
            channels.push(broker::confirmed_channel(connection).await.map_err(early)?);
        }
        self.options.topology.declare(&channels[0]).await.map_err(early)?;
        let Some(mut lane) = self.acquire(connection, shutdown).await.map_err(early)? else { return Ok(()) };
        self.set_active(true);
        let wake = Wake::new(self.hints.outbox(), self.options.poll);
        let result = pump::run(&mut lane, connection, &channels, &self.options, wake, shutdown).await;
        // A lane that was lost is not ours to release; otherwise the standby need not wait.
        if let Err(error) = lane.release().await {
            tracing::warn!(%error, "cannot release the lane; a standby takes it when the lease has run out");
        }
        result.map_err(|error| (error, true))
    }

    /// Stands by until the lane is free; `None` at shutdown.
    async fn acquire(
        &self,
        connection: &lapin::Connection,
        shutdown: &CancellationToken,
    ) -> Result<Option<Lane>, RelayError> {
        let options = &self.options;
        loop {
            let lane = Lane::acquire(&self.pool, options.lane, self.id, &options.name, options.lease).await?;
            if lane.is_some() {
                return Ok(lane);
            }
            if !connection.status().connected() {
                return Err(RelayError::Deadline { what: "heartbeat", limit: options.lease });
            }
            tokio::select! {
                () = sleep((options.lease / 10).mul_f64(jitter())) => {}
                () = shutdown.cancelled() => return Ok(None),
            }
        }
    }

    fn set_active(&self, active: bool) {
        self.state.active.store(active, Atomic::Relaxed);
        metrics::gauge!(telemetry::ACTIVE).set(f64::from(u8::from(active)));
    }
}

/// Between a half and one, so that relays which failed together do not come back together.
fn jitter() -> f64 {
    0.5 + fastrand::f64() / 2.0
}
