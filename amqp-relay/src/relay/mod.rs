//! The relay: publishes the lanes of the outbox, and moves their cursors only past what is settled.

mod breaker;
mod builder;
mod held;
mod lanes;
#[cfg(test)]
mod model;
mod options;
mod pump;
mod replay;
mod routes;
mod session;
mod share;
mod size;
mod state;
mod wake;
mod wave;
mod window;

use std::sync::Arc;
use std::time::Duration;

use amends_postgres::{Hints, Retained, Retention};
use sqlx::PgPool;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::broker::Broker;
use crate::pauses::jitter;
use crate::telemetry;

pub use builder::RelayBuilder;
pub use options::RelayOptions;
pub use replay::{REPLAYED_HEADER, Replay, Replayed};
pub use routes::Route;
pub use state::{RelayState, Trouble};
pub use window::Ordering;

/// Publishes the outbox of a database to a broker, and delivers the replies to its sagas.
///
/// Several relays on one database share its lanes; those that have none stand by. All of them deliver replies.
#[derive(Debug, Clone)]
pub struct Relay {
    pool: PgPool,
    url: Broker,
    id: Uuid,
    options: RelayOptions,
    state: Arc<RelayState>,
    hints: Hints,
}

/// Partitions are made ahead, and old ones dropped, this often; two relays that meet do it once.
const RETAIN_EVERY: Duration = Duration::from_mins(10);

/// It is no longer waited for; a database whose host is gone says nothing for longer.
const LONGEST_RETAIN: Duration = Duration::from_hours(1);

impl Relay {
    /// A relay from a database to a broker; see [`RelayBuilder`].
    pub fn builder(pool: PgPool, url: Broker) -> RelayBuilder {
        RelayBuilder::new(pool, url)
    }

    /// A relay from a database to a broker.
    pub fn new(pool: PgPool, url: Broker, options: RelayOptions) -> Self {
        let hints = Hints::of(&pool);
        let options = RelayOptions { page: options.page.max(2), wave: options.wave.max(1), ..options };
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
            let retained = tokio::select! {
                retained = timeout(LONGEST_RETAIN, retained) => retained,
                () = shutdown.cancelled() => return,
            };
            match retained {
                Ok(Ok(Ok(retained))) => {
                    metrics::counter!(telemetry::PARTITIONS_DROPPED).increment(retained.dropped.len() as u64);
                }
                Ok(Ok(Err(error))) => tracing::warn!(%error, "cannot drop what is old now; trying again later"),
                Ok(Err(panic)) => tracing::error!(%panic, "dropping what is old panicked; that is a bug of amends"),
                Err(_) => tracing::warn!(
                    "what is old is still being dropped, or the database has gone silent; beginning anew"
                ),
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
}
