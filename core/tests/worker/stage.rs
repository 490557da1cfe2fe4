//! A store, the workers on it, and conditions to wait for.

use std::time::Duration;

use amends::event::{Event, Outcome, ParkReason};
use amends::memory::MemoryTx;
use amends::state::State;
use amends::store::{Loaded, NewSaga, WorkerStore};
use amends::{Error, Json, MemoryStore, SagaId, Sagas, SagasBuilder, Status, WorkerOptions};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::script::Script;

/// How long, on the paused clock, a condition may take to come true.
const PATIENCE: Duration = Duration::from_hours(2);

#[derive(Clone)]
pub(crate) struct Stage<S: WorkerStore<Tx = MemoryTx> + Clone = MemoryStore> {
    pub(crate) store: S,
}

/// Pauses between two looks at a condition.
const FIRST_LOOK: Duration = Duration::from_millis(10);
const LONGEST_LOOK: Duration = Duration::from_millis(500);

/// A worker under way.
pub(crate) struct Running<S: WorkerStore<Tx = MemoryTx>> {
    pub(crate) sagas: Sagas<S>,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), Error>>,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self { store: MemoryStore::new() }
    }
}

impl<S: WorkerStore<Tx = MemoryTx> + Clone> Stage<S> {
    pub(crate) fn sagas(&self, script: &Script) -> Sagas<S> {
        self.with(script).build().unwrap()
    }

    pub(crate) fn with(&self, script: &Script) -> SagasBuilder<S> {
        Sagas::builder(self.store.clone()).register_dynamic(script.definition.clone(), script.clone())
    }

    pub(crate) fn work(&self, script: &Script) -> Running<S> {
        work(self.sagas(script))
    }

    pub(crate) fn work_as(&self, script: &Script, options: WorkerOptions) -> Running<S> {
        work(self.with(script).worker(options).build().unwrap())
    }

    pub(crate) async fn start(&self, script: &Script) -> SagaId {
        self.start_with(script, Json::null()).await
    }

    pub(crate) async fn start_with(&self, script: &Script, input: Json) -> SagaId {
        let definition = &script.definition;
        let saga = NewSaga::new(definition, input);
        self.store.start(saga, None).await.unwrap().id()
    }

    /// A worker, and a saga that it drives.
    pub(crate) async fn play(&self, script: &Script) -> (Running<S>, SagaId) {
        (self.work(script), self.start(script).await)
    }

    pub(crate) async fn load(&self, saga: SagaId) -> Loaded {
        self.store.load(saga).await.unwrap().unwrap()
    }

    pub(crate) async fn state(&self, saga: SagaId) -> State {
        self.load(saga).await.fold()
    }

    pub(crate) async fn parked(&self, saga: SagaId) -> Option<ParkReason> {
        self.state(saga).await.parked.map(|parked| parked.reason)
    }

    pub(crate) async fn events(&self, saga: SagaId) -> Vec<Event> {
        self.load(saga).await.journal.into_iter().flat_map(|row| row.events).collect()
    }

    /// Waits until the saga has ended or is parked.
    pub(crate) async fn rests(&self, saga: SagaId) -> Status {
        self.until(saga, |loaded| loaded.status.is_final() || loaded.status == Status::Parked).await.status
    }

    pub(crate) async fn outcome(&self, saga: SagaId) -> Option<Outcome> {
        self.rests(saga).await;
        self.state(saga).await.ended
    }

    pub(crate) async fn until(&self, saga: SagaId, is_so: impl Fn(&Loaded) -> bool) -> Loaded {
        let (deadline, mut pause) = (Instant::now() + PATIENCE, FIRST_LOOK);
        loop {
            let loaded = self.load(saga).await;
            if is_so(&loaded) {
                return loaded;
            }
            assert!(Instant::now() < deadline, "it never came true: {loaded:#?}");
            pause = (pause * 5 / 4).min(LONGEST_LOOK);
            sleep(pause).await;
        }
    }
}

pub(crate) fn work<S: WorkerStore<Tx = MemoryTx>>(sagas: Sagas<S>) -> Running<S> {
    let shutdown = CancellationToken::new();
    let task = tokio::spawn({
        let (sagas, shutdown) = (sagas.clone(), shutdown.clone());
        async move { sagas.run(shutdown).await }
    });
    Running { sagas, shutdown, task }
}

impl<S: WorkerStore<Tx = MemoryTx>> Running<S> {
    /// As when its process is killed: it says nothing to anybody.
    pub(crate) async fn dies(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }

    pub(crate) async fn shuts_down(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }
}

pub(crate) async fn until(is_so: impl Fn() -> bool) {
    let (deadline, mut pause) = (Instant::now() + PATIENCE, FIRST_LOOK);
    while !is_so() {
        assert!(Instant::now() < deadline, "it never came true");
        pause = (pause * 5 / 4).min(LONGEST_LOOK);
        sleep(pause).await;
    }
}
