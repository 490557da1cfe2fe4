//! The outbox relay of [`amends`], and consumers that handle each message once, on RabbitMQ.

mod broker;
mod consumer;
mod envelope;
mod error;
mod relay;
pub mod telemetry;
mod topology;

pub use broker::AmqpUrl;
pub use consumer::{Consumer, ConsumerOptions, Handler, HandlerError, Incoming};
pub use envelope::{KEY_HEADER, SEQ_HEADER};
pub use error::RelayError;
pub use relay::{Ordering, Relay, RelayOptions, RelayState};
pub use topology::{QueueKind, QueueTopology, Topology};
