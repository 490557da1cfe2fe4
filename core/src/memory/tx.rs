//! The transactions of the memory store.

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
        if let Some(earlier) = earlier {
            return same_start(earlier, &saga).map(Started::Existing);
        }
        {
            let rows = self.store.rows();
            if let Some(existing) = rows.existing(&saga)? {
                return Ok(Started::Existing(existing));
            }
            rows.check_lock(&saga)?;
        }
        let id = saga.id;
        self.staged.push(saga);
        Ok(Started::New(id))
    }

    /// Makes what was started in it real.
    ///
    /// # Errors
    /// Returns [`Error::KeyConflict`] if another transaction took a key in between; then nothing is started.
    pub fn commit(self) -> Result<(), Error> {
        let mut rows = self.store.rows();
        for saga in &self.staged {
            if let Some(existing) = rows.existing(saga)? {
                return Err(conflict(saga, existing));
            }
        }
        self.staged.into_iter().try_for_each(|saga| rows.start(saga, None).map(drop))
    }
}

/// The transaction of a tx step on a [`MemoryStore`].
#[derive(Debug)]
pub struct MemoryTx {
    store: MemoryStore,
    outbox: Vec<OutboxMessage>,
}

impl MemoryTx {
    pub(super) fn new(store: MemoryStore) -> Self {
        Self { store, outbox: Vec::new() }
    }
}

#[async_trait]
impl StepTransaction for MemoryTx {
    fn outbox(&mut self) -> &mut Vec<OutboxMessage> {
        &mut self.outbox
    }

    fn interrupter(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    async fn commit(self, append: Append) -> Result<Appended, StoreError> {
        Ok(self.store.rows().append(append))
    }

    async fn rollback(self) {}
}
