//! A store that fails when the test wants it to.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amends::Definition;
use amends::memory::{MemoryConn, MemoryTx};
use amends::store::{Append, Appended, Claim, Loaded, NewSaga, Started, WorkerStore};
use amends::{Error, MemoryStore, SagaId, Store, StoreError, WorkerId};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use uuid::Uuid;

/// Which appends are refused.
type Refuses = fn(&Append) -> bool;

#[derive(Clone)]
pub(crate) struct Flaky {
    inner: MemoryStore,
    pub(crate) faults: Arc<Faults>,
}

#[derive(Default)]
pub(crate) struct Faults {
    /// Nothing works.
    pub(crate) down: AtomicBool,
    /// So many appends are written and their answers lost.
    pub(crate) lost_answers: AtomicU32,
    /// Answers to appends come seconds late.
    pub(crate) slow_answers: AtomicBool,
    /// Nobody can adopt.
    pub(crate) no_adoption: AtomicBool,
    pub(crate) refuses: Mutex<Option<Refuses>>,
}

impl Flaky {
    pub(crate) fn new() -> Self {
        Self { inner: MemoryStore::new(), faults: Arc::default() }
    }

    fn up(&self) -> Result<(), StoreError> {
        if self.faults.down.load(Ordering::SeqCst) { Err(unavailable()) } else { Ok(()) }
    }
}

fn unavailable() -> StoreError {
    StoreError::Unavailable("the plug is pulled".into())
}

#[async_trait]
impl Store for Flaky {
    type Conn = MemoryConn;
    type Tx = MemoryTx;

    async fn start_in(&self, conn: &mut MemoryConn, saga: NewSaga) -> Result<Started, Error> {
        self.up()?;
        self.inner.start_in(conn, saga).await
    }

    async fn start(&self, saga: NewSaga, owner: Option<WorkerId>) -> Result<Started, Error> {
        self.up()?;
        self.inner.start(saga, owner).await
    }

    async fn append(&self, append: Append) -> Result<Appended, StoreError> {
        self.up()?;
        let refuses = *self.faults.refuses.lock().unwrap();
        if refuses.is_some_and(|refuses| refuses(&append)) {
            return Err(StoreError::Refused("no room for this".into()));
        }
        let answer = self.inner.append(append).await;
        if self.faults.slow_answers.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        let lose = |left: u32| left.checked_sub(1);
        match self.faults.lost_answers.fetch_update(Ordering::SeqCst, Ordering::SeqCst, lose) {
            Ok(_) => Err(unavailable()),
            Err(_) => answer,
        }
    }

    async fn begin(&self) -> Result<MemoryTx, StoreError> {
        self.up()?;
        Store::begin(&self.inner).await
    }

    /// Always up: the test itself reads through it.
    async fn load(&self, saga: SagaId) -> Result<Option<Loaded>, StoreError> {
        self.inner.load(saga).await
    }

    async fn ended(&self, sagas: &[SagaId]) -> Result<Vec<SagaId>, StoreError> {
        self.up()?;
        self.inner.ended(sagas).await
    }

    async fn parked(
        &self,
        fingerprint: Option<Uuid>,
        after: Option<SagaId>,
        limit: usize,
    ) -> Result<Vec<SagaId>, StoreError> {
        self.up()?;
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
impl WorkerStore for Flaky {
    async fn define(&self, definitions: &[&Definition]) -> Result<(), StoreError> {
        self.inner.define(definitions).await
    }

    async fn register(&self, worker: WorkerId, name: &str, lease: Duration) -> Result<(), StoreError> {
        self.up()?;
        self.inner.register(worker, name, lease).await
    }

    async fn heartbeat(&self, worker: WorkerId, lease: Duration) -> Result<(), StoreError> {
        self.up()?;
        self.inner.heartbeat(worker, lease).await
    }

    async fn claim(&self, claim: Claim) -> Result<Vec<Loaded>, StoreError> {
        self.up()?;
        self.inner.claim(claim).await
    }

    async fn adopt(&self, claim: Claim) -> Result<Vec<Loaded>, StoreError> {
        self.up()?;
        if self.faults.no_adoption.load(Ordering::SeqCst) {
            return Err(unavailable());
        }
        self.inner.adopt(claim).await
    }

    async fn release(&self, worker: WorkerId, sagas: &[(SagaId, Option<Duration>)]) -> Result<(), StoreError> {
        self.up()?;
        self.inner.release(worker, sagas).await
    }

    async fn retire(&self, worker: WorkerId) -> Result<(), StoreError> {
        self.up()?;
        self.inner.retire(worker).await
    }

    async fn lock(&self, saga: SagaId) -> Result<bool, StoreError> {
        self.up()?;
        self.inner.lock(saga).await
    }

    async fn pass_lock(&self, saga: SagaId) -> Result<(), StoreError> {
        self.up()?;
        self.inner.pass_lock(saga).await
    }

    async fn schedule(&self, name: &str, timetable: &str, next: DateTime<Utc>) -> Result<(), StoreError> {
        self.up()?;
        self.inner.schedule(name, timetable, next).await
    }

    async fn overdue(&self, names: &[String]) -> Result<(Vec<(String, DateTime<Utc>)>, DateTime<Utc>), StoreError> {
        self.up()?;
        self.inner.overdue(names).await
    }

    async fn start_scheduled(
        &self,
        saga: NewSaga,
        at: DateTime<Utc>,
        next: Option<DateTime<Utc>>,
    ) -> Result<bool, StoreError> {
        self.up()?;
        self.inner.start_scheduled(saga, at, next).await
    }
}
