//! What `#[saga]` implements: public, so that a saga can also be written by hand.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::definition::Definition;
use crate::state::State;
use crate::store::StepTransaction;
use crate::{Call, Json, StepError, StepResult};

/// A saga's input and definition.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a saga",
    note = "annotate its `impl` block with `#[amends::saga(name = \"…\", version = 1, input = …)]`"
)]
pub trait Saga: Send + Sync + 'static {
    /// What the saga is started with.
    type Input: Serialize + DeserializeOwned + Send + Sync;

    /// The graph of its steps.
    const DEFINITION: &'static Definition;

    /// A business key, such as an order's number: the same key starts the saga once.
    fn key(key: impl fmt::Display) -> Key<Self>
    where
        Self: Sized,
    {
        Key { text: Some(key.to_string()), saga: std::marker::PhantomData }
    }

    /// No business key: every start is another saga.
    fn unkeyed() -> Key<Self>
    where
        Self: Sized,
    {
        Key { text: None, saga: std::marker::PhantomData }
    }
}

/// The business key of a saga of type `G`; see [`Saga::key`].
pub struct Key<G> {
    pub(crate) text: Option<String>,
    saga: std::marker::PhantomData<fn() -> G>,
}

impl<G> fmt::Debug for Key<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Key").field(&self.text).finish()
    }
}

/// The bodies of a saga's steps, by index into its definition. `T` is the transaction of its tx steps.
#[diagnostic::on_unimplemented(
    message = "the steps of `{Self}` do not run on this store",
    note = "a saga with tx steps runs on the store whose transaction they take: `&mut amends_postgres::StepTx` runs on `PgStore`"
)]
pub trait Steps<T: StepTransaction>: Send + Sync + 'static {
    /// Runs the forward action of a step.
    fn execute<'a>(&'a self, step: usize, capability: Capability<'a, T>, data: Data) -> StepFuture<'a>;

    /// Runs the compensation of a step.
    fn compensate<'a>(&'a self, step: usize, capability: Capability<'a, T>, data: Data) -> StepFuture<'a>;
}

/// The running body of a step; its result is the recorded output.
pub type StepFuture<'a> = Pin<Box<dyn Future<Output = StepResult<Json>> + Send + 'a>>;

/// What a body may use: exactly one of these, by the kind of its step.
#[derive(Debug)]
#[non_exhaustive]
pub enum Capability<'a, T> {
    /// The open transaction of a tx step.
    Tx(&'a mut T),
    /// The call of a call step.
    Call(&'a Call),
}

impl<'a, T> Capability<'a, T> {
    /// The transaction.
    ///
    /// # Panics
    /// Panics if the definition says that the step is of another kind.
    pub fn tx(self) -> &'a mut T {
        match self {
            Self::Tx(tx) => tx,
            Self::Call(_) => panic!("the body of a tx step was given a call: kind and body of the step disagree"),
        }
    }

    /// The call.
    ///
    /// # Panics
    /// Panics if the definition says that the step is of another kind.
    pub fn call(self) -> &'a Call {
        match self {
            Self::Call(call) => call,
            Self::Tx(_) => {
                panic!("the body of a call step was given a transaction: kind and body of the step disagree")
            }
        }
    }
}

/// The recorded data of a saga, as a body may read it.
#[derive(Debug, Clone)]
pub struct Data {
    pub(crate) definition: Arc<Definition>,
    pub(crate) state: Arc<State>,
}

impl Data {
    /// What the saga was started with.
    ///
    /// # Errors
    /// Returns [`StepError::Data`] if the recorded input is not of this type.
    pub fn input<T: DeserializeOwned>(&self) -> StepResult<T> {
        self.state.input.decode().map_err(StepError::Data)
    }

    /// The output of a step that surely succeeded.
    ///
    /// # Errors
    /// Returns [`StepError::Data`] if there is no output or it is not of this type.
    pub fn output<T: DeserializeOwned>(&self, step: usize) -> StepResult<T> {
        match self.maybe_output(step)? {
            Some(output) => Ok(output),
            // Reading `null` gives either the type's own value for it or the error that names what is missing.
            None => Json::null().decode().map_err(StepError::Data),
        }
    }

    /// The output of a step, if it is recorded.
    ///
    /// # Errors
    /// Returns [`StepError::Data`] if the recorded output is not of this type.
    pub fn maybe_output<T: DeserializeOwned>(&self, step: usize) -> StepResult<Option<T>> {
        let name = &self.definition.steps[step].name;
        self.state.output(name).map(Json::decode).transpose().map_err(StepError::Data)
    }
}
