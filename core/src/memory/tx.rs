//! The transactions of the memory store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use futures_util::future::BoxFuture;

use crate::memory::MemoryStore;
use crate::memory::rows::{conflict, same_start};
use crate::message::OutboxMessage;
use crate::store::{Append, Appended, NewSaga, Started, StepTransaction};
use crate::{Error, StoreError};

/// An application's transaction on a [`MemoryStore`]: what is started in it exists once it is committed.
#[derive(Debug)]
pub struct MemoryConn {
    store: MemoryStore,
    staged: Vec<NewSaga>,
}

impl MemoryConn {
    pub(super) fn new(store: MemoryStore) -> Self {
        Self { store, staged: Vec::new() }
    }

    pub(super) fn stage(&mut self, saga: NewSaga) -> Result<Started, Error> {
        let earlier =
            self.staged.iter().find(|other| saga.key.is_some() && (&other.name, &other.key) == (&saga.name, &saga.key));
        if self.staged.iter().any(|other| other.id == saga.id) {
            return Ok(Started::New(saga.id));
        }
        if let Some(earlier) = earlier {
            return same_start(earlier, &saga).map(Started::Existing);
        }
        {
            let rows = self.store.rows();
            if let Some(found) = rows.find(&saga)? {
                return Ok(found);
            }
            rows.check_lock(&saga)?;
        }
        self.check_lock(&saga)?;
        let id = saga.id;
        self.staged.push(saga);
        Ok(Started::New(id))
    }

    /// What was started in this transaction has its lock too.
    fn check_lock(&self, saga: &NewSaga) -> Result<(), Error> {
        let Some(lock) = saga.lock.as_ref().filter(|lock| lock.refuse) else { return Ok(()) };
        let has_it = |other: &&NewSaga| {
            other.name == saga.name && other.lock.as_ref().is_some_and(|other| other.key == lock.key)
        };
        match self.staged.iter().find(has_it) {
            Some(holder) => Err(Error::Locked { name: saga.name.clone(), lock: lock.key.clone(), holder: holder.id }),
            None => Ok(()),
        }
    }

    /// Makes what was started in it real.
    ///
    /// # Errors
    /// Returns [`Error::KeyConflict`] or [`Error::Locked`] if another transaction took a key or a lock in between; then
    /// nothing is started.
    pub fn commit(self) -> Result<(), Error> {
        let mut rows = self.store.rows();
        let mut new = Vec::new();
        for saga in self.staged {
            match rows.find(&saga)? {
                Some(Started::Existing(existing)) => return Err(conflict(&saga, existing)),
                Some(Started::New(_)) => {}
                None => {
                    rows.check_lock(&saga)?;
                    new.push(saga);
                }
            }
        }
        // Each was checked against the others when it was staged.
        for saga in new {
            rows.insert(saga, None);
        }
        Ok(())
    }
}

/// The transaction of a tx step on a [`MemoryStore`].
#[derive(Debug)]
pub struct MemoryTx {
    store: MemoryStore,
    outbox: Vec<OutboxMessage>,
    interrupted: Arc<AtomicBool>,
}

impl MemoryTx {
    pub(super) fn new(store: MemoryStore) -> Self {
        Self { store, outbox: Vec::new(), interrupted: Arc::default() }
    }
}

#[async_trait]
impl StepTransaction for MemoryTx {
    fn outbox(&mut self) -> &mut Vec<OutboxMessage> {
        &mut self.outbox
    }

    fn interrupter(&self) -> BoxFuture<'static, ()> {
        let interrupted = Arc::clone(&self.interrupted);
        Box::pin(async move { interrupted.store(true, Ordering::Release) })
    }

    async fn commit(self, append: Append) -> Result<Appended, StoreError> {
        if self.interrupted.load(Ordering::Acquire) {
            return Err(StoreError::Unavailable("the transaction was ended from outside".into()));
        }
        self.store.rows().append(append)
    }

    async fn rollback(self) {}
}
