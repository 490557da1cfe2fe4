//! The semantics of sagas, on the store in memory. `amends-postgres` runs the same suite on PostgreSQL.
#![allow(clippy::unwrap_used, missing_docs)]

use amends::{MemoryStore, OutboxMessage};

#[path = "suite.rs"]
mod suite;

pub(crate) struct Here(MemoryStore);

impl suite::Backend for Here {
    type Store = MemoryStore;

    async fn open() -> Self {
        Self(MemoryStore::new())
    }

    fn store(&self) -> MemoryStore {
        self.0.clone()
    }

    async fn published(&self) -> Vec<OutboxMessage> {
        self.0.published()
    }
}
