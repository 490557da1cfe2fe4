//! A relay in an application's own process.

use std::time::Duration;

use amends_postgres::Retention;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::relay::{Ordering, Relay, RelayOptions, Route};
use crate::{Broker, ReplyQueue, Topology};

/// Settings of a relay, one by one; what is not set has the default of [`RelayOptions`].
///
/// ```no_run
/// use amends_relay::{Relay, Route};
/// use tokio_util::sync::CancellationToken;
///
/// # async fn example(pool: sqlx::PgPool, shutdown: CancellationToken) -> Result<(), amends_relay::RelayError> {
/// Relay::builder(pool, "amqp://localhost:5672/%2f".parse()?)
///     .exchange("orders")
///     .route(Route { types: "invoice.*".into(), exchange: Some("accounting".into()), routing_key: None })
///     .run(shutdown)
///     .await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a relay does nothing until it runs"]
pub struct RelayBuilder {
    pool: PgPool,
    url: Broker,
    options: RelayOptions,
}

impl RelayBuilder {
    pub(super) fn new(pool: PgPool, url: Broker) -> Self {
        Self { pool, url, options: RelayOptions::default() }
    }

    /// A name for people.
    pub fn name(self, name: impl Into<String>) -> Self {
        self.with(|options| options.name = name.into())
    }

    /// The exchange for what no route sends elsewhere, which is declared as a topic exchange too.
    pub fn exchange(self, exchange: impl Into<String>) -> Self {
        let exchange = exchange.into();
        self.with(|options| {
            options.topology.exchanges = vec![exchange.as_str().into()];
            options.exchange = exchange;
        })
    }

    /// Where messages of certain types go, unless an earlier route says otherwise.
    pub fn route(self, route: Route) -> Self {
        self.with(|options| options.routes.push(route))
    }

    /// What is declared at every connection, instead of the exchange alone.
    pub fn topology(self, topology: Topology) -> Self {
        self.with(|options| options.topology = topology)
    }

    /// Where the replies to requests of sagas arrive; `None` if none are awaited.
    pub fn replies(self, replies: impl Into<Option<ReplyQueue>>) -> Self {
        self.with(|options| options.replies = replies.into())
    }

    /// Which order is kept within a key.
    pub fn ordering(self, ordering: Ordering) -> Self {
        self.with(|options| options.ordering = ordering)
    }

    /// A relay that has not renewed for this long has lost its lanes.
    pub fn lease(self, lease: Duration) -> Self {
        self.with(|options| options.lease = lease)
    }

    /// How long things are kept in the database; `None` keeps them for ever, or leaves it to another process.
    pub fn retention(self, retention: impl Into<Option<Retention>>) -> Self {
        self.with(|options| options.retention = retention.into())
    }

    /// Any of the other settings.
    pub fn with(mut self, set: impl FnOnce(&mut RelayOptions)) -> Self {
        set(&mut self.options);
        self
    }

    /// The relay, for who wants to see its state while it runs.
    pub fn build(self) -> Relay {
        Relay::new(self.pool, self.url, self.options)
    }

    /// Runs it until `shutdown`; see [`Relay::run`].
    pub async fn run(self, shutdown: CancellationToken) {
        self.build().run(shutdown).await;
    }
}
