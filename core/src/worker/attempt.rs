//! One attempt at a step or a compensation: runs the body and contains whatever it does.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::definition::{Step, StepKind};
use crate::event::{Cause, Event, Failure};
use crate::machine::Attempt;
use crate::message::OutboxMessage;
use crate::saga::{Capability, Data, StepFuture};
use crate::store::{StepTransaction, Store};
use crate::worker::Kind;
use crate::{Call, Json, RetryPolicy, SagaId, StepError, sanitize, telemetry};

/// Which body of a step runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Forward,
    Undo,
}

/// Everything that an attempt needs, owned, so that it can run beside its saga's other branches.
pub(super) struct Run<S: Store> {
    pub(super) store: Arc<S>,
    pub(super) kind: Arc<Kind<S::Tx>>,
    pub(super) saga: SagaId,
    pub(super) trace: Option<String>,
    pub(super) data: Data,
    pub(super) attempt: Attempt,
    pub(super) phase: Phase,
    pub(super) stop: CancellationToken,
}

/// An attempt that has come to an end, to be recorded.
pub(super) struct Finished<T> {
    pub(super) attempt: Attempt,
    pub(super) phase: Phase,
    pub(super) event: Event,
    pub(super) outbox: Vec<OutboxMessage>,
    /// The open transaction of a tx step that succeeded; its commit is the record.
    pub(super) tx: Option<T>,
}

enum Problem {
    Body(StepError),
    Timeout(Duration),
    Panic(String),
}

/// After a timeout the session is dead; the body gets this long to notice before it is dropped.
const GRACE_AFTER_INTERRUPT: Duration = Duration::from_secs(5);

/// What is longer, such as `Duration::MAX`, could not be added to a time.
const LONGEST: Duration = Duration::from_hours(100 * 365 * 24);

/// `None` means that the worker stops and nothing may be recorded.
pub(super) async fn run<S: Store>(run: Run<S>) -> Option<Finished<S::Tx>> {
    let definition = &run.kind.definition;
    let step = &definition.steps[run.attempt.step];
    let phase = if run.phase == Phase::Forward { "forward" } else { "undo" };
    let span = telemetry::attempt_span(
        run.saga,
        &definition.name,
        &step.name,
        phase,
        run.attempt.number,
        run.trace.as_deref(),
    );
    let started = Instant::now();
    let (result, outbox, tx) = match run.body_kind() {
        StepKind::Tx => run.in_transaction().instrument(span.clone()).await?,
        StepKind::Call => run.as_call().instrument(span.clone()).await,
    };
    let _entered = span.enter();
    let (event, label) = run.event(result);
    telemetry::attempt(&definition.name, &step.name, phase, label, started.elapsed());
    Some(Finished { attempt: run.attempt, phase: run.phase, event, outbox, tx })
}

type Ran<T> = (Result<Json, Problem>, Vec<OutboxMessage>, Option<T>);

impl<S: Store> Run<S> {
    pub(super) fn body_kind(&self) -> StepKind {
        let step = &self.kind.definition.steps[self.attempt.step];
        match (self.phase, &step.compensation) {
            (Phase::Undo, Some(compensation)) => compensation.kind,
            _ => step.kind,
        }
    }

    fn timeout(&self) -> Duration {
        let step = &self.kind.definition.steps[self.attempt.step];
        let timeout = match (self.phase, &step.compensation) {
            (Phase::Undo, Some(compensation)) => compensation.timeout,
            _ => step.timeout,
        };
        timeout.min(LONGEST)
    }

    fn body<'a>(&'a self, capability: Capability<'a, S::Tx>) -> StepFuture<'a> {
        match self.phase {
            Phase::Forward => self.kind.steps.execute(self.attempt.step, capability, self.data.clone()),
            Phase::Undo => self.kind.steps.compensate(self.attempt.step, capability, self.data.clone()),
        }
    }

    async fn as_call(&self) -> Ran<S::Tx> {
        let step = &self.kind.definition.steps[self.attempt.step].name;
        let step_key = format!("{}/{step}", self.saga);
        let is_undo = self.phase == Phase::Undo;
        let call = Call::new(self.saga, step_key, is_undo, self.attempt.number, self.timeout(), self.stop.clone());
        // The async block also contains a panic before the body's first await.
        let body = contain(async { self.body(Capability::Call(&call)).await });
        let result = match timeout(self.timeout(), body).await {
            Ok(result) => result,
            Err(_) => Err(Problem::Timeout(self.timeout())),
        };
        let outbox = if result.is_ok() { call.take_outbox() } else { Vec::new() };
        (result, outbox, None)
    }

