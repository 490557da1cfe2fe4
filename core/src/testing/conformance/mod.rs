//! What every store must do, as tests that run on any of them.
//!
//! Whoever writes a store says in a [`Backend`] how to open an empty one, and gets every rule as a test of its own:
//!
//! ```
//! use amends::memory::{MemoryConn, MemoryStore};
//! use amends::testing::conformance::Backend;
//! use amends::{Error, OutboxMessage};
//!
//! struct Here(MemoryStore);
//!
//! impl Backend for Here {
//!     type Store = MemoryStore;
//!     type Transaction = MemoryConn;
//!
//!     async fn open() -> Self {
//!         Self(MemoryStore::new())
//!     }
//!
//!     fn connect(&self) -> MemoryStore {
//!         self.0.clone()
//!     }
//!
//!     async fn begin(&self) -> MemoryConn {
//!         self.0.begin()
//!     }
//!
//!     fn conn(transaction: &mut MemoryConn) -> &mut MemoryConn {
//!         transaction
//!     }
//!
//!     async fn commit(transaction: MemoryConn) -> Result<(), Error> {
//!         transaction.commit()
//!     }
//!
//!     async fn rollback(transaction: MemoryConn) {
//!         drop(transaction);
//!     }
//!
//!     async fn published(&self) -> Vec<OutboxMessage> {
//!         self.0.published()
//!     }
//! }
//!
//! amends::testing::conformance::store_conformance!(Here);
//! # amends::testing::conformance::run::<Here>("a_gap_is_a_conflict_and_changes_nothing");
//! ```
//!
//! The rules use nothing but the traits, so they say what the engine relies on, and no more. What they leave open a store may
//! do as it likes.

mod adoptions;
mod claims;
mod effects;
mod heads;
mod journal;
mod lists;
mod locks;
mod memory;
mod nudges;
mod payloads;
mod releases;
mod rules;
mod schedules;
mod stage;
mod starts;
mod steps;

use crate::store::{Store, WorkerStore};
use crate::{Error, OutboxMessage};

pub use crate::__store_conformance as store_conformance;
pub use rules::{RULES, run};

/// A store under test, and what the tests need of its database beside it.
pub trait Backend: Sized + Send + Sync + 'static {
    /// The store.
    type Store: WorkerStore;
    /// A transaction of the application, in which sagas are started.
    type Transaction: Send;

    /// An empty database. What it holds is dropped with this value.
    fn open() -> impl Future<Output = Self> + Send;

    /// A store on the database, as each process has its own.
    fn connect(&self) -> Self::Store;

    /// Opens a transaction.
    fn begin(&self) -> impl Future<Output = Self::Transaction> + Send;

    /// The connection inside a transaction.
    fn conn(transaction: &mut Self::Transaction) -> &mut <Self::Store as Store>::Conn;

    /// Commits a transaction.
    fn commit(transaction: Self::Transaction) -> impl Future<Output = Result<(), Error>> + Send;

    /// Undoes what was done in a transaction.
    fn rollback(transaction: Self::Transaction) -> impl Future<Output = ()> + Send;

    /// Every message that was published, in order.
    fn published(&self) -> impl Future<Output = Vec<OutboxMessage>> + Send;
}
