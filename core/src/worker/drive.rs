//! Drives one saga: decides, runs, records, until it ends, is parked or has to wait.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::definition::StepKind;
use crate::event::{Cause, Event, JournalRow};
use crate::machine::{self, Action, Attempt};
use crate::message::OutboxMessage;
use crate::saga::Data;
use crate::state::State;
use crate::store::{Append, Appended, Loaded, Status, StepTransaction, WorkerStore};
use crate::worker::attempt::{self, Finished, Phase, Run};
use crate::worker::clock::Clock;
use crate::worker::insist::insist;
use crate::worker::plan::{Circumstances, Plan, WORTH_WAITING, pause, plan};
use crate::worker::{Crew, Kind};
use crate::{SagaId, StoreError, telemetry};

/// How long a saga that only a newer version understands is left alone.
const FOREIGN_PAUSE: Duration = Duration::from_mins(1);

pub(super) struct Drive<S: WorkerStore> {
    crew: Arc<Crew<S>>,
    kind: Arc<Kind<S::Tx>>,
    saga: SagaId,
    trace: Option<String>,
    state: Arc<State>,
    status: Status,
    clock: Clock,
    nudge: Arc<Notify>,
    flying: Vec<(usize, Phase)>,
    running: FuturesUnordered<BoxFuture<'static, Option<Finished<S::Tx>>>>,
    landed: VecDeque<Finished<S::Tx>>,
}

/// Whether the saga is still this worker's business.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    GoOn,
    LetGo,
}

/// What goes into one append.
struct Batch<T> {
    events: Vec<Event>,
    outbox: Vec<OutboxMessage>,
    tx: Option<T>,
}

impl<S: WorkerStore> Drive<S> {
    pub(super) fn new(crew: Arc<Crew<S>>, kind: Arc<Kind<S::Tx>>, loaded: &Loaded, nudge: Arc<Notify>) -> Self {
        Self {
            crew,
            kind,
            saga: loaded.id,
            trace: loaded.trace.clone(),
            status: loaded.status,
            clock: Clock::set(loaded.now),
            state: Arc::new(loaded.fold()),
            nudge,
            flying: Vec::new(),
            running: FuturesUnordered::new(),
            landed: VecDeque::new(),
        }
    }

    /// Runs until the saga is somebody else's business: ended, parked, waiting, or taken over.
    ///
    /// Dropping what is under way is safe at any point: calls are repeated under the same key, and the
    /// transactions of tx steps live in tasks of their own, which are never cancelled.
    pub(super) async fn run(mut self) -> Result<(), StoreError> {
        let (stop, draining) = (self.crew.stop.clone(), self.crew.draining.clone());
        loop {
            if stop.is_cancelled() {
                return Ok(());
            }
            let actions = machine::decide(&self.kind.definition, &self.state);
            if !draining.is_cancelled() {
                self.launch(&actions);
            }
            let next = if self.landed.is_empty() && self.running.is_empty() {
                self.rest(&actions, draining.is_cancelled()).await?
            } else if self.landed.is_empty() {
                let due = self.next_due(&actions).filter(|_| !draining.is_cancelled());
                tokio::select! {
                    finished = self.running.next() => {
                        self.landed.extend(finished.flatten());
                        Next::GoOn
                    }
                    () = self.nudge.notified() => self.reload().await?,
                    () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => Next::GoOn,
                    () = stop.cancelled() => Next::LetGo,
                }
            } else {
                self.record().await?
            };
            if next == Next::LetGo {
                return Ok(());
            }
        }
    }

    /// Starts every attempt that is due and not under way. Nothing is undone while a forward attempt is under way.
    fn launch(&mut self, actions: &[Action]) {
        let forward_flying = self.forward_flying();
        for action in actions {
            let (attempt, phase) = match action {
                Action::Run(attempt) => (*attempt, Phase::Forward),
                Action::Compensate(attempt) if !forward_flying => (*attempt, Phase::Undo),
                _ => continue,
            };
            let is_flying = self.flying.contains(&(attempt.step, phase));
            if !is_flying && attempt.due.is_none_or(|due| due <= self.clock.now() + WORTH_WAITING) {
                self.start(attempt, phase);
            }
        }
    }

    fn forward_flying(&self) -> bool {
        self.flying.iter().any(|(_, phase)| *phase == Phase::Forward)
    }

