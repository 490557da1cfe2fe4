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
use crate::event::Event;
use crate::machine::{Attempt, Node, Phase};
use crate::message::OutboxMessage;
use crate::retry::LONGEST_PAUSE;
use crate::saga::{Capability, Data, StepFuture};
use crate::state::item_name;
use crate::store::{NewSaga, StepTransaction, Store};
use crate::worker::Kind;
use crate::worker::clock::Clock;
use crate::worker::failure::{Ended, Problem, Tried};
use crate::{Call, SagaId, StepError, telemetry};

/// Everything that an attempt needs, owned, so that it can run beside its saga's other branches.
pub(super) struct Run<S: Store> {
    pub(super) store: Arc<S>,
    pub(super) kind: Arc<Kind<S::Tx>>,
    pub(super) saga: SagaId,
    pub(super) trace: Option<String>,
    pub(super) data: Data,
    pub(super) attempt: Attempt,
    pub(super) phase: Phase,
    pub(super) clock: Clock,
    pub(super) stop: CancellationToken,
}

/// An attempt that has come to an end, to be recorded.
pub(crate) struct Finished<T> {
    pub(crate) node: Node,
    pub(crate) phase: Phase,
    pub(crate) event: Event,
    pub(crate) outbox: Vec<OutboxMessage>,
    /// The sagas that it starts.
    pub(crate) starts: Vec<NewSaga>,
    /// The open transaction of a tx step that succeeded; its commit is the record.
    pub(crate) tx: Option<T>,
}

impl<T> Finished<T> {
    /// One that takes nothing along.
    pub(crate) fn event(node: Node, phase: Phase, event: Event) -> Self {
        Self { node, phase, event, outbox: Vec::new(), starts: Vec::new(), tx: None }
    }
}

/// After a timeout the session is dead; the body gets this long to notice before it is dropped.
const GRACE_AFTER_INTERRUPT: Duration = Duration::from_secs(5);

/// `None` means that the worker stops and nothing may be recorded.
pub(super) async fn run<S: Store>(run: Run<S>) -> Option<Finished<S::Tx>> {
    let definition = &run.kind.definition;
    let step = &definition.steps[run.attempt.node.step];
    let phase = phase_name(run.phase);
    let name = run.name();
    let span =
        telemetry::attempt_span(run.saga, &definition.name, &name, phase, run.attempt.number, run.trace.as_deref());
    let started = Instant::now();
    let (ended, outbox, tx) = match (run.phase, body_kind(step, run.phase)) {
        (Phase::Probe, _) => run.as_probe().instrument(span.clone()).await,
        (_, StepKind::Tx) => run.in_transaction().instrument(span.clone()).await?,
        _ => run.as_call().instrument(span.clone()).await,
    };
    let _entered = span.enter();
    let tried = Tried { step, phase: run.phase, attempt: run.attempt.number, since: run.attempt.since };
    let (event, label) = tried.event(name, ended, run.clock.now());
    telemetry::attempt(&definition.name, &step.name, phase, label, started.elapsed());
    Some(Finished { node: run.attempt.node, phase: run.phase, event, outbox, starts: Vec::new(), tx })
}

pub(crate) fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Forward => "forward",
        Phase::Undo => "undo",
        Phase::Probe => "probe",
    }
}

/// What the body of an action of a step may do.
pub(crate) fn body_kind(step: &Step, phase: Phase) -> StepKind {
    match (phase, &step.compensation) {
        (Phase::Forward, _) => step.kind,
        (Phase::Undo, Some(undo)) => undo.kind,
        _ => StepKind::Call,
    }
}

/// How long one attempt at it may take.
pub(crate) fn limit(step: &Step, phase: Phase) -> Duration {
    let limit = match phase {
        Phase::Forward => None,
        Phase::Undo => step.compensation.as_ref().map(|undo| undo.timeout),
        Phase::Probe => step.probe.as_ref().map(|probe| probe.timeout),
    };
    limit.unwrap_or(step.timeout).min(LONGEST_PAUSE)
}

/// What the body of a call is given.
pub(crate) fn call(saga: SagaId, step: &Step, attempt: Attempt, phase: Phase, cancelled: CancellationToken) -> Call {
    let key = format!("{saga}/{}", item_name(&step.name, attempt.node.item));
    Call::new(saga, key, phase == Phase::Undo, attempt.number, limit(step, phase), cancelled)
}

type Ran<T> = (Ended, Vec<OutboxMessage>, Option<T>);

impl<S: Store> Run<S> {
    fn step(&self) -> &Step {
        &self.kind.definition.steps[self.attempt.node.step]
    }

    /// The name under which it is recorded.
    fn name(&self) -> String {
        item_name(&self.step().name, self.attempt.node.item)
    }

    fn timeout(&self) -> Duration {
        limit(self.step(), self.phase)
    }

    fn body<'a>(&'a self, capability: Capability<'a, S::Tx>) -> StepFuture<'a> {
        let step = self.attempt.node.step;
        match self.phase {
            Phase::Undo => self.kind.steps.compensate(step, capability, self.data.clone()),
            _ => self.kind.steps.execute(step, capability, self.data.clone()),
        }
    }

    fn call(&self) -> Call {
        call(self.saga, self.step(), self.attempt, self.phase, self.stop.clone())
    }

    async fn as_call(&self) -> Ran<S::Tx> {
        let call = self.call();
        // The async block also contains a panic before the body's first await.
        let body = contain(async { self.body(Capability::Call(&call)).await });
        let result = timeout(self.timeout(), body).await.unwrap_or_else(|_| Err(Problem::Timeout(self.timeout())));
        let outbox = if result.is_ok() { call.take_outbox() } else { Vec::new() };
        (result.map(Some), outbox, None)
    }

    async fn as_probe(&self) -> Ran<S::Tx> {
        let call = self.call();
        let step = self.attempt.node.step;
        let body = contain(async { self.kind.steps.probe(step, &call, self.data.clone()).await });
        let result = timeout(self.timeout(), body).await.unwrap_or_else(|_| Err(Problem::Timeout(self.timeout())));
        (result, Vec::new(), None)
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
            return Some((result.map(Some), outbox, Some(tx)));
        }
        tx.rollback().await;
        Some((result.map(Some), Vec::new(), None))
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
}

pub(crate) async fn contain<T>(body: impl Future<Output = Result<T, StepError>>) -> Result<T, Problem> {
    match AssertUnwindSafe(body).catch_unwind().await {
        Ok(result) => result.map_err(Problem::Body),
        Err(panic) => Err(Problem::Panic(panic_text(&*panic))),
    }
}

/// As for a body that awaits, so for one that does not.
pub(super) fn contain_now<T>(body: impl FnOnce() -> Result<T, StepError>) -> Result<T, Problem> {
    match std::panic::catch_unwind(AssertUnwindSafe(body)) {
        Ok(result) => result.map_err(Problem::Body),
        Err(panic) => Err(Problem::Panic(panic_text(&*panic))),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the body panicked: {}", text.unwrap_or("(no message)"))
}
