//! The capability of a call step: what it needs to call another service safely.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use crate::message::{Message, OutboxMessage};
use crate::{Error, SagaId, StepError};

/// Handed to the body of a call step or a call compensation.
///
/// The body may run more than once, on any worker; every run of one step sees the same
/// [`idempotency_key`](Self::idempotency_key).
#[derive(Debug)]
pub struct Call {
    saga: SagaId,
    key: String,
    step_key: String,
    attempt: u32,
    deadline: Instant,
    cancelled: CancellationToken,
    outbox: Mutex<Vec<OutboxMessage>>,
}

impl Call {
    pub(crate) fn new(
        saga: SagaId,
        step_key: String,
        is_undo: bool,
        attempt: u32,
        timeout: Duration,
        cancelled: CancellationToken,
    ) -> Self {
        let key = if is_undo { format!("{step_key}/undo") } else { step_key.clone() };
        Self { saga, key, step_key, attempt, deadline: Instant::now() + timeout, cancelled, outbox: Mutex::default() }
    }

    /// A call outside any saga, for a unit test of a step's body.
    pub fn test(key: &str) -> Self {
        Self::new(SagaId::new(), key.to_owned(), false, 1, crate::Definition::DEFAULT_TIMEOUT, CancellationToken::new())
    }

    /// The saga.
    pub fn saga(&self) -> SagaId {
        self.saga
    }

    /// A key that is the same in every attempt of this step, on every worker, and differs for every other step.
    pub fn idempotency_key(&self) -> &str {
        &self.key
    }

    /// The idempotency key under which the step itself runs or ran. A compensation names by it what is to be undone; in
    /// the step it is the same as [`idempotency_key`](Self::idempotency_key).
    pub fn step_key(&self) -> &str {
        &self.step_key
    }

    /// Which attempt this is, counted from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// How long this attempt may still take; pass it on as the timeout of the request.
    pub fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Resolves when the worker stops and will not record this attempt.
    pub fn cancelled(&self) -> WaitForCancellationFuture<'_> {
        self.cancelled.cancelled()
    }

    /// Publishes a message in the commit that records this step's success; if the attempt fails, it is dropped.
    ///
    /// # Errors
    /// Returns [`StepError::Data`] if the message cannot be stored, [`StepError::Unpublishable`] if it is too large.
    pub fn publish<M: Message>(&self, message: &M) -> Result<(), StepError> {
        self.publish_message(OutboxMessage::new(message).map_err(StepError::from_data)?)
    }

    /// As [`publish`](Self::publish), what [`Payloads::pack`](crate::Payloads::pack) has made, or a message of no Rust type.
    ///
    /// # Errors
    /// Returns [`StepError::Unpublishable`] if it is too large.
    pub fn publish_message(&self, message: OutboxMessage) -> Result<(), StepError> {
        message.check().map_err(StepError::from_data)?;
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner).push(message);
        Ok(())
    }

    pub(crate) fn take_outbox(&self) -> Vec<OutboxMessage> {
        std::mem::take(&mut *self.outbox.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl StepError {
    pub(crate) fn from_data(error: Error) -> Self {
        match error {
            Error::Json { source, .. } => Self::Data(source),
            error @ (Error::TooLarge { .. } | Error::Encoding { .. } | Error::NotPacked { .. }) => {
                Self::Unpublishable(Box::new(error))
            }
            other => Self::Retry(Box::new(other)),
        }
    }
}
