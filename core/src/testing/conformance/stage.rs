//! A store under test, and what the rules do to it.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Backend;
use crate::definition::{Definition, StepKind};
use crate::event::Event;
use crate::store::{Append, Appended, Claim, Head, Loaded, Lock, NewSaga, Started, Status, Store, WorkerStore};
use crate::{Error, Json, MessageId, OutboxMessage, SagaId, Step, WorkerId};

/// How long a condition may take to come true, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(10);
/// A lease that does not run out while a test runs.
pub(crate) const LONG: Duration = Duration::from_hours(1);

/// The name of a saga where a rule needs only one.
pub(crate) const SHOP: &str = "shop";

pub(crate) struct Stage<B: Backend> {
    pub(crate) store: B::Store,
    pub(crate) backend: B,
}

impl<B: Backend> Stage<B> {
    pub(crate) async fn open() -> Self {
        let backend = B::open().await;
        Self { store: backend.connect(), backend }
    }

    pub(crate) async fn start(&self, saga: NewSaga) -> SagaId {
        match self.store.start(saga, None).await.expect("a saga can be started") {
            Started::New(id) => id,
            Started::Existing(id) => panic!("saga {id} was there already"),
        }
    }

    /// A saga that some worker owns, as after a claim.
    pub(crate) async fn owned(&self) -> SagaId {
        self.owned_by(WorkerId::new()).await
    }

    pub(crate) async fn owned_by(&self, worker: WorkerId) -> SagaId {
        self.store.start(saga(SHOP), Some(worker)).await.expect("a saga can be started").id()
    }

    pub(crate) async fn worker(&self, lease: Duration) -> WorkerId {
        let worker = WorkerId::new();
        self.store.register(worker, "a worker", lease).await.expect("a worker can be registered");
        worker
    }

    /// Starts a saga in a transaction, and commits it.
    pub(crate) async fn start_in(&self, saga: NewSaga) -> Result<Started, Error> {
        let mut transaction = self.backend.begin().await;
        let started = self.store.start_in(B::conn(&mut transaction), saga).await;
        match started {
            Ok(_) => B::commit(transaction).await.expect("the transaction commits"),
            Err(_) => B::rollback(transaction).await,
        }
        started
    }

    pub(crate) async fn append(&self, append: Append) -> Appended {
        self.store.append(append).await.expect("the store answers an append")
    }

    /// Appends what must not be in conflict with anything.
    pub(crate) async fn write(&self, append: Append) {
        let answer = self.append(append.clone()).await;
        assert!(matches!(answer, Appended::Done(_)), "{answer:?} to {append:#?}");
    }

    /// As [`write`](Self::write), at the next number and with this head.
    pub(crate) async fn moves(&self, saga: SagaId, head: Head) {
        self.moves_by(false, saga, head).await;
    }

    /// The same by the commit of a step.
    pub(crate) async fn moves_in_step(&self, saga: SagaId, head: Head) {
        self.moves_by(true, saga, head).await;
    }

    pub(crate) async fn moves_by(&self, step: bool, saga: SagaId, head: Head) {
        let seq = self.load(saga).await.journal.len() as i64 + 1;
        let append = Append { head: Some(head), ..record(saga, seq) };
        let answer = if step { self.commit(append).await } else { self.append(append).await };
        assert!(is_done(answer), "{answer:?}");
    }

    /// Commits a step with this record.
    pub(crate) async fn commit(&self, append: Append) -> Appended {
        use crate::StepTransaction;
        let tx = self.store.begin().await.expect("a step gets its transaction");
        tx.commit(append).await.expect("the store answers a commit")
    }

    pub(crate) async fn release(&self, worker: WorkerId, saga: SagaId, wake_in: Option<Duration>) {
        self.store.release(worker, &[(saga, wake_in)]).await.expect("a saga can be released");
    }

    /// Makes a saga due from outside, as the end of another saga does.
    pub(crate) async fn wake(&self, saga: SagaId) {
        let other = self.owned().await;
        self.write(Append { wakes: Some(saga), ..record(other, 1) }).await;
    }

    pub(crate) async fn load(&self, saga: SagaId) -> Loaded {
        self.find(saga).await.expect("the saga is there")
    }

    pub(crate) async fn find(&self, saga: SagaId) -> Option<Loaded> {
        self.store.load(saga).await.expect("a saga can be read")
    }

    pub(crate) async fn claim(&self, claim: Claim) -> Vec<Loaded> {
        self.store.claim(claim).await.expect("sagas can be claimed")
    }

    pub(crate) async fn adopt(&self, claim: Claim) -> Vec<Loaded> {
        self.store.adopt(claim).await.expect("sagas can be adopted")
    }

