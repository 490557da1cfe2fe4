//! A store in memory: for examples, unit tests and the explorer. It keeps every promise but durability.

mod rows;
mod tx;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::definition::Definition;
use crate::event::Event;
use crate::message::OutboxMessage;
use crate::retry::LONGEST_PAUSE;
use crate::store::{Append, Appended, Claim, Loaded, NewSaga, Started, Store, WorkerStore};
use crate::{Error, SagaId, StoreError, WorkerId};

use rows::Rows;
pub use tx::{MemoryConn, MemoryTx};

/// Keeps sagas in memory. Clones share the same sagas. Its clock is tokio's, so a test can pause it.
///
/// ```
/// # use amends::MemoryStore;
/// let store = MemoryStore::new();
/// assert!(store.published().is_empty());
/// ```
#[derive(Debug, Clone)]
pub struct MemoryStore {
    rows: Arc<Mutex<Rows>>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self { rows: Arc::new(Mutex::new(Rows::new())) }
    }

    /// A transaction in which sagas can be started, like an application's own.
    pub fn begin(&self) -> MemoryConn {
        MemoryConn::new(self.clone())
    }

    /// Every message published so far, in order.
    pub fn published(&self) -> Vec<OutboxMessage> {
        self.rows().outbox.clone()
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for MemoryStore {
    type Conn = MemoryConn;
    type Tx = MemoryTx;

    async fn start_in(&self, conn: &mut MemoryConn, saga: NewSaga) -> Result<Started, Error> {
        conn.stage(saga)
    }

    async fn start(&self, saga: NewSaga, owner: Option<WorkerId>) -> Result<Started, Error> {
        self.rows().start(saga, owner)
    }

    async fn append(&self, append: Append) -> Result<Appended, StoreError> {
        self.rows().append(append)
    }

    async fn begin(&self) -> Result<MemoryTx, StoreError> {
        Ok(MemoryTx::new(self.clone()))
    }

    async fn load(&self, saga: SagaId) -> Result<Option<Loaded>, StoreError> {
        Ok(self.rows().load(saga))
    }

    async fn ended(&self, sagas: &[SagaId]) -> Result<Vec<SagaId>, StoreError> {
        let rows = self.rows();
        Ok(sagas.iter().copied().filter(|saga| rows.has_ended(*saga)).collect())
    }

    async fn parked(
        &self,
        fingerprint: Option<Uuid>,
        after: Option<SagaId>,
        limit: usize,
    ) -> Result<Vec<SagaId>, StoreError> {
        Ok(self.rows().parked(fingerprint, after).take(limit).collect())
    }

    async fn live(
        &self,
        names: &[String],
        fingerprints: &[Uuid],
        after: Option<SagaId>,
        limit: usize,
    ) -> Result<Vec<Loaded>, StoreError> {
        Ok(self.rows().live(names, fingerprints, after, limit))
    }
}

#[async_trait]
impl WorkerStore for MemoryStore {
    /// Nobody without code can reach it.
    async fn define(&self, _definitions: &[&Definition]) -> Result<(), StoreError> {
        Ok(())
    }

    async fn register(&self, worker: WorkerId, _name: &str, lease: Duration) -> Result<(), StoreError> {
        let mut rows = self.rows();
        let expires = rows.now() + lease.min(LONGEST_PAUSE);
        rows.workers.insert(worker, expires);
        Ok(())
    }

    async fn heartbeat(&self, worker: WorkerId, lease: Duration) -> Result<(), StoreError> {
        let mut rows = self.rows();
        let now = rows.now();
        match rows.workers.get_mut(&worker) {
            Some(expires) if *expires > now => {
                *expires = now + lease.min(LONGEST_PAUSE);
                Ok(())
            }
            _ => Err(StoreError::WorkerLost),
        }
    }

    async fn claim(&self, claim: Claim) -> Result<Vec<Loaded>, StoreError> {
        Ok(self.rows().claim(&claim))
    }

    async fn adopt(&self, claim: Claim) -> Result<Vec<Loaded>, StoreError> {
        let mut rows = self.rows();
        let orphans = rows.orphans(&claim);
        let adopted = orphans.into_iter().filter(|(saga, seq)| {
            let append = Append::new(*saga, seq + 1, claim.worker, -1, vec![Event::Adopted { by: claim.worker }]);
            matches!(rows.append(append), Ok(Appended::Done(_))) && rows.own(*saga, claim.worker)
        });
        let adopted: Vec<_> = adopted.collect();
        Ok(adopted.into_iter().filter_map(|(saga, _)| rows.load(saga)).collect())
    }

    async fn release(&self, worker: WorkerId, sagas: &[(SagaId, Option<Duration>)]) -> Result<(), StoreError> {
        let mut rows = self.rows();
        for (saga, wake_in) in sagas {
            rows.release(worker, *saga, *wake_in);
        }
        Ok(())
    }

    async fn retire(&self, worker: WorkerId) -> Result<(), StoreError> {
        let mut rows = self.rows();
        let now = rows.now();
        if let Some(expires) = rows.workers.get_mut(&worker) {
            *expires = now;
        }
        Ok(())
    }

    async fn lock(&self, saga: SagaId) -> Result<bool, StoreError> {
        Ok(self.rows().lock(saga))
    }

    async fn pass_lock(&self, saga: SagaId) -> Result<(), StoreError> {
        self.rows().pass_lock(saga);
        Ok(())
    }

    async fn schedule(&self, name: &str, timetable: &str, next: DateTime<Utc>) -> Result<(), StoreError> {
        let mut rows = self.rows();
        let entry = rows.schedules.entry(name.to_owned()).or_insert_with(|| (timetable.to_owned(), next));
        *entry = if entry.0 == timetable { (entry.0.clone(), entry.1.min(next)) } else { (timetable.to_owned(), next) };
        Ok(())
    }

    async fn overdue(&self, names: &[String]) -> Result<(Vec<(String, DateTime<Utc>)>, DateTime<Utc>), StoreError> {
        let mut rows = self.rows();
        let now = rows.now();
        let overdue = rows.schedules.iter().filter(|(name, (_, at))| *at <= now && names.contains(name));
        Ok((overdue.map(|(name, (_, at))| (name.clone(), *at)).collect(), now))
    }

    async fn start_scheduled(
        &self,
        saga: NewSaga,
        at: DateTime<Utc>,
        next: Option<DateTime<Utc>>,
    ) -> Result<bool, StoreError> {
        let mut rows = self.rows();
        let name = saga.name.clone();
        if rows.schedules.get(&name).is_none_or(|entry| entry.1 != at) {
            return Ok(false);
        }
        rows.start(saga, None).map_err(|error| StoreError::Refused(Box::new(error)))?;
        if let Some(entry) = rows.schedules.get_mut(&name) {
            entry.1 = next.unwrap_or(DateTime::<Utc>::MAX_UTC);
        }
        Ok(true)
    }
}
