//! The application's handle: registers sagas, starts them, runs the worker, asks for outcomes.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::definition::{Definition, DefinitionError, StepKind};
use crate::event::{Event, ParkReason};
use crate::saga::{Key, Saga, Steps};
use crate::state::State;
use crate::store::{Append, Appended, Head, Loaded, NewSaga, Started, Status, WorkerStore};
use crate::worker::{self, Kind, Kinds, WorkerOptions};
use crate::{Error, Json, SagaId, WorkerId, sanitize, schedule, trace};

mod check;
mod ended;
mod hints;
mod operator;
mod waiters;

pub use check::{Compatibility, CompatibilityLine};
pub use ended::{Compensated, Ended};
pub(crate) use hints::Hints;
pub use operator::{PlannedUndo, Resolution, Resolved, UndoPlan};
use waiters::Waiters;

/// Starts sagas, and runs those that were registered. Cheap to clone.
pub struct Sagas<S: WorkerStore> {
    store: Arc<S>,
    kinds: Arc<Kinds<S::Tx>>,
    hints: Arc<Hints<S>>,
    options: WorkerOptions,
    /// The writer of what this handle appends from outside.
    writer: WorkerId,
    waiters: Arc<Waiters>,
}

/// Collects what a [`Sagas`] needs.
#[must_use]
pub struct SagasBuilder<S: WorkerStore> {
    store: S,
    kinds: Vec<Kind<S::Tx>>,
    options: WorkerOptions,
}

impl<S: WorkerStore> SagasBuilder<S> {
    /// Registers a saga, with the dependencies of its steps.
    pub fn register<G: Saga + Steps<S::Tx>>(mut self, saga: G) -> Self {
        let definition = Arc::new(G::DEFINITION.clone());
        let fingerprint = definition.fingerprint();
        let scheduled = |tick| G::scheduled(tick).map(|input| new_saga::<G>(G::key(schedule::key(tick)), &input));
        self.kinds.push(Kind { definition, fingerprint, steps: Box::new(saga), scheduled });
        self
    }

    /// Registers steps whose definition was made at run time.
    pub fn register_dynamic(mut self, definition: Definition, steps: impl Steps<S::Tx>) -> Self {
        let fingerprint = definition.fingerprint();
        let scheduled = |_| None;
        self.kinds.push(Kind { definition: Arc::new(definition), fingerprint, steps: Box::new(steps), scheduled });
        self
    }

    /// Changes how the worker behaves.
    pub fn worker(mut self, options: WorkerOptions) -> Self {
        self.options = options;
        self
    }

    /// Checks every definition.
    ///
    /// # Errors
    /// Returns the first rule that a definition breaks, or the name and version that is there twice.
    pub fn build(self) -> Result<Sagas<S>, Error> {
        let mut kinds = HashMap::with_capacity(self.kinds.len());
        for kind in self.kinds {
            kind.definition.validate()?;
            let (name, version) = (kind.definition.name.to_string(), kind.definition.version);
            if kinds.insert((name.clone(), version), Arc::new(kind)).is_some() {
                return Err(Error::RegisteredTwice { name, version });
            }
        }
        carry_on(&mut kinds);
        check_children(&kinds)?;
        Ok(Sagas {
            store: Arc::new(self.store),
            kinds: Arc::new(kinds),
            hints: Arc::default(),
            options: self.options,
            writer: WorkerId::new(),
            waiters: Arc::default(),
        })
    }
}

impl<S: WorkerStore> Sagas<S> {
    /// Begins with the store in which the sagas are kept.
    pub fn builder(store: S) -> SagasBuilder<S> {
        SagasBuilder { store, kinds: Vec::new(), options: WorkerOptions::default() }
    }

    /// The store.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// Starts a saga in the application's own transaction: it runs if, and only if, that commits.
    ///
    /// # Idempotency
    /// A second start with the same key and an equal input gives the same saga.
    ///
    /// # Errors
    /// [`Error::KeyConflict`] if the key is taken with another input; [`Error::Json`] if the input cannot be stored.
    pub async fn start<G: Saga>(&self, conn: &mut S::Conn, key: Key<G>, input: &G::Input) -> Result<Started, Error> {
        let started = self.store.start_in(conn, new_saga(key, input)?).await?;
        // There is no hook after the application's commit, so the worker looks for it a few times.
        self.hints.add(started.id());
        Ok(started)
    }

