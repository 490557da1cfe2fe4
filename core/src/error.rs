//! What can go wrong: in a step, in a store, in the framework.

use std::error::Error as StdError;
use std::fmt;

use serde::Serialize;
use thiserror::Error;

use crate::event::Rejection;
use crate::json::sanitize;
use crate::{DefinitionError, EncodingError, Json, JsonError, SagaId};

/// What the body of a step or a compensation returns.
pub type StepResult<T> = Result<T, StepError>;

/// Why a body did not succeed: try again (the default for `?`), or a definite *no* ([`reject`]).
///
/// It does not implement [`std::error::Error`], so that `?` turns every error into [`StepError::Retry`].
#[derive(Debug)]
#[non_exhaustive]
pub enum StepError {
    /// Something went wrong; the attempt is repeated by the step's policy.
    Retry(Box<dyn StdError + Send + Sync>),
    /// It certainly did not happen and will not: compensate what did.
    Reject(Rejection),
    /// There is nothing to do; why. Only a step that says `skippable` may.
    Skip(String),
    /// What it needs cannot be read, or what it returned cannot be stored; repeating it cannot help.
    Data(JsonError),
    /// A message that it publishes is too large or has no form that can be sent; repeating it cannot help.
    Unpublishable(Box<Error>),
}

impl<E: StdError + Send + Sync + 'static> From<E> for StepError {
    fn from(error: E) -> Self {
        Self::Retry(Box::new(error))
    }
}

impl StepError {
    /// An error to be retried, made from a text.
    pub fn retry(message: impl Into<String>) -> Self {
        Self::Retry(message.into().into())
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reject(rejection) if rejection.message.is_empty() => write!(f, "rejected: {}", rejection.code),
            Self::Reject(rejection) => write!(f, "rejected: {}: {}", rejection.code, rejection.message),
            Self::Skip(reason) => write!(f, "skipped: {reason}"),
            Self::Data(error) => error.fmt(f),
            Self::Unpublishable(error) => error.fmt(f),
            Self::Retry(error) => {
                error.fmt(f)?;
                let mut source = error.source();
                while let Some(cause) = source {
                    write!(f, ": {cause}")?;
                    source = cause.source();
                }
                Ok(())
            }
        }
    }
}

/// Says that a step did not happen and will not: the saga compensates what did.
///
/// ```
/// # use amends::{reject, StepResult};
/// fn charge(accepted: bool) -> StepResult<()> {
///     if accepted { Ok(()) } else { Err(reject("card_declined")) }
/// }
/// # assert!(charge(false).is_err());
/// ```
pub fn reject(code: impl Into<String>) -> StepError {
    StepError::Reject(Rejection::new(code))
}

/// As [`reject`], with details that a program can read.
///
/// ```
/// # use amends::{reject_with, StepError};
/// # use serde::{Serialize, Deserialize};
/// #[derive(Debug, PartialEq, Serialize, Deserialize)]
/// struct Declined { limit_cents: i64 }
///
/// let error = reject_with("card_declined", &Declined { limit_cents: 5_000 });
/// # let StepError::Reject(rejection) = error else { panic!() };
/// assert_eq!(rejection.details::<Declined>()?, Declined { limit_cents: 5_000 });
/// # Ok::<(), amends::JsonError>(())
/// ```
pub fn reject_with<T: Serialize + ?Sized>(code: impl Into<String>, details: &T) -> StepError {
    match Json::encode(details) {
        Ok(details) => StepError::Reject(Rejection { details: Some(details), ..Rejection::new(code) }),
        // That it was rejected counts for more than why.
        Err(error) => StepError::Reject(Rejection { message: error.to_string(), ..Rejection::new(code) }),
    }
}

/// Says that a `skippable` step has nothing to do: what comes after it goes on, and it is never undone.
///
/// Like a rejection, it is believed as the answer to a first attempt only: later, an earlier attempt may have done it.
///
/// ```
/// # use amends::{skip, StepResult};
/// fn wrap(as_gift: bool) -> StepResult<u32> {
///     if as_gift { Ok(17) } else { Err(skip("no gift")) }
/// }
/// # assert!(wrap(false).is_err());
/// ```
pub fn skip(reason: impl Into<String>) -> StepError {
    StepError::Skip(sanitize(&reason.into()))
}

