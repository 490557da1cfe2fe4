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

use crate::event::{Cause, Event, JournalRow};
use crate::machine::{self, Action, Node, Phase};
use crate::message::OutboxMessage;
use crate::state::{State, item_name, split_name};
use crate::store::{Append, Appended, Loaded, NewSaga, Priority, Status, StepTransaction, WorkerStore};
use crate::worker::attempt::Finished;
use crate::worker::clock::Clock;
use crate::worker::failure::Tried;
use crate::worker::insist::insist;
use crate::worker::plan::{Circumstances, Pause, Plan, follow_ups, pause, plan};
use crate::worker::{Crew, Kind, waiting};
use crate::{SagaId, StoreError, telemetry};

/// How long a saga that only a newer version understands is left alone.
const FOREIGN_PAUSE: Duration = Duration::from_mins(1);
/// A saga that waits for a lock asks again after this, if nobody wakes it.
const LOCK_PAUSE: Duration = Duration::from_secs(5);

pub(super) struct Drive<S: WorkerStore> {
    pub(super) crew: Arc<Crew<S>>,
    pub(super) kind: Arc<Kind<S::Tx>>,
    pub(super) saga: SagaId,
    pub(super) trace: Option<String>,
    pub(super) priority: Priority,
    pub(super) parent: Option<SagaId>,
    /// It may take no step before it has its lock.
    pub(super) waits_for_lock: bool,
    pub(super) has_lock: bool,
    pub(super) state: Arc<State>,
    pub(super) status: Status,
    pub(super) clock: Clock,
    pub(super) nudge: Arc<Notify>,
    /// The sagas that it waits for may have ended since it last looked at them.
    pub(super) look: bool,
    pub(super) flying: Vec<(Node, Phase)>,
    pub(super) running: FuturesUnordered<BoxFuture<'static, Option<Finished<S::Tx>>>>,
    pub(super) landed: VecDeque<Finished<S::Tx>>,
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
    starts: Vec<NewSaga>,
    tx: Option<T>,
}

impl<T> Batch<T> {
    fn empty() -> Self {
        Self { events: Vec::new(), outbox: Vec::new(), starts: Vec::new(), tx: None }
    }
}

impl<S: WorkerStore> Drive<S> {
    pub(super) fn new(crew: Arc<Crew<S>>, kind: Arc<Kind<S::Tx>>, loaded: &Loaded, nudge: Arc<Notify>) -> Self {
        Self {
            crew,
            kind,
            saga: loaded.id,
            trace: loaded.trace.clone(),
            priority: loaded.priority,
            parent: loaded.parent,
            waits_for_lock: loaded.lock.is_some(),
            has_lock: loaded.lock.is_some(),
            status: loaded.status,
            clock: Clock::set(loaded.now),
            state: Arc::new(loaded.fold()),
            nudge,
            look: true,
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
            // One that was cancelled has nothing to do that could disturb the holder.
            if self.waits_for_lock && self.state.failing_since.is_none() && self.lock().await? == Next::LetGo {
                return Ok(());
            }
            let actions = machine::decide(&self.kind.definition, &self.state);
            if !draining.is_cancelled() {
                self.launch(&actions);
                self.look_at_others(&actions).await?;
            }
            let next = if !self.landed.is_empty() {
                self.record().await?
            } else if !follow_ups(&self.kind.definition, &self.state, &actions, self.circumstances()).is_empty() {
                self.write(Batch::empty()).await?
            } else if self.running.is_empty() && (draining.is_cancelled() || !self.is_due_soon(&actions)) {
                self.rest(&actions, draining.is_cancelled()).await?
            } else {
                let due = self.next_due(&actions).filter(|_| !draining.is_cancelled());
                tokio::select! {
                    finished = self.running.next(), if !self.running.is_empty() => {
                        self.landed.extend(finished.flatten());
                        Next::GoOn
                    }
                    () = self.nudge.notified() => self.reload().await?,
                    () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => Next::GoOn,
                    () = stop.cancelled() => Next::LetGo,
                }
            };
            if next == Next::LetGo {
                return Ok(());
            }
        }
    }

    /// Takes the lock, or gives the saga back until it is asked again or woken.
    async fn lock(&mut self) -> Result<Next, StoreError> {
        let (crew, saga) = (Arc::clone(&self.crew), self.saga);
        match insist(crew.stop.clone(), || crew.store.lock(saga)).await {
            Ok(true) => {
                self.waits_for_lock = false;
                Ok(Next::GoOn)
            }
            Ok(false) => self.release(Some(LOCK_PAUSE.mul_f64(0.75 + fastrand::f64() / 2.0))).await,
            Err(StoreError::Unavailable(_)) => Ok(Next::LetGo),
            Err(error) => Err(error),
        }
    }

    /// Nothing is under way: end, park, or give the saga back until it is due.
    async fn rest(&mut self, actions: &[Action], draining: bool) -> Result<Next, StoreError> {
        let wake_in = match actions.first() {
            Some(Action::End(_) | Action::Park(_)) => {
                return self.write(Batch::empty()).await;
            }
            None if self.state.parked.is_some() && self.status != Status::Parked => {
                return self.write(Batch::empty()).await;
            }
            None => self.state.foreign.then_some(FOREIGN_PAUSE),
            Some(_) if draining => Some(Duration::ZERO),
            Some(_) => match pause(actions, self.clock.now()) {
                Pause::None => Some(Duration::ZERO),
                Pause::For(pause) => Some(pause),
                Pause::ForEver => None,
            },
        };
        self.release(wake_in).await
    }

