//! What `#[saga]` implements: public, so that a saga can also be written by hand.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::definition::Definition;
use crate::machine::Node;
use crate::message::OutboxMessage;
use crate::schedule::Tick;
use crate::state::State;
use crate::store::{Lock, NewSaga, Priority, StepTransaction};
use crate::{Call, Json, StepError, StepResult, list};

/// A saga's input and definition.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a saga",
    note = "annotate its `impl` block with `#[amends::saga(name = \"…\", version = 1, input = …)]`"
)]
pub trait Saga: Send + Sync + 'static {
    /// What the saga is started with.
    type Input: Serialize + DeserializeOwned + Send + Sync;

    /// What its last step returns, the last in the source.
    type Output: Serialize + DeserializeOwned + Send + Sync;

    /// The graph of its steps.
    const DEFINITION: &'static Definition;

    /// What it is started with when it starts by itself; `None` if it does not.
    fn scheduled(_tick: Tick) -> Option<Self::Input> {
        None
    }

    /// A business key, such as an order's number: the same key starts the saga once.
    fn key(key: impl fmt::Display) -> Key<Self>
    where
        Self: Sized,
    {
        Key { text: Some(key.to_string()), priority: Priority::Normal, lock: None, saga: std::marker::PhantomData }
    }

    /// No business key: every start is another saga.
    fn unkeyed() -> Key<Self>
    where
        Self: Sized,
    {
        Key { text: None, priority: Priority::Normal, lock: None, saga: std::marker::PhantomData }
    }
}

/// The business key of a saga of type `G`; see [`Saga::key`].
#[must_use]
pub struct Key<G> {
    pub(crate) text: Option<String>,
    pub(crate) priority: Priority,
    pub(crate) lock: Option<Lock>,
    saga: std::marker::PhantomData<fn() -> G>,
}

impl<G> Key<G> {
    /// Has the saga claimed before or after others that are due.
    pub fn priority(self, priority: Priority) -> Self {
        Self { priority, ..self }
    }

    /// Of the sagas of this kind with the same lock, one runs at a time; the others wait for their turn, in the order of
    /// their starts. It is held from the first step to the end, also while the saga is parked.
    ///
    /// This is the *semantic lock* of Garcia-Molina and Salem's successors: it isolates sagas of one kind from each other.
    pub fn locking(self, lock: impl fmt::Display) -> Self {
        Self { lock: Some(Lock { key: lock.to_string(), refuse: false }), ..self }
    }

    /// As [`locking`](Self::locking), but the start is refused with [`Error::Locked`](crate::Error::Locked) while another live
    /// saga has the lock or waits for it.
    pub fn locking_or_refused(self, lock: impl fmt::Display) -> Self {
        Self { lock: Some(Lock { key: lock.to_string(), refuse: true }), ..self }
    }
}

/// A step of a saga, with the type of its output; `#[saga]` makes a constant of it, such as `PlaceOrder::CHARGE`.
pub struct StepRef<T> {
    name: &'static str,
    output: std::marker::PhantomData<fn() -> T>,
}

impl<T> StepRef<T> {
    /// The step that is recorded under this name.
    pub const fn new(name: &'static str) -> Self {
        Self { name, output: std::marker::PhantomData }
    }

    /// The name under which it is recorded.
    pub const fn name(&self) -> &'static str {
        self.name
    }
}

impl<T> Clone for StepRef<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for StepRef<T> {}

impl<T> fmt::Debug for StepRef<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StepRef").field(&self.name).finish()
    }
}

impl<T> fmt::Display for StepRef<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
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

    /// What a request, a signal or a child begins; with `undo`, what its compensation does.
    ///
    /// # Errors
    /// Returns the error of the body; the attempt is then repeated by the step's policy.
    fn begin(&self, step: usize, undo: bool, _data: Data) -> StepResult<Begin> {
        panic!("step {step} waits for an answer, but its body begins nothing (undo: {undo})")
    }

    /// Checks that the answer to a request or a signal is of the type that the step returns.
    ///
    /// # Errors
    /// Returns [`StepError::Data`] if it is not.
    fn accept(&self, _step: usize, _answer: &Json) -> StepResult<()> {
        Ok(())
    }

    /// Finds out whether a step happened: its output, or `None` if it did not and will not happen.
    fn probe<'a>(&'a self, step: usize, _call: &'a Call, _data: Data) -> ProbeFuture<'a> {
        panic!("step {step} has no body that finds out whether it happened")
    }

    /// Makes the output of a step of what older sagas recorded.
    ///
    /// # Errors
    /// Returns the error of the body, over which the saga is parked.
    fn upcast(&self, step: usize, _data: Data) -> StepResult<Json> {
        panic!("step {step} has no body that makes its output up")
    }
}

/// What finds out whether a step happened.
pub type ProbeFuture<'a> = Pin<Box<dyn Future<Output = StepResult<Option<Json>>> + Send + 'a>>;

/// What a step begins that then waits for an answer.
#[derive(Debug)]
#[non_exhaustive]
pub enum Begin {
    /// It sends this message, and waits for the reply.
    Message(OutboxMessage),
    /// It waits for a signal.
    Listen,
    /// It starts this saga, and waits for its end.
    Saga(Box<NewSaga>),
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
    /// The step, or the item of it, that is run.
    pub(crate) node: Node,
}

impl Data {
    /// What the saga was started with.
    ///
    /// # Errors
    /// Returns [`StepError::Data`] if the recorded input is not of this type.
    pub fn input<T: DeserializeOwned>(&self) -> StepResult<T> {
        self.state.input.decode().map_err(StepError::Data)
    }

    /// The item of the list for which the step runs.
    ///
    /// # Errors
    /// Returns [`StepError::Data`] if there is no such item or it is not of this type.
    pub fn item<T: DeserializeOwned>(&self) -> StepResult<T> {
        let items = list::items(&self.definition, &self.state, self.node.step).map_err(StepError::Data)?;
        let item = self.node.item.and_then(|item| items.get(item as usize));
        let text = item.map_or("null", |item| item.get());
        serde_json::from_str(text).map_err(|error| StepError::Data(error.into()))
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

    /// The output of a step, if it is recorded. In a compensation of one item, the output of its own step is that item's.
    ///
    /// # Errors
    /// Returns [`StepError::Data`] if the recorded output is not of this type.
    pub fn maybe_output<T: DeserializeOwned>(&self, step: usize) -> StepResult<Option<T>> {
        let item = self.node.item.filter(|_| self.node.step == step);
        let output = list::output(&self.definition, &self.state, step, item).map_err(StepError::Data)?;
        output.map(|output| output.decode()).transpose().map_err(StepError::Data)
    }
}
