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
//! use amends::{Call, MemoryStore, Outcome, Sagas, StepResult, reject, saga};
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
//! # while sagas.outcome(trip).await?.is_none() { tokio::task::yield_now().await; }
//! assert_eq!(sagas.outcome(trip).await?, Some(Outcome::Compensated));
//! # shutdown.cancel();
//! # worker.await??;
//! # Ok(())
//! # }
//! ```

mod call;
pub mod definition;
mod error;
pub mod event;
mod ids;
mod json;
pub mod machine;
pub mod memory;
mod message;
mod retry;
mod saga;
mod sagas;
pub mod state;
pub mod store;
pub mod telemetry;
pub mod trace;
mod worker;

pub use amends_macros::{Message, compensate, saga, step};
pub use call::Call;
pub use definition::{Compensation, Definition, DefinitionError, Step, StepKind};
pub use error::{Error, StepError, StepResult, StoreError, reject};
pub use event::{Event, Outcome, Rejection};
pub use ids::{MessageId, SagaId, WorkerId};
pub use json::{Json, JsonError, MAX_JSON_BYTES, MAX_JSON_DEPTH, sanitize};
pub use memory::MemoryStore;
pub use message::{Message, OutboxMessage};
pub use retry::RetryPolicy;
pub use saga::{Capability, Data, Key, Saga, StepFuture, Steps};
pub use sagas::{Sagas, SagasBuilder};
pub use store::{Started, Status, StepTransaction, Store};
pub use worker::WorkerOptions;

/// What the macros' output names. Not part of the public interface.
#[doc(hidden)]
pub mod __private {
    pub use std::borrow::Cow;
    pub use std::boxed::Box;
    pub use std::time::Duration;

    pub use serde::{Serialize, de::DeserializeOwned};

    use crate::{Json, StepError, StepResult};

    /// What a step's method returns when it succeeds.
    #[diagnostic::on_unimplemented(
        message = "a step returns `StepResult<T>`, not `{Self}`",
        label = "this is what the step returns",
        note = "any error that implements `std::error::Error` becomes a `StepError`; `StepError::retry` makes one of a text"
    )]
    pub trait StepOutput {
        /// The `T` of `StepResult<T>`.
        type Output;

        /// The `StepResult<T>` itself.
        fn settled(self) -> StepResult<Self::Output>;
    }

    #[diagnostic::do_not_recommend]
    impl<T, E: Into<StepError>> StepOutput for Result<T, E> {
        type Output = T;

        fn settled(self) -> StepResult<T> {
            self.map_err(Into::into)
        }
    }

    /// What a step's method returned.
    ///
    /// # Errors
    /// Returns the error of the step.
    pub fn settled<R: StepOutput>(returned: R) -> StepResult<R::Output> {
        returned.settled()
    }

    /// The type `Self` itself, so that a mismatch is one error on the parameter.
    #[diagnostic::on_unimplemented(
        message = "this parameter receives `{Self}`, not `{Given}`",
        label = "what is recorded is of type `{Self}`"
    )]
    pub trait Same<Given: ?Sized> {}

    impl<T: ?Sized> Same<T> for T {}

    /// Compiles if the types are the same.
    pub fn is_same<Recorded: ?Sized + Same<Given>, Given: ?Sized>() {}

    /// Encodes what a body returned.
    ///
    /// # Errors
    /// Returns [`StepError::Data`] if the store cannot hold it.
    pub fn output<T: serde::Serialize>(value: &T) -> StepResult<Json> {
        Json::encode(value).map_err(StepError::Data)
    }
}
