//! The outbox relay of [`amends`], and consumers that handle each message once, on RabbitMQ.
//!
//! The binary `amends-relay` runs a [`Relay`]; a service can embed one instead. Of several on one database, one works and
//! the others stand by. It also takes the replies to the requests of sagas home; see [`ReplyQueue`], and [`Incoming::reply`]
//! for the other side. A [`Consumer`] runs its [`Handler`] in the transaction that writes the inbox row.
//!
//! ```no_run
//! use amends_relay::{Relay, RelayOptions};
//! use tokio_util::sync::CancellationToken;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let pool = sqlx::PgPool::connect("postgres://localhost/orders").await?;
//! let relay = Relay::new(pool, "amqp://localhost:5672/%2f".parse()?, RelayOptions::default());
//! relay.run(CancellationToken::new()).await;
//! # Ok(())
//! # }
//! ```

/// Compiles the examples of the pages.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../../docs/EVENTS.md")]
    mod events {}
    #[doc = include_str!("../../docs/CONSUMERS.md")]
    mod consumers {}
    #[doc = include_str!("../../docs/PARTICIPANTS.md")]
    mod participants {}
}

mod broker;
mod consumer;
mod envelope;
mod error;
mod incoming;
mod participant;
mod pauses;
mod relay;
mod replies;
pub mod telemetry;
mod topology;
mod unpacking;

pub use broker::Broker;
pub use consumer::{
    ATTEMPTS_HEADER, CONSUMER_HEADER, Consumer, ConsumerBuilder, ConsumerError, EXCHANGE_HEADER, Handle, HandleBatch,
    Handler, HandlerError, Order, REASON_HEADER, ROUTING_KEY_HEADER,
};
pub use envelope::{KEY_HEADER, SEQ_HEADER};
pub use error::RelayError;
pub use incoming::Incoming;
pub use participant::Work;
pub use relay::{
    Ordering, REPLAYED_HEADER, Relay, RelayBuilder, RelayOptions, RelayState, Replay, Replayed, Route, Trouble,
};
pub use replies::{OUTCOME_HEADER, ReplyQueue};
pub use topology::{
    Argument, Arguments, Binding, Checked, ExchangeKind, ExchangeTopology, Match, Outcome, Overflow, QueueKind,
    QueueTopology, Topology, TopologyMode,
};
