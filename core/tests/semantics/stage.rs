//! A store, the workers on it, and conditions to wait for.

use std::time::Duration;

use amends::event::{Event, Outcome, ParkReason};
use amends::state::State;
use amends::store::{Append, Appended, Head, Loaded, NewSaga, Status, Store};
use amends::{
    Answer, CORRELATION_HEADER, Correlation, Error, OutboxMessage, SagaId, Sagas, SagasBuilder, StepRef, WorkerId,
    WorkerOptions,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::script::{Script, json};
use super::{Backend, TheStore};

/// How long a condition may take to come true, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(5);

pub(crate) struct Stage {
    pub(crate) store: TheStore,
    here: crate::Here,
}

/// A worker under way; it stops with this value.
pub(crate) struct Worker {
    pub(crate) sagas: Sagas<TheStore>,
    shutdown: CancellationToken,
    running: JoinHandle<Result<(), Error>>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Stage {
    pub(crate) async fn new() -> Self {
        let here = crate::Here::open().await;
        Self { store: here.store(), here }
    }

    pub(crate) fn builder(&self) -> SagasBuilder<TheStore> {
        let options = WorkerOptions { poll: Duration::from_millis(10), ..WorkerOptions::default() };
        Sagas::builder(self.store.clone()).worker(options)
    }

    pub(crate) fn sagas(&self, scripts: &[&Script]) -> Sagas<TheStore> {
        let register = |builder: SagasBuilder<_>, script: &&Script| {
            builder.register_dynamic(script.definition.clone(), (*script).clone())
        };
        scripts.iter().fold(self.builder(), register).build().unwrap()
    }

    pub(crate) fn work(&self, scripts: &[&Script]) -> Worker {
        Worker::of(self.sagas(scripts))
    }

    pub(crate) async fn start(&self, script: &Script) -> SagaId {
        self.start_with(script, &()).await
    }

    pub(crate) async fn start_with<T: Serialize + ?Sized>(&self, script: &Script, input: &T) -> SagaId {
        self.store.start(NewSaga::new(&script.definition, json(input)), None).await.unwrap().id()
    }

    /// A worker, and a saga that it drives.
    pub(crate) async fn play(&self, script: &Script) -> (Worker, SagaId) {
        (self.work(&[script]), self.start(script).await)
    }

    pub(crate) async fn load(&self, saga: SagaId) -> Loaded {
        self.store.load(saga).await.unwrap().unwrap()
    }

    pub(crate) async fn state(&self, saga: SagaId) -> State {
        self.load(saga).await.fold()
    }

    pub(crate) async fn events(&self, saga: SagaId) -> Vec<Event> {
        self.load(saga).await.journal.into_iter().flat_map(|row| row.events).collect()
    }

    /// What a step returned, once the saga has ended.
    pub(crate) async fn output<T: DeserializeOwned>(&self, saga: SagaId, step: &'static str) -> Option<T> {
        self.load(saga).await.output(StepRef::new(step)).unwrap()
    }

    pub(crate) async fn until(&self, saga: SagaId, is_so: impl Fn(&Loaded) -> bool) -> Loaded {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let loaded = self.load(saga).await;
            if is_so(&loaded) {
                return loaded;
            }
            assert!(Instant::now() < deadline, "it never came true: {loaded:#?}");
            sleep(LOOK).await;
        }
    }

    /// Waits until the saga has ended, and says how.
    pub(crate) async fn ends(&self, saga: SagaId) -> Outcome {
        let rests = |loaded: &Loaded| loaded.status.is_final() || loaded.status == Status::Parked;
        let loaded = self.until(saga, rests).await;
        loaded.fold().ended.unwrap_or_else(|| panic!("it is parked: {loaded:#?}"))
    }

    pub(crate) async fn completes(&self, saga: SagaId) {
        assert_eq!(self.ends(saga).await, Outcome::Completed);
    }

    pub(crate) async fn is_compensated(&self, saga: SagaId) {
        assert_eq!(self.ends(saga).await, Outcome::Compensated);
    }

    /// Waits until the saga is parked, and says why.
    pub(crate) async fn parks(&self, saga: SagaId) -> ParkReason {
        let rests = |loaded: &Loaded| loaded.status.is_final() || loaded.status == Status::Parked;
        self.until(saga, rests).await.fold().parked.expect("it is parked, not ended").reason
    }

    /// Waits until the step has begun to wait, and nobody holds the saga.
    pub(crate) async fn waits_at(&self, saga: SagaId, step: &str) {
        let has_begun = |loaded: &Loaded| {
            let events = loaded.journal.iter().flat_map(|row| &row.events);
            let begun = events.filter(|event| matches!(event, Event::Begun { step: begun, .. } if begun == step));
            loaded.owner.is_none() && begun.count() > 0
        };
        self.until(saga, has_begun).await;
    }

    /// The saga that a step started.
    pub(crate) async fn child_of(&self, saga: SagaId, step: &str) -> SagaId {
        let child = |loaded: &Loaded| loaded.fold().record(step, None).and_then(|record| record.child);
        child(&self.until(saga, |loaded| child(loaded).is_some()).await).unwrap()
    }

    /// Every request in the outbox, with what it belongs to.
    pub(crate) async fn requests(&self) -> Vec<(Correlation, OutboxMessage)> {
        let published = self.here.published().await;
        published.into_iter().map(|message| (message.headers[CORRELATION_HEADER].parse().unwrap(), message)).collect()
    }

    /// Answers a request of the saga, as the participant's reply does when it arrives.
    pub(crate) async fn reply(&self, to: &Correlation, answer: Answer) {
        self.here.reply(to, answer).await;
    }

    pub(crate) async fn reply_to(&self, saga: SagaId, step: &str, answer: Answer) {
        self.reply(&Correlation { saga, step: step.to_owned(), undo: false, attempt: 1 }, answer).await;
    }

    pub(crate) async fn append(&self, saga: SagaId, events: Vec<Event>) {
        append_from_outside(&self.store, saga, events).await;
    }

    /// Waits until an operator finds the saga among the parked ones.
    pub(crate) async fn is_listed_as_parked(&self, saga: SagaId) {
        let deadline = Instant::now() + PATIENCE;
        while !self.store.parked(None, None, 1_000).await.unwrap().contains(&saga) {
            assert!(Instant::now() < deadline, "nobody finds it: {:#?}", self.load(saga).await);
            sleep(LOOK).await;
        }
    }
}

/// Writes to a saga from outside, as whoever does so must: at the next sequence number, and it is due at once.
pub(crate) async fn append_from_outside(store: &impl Store, saga: SagaId, events: Vec<Event>) {
    loop {
        let loaded = store.load(saga).await.unwrap().unwrap();
        let status = if loaded.status == Status::Parked { Status::Running } else { loaded.status };
        let head = Head { status, wake_in: Some(Duration::ZERO), release: false, parked: None };
        let append = Append {
            saga,
            seq: loaded.fold().seq + 1,
            writer: WorkerId::new(),
            nonce: 1,
            events: events.clone(),
            head: Some(head).filter(|_| !status.is_final()),
            outbox: Vec::new(),
            starts: Vec::new(),
            wakes: None,
        };
        if let Appended::Done(_) = store.append(append).await.unwrap() {
            return;
        }
    }
}

impl Worker {
    pub(crate) fn of(sagas: Sagas<TheStore>) -> Self {
        let shutdown = CancellationToken::new();
        let running = tokio::spawn({
            let (sagas, shutdown) = (sagas.clone(), shutdown.clone());
            async move { sagas.run(shutdown).await }
        });
        Self { sagas, shutdown, running }
    }

    /// Waits until it has given back what it held, and says how it ended.
    pub(crate) async fn stop(mut self) -> Result<(), Error> {
        self.shutdown.cancel();
        (&mut self.running).await.unwrap()
    }

    pub(crate) async fn signal<T: Serialize + DeserializeOwned>(
        &self,
        saga: SagaId,
        step: &'static str,
        payload: T,
    ) -> Result<(), Error> {
        self.sagas.signal(saga, StepRef::new(step), &payload).await
    }
}

pub(crate) fn done<T: Serialize>(output: T) -> Answer {
    Answer::Done(json(&output))
}

/// Waits for something outside of any store.
pub(crate) async fn until(is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "it never came true");
        sleep(LOOK).await;
    }
}

/// The text of a refusal.
pub(crate) fn refusal(result: Result<(), Error>) -> String {
    match result {
        Err(Error::Refused { problem, .. }) => problem,
        other => panic!("it was not refused: {other:?}"),
    }
}
