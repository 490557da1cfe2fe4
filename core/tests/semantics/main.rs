//! The semantics of sagas, on the store in memory. `amends-postgres` runs the same suite on `PostgreSQL`.
#![allow(clippy::unwrap_used, missing_docs)]

use amends::{Answer, Correlation, Event, MemoryStore, OutboxMessage};

mod handover;
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

    async fn reply(&self, to: &Correlation, answer: Answer) {
        let (id, step) = (uuid::Uuid::now_v7(), to.step.clone());
        let replied = Event::Replied { id, step, undo: to.undo, attempt: to.attempt, answer };
        suite::stage::append_from_outside(&self.0, to.saga, vec![replied]).await;
    }
}
