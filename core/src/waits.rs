//! What a step returns that begins something and waits for the answer: a request, a signal, another saga.

use std::fmt;
use std::marker::PhantomData;

use crate::message::{Message, OutboxMessage};
use crate::saga::{Begin, Saga};
use crate::store::{NewSaga, Priority};
use crate::{Error, SagaId, StepError, StepResult};

/// A message that is sent through the outbox and answered by a message `R`; the body of a `request` step returns it.
///
/// The message is written in the transaction that records that the step has begun. The saga then sleeps in the database
/// until the reply; no worker holds it.
#[must_use]
pub struct Request<M, R> {
    message: Result<OutboxMessage, Error>,
    reply: PhantomData<fn(M) -> R>,
}

impl<M: Message, R> Request<M, R> {
    /// Asks for this. A message that cannot be stored fails the attempt.
    #[expect(clippy::needless_pass_by_value, reason = "whoever asks makes the message for it")]
    pub fn new(message: M) -> Self {
        Self::of(OutboxMessage::new(&message))
    }

    /// Asks by an `M` that [`Payloads::pack`](crate::Payloads::pack) has made; the answer comes back unpacked, as JSON.
    ///
    /// # Panics
    /// In debug builds, if the message is no `M`.
    pub fn packed(message: OutboxMessage) -> Self {
        debug_assert_eq!(message.name, M::NAME, "a request is of the type that its step names");
        Self::of(message.check().map(|()| message))
    }

    fn of(message: Result<OutboxMessage, Error>) -> Self {
        Self { message, reply: PhantomData }
    }
}

/// Waits for somebody to send a `T` with [`Sagas::signal`](crate::Sagas::signal); the body of a `signal` step returns it.
#[must_use]
pub struct Signal<T>(PhantomData<fn() -> T>);

impl<T> Signal<T> {
    /// Waits for one.
    pub fn wait() -> Self {
        Self(PhantomData)
    }
}

/// Another saga that is started as a step, and waited for; the body of a `child` step returns it.
///
/// It starts in the transaction that records that the step has begun. Its output is the step's output. If it ends
/// compensated, the step is rejected. If the saga that started it is undone, it is undone too, even if it had completed.
#[must_use]
pub struct Child<G> {
    saga: Result<NewSaga, Error>,
    kind: PhantomData<fn() -> G>,
}

impl<G: Saga> Child<G> {
    /// Starts `G` with this input.
    pub fn new(input: &G::Input) -> Self {
        Self { saga: crate::sagas::new_saga::<G>(G::unkeyed(), input), kind: PhantomData }
    }
}

impl<M, R> Request<M, R> {
    /// What the step begins, or why its message cannot be stored.
    pub(crate) fn into_begin(self) -> StepResult<Begin> {
        self.message.map(Begin::Message).map_err(StepError::from_data)
    }
}

impl<G> Child<G> {
    /// What the step begins, or why the saga's input cannot be stored.
    pub(crate) fn into_begin(self) -> StepResult<Begin> {
        self.saga.map(|saga| Begin::Saga(Box::new(saga))).map_err(StepError::from_data)
    }
}

impl Begin {
    /// The saga that it starts, as a child of `parent`.
    pub(crate) fn child_of(self, parent: SagaId, priority: Priority) -> Option<NewSaga> {
        match self {
            Self::Saga(saga) => Some(NewSaga { parent: Some(parent), priority, ..*saga }),
            _ => None,
        }
    }
}

impl<M, R> fmt::Debug for Request<M, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Request").field(&self.message).finish()
    }
}

impl<T> fmt::Debug for Signal<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signal")
    }
}

impl<G> fmt::Debug for Child<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Child").field(&self.saga).finish()
    }
}