    /// Starts a saga in a transaction of its own; when this returns, it is durable.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_now<G: Saga>(&self, key: Key<G>, input: &G::Input) -> Result<Started, Error> {
        let saga = new_saga(key, input)?;
        // With a worker in this process that has room, the saga is its own from the beginning and need not be claimed.
        // Delays and deadlines count from the database's time of the start, which only a claim brings.
        let place =
            if G::DEFINITION.counts_from_start() { None } else { self.hints.place(&(saga.name.clone(), saga.version)) };
        let owner = place.as_ref().map(|(crew, _)| crew.worker);
        let started = self.store.start(saga.clone(), owner).await?;
        match (started, place) {
            (Started::New(id), Some((crew, permit))) => crew.drive_with(fresh(id, saga, owner), Some(permit)),
            (Started::New(id), None) => self.hints.add(id),
            (Started::Existing(_), _) => {}
        }
        Ok(started)
    }

    /// Runs the worker until `shutdown`; then finishes what is under way and gives the rest back.
    ///
    /// # Errors
    /// [`Error::Strands`] if live sagas could neither go on nor back under the definitions that are registered (see
    /// [`check`](Self::check)); the store's error if the worker cannot register at all.
    pub async fn run(&self, shutdown: CancellationToken) -> Result<(), Error> {
        let compatibility = self.check().await?;
        if !compatibility.is_safe() {
            return Err(Error::Strands(compatibility.to_string()));
        }
        // Not once more for each older version that one of them carries on.
        let own = self.kinds.iter().filter(|((_, version), kind)| kind.definition.version == *version);
        let definitions: Vec<_> = own.map(|(_, kind)| &*kind.definition).collect();
        self.store.define(&definitions).await?;
        let (store, kinds, hints) = (Arc::clone(&self.store), Arc::clone(&self.kinds), Arc::clone(&self.hints));
        Ok(worker::run(store, kinds, hints, self.options.clone(), shutdown).await?)
    }

    /// Waits for a saga's end, and says how it ended. However many wait, they ask the store together.
    ///
    /// A saga that is parked has not ended; put a timeout around this if you cannot wait for an operator.
    ///
    /// # Errors
    /// [`Error::NoSuchSaga`] if there is none, or none of type `G`; [`Error::Json`] if what it returned is of another type.
    pub async fn outcome<G: Saga>(&self, saga: SagaId) -> Result<Ended<G::Output>, Error> {
        self.waiters.ended(&self.store, saga).await?;
        Ended::of::<G>(&self.load(saga).await?)
    }

    /// A saga with its journal.
    ///
    /// # Errors
    /// [`Error::NoSuchSaga`] if there is none.
    pub async fn load(&self, saga: SagaId) -> Result<Loaded, Error> {
        self.store.load(saga).await?.ok_or(Error::NoSuchSaga(saga))
    }

    /// Asks for a saga to be undone. It returns when the request is durable, not when it has been carried out.
    ///
    /// # Errors
    /// [`Error::Refused`] if it has ended, is past its pivot, or is stuck; [`Error::NoSuchSaga`] if there is none.
    pub async fn cancel(&self, saga: SagaId, reason: &str) -> Result<(), Error> {
        let event = Event::Cancelled { id: Uuid::now_v7(), reason: sanitize(reason), reopens: false };
        self.append_from_outside(saga, event, |loaded, state| {
            let definition = self.definition_of(loaded);
            let past_pivot = definition.is_some_and(|definition| crate::machine::is_past_pivot(definition, state));
            match loaded.status {
                status if status.is_final() => Err(format!("it has ended ({})", status.as_str())),
                _ if past_pivot => Err("it is past its pivot, so there is no way back".to_owned()),
                _ => match state.parked.as_ref().map(|parked| &parked.reason) {
                    None | Some(ParkReason::CrashLoop { .. }) => Ok(Status::Compensating),
                    Some(reason) => Err(format!("it is parked ({}); resolve that first", reason.kind())),
                },
            }
        })
        .await
    }

    fn definition_of(&self, loaded: &Loaded) -> Option<&Definition> {
        Some(&self.kinds.get(&(loaded.name.clone(), loaded.version))?.definition)
    }

    /// Whoever writes from outside uses the same door as the workers: the next sequence number, or try again.
    async fn append_from_outside(
        &self,
        saga: SagaId,
        event: Event,
        check: impl Fn(&Loaded, &State) -> Result<Status, String>,
    ) -> Result<(), Error> {
        loop {
            let loaded = self.load(saga).await?;
            let state = loaded.fold();
            let status = check(&loaded, &state).map_err(|problem| Error::Refused { saga, problem })?;
            let parked = state.parked.as_ref().filter(|_| status == Status::Parked).map(|parked| parked.fingerprint);
            let head = Head { status, wake_in: Some(Duration::ZERO), release: false, parked };
            if self.append_if_unmoved(saga, state.seq, vec![event.clone()], head).await? {
                return Ok(());
            }
        }
    }

    /// `false` if somebody has moved the saga since `seq`.
    async fn append_if_unmoved(&self, saga: SagaId, seq: i64, events: Vec<Event>, head: Head) -> Result<bool, Error> {
        let append = Append::new(saga, seq + 1, self.writer, fastrand::i64(..), events);
        let append = Append { head: Some(head), ..append };
        let is_written = matches!(self.store.append(append).await?, Appended::Done(_));
        if is_written {
            self.hints.add(saga);
        }
        Ok(is_written)
    }
}