    /// Whether the saga, which nobody owns, is due; if so, somebody owns it afterwards.
    pub(crate) async fn is_due(&self, saga: SagaId) -> bool {
        let Loaded { name, version, owner, .. } = self.load(saga).await;
        assert_eq!(owner, None, "a saga that is owned is not claimed");
        let claim = Claim { registered: vec![(name, version)], sweep: true, ..claim(usize::from(u16::MAX)) };
        self.claim(claim).await.into_iter().any(|loaded| loaded.id == saga)
    }

    /// Whether the worker is told to look at a saga that it owns.
    pub(crate) async fn is_nudged(&self, saga: SagaId, worker: WorkerId) -> bool {
        let claim = Claim { worker, ..claim(0) };
        self.claim(claim).await.into_iter().any(|loaded| loaded.id == saga)
    }

    pub(crate) async fn becomes_due(&self, saga: SagaId) {
        let deadline = Instant::now() + PATIENCE;
        while !self.is_due(saga).await {
            assert!(Instant::now() < deadline, "it was never due: {:#?}", self.load(saga).await);
            sleep(LOOK).await;
        }
    }

    /// Adopts what this claim allows, once there is something.
    pub(crate) async fn adopts(&self, claim: Claim) -> Vec<Loaded> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let adopted = self.adopt(claim.clone()).await;
            if !adopted.is_empty() {
                return adopted;
            }
            assert!(Instant::now() < deadline, "there was never anything to adopt");
            sleep(LOOK).await;
        }
    }

    /// Everything that is written in one place or another about these sagas, to see that nothing has changed.
    pub(crate) async fn everything(&self, sagas: &[SagaId]) -> String {
        let mut written = Vec::new();
        for saga in sagas {
            // The time of the read is no part of it.
            let loaded = self.find(*saga).await.map(|loaded| Loaded { now: loaded.started_at, ..loaded });
            written.push(format!("{loaded:#?}"));
        }
        format!("{}\n{:#?}", written.join("\n"), self.backend.published().await)
    }
}

pub(crate) fn json(text: &str) -> Json {
    Json::from_text(text.to_owned()).expect("the text is JSON")
}

pub(crate) fn definition(name: &str, version: u32) -> Definition {
    Definition::new(name.to_owned().into(), version, vec![Step::new("a".into(), StepKind::Call)].into())
}

pub(crate) fn saga(name: &str) -> NewSaga {
    NewSaga::new(&definition(name, 1), Json::null())
}

pub(crate) fn keyed(key: &str, input: &str) -> NewSaga {
    NewSaga { key: Some(key.to_owned()), input: json(input), ..saga(SHOP) }
}

pub(crate) fn locking(name: &str, key: &str) -> NewSaga {
    NewSaga { lock: Some(Lock { key: key.to_owned(), refuse: false }), ..saga(name) }
}

/// One whose start is refused while another one has the lock.
pub(crate) fn refusing(name: &str, key: &str) -> NewSaga {
    NewSaga { lock: Some(Lock { key: key.to_owned(), refuse: true }), ..saga(name) }
}

pub(crate) fn succeeded(step: &str, output: Json) -> Event {
    Event::Succeeded { step: step.to_owned(), output }
}

/// An append by somebody who writes nothing else.
pub(crate) fn record(saga: SagaId, seq: i64) -> Append {
    Append::new(saga, seq, WorkerId::new(), 0, vec![succeeded("a", Json::null())])
}

pub(crate) fn head(status: Status, wake_in: Option<Duration>, release: bool) -> Head {
    Head { status, wake_in, release, parked: None }
}

/// The head of a saga that has completed.
pub(crate) fn completed() -> Head {
    head(Status::Completed, None, true)
}

pub(crate) fn message(topic: &str) -> OutboxMessage {
    OutboxMessage {
        id: MessageId::new(),
        topic: topic.to_owned(),
        name: "thing.happened".to_owned(),
        key: None,
        content_type: "application/json".to_owned(),
        headers: std::collections::BTreeMap::new(),
        payload: b"{}".to_vec(),
    }
}

/// A claim by a worker of its own, of sagas named [`SHOP`].
pub(crate) fn claim(limit: usize) -> Claim {
    Claim {
        worker: WorkerId::new(),
        registered: vec![(SHOP.to_owned(), 1)],
        limit,
        forward_limit: limit,
        bounds: Vec::new(),
        hints: Vec::new(),
        sweep: false,
        driven: Vec::new(),
    }
}

pub(crate) fn ids(loaded: &[Loaded]) -> Vec<SagaId> {
    let mut ids: Vec<_> = loaded.iter().map(|loaded| loaded.id).collect();
    ids.sort();
    ids
}

pub(crate) fn is_done(answer: Appended) -> bool {
    matches!(answer, Appended::Done(_))
}

/// The one that is new.
pub(crate) fn new(started: Result<Started, Error>) -> SagaId {
    match started {
        Ok(Started::New(id)) => id,
        other => panic!("it should be new: {other:?}"),
    }
}
