//! Where the bodies of a saga take effect while it is tested.

use std::hash::Hasher;

use async_trait::async_trait;

use crate::event::Outcome;
use crate::store::StepTransaction;
use crate::{OutboxMessage, StoreError};

/// Everything that the bodies of a saga can change, with a way back.
///
/// [`World`](super::World) is one in memory; `amends-postgres` has one that is a real database.
#[async_trait(?Send)]
pub trait Environment: 'static {
    /// The transaction of a tx step.
    type Tx: StepTransaction;
    /// A moment to go back to.
    type Saved;
    /// Something that must hold.
    type Rule;

    /// Remembers this moment. Those remembered later are forgotten when an earlier one is restored.
    async fn save(&mut self) -> Self::Saved;

    /// Goes back to that moment; more than once, if need be.
    async fn restore(&mut self, saved: &Self::Saved);

    /// Opens the transaction of a tx step. One is open at a time.
    async fn begin(&mut self) -> Self::Tx;

    /// Commits the transaction, or rolls it back.
    ///
    /// # Errors
    /// Returns [`StoreError::CommitFailed`] if it cannot be committed; then it is rolled back.
    async fn end(&mut self, tx: Self::Tx, commit: bool) -> Result<(), StoreError>;

    /// Whether the rule holds now.
    ///
    /// # Errors
    /// Returns why it could not be found out.
    async fn holds(&mut self, rule: &Self::Rule, facts: Facts<'_>) -> Result<bool, String>;

    /// Hashes all of it. `false` if that is not possible; then every schedule is run to its end.
    async fn hash(&mut self, hasher: &mut dyn Hasher) -> bool;
}

/// What is known outside of the environment.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Every message that was published through the outbox, in the order of the commits.
    pub published: &'a [OutboxMessage],
    /// How the saga under test has ended, if it has.
    pub outcome: Option<Outcome>,
}