/// An error of the framework.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A definition breaks a rule.
    #[error(transparent)]
    Definition(#[from] DefinitionError),
    /// Two definitions with the same name and version were registered.
    #[error("saga `{name}` version {version} is registered twice; give one of them another version")]
    RegisteredTwice {
        /// The saga's name.
        name: String,
        /// Its version.
        version: u32,
    },
    /// An input or a message cannot be stored.
    #[error("{what}: {source}")]
    Json {
        /// What was to be stored.
        what: String,
        /// Why it cannot.
        source: JsonError,
    },
    /// A message has no bytes in its format.
    #[error("{what}: {source}")]
    Encoding {
        /// The message.
        what: String,
        /// Why it has none.
        source: EncodingError,
    },
    /// A message does not fit into the outbox, or into any broker.
    #[error("{what}: {bytes} bytes, and the limit is {limit}; {advice}")]
    TooLarge {
        /// What is too large.
        what: String,
        /// How large it is.
        bytes: usize,
        /// How large it may be.
        limit: usize,
        /// What to do about it.
        advice: &'static str,
    },
    /// A message that may leave only packed was published without.
    #[error("message `{name}` may leave only packed, such as encrypted; publish what `Payloads::pack` makes of it")]
    NotPacked {
        /// The message's name.
        name: &'static str,
    },
    /// A codec failed.
    #[error("the codec `{codec}` cannot encode message `{name}`: {source}")]
    Codec {
        /// The codec.
        codec: String,
        /// The message's name.
        name: String,
        /// Why not.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The business key is taken by a saga with another input.
    #[error(
        "saga `{name}` with key `{key}` exists as {existing} with another input; use another key, or the same input"
    )]
    KeyConflict {
        /// The saga's name.
        name: String,
        /// The business key.
        key: String,
        /// The saga that has the key.
        existing: SagaId,
    },
    /// Another live saga holds the lock, and this kind of saga does not wait for it.
    #[error("saga `{name}`: `{lock}` is locked by saga {holder}; start it when that has ended")]
    Locked {
        /// The saga's name.
        name: String,
        /// The lock.
        lock: String,
        /// The saga that holds it.
        holder: SagaId,
    },
    /// Live sagas would be stranded by the definitions that are registered here.
    #[error("{0}")]
    Strands(String),
    /// There is no such saga.
    #[error("there is no saga {0}; it may have been dropped after its retention")]
    NoSuchSaga(SagaId),
    /// The saga cannot do that now.
    #[error("saga {saga}: {problem}")]
    Refused {
        /// The saga.
        saga: SagaId,
        /// Why not.
        problem: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An error of a [`Store`](crate::Store).
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store cannot be reached, or a session died; the same operation may succeed later.
    #[error("the store is not available: {0}")]
    Unavailable(#[source] Box<dyn StdError + Send + Sync>),
    /// This one write cannot be stored, however often it is tried; its neighbours were not harmed.
    #[error("the store refuses the write: {0}")]
    Refused(#[source] Box<dyn StdError + Send + Sync>),
    /// The transaction of a tx step could not commit, as with a deferred constraint or a serialization failure; the
    /// step is tried again by its policy.
    #[error("the transaction could not commit: {0}")]
    CommitFailed(#[source] Box<dyn StdError + Send + Sync>),
    /// The body of a tx step ended its own transaction, so its writes and its record no longer commit together.
    #[error("the body ended its own transaction; a tx step must not commit or roll back, the framework does")]
    TransactionEnded,
    /// The schema is missing, or of another version.
    #[error("{0}")]
    Schema(String),
    /// The worker's heartbeat is gone: others may have adopted its sagas.
    #[error("this worker was declared dead and its sagas may have been adopted")]
    WorkerLost,
}