    fn start(&mut self, attempt: Attempt, phase: Phase) {
        self.flying.push((attempt.step, phase));
        let run = Run {
            store: Arc::clone(&self.crew.store),
            kind: Arc::clone(&self.kind),
            saga: self.saga,
            trace: self.trace.clone(),
            data: Data { definition: Arc::clone(&self.kind.definition), state: Arc::clone(&self.state) },
            attempt,
            phase,
            stop: self.crew.stop.clone(),
        };
        self.running.push(match run.body_kind() {
            StepKind::Call => Box::pin(attempt::run(run)),
            // Its own task: `begin` must not be cancelled half-way, even when this saga is dropped.
            StepKind::Tx => {
                let task = self.crew.tasks.spawn(attempt::run(run));
                Box::pin(async move { task.await.ok().flatten() })
            }
        });
    }

    /// When the next attempt that waits is due, if any does.
    fn next_due(&self, actions: &[Action]) -> Option<Instant> {
        let waits = actions.iter().filter_map(|action| match action {
            Action::Run(attempt) if !self.flying.contains(&(attempt.step, Phase::Forward)) => attempt.due,
            Action::Compensate(attempt)
                if !self.forward_flying() && !self.flying.contains(&(attempt.step, Phase::Undo)) =>
            {
                attempt.due
            }
            _ => None,
        });
        waits.min().map(|due| self.clock.instant_of(due))
    }

    /// Nothing is under way: end, park, or give the saga back until it is due.
    async fn rest(&mut self, actions: &[Action], draining: bool) -> Result<Next, StoreError> {
        let wake_in = match actions.first() {
            Some(Action::End(_) | Action::Park(_)) => {
                return self.write(Batch { events: Vec::new(), outbox: Vec::new(), tx: None }).await;
            }
            None => self.state.foreign.then_some(FOREIGN_PAUSE),
            Some(_) if draining => Some(Duration::ZERO),
            Some(_) => Some(pause(actions, self.clock.now()).unwrap_or_default()),
        };
        let (crew, release) = (Arc::clone(&self.crew), [(self.saga, wake_in)]);
        match insist(crew.stop.clone(), || crew.store.release(crew.worker, &release)).await {
            // The worker stops: its sagas will be adopted.
            Ok(()) | Err(StoreError::Unavailable(_)) => Ok(Next::LetGo),
            Err(error) => Err(error),
        }
    }

    /// Records what has finished. Calls that finished together share an append; a transaction is its own.
    async fn record(&mut self) -> Result<Next, StoreError> {
        while let Some(Some(finished)) = self.running.next().now_or_never() {
            self.landed.extend(finished);
        }
        let mut batch = Batch { events: Vec::new(), outbox: Vec::new(), tx: None };
        while let Some(finished) = self.landed.pop_front_if(|next| next.tx.is_none() || batch.events.is_empty()) {
            self.flying.retain(|flying| *flying != (finished.attempt.step, finished.phase));
            batch.events.push(finished.event);
            batch.outbox.extend(finished.outbox);
            batch.tx = finished.tx;
            if batch.tx.is_some() {
                break;
            }
        }
        self.write(batch).await
    }

    async fn write(&mut self, mut batch: Batch<S::Tx>) -> Result<Next, StoreError> {
        let mut refusals = 0;
        loop {
            let (adopted_at, was_tx) = (self.state.adopted_at, batch.tx.is_some());
            let plan = plan(&self.kind.definition, &self.state, batch.events.clone(), self.circumstances());
            match self.append(&plan, batch.outbox.clone(), batch.tx.take()).await {
                Ok(Appended::Done(at)) => return Ok(self.committed(plan, at)),
                Ok(Appended::Conflict) => {
                    metrics::counter!(telemetry::CONFLICTS).increment(1);
                    let next = self.reload().await?;
                    // What a transaction did is rolled back and decided on again. What a call answered still holds,
                    // unless somebody took the saga over in between.
                    if next == Next::LetGo || was_tx || self.state.adopted_at != adopted_at {
                        return Ok(next);
                    }
                }
                // A call's outcome is given up only if the worker stops; a transaction's is found out.
                Err(StoreError::Unavailable(error)) => {
                    tracing::warn!(saga = %self.saga, %error, "no answer to a commit; reading back what it did");
                    return self.reload().await;
                }
                Err(error) if refusals > 0 => return Err(error),
                Err(error) => {
                    refusals += 1;
                    tracing::error!(saga = %self.saga, %error, "an outcome cannot be stored");
                    batch.events = batch.events.into_iter().map(|event| self.unrecorded(event, &error)).collect();
                    batch.outbox.clear();
                }
            }
        }
    }

