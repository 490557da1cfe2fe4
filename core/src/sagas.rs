//! The application's handle: registers sagas, starts them, runs the worker, asks for outcomes.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::definition::Definition;
use crate::event::{Event, Outcome, ParkReason};
use crate::saga::{Key, Saga, Steps};
use crate::store::{Append, Appended, Head, Loaded, NewSaga, Started, Status, WorkerStore};
use crate::worker::{self, Kind, Kinds, WorkerOptions};
use crate::{Error, Json, SagaId, WorkerId, sanitize, trace};

mod hints;

pub(crate) use hints::Hints;

/// Starts sagas, and runs those that were registered. Cheap to clone.
pub struct Sagas<S: WorkerStore> {
    store: Arc<S>,
    kinds: Arc<Kinds<S::Tx>>,
    hints: Arc<Hints<S>>,
    options: WorkerOptions,
    /// The writer of what this handle appends from outside.
    writer: WorkerId,
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
        self.kinds.push(Kind { definition, fingerprint, steps: Box::new(saga) });
        self
    }

    /// Registers steps whose definition was made at run time.
    pub fn register_dynamic(mut self, definition: Definition, steps: impl Steps<S::Tx>) -> Self {
        let fingerprint = definition.fingerprint();
        self.kinds.push(Kind { definition: Arc::new(definition), fingerprint, steps: Box::new(steps) });
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
        Ok(Sagas {
            store: Arc::new(self.store),
            kinds: Arc::new(kinds),
            hints: Arc::default(),
            options: self.options,
            writer: WorkerId::new(),
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
        let place = self.hints.place(&(saga.name.clone(), saga.version));
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
    /// Returns the store's error if the worker cannot register at all.
    pub async fn run(&self, shutdown: CancellationToken) -> Result<(), Error> {
        let (store, kinds, hints) = (Arc::clone(&self.store), Arc::clone(&self.kinds), Arc::clone(&self.hints));
        Ok(worker::run(store, kinds, hints, self.options.clone(), shutdown).await?)
    }

    /// How a saga ended; `None` while it has not.
    ///
    /// # Errors
    /// [`Error::NoSuchSaga`] if there is none.
    pub async fn outcome(&self, saga: SagaId) -> Result<Option<Outcome>, Error> {
        Ok(self.load(saga).await?.fold().ended)
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
        let event = Event::Cancelled { id: Uuid::now_v7(), reason: sanitize(reason) };
        self.append_from_outside(saga, event, |loaded| {
            let kind = self.kinds.get(&(loaded.name.clone(), loaded.version));
            let state = loaded.fold();
            let past_pivot = kind.is_some_and(|kind| crate::machine::is_past_pivot(&kind.definition, &state));
            match loaded.status {
                status if status.is_final() => Err(format!("it has ended ({})", status.as_str())),
                _ if past_pivot => Err("it is past its pivot, so there is no way back".to_owned()),
                _ => match &state.parked {
                    None | Some(ParkReason::CrashLoop { .. }) => Ok(Status::Compensating),
                    Some(reason) => Err(format!("it is parked ({reason:?}); resume it first")),
                },
            }
        })
        .await
    }

    /// Sends a parked saga on: what was stuck is tried again.
    ///
    /// # Errors
    /// [`Error::Refused`] if it is not parked; [`Error::NoSuchSaga`] if there is none.
    pub async fn resume(&self, saga: SagaId, by: &str, note: &str) -> Result<(), Error> {
        let event = Event::Resumed { id: Uuid::now_v7(), by: sanitize(by), note: sanitize(note) };
        self.append_from_outside(saga, event, |loaded| match loaded.status {
            // The worker that takes it finds out which way it goes.
            Status::Parked => Ok(Status::Running),
            status => Err(format!("it is not parked but {}", status.as_str())),
        })
        .await
    }

    /// Whoever writes from outside uses the same door as the workers: the next sequence number, or try again.
    async fn append_from_outside(
        &self,
        saga: SagaId,
        event: Event,
        check: impl Fn(&Loaded) -> Result<Status, String>,
    ) -> Result<(), Error> {
        loop {
            let loaded = self.load(saga).await?;
            let status = check(&loaded).map_err(|problem| Error::Refused { saga, problem })?;
            let append = Append {
                saga,
                seq: loaded.fold().seq + 1,
                writer: self.writer,
                nonce: fastrand::i64(..),
                events: vec![event.clone()],
                head: Some(Head { status, wake_in: Some(std::time::Duration::ZERO), release: false }),
                outbox: Vec::new(),
            };
            if let Appended::Done(_) = self.store.append(append).await? {
                self.hints.add(saga);
                return Ok(());
            }
        }
    }
}

fn new_saga<G: Saga>(key: Key<G>, input: &G::Input) -> Result<NewSaga, Error> {
    let definition = G::DEFINITION;
    let failed = |what: &str, source| Error::Json { what: format!("{what} of saga `{}`", definition.name), source };
    if key.text.as_ref().is_some_and(|key| key.contains('\0')) {
        return Err(failed("the business key", crate::JsonError::Nul));
    }
    Ok(NewSaga {
        id: SagaId::new(),
        name: definition.name.to_string(),
        version: definition.version,
        fingerprint: definition.fingerprint(),
        key: key.text,
        input: Json::encode(input).map_err(|source| failed("the input", source))?,
        trace: trace::current_headers().remove("traceparent"),
    })
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
