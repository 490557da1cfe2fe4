//! Sagas that make amends: durable, compensating sagas and the transactional outbox.
//!
//! Annotate an `impl` block with [`macro@saga`]: its steps run in order, or in parallel, each with the compensation that
//! undoes it. Start a saga in your own transaction; it runs if, and only if, that commits, to one of three ends through
//! any crash: completed, compensated, or parked where an operator sees it.
//!
//! A `tx` step gets a transaction: its writes, its messages and its record commit at once. A `call` step gets a [`Call`]
//! with an idempotency key that is the same in every attempt. A body returns `Ok`, [`reject`]s for good, or fails with
//! any other error and is tried again.
//!
//! This crate holds no SQL: `amends-postgres` keeps sagas in PostgreSQL, `amends-relay` publishes their messages to
//! RabbitMQ, and [`MemoryStore`] is for tests and for a first look:
//!
//! ```
//! use amends::{Call, Ended, MemoryStore, Sagas, StepResult, reject, saga};
//!
//! struct BookTrip;
//!
//! #[saga(name = "book-trip", version = 1, input = String)]
//! impl BookTrip {
//!     #[step(call, compensate = cancel_flight)]
//!     async fn flight(&self, call: &Call, input: &String) -> StepResult<String> {
//!         Ok(format!("{input} under {}", call.idempotency_key()))
//!     }
//!
//!     #[step(call, compensate = none)]
//!     async fn hotel(&self, _call: &Call, flight: &String) -> StepResult<()> {
//!         if flight.starts_with("Atlantis") { Err(reject("no_rooms")) } else { Ok(()) }
//!     }
//!
//!     /// `Option`: after a timeout nobody knows whether there is a flight.
//!     #[compensate]
//!     async fn cancel_flight(&self, _call: &Call, flight: Option<&String>) -> StepResult<()> {
//!         println!("cancelling {flight:?}");
//!         Ok(())
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let sagas = Sagas::builder(MemoryStore::new()).register(BookTrip).build()?;
//! # let shutdown = tokio_util::sync::CancellationToken::new();
//! let worker = tokio::spawn({
//!     let (sagas, shutdown) = (sagas.clone(), shutdown.clone());
//!     async move { sagas.run(shutdown).await }
//! });
//! let trip = sagas.start_now(BookTrip::key("trip 17"), &"Atlantis".to_owned()).await?.id();
//! let ended = sagas.outcome::<BookTrip>(trip).await?;
//! assert!(matches!(&ended, Ended::Compensated(why) if why.rejection.as_ref().is_some_and(|it| it.code == "no_rooms")));
//! # shutdown.cancel();
//! # worker.await??;
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "asyncapi")]
pub mod asyncapi;
mod bell;
mod call;
mod correlation;
pub mod definition;
mod encoding;
mod error;
pub mod event;
mod ids;
mod json;
mod list;
pub mod machine;
pub mod memory;
mod message;
mod payloads;
mod retry;
mod saga;
mod sagas;
mod schedule;
pub mod state;
pub mod store;
pub mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;
pub mod trace;
mod waits;
mod worker;

pub use amends_macros::{Message, compensate, probe, saga, step, upcast};
pub use call::Call;
pub use correlation::{CORRELATION_HEADER, Correlation, CorrelationError, IDEMPOTENCY_HEADER};
pub use definition::{Compensation, Definition, DefinitionError, ForEach, Position, Probe, Step, StepKind};
pub use encoding::{AsJson, Encoding, EncodingError};
pub use error::{Error, StepError, StepResult, StoreError, reject, reject_with, skip};
pub use event::{Answer, Event, Outcome, Rejection};
pub use ids::{MessageId, SagaId, WorkerId};
pub use json::{Json, JsonError, MAX_JSON_BYTES, MAX_JSON_DEPTH, sanitize};
pub use list::MAX_ITEMS;
pub use memory::MemoryStore;
pub use message::{
    CONTENT_ENCODING_HEADER, MAX_HEADERS_BYTES, MAX_NAME_BYTES, MAX_PAYLOAD_BYTES, Message, OutboxMessage,
};
pub use payloads::{CLAIM_CHECK_HEADER, Codec, MAX_STORED_BYTES, PayloadStore, Payloads, UnpackError};
pub use retry::RetryPolicy;
pub use saga::{Begin, Capability, Data, Key, ProbeFuture, Saga, StepFuture, StepRef, Steps};
pub use sagas::{
    Compatibility, CompatibilityLine, Compensated, Ended, PlannedUndo, Resolution, Resolved, Sagas, SagasBuilder,
    UndoPlan,
};
pub use schedule::{Schedule, Tick};
pub use store::{Lock, Priority, Started, Status, StepTransaction, Store};
pub use waits::{Child, Request, Signal};
pub use worker::WorkerOptions;

#[doc(hidden)]
#[path = "private.rs"]
pub mod __private;