/// Registers each definition for the older versions whose sagas it carries on, where these are not registered themselves.
fn carry_on<T>(kinds: &mut Kinds<T>) {
    let mut oldest_first: Vec<_> = kinds.values().cloned().collect();
    oldest_first.sort_by_key(|kind| kind.definition.version);
    for kind in oldest_first {
        for version in kind.definition.since..kind.definition.version {
            let key = (kind.definition.name.to_string(), version);
            // The oldest that can is nearest to what the saga was started as.
            kinds.entry(key).or_insert_with(|| Arc::clone(&kind));
        }
    }
}

/// A saga that another can undo has no pivot: past it there would be no way back.
fn check_children<T>(kinds: &Kinds<T>) -> Result<(), Error> {
    for kind in kinds.values() {
        for step in kind.definition.steps.iter() {
            let is_undone = step.compensation.as_ref().is_some_and(|undo| undo.kind == StepKind::Child);
            let child = kinds.values().find(|it| step.child.as_deref() == Some(&*it.definition.name));
            let pivot = child.and_then(|child| child.definition.steps.iter().find(|step| step.pivot));
            if let (true, Some(pivot)) = (is_undone, pivot) {
                let problem = format!(
                    "step `{}` starts a saga that has a pivot (`{}`), so it could not be undone; move the step to or behind this \
                     saga's own pivot, or write a compensation for it",
                    step.name, pivot.name
                );
                return Err(DefinitionError { saga: kind.definition.name.to_string(), problem }.into());
            }
        }
    }
    Ok(())
}

pub(crate) fn new_saga<G: Saga>(key: Key<G>, input: &G::Input) -> Result<NewSaga, Error> {
    let definition = G::DEFINITION;
    let failed = |what: &str, source| Error::Json { what: format!("{what} of saga `{}`", definition.name), source };
    if key.text.as_ref().is_some_and(|key| key.contains('\0')) {
        return Err(failed("the business key", crate::JsonError::Nul));
    }
    let trace = trace::current_headers().remove("traceparent");
    let input = Json::encode(input).map_err(|source| failed("the input", source))?;
    if key.lock.as_ref().is_some_and(|lock| lock.key.contains('\0')) {
        return Err(failed("the lock", crate::JsonError::Nul));
    }
    Ok(NewSaga { key: key.text, priority: key.priority, lock: key.lock, trace, ..NewSaga::new(definition, input) })
}

/// A saga that was started a moment ago, as a worker would have loaded it.
fn fresh(id: SagaId, saga: NewSaga, owner: Option<WorkerId>) -> Loaded {
    Loaded {
        id,
        name: saga.name,
        version: saga.version,
        fingerprint: saga.fingerprint,
        input: saga.input,
        trace: saga.trace,
        status: Status::Running,
        journal: Vec::new(),
        // Only retries compare times, and the first append brings the database's own.
        now: chrono::Utc::now(),
        owner,
        started_at: chrono::Utc::now(),
        priority: saga.priority,
        parent: saga.parent,
        lock: saga.lock.map(|lock| lock.key),
    }
}

impl<S: WorkerStore> Clone for Sagas<S> {
    fn clone(&self) -> Self {
        Self {
            store: Arc::clone(&self.store),
            kinds: Arc::clone(&self.kinds),
            hints: Arc::clone(&self.hints),
            options: self.options.clone(),
            writer: self.writer,
            waiters: Arc::clone(&self.waiters),
        }
    }
}

impl<S: WorkerStore> fmt::Debug for Sagas<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sagas").field("registered", &self.kinds.keys()).finish_non_exhaustive()
    }
}

impl<S: WorkerStore> fmt::Debug for SagasBuilder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SagasBuilder").field("registered", &self.kinds.len()).finish_non_exhaustive()
    }
}
