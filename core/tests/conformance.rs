//! What every store must do, on the store in memory. `amends-postgres` runs the same rules on PostgreSQL.
#![allow(missing_docs)]

use amends::memory::{MemoryConn, MemoryStore};
use amends::testing::conformance::{Backend, store_conformance};
use amends::{Error, OutboxMessage};

struct Here(MemoryStore);

impl Backend for Here {
    type Store = MemoryStore;
    type Transaction = MemoryConn;

    async fn open() -> Self {
        Self(MemoryStore::new())
    }

    fn connect(&self) -> MemoryStore {
        self.0.clone()
    }

    async fn begin(&self) -> MemoryConn {
        self.0.begin()
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
        self.0.published()
    }
}

store_conformance!(Here);
