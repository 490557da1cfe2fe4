//! Sagas that make amends.

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

    use crate::{Json, StepError, StepResult};

    /// What a step's method returns when it succeeds.
    #[diagnostic::on_unimplemented(
        message = "a step returns `StepResult<T>`, not `{Self}`",
        label = "this is what the step returns"
    )]
    pub trait StepOutput {
        /// The `T` of `StepResult<T>`.
        type Output;
    }

    impl<T, E> StepOutput for Result<T, E> {
        type Output = T;
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