    /// The body's future is never dropped while its session could still commit.
    async fn in_transaction(&self) -> Option<Ran<S::Tx>> {
        let mut tx = self.begin().await?;
        let interrupter = tx.interrupter();
        let result = {
            let mut body = pin!(contain(async { self.body(Capability::Tx(&mut tx)).await }));
            if let Ok(result) = timeout(self.timeout(), &mut body).await {
                result
            } else {
                interrupter.await;
                let _ = timeout(GRACE_AFTER_INTERRUPT, body).await;
                Err(Problem::Timeout(self.timeout()))
            }
        };
        if result.is_ok() {
            let outbox = std::mem::take(tx.outbox());
            return Some((result, outbox, Some(tx)));
        }
        tx.rollback().await;
        Some((result, Vec::new(), None))
    }

    /// An unavailable store burns no attempt: nothing could be recorded anyway.
    async fn begin(&self) -> Option<S::Tx> {
        let mut pause = Duration::from_millis(50);
        loop {
            match self.store.begin().await {
                Ok(tx) => return Some(tx),
                Err(error) => tracing::warn!(%error, "cannot open the transaction of a step; trying again"),
            }
            tokio::select! {
                () = sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)) => pause = (pause * 2).min(Duration::from_secs(2)),
                () = self.stop.cancelled() => return None,
            }
        }
    }

    fn event(&self, result: Result<Json, Problem>) -> (Event, &'static str) {
        let step = self.kind.definition.steps[self.attempt.step].name.to_string();
        let problem = match result {
            Ok(_) if self.phase == Phase::Undo => return (Event::Compensated { step }, "ok"),
            Ok(output) => return (Event::Succeeded { step, output }, "ok"),
            Err(Problem::Body(StepError::Reject(mut rejection))) if self.phase == Phase::Forward => {
                tracing::info!(code = rejection.code, "rejected");
                rejection.code = sanitize(&rejection.code);
                rejection.message = sanitize(&rejection.message);
                return (Event::Rejected { step, attempt: self.attempt.number, rejection }, "rejected");
            }
            Err(problem) => problem,
        };
        let (cause, error, label) = match problem {
            Problem::Body(error @ StepError::Data(_)) => (Cause::Data, error.to_string(), "data"),
            Problem::Body(error) => (Cause::Error, error.to_string(), "error"),
            Problem::Timeout(limit) => (Cause::Timeout, format!("no answer within {limit:?}"), "timeout"),
            Problem::Panic(text) => (Cause::Panic, text, "panic"),
        };
        let failure = self.failure(cause, &error);
        tracing::warn!(error = failure.error, retry_in = ?failure.retry_in, "attempt failed");
        let event = match self.phase {
            Phase::Forward => Event::Failed { step, failure },
            Phase::Undo => Event::CompensationFailed { step, failure },
        };
        (event, label)
    }

    fn failure(&self, cause: Cause, error: &str) -> Failure {
        failure(&self.kind.definition.steps[self.attempt.step], self.phase, self.attempt.number, cause, error)
    }
}

/// A failed attempt, with the pause that the step's policy gives it.
pub(super) fn failure(step: &Step, phase: Phase, attempt: u32, cause: Cause, error: &str) -> Failure {
    let policy = match (phase, &step.compensation) {
        (Phase::Undo, Some(compensation)) => compensation.retry,
        _ => step.retry,
    };
    let retry_in = match cause {
        Cause::Data => None,
        _ => RetryPolicy { longest: policy.longest.min(LONGEST), ..policy }.pause_after(attempt, fastrand::f64()),
    };
    // In whole milliseconds, as it is recorded.
    let retry_in = retry_in.map(|pause| Duration::from_millis(pause.as_millis() as u64));
    Failure { attempt, cause, error: sanitize(error), retry_in }
}

async fn contain(body: impl Future<Output = Result<Json, StepError>>) -> Result<Json, Problem> {
    match AssertUnwindSafe(body).catch_unwind().await {
        Ok(result) => result.map_err(Problem::Body),
        Err(panic) => Err(Problem::Panic(panic_text(&*panic))),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the body panicked: {}", text.unwrap_or("(no message)"))
}