    async fn release(&mut self, wake_in: Option<Duration>) -> Result<Next, StoreError> {
        let (crew, release) = (Arc::clone(&self.crew), [(self.saga, wake_in)]);
        match insist(crew.stop.clone(), || crew.store.release(crew.worker, &release)).await {
            Ok(()) => {
                if let Some(pause) = wake_in {
                    self.crew.alarms.add(pause);
                }
                Ok(Next::LetGo)
            }
            // The worker stops: its sagas will be adopted.
            Err(StoreError::Unavailable(_)) => Ok(Next::LetGo),
            Err(error) => Err(error),
        }
    }

    /// Records what has finished. Calls that finished together share an append; a transaction is its own.
    async fn record(&mut self) -> Result<Next, StoreError> {
        while let Some(Some(finished)) = self.running.next().now_or_never() {
            self.landed.extend(finished);
        }
        let mut batch = Batch::empty();
        // What is begun is decided on anew after a conflict, which what a call answered is not: they do not mix.
        let is_begun = |finished: &Finished<S::Tx>| waiting::is_moot_after_conflict(&finished.event);
        let first_is_begun = self.landed.front().is_some_and(is_begun);
        while let Some(finished) = self
            .landed
            .pop_front_if(|next| (next.tx.is_none() && is_begun(next) == first_is_begun) || batch.events.is_empty())
        {
            self.flying.retain(|flying| *flying != (finished.node, finished.phase));
            batch.events.push(finished.event);
            batch.outbox.extend(finished.outbox);
            batch.starts.extend(finished.starts);
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
            match self.append(&plan, &mut batch).await {
                Ok(Appended::Done(at)) => return Ok(self.committed(plan, at)),
                Ok(Appended::Conflict) => {
                    metrics::counter!(telemetry::CONFLICTS).increment(1);
                    let next = self.reload().await?;
                    // What a transaction did is rolled back and decided on again. What a call answered still holds,
                    // unless somebody took the saga over in between. What only follows is worked out anew.
                    if batch.events.is_empty() || batch.events.iter().any(waiting::is_moot_after_conflict) {
                        return Ok(next);
                    }
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
                    batch.starts.clear();
                }
            }
        }
    }

    fn circumstances(&self) -> Circumstances<'_> {
        Circumstances {
            status: self.status,
            now: self.clock.now(),
            flying: &self.flying,
            draining: self.crew.draining.is_cancelled(),
            is_child: self.parent.is_some(),
        }
    }

    /// Appends, or commits the transaction with the append, while the saga's other branches go on.
    async fn append(&mut self, plan: &Plan, batch: &mut Batch<S::Tx>) -> Result<Appended, StoreError> {
        let has_ended = plan.events.iter().any(|event| matches!(event, Event::Ended { .. }));
        let append = Append {
            saga: self.saga,
            seq: self.state.seq + 1,
            writer: self.crew.worker,
            nonce: self.crew.nonce(),
            events: plan.events.clone(),
            head: plan.head,
            outbox: batch.outbox.clone(),
            starts: batch.starts.clone(),
            wakes: self.parent.filter(|_| has_ended),
        };
        let store = Arc::clone(&self.crew.store);
        let write: BoxFuture<'static, _> = match batch.tx.take() {
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
    pub(super) async fn meanwhile<T>(&mut self, answer: impl Future<Output = T>) -> T {
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
        // What was begun may have been answered already.
        self.look |= row.events.iter().any(|event| matches!(event, Event::Begun { child: Some(_), .. }));
        let name = &self.kind.definition.name;
        match row.events.last() {
            Some(Event::Ended { outcome, .. }) => {
                telemetry::ended(name, *outcome);
                if self.has_lock {
                    let (crew, saga) = (Arc::clone(&self.crew), self.saga);
                    self.crew.tasks.spawn(async move {
                        if let Err(error) = crew.store.pass_lock(saga).await {
                            tracing::debug!(%saga, %error, "cannot wake the next saga in line; it asks by itself");
                        }
                    });
                }
            }
            Some(Event::Parked { reason, .. }) => {
                tracing::error!(saga = %self.saga, name = &**name, ?reason, "parked: an operator must look at it");
                telemetry::parked(name);
            }
            _ => {}
        }
        let Some(head) = plan.head else { return Next::GoOn };
        self.status = head.status;
        if let (true, Some(pause)) = (head.release, head.wake_in) {
            self.crew.alarms.add(pause);
        }
        if head.release { Next::LetGo } else { Next::GoOn }
    }

    /// The event to record instead of a success that the store did not take.
    fn unrecorded(&self, event: Event, error: &StoreError) -> Event {
        let cause = if matches!(error, StoreError::CommitFailed(_)) { Cause::Error } else { Cause::Data };
        let failed = |name: &str, phase| {
            let (step, item) = split_name(name);
            let (_, it) = self.kind.definition.step(step)?;
            let attempts = self.state.record(step, item).map(|record| record.attempts(phase)).unwrap_or_default();
            let tried = Tried { step: it, phase, attempt: attempts.failed + 1, since: attempts.since };
            Some(tried.failed(item_name(step, item), cause, &error.to_string(), self.clock.now()))
        };
        let instead = match &event {
            Event::Succeeded { step, .. } | Event::Begun { step, undo: false, .. } => failed(step, Phase::Forward),
            Event::Compensated { step } | Event::Begun { step, undo: true, .. } => failed(step, Phase::Undo),
            Event::Probed { step, .. } => failed(step, Phase::Probe),
            Event::Upcast { step, .. } => {
                Some(waiting::upcast_stuck(&self.kind.definition, step.clone(), &error.to_string()))
            }
            _ => None,
        };
        instead.unwrap_or(event)
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
        self.look = true;
        Ok(Next::GoOn)
    }
}