    fn circumstances(&self) -> Circumstances {
        Circumstances {
            status: self.status,
            now: self.clock.now(),
            idle: self.flying.is_empty(),
            draining: self.crew.draining.is_cancelled(),
        }
    }

    /// Appends, or commits the transaction with the append, while the saga's other branches go on.
    async fn append(
        &mut self,
        plan: &Plan,
        outbox: Vec<OutboxMessage>,
        tx: Option<S::Tx>,
    ) -> Result<Appended, StoreError> {
        let append = Append {
            saga: self.saga,
            seq: self.state.seq + 1,
            writer: self.crew.worker,
            nonce: self.crew.nonce(),
            events: plan.events.clone(),
            head: plan.head,
            outbox,
        };
        let store = Arc::clone(&self.crew.store);
        let write: BoxFuture<'static, _> = match tx {
            // Its own task for the same reason as in `start`.
            Some(tx) => {
                let task = self.crew.tasks.spawn(tx.commit(append));
                Box::pin(
                    async move { task.await.unwrap_or_else(|panic| Err(StoreError::Unavailable(Box::new(panic)))) },
                )
            }
            // The store recognises the repetition of an append by its writer and nonce.
            None => Box::pin(insist(self.crew.stop.clone(), move || {
                let (store, append) = (Arc::clone(&store), append.clone());
                async move { store.append(append).await }
            })),
        };
        self.meanwhile(write).await
    }

    /// Waits for the store while what is under way goes on.
    async fn meanwhile<T>(&mut self, answer: impl Future<Output = T>) -> T {
        let mut answer = pin!(answer);
        loop {
            tokio::select! {
                biased;
                answer = &mut answer => return answer,
                Some(finished) = self.running.next(), if !self.running.is_empty() => self.landed.extend(finished),
            }
        }
    }

    fn committed(&mut self, plan: Plan, at: chrono::DateTime<chrono::Utc>) -> Next {
        self.clock = Clock::set(at);
        let row = JournalRow { saga: self.saga, seq: self.state.seq + 1, events: plan.events, at };
        Arc::make_mut(&mut self.state).apply(&row);
        let name = &self.kind.definition.name;
        match row.events.last() {
            Some(Event::Ended { outcome }) => telemetry::ended(name, *outcome),
            Some(Event::Parked { reason }) => {
                tracing::error!(saga = %self.saga, name = &**name, ?reason, "parked: an operator must look at it");
                telemetry::parked(name);
            }
            _ => {}
        }
        let Some(head) = plan.head else { return Next::GoOn };
        self.status = head.status;
        if head.release { Next::LetGo } else { Next::GoOn }
    }

    /// The event to record instead of a success that the store did not take.
    fn unrecorded(&self, event: Event, error: &StoreError) -> Event {
        let cause = if matches!(error, StoreError::CommitFailed(_)) { Cause::Error } else { Cause::Data };
        let failure = |name: &str, phase| {
            let (_, step) = self.kind.definition.step(name)?;
            let attempt = self.state.failed_attempts(name, phase == Phase::Undo) + 1;
            Some(attempt::failure(step, phase, attempt, cause, &error.to_string()))
        };
        match event {
            Event::Succeeded { step, output } => match failure(&step, Phase::Forward) {
                Some(failure) => Event::Failed { step, failure },
                None => Event::Succeeded { step, output },
            },
            Event::Compensated { step } => match failure(&step, Phase::Undo) {
                Some(failure) => Event::CompensationFailed { step, failure },
                None => Event::Compensated { step },
            },
            other => other,
        }
    }

    async fn reload(&mut self) -> Result<Next, StoreError> {
        let (crew, saga) = (Arc::clone(&self.crew), self.saga);
        let loaded = match self.meanwhile(insist(crew.stop.clone(), || crew.store.load(saga))).await {
            Err(StoreError::Unavailable(_)) => return Ok(Next::LetGo),
            loaded => loaded?,
        };
        let Some(loaded) = loaded else { return Ok(Next::LetGo) };
        if loaded.owner != Some(self.crew.worker) {
            tracing::info!(saga = %self.saga, "somebody else has this saga now");
            return Ok(Next::LetGo);
        }
        self.status = loaded.status;
        self.clock = Clock::set(loaded.now);
        self.state = Arc::new(loaded.fold());
        Ok(Next::GoOn)
    }
}
