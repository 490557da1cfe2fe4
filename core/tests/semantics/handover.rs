//! What comes while a worker lets go of a saga: on a store whose releases take as long as the test wants.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use amends::memory::{MemoryConn, MemoryTx};
use amends::store::{Append, Appended, Claim, Loaded, NewSaga, Started, WorkerStore};
use amends::{Definition, Error, MemoryStore, SagaId, Sagas, Store, StoreError, WorkerId, WorkerOptions};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::suite::script::{Script, json, ok};
use crate::suite::stage::until;

#[derive(Clone)]
struct Slow {
    inner: MemoryStore,
    /// Releases so far, and those that may go on.
    releases: Arc<AtomicUsize>,
    gate: Arc<Semaphore>,
    claims: Arc<AtomicUsize>,
}

#[async_trait]
impl Store for Slow {
    type Conn = MemoryConn;
    type Tx = MemoryTx;

    async fn start_in(&self, conn: &mut MemoryConn, saga: NewSaga) -> Result<Started, Error> {
        self.inner.start_in(conn, saga).await
    }

    async fn start(&self, saga: NewSaga, owner: Option<WorkerId>) -> Result<Started, Error> {
        self.inner.start(saga, owner).await
    }

    async fn append(&self, append: Append) -> Result<Appended, StoreError> {
        self.inner.append(append).await
    }

    async fn begin(&self) -> Result<MemoryTx, StoreError> {
        Store::begin(&self.inner).await
    }

    async fn load(&self, saga: SagaId) -> Result<Option<Loaded>, StoreError> {
        self.inner.load(saga).await
    }

    async fn ended(&self, sagas: &[SagaId]) -> Result<Vec<SagaId>, StoreError> {
        self.inner.ended(sagas).await
    }

    async fn parked(
        &self,
        fingerprint: Option<Uuid>,
        after: Option<SagaId>,
        limit: usize,
    ) -> Result<Vec<SagaId>, StoreError> {
        self.inner.parked(fingerprint, after, limit).await
    }

    async fn live(
        &self,
        names: &[String],
        fingerprints: &[Uuid],
        after: Option<SagaId>,
        limit: usize,
    ) -> Result<Vec<Loaded>, StoreError> {
        self.inner.live(names, fingerprints, after, limit).await
    }
}

#[async_trait]
impl WorkerStore for Slow {
    async fn define(&self, definitions: &[&Definition]) -> Result<(), StoreError> {
        self.inner.define(definitions).await
    }

    async fn register(&self, worker: WorkerId, name: &str, lease: Duration) -> Result<(), StoreError> {
        self.inner.register(worker, name, lease).await
    }

    async fn heartbeat(&self, worker: WorkerId, lease: Duration) -> Result<(), StoreError> {
        self.inner.heartbeat(worker, lease).await
    }

    async fn claim(&self, claim: Claim) -> Result<Vec<Loaded>, StoreError> {
        let claimed = self.inner.claim(claim).await;
        self.claims.fetch_add(1, Ordering::SeqCst);
        claimed
    }

    async fn adopt(&self, claim: Claim) -> Result<Vec<Loaded>, StoreError> {
        self.inner.adopt(claim).await
    }

    async fn release(&self, worker: WorkerId, sagas: &[(SagaId, Option<Duration>)]) -> Result<(), StoreError> {
        self.releases.fetch_add(1, Ordering::SeqCst);
        self.gate.acquire().await.unwrap().forget();
        self.inner.release(worker, sagas).await
    }

    async fn lock(&self, saga: SagaId) -> Result<bool, StoreError> {
        self.inner.lock(saga).await
    }

    async fn pass_lock(&self, saga: SagaId) -> Result<(), StoreError> {
        self.inner.pass_lock(saga).await
    }

    async fn schedule(&self, name: &str, timetable: &str, next: DateTime<Utc>) -> Result<(), StoreError> {
        self.inner.schedule(name, timetable, next).await
    }

    async fn overdue(&self, names: &[String]) -> Result<(Vec<(String, DateTime<Utc>)>, DateTime<Utc>), StoreError> {
        self.inner.overdue(names).await
    }

    async fn start_scheduled(
        &self,
        saga: NewSaga,
        at: DateTime<Utc>,
        next: Option<DateTime<Utc>>,
    ) -> Result<bool, StoreError> {
        self.inner.start_scheduled(saga, at, next).await
    }

    async fn retire(&self, worker: WorkerId) -> Result<(), StoreError> {
        self.inner.retire(worker).await
    }
}

async fn ends(store: &Slow, saga: SagaId) {
    let has_ended = async {
        while store.ended(&[saga]).await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), has_ended).await.expect("it goes on");
}

#[tokio::test]
async fn a_child_that_ends_while_the_worker_lets_go_of_its_parent_is_noticed() {
    let child = Script::named("child").signal("stay");
    let parent = Script::named("parent").child("book", &child).tx("pay", ok());
    let store = Slow {
        inner: MemoryStore::new(),
        releases: Arc::default(),
        gate: Arc::new(Semaphore::new(0)),
        claims: Arc::default(),
    };
    let sagas = Sagas::builder(store.clone())
        .worker(WorkerOptions { poll: Duration::from_millis(10), ..WorkerOptions::default() })
        .register_dynamic(parent.definition.clone(), parent.clone())
        .register_dynamic(child.definition.clone(), child.clone())
        .build()
        .unwrap();
    let shutdown = tokio_util::sync::CancellationToken::new();
    tokio::spawn({
        let (sagas, shutdown) = (sagas.clone(), shutdown.clone());
        async move { sagas.run(shutdown).await }
    });
    let saga = store.start(NewSaga::new(&parent.definition, json(&())), None).await.unwrap().id();
    until(|| store.releases.load(Ordering::SeqCst) == 1 && child.log.count("begin stay") == 1).await;
    let state = store.load(saga).await.unwrap().unwrap().fold();
    let booking = state.record("book", None).unwrap().child.unwrap();

    sagas.signal(booking, amends::StepRef::new("stay"), &()).await.unwrap();
    ends(&store, booking).await;
    // By then the worker has been told that its own saga is due.
    let seen = store.claims.load(Ordering::SeqCst);
    until(|| store.claims.load(Ordering::SeqCst) > seen + 2).await;
    store.gate.add_permits(1_000);

    ends(&store, saga).await;
    assert_eq!(parent.log.count("pay"), 1);
    shutdown.cancel();
}
