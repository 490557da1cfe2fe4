//! The store in memory, as a store under test.

use super::Backend;
use crate::memory::MemoryConn;
use crate::{Error, MemoryStore, OutboxMessage};

impl Backend for MemoryStore {
    type Store = Self;
    type Transaction = MemoryConn;

    async fn open() -> Self {
        Self::new()
    }

    fn connect(&self) -> Self {
        self.clone()
    }

    async fn begin(&self) -> MemoryConn {
        Self::begin(self)
    }

    fn conn(transaction: &mut MemoryConn) -> &mut MemoryConn {
        transaction
    }

    async fn commit(transaction: MemoryConn) -> Result<(), Error> {
        transaction.commit()
    }

    async fn rollback(transaction: MemoryConn) {
        drop(transaction);
    }

    async fn published(&self) -> Vec<OutboxMessage> {
        Self::published(self)
    }
}
