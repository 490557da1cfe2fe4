//! What every store makes of a saga. The crate that includes this file says which store: it has a `Here` that is a
//! [`Backend`], and every rule is a test of its own.

use amends::store::{Store, WorkerStore};
use amends::{Answer, Correlation, OutboxMessage};

mod alternates;
mod bounds;
mod cancels;
mod children;
mod lists;
mod operators;
mod probes;
mod requests;
pub(crate) mod script;
mod signals;
pub(crate) mod stage;
mod starts;
mod steps;
mod times;
mod verdicts;
mod versions;

/// A store under test, empty at the beginning.
pub(crate) trait Backend: Sized {
    type Store: WorkerStore + Clone;

    async fn open() -> Self;

    fn store(&self) -> Self::Store;

    /// Every message in the outbox.
    async fn published(&self) -> Vec<OutboxMessage>;

    /// Answers a request, through the door by which replies come in.
    async fn reply(&self, to: &Correlation, answer: Answer);
}

pub(crate) type TheStore = <crate::Here as Backend>::Store;
pub(crate) type Tx = <TheStore as Store>::Tx;
