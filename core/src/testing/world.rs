//! A world in memory: the services that a saga calls, and its own database.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures_util::future::BoxFuture;

use super::{Environment, Facts};
use crate::event::Outcome;
use crate::store::{Append, Appended, StepTransaction};
use crate::{Message, OutboxMessage, StepError, StoreError};

/// The world as the fakes of a saga see it. Clones are the same world.
///
/// ```
/// # use amends::testing::Handle;
/// let paid: Handle<Vec<i64>> = Handle::new(Vec::new());
/// paid.with(|paid| paid.push(7));
/// assert_eq!(paid.with(|paid| paid.len()), 1);
/// ```
pub struct Handle<W>(Arc<Mutex<W>>);

impl<W> Handle<W> {
    /// A world of its own.
    pub fn new(world: W) -> Self {
        Self(Arc::new(Mutex::new(world)))
    }

    /// Looks at it, or changes it.
    pub fn with<R>(&self, look: impl FnOnce(&mut W) -> R) -> R {
        look(&mut self.lock())
    }

    /// The same world, for a fake that keeps its state in an `Arc<Mutex<_>>`.
    pub fn shared(&self) -> Arc<Mutex<W>> {
        Arc::clone(&self.0)
    }

    fn lock(&self) -> MutexGuard<'_, W> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W> Clone for Handle<W> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<W: fmt::Debug> fmt::Debug for Handle<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handle").field(&*self.lock()).finish()
    }
}

/// The transaction of a tx step, on a database that is a value of type `D`.
///
/// A saga runs on it if its tx steps take any transaction with what they need of it: `tx: &mut T` where the trait of the
/// application that `T` implements is also implemented for `TestTx<D>`.
#[derive(Debug)]
pub struct TestTx<D> {
    database: D,
    outbox: Vec<OutboxMessage>,
}

impl<D> TestTx<D> {
    /// The database as this transaction sees it.
    pub fn database(&mut self) -> &mut D {
        &mut self.database
    }

    /// Publishes a message in the same commit as the step's record.
    ///
    /// # Errors
    /// Returns [`StepError::Data`] if the message cannot be stored.
    pub fn publish<M: Message>(&mut self, message: &M) -> Result<(), StepError>
    where
        D: Send + 'static,
    {
        StepTransaction::publish(self, message)
    }
}

#[async_trait]
impl<D: Send + 'static> StepTransaction for TestTx<D> {
    fn outbox(&mut self) -> &mut Vec<OutboxMessage> {
        &mut self.outbox
    }

    fn interrupter(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    /// It has no journal: [`World`] commits it.
    async fn commit(self, _append: Append) -> Result<Appended, StoreError> {
        Err(StoreError::TransactionEnded)
    }

    async fn rollback(self) {}
}

/// What a rule looks at.
#[derive(Debug)]
pub struct Scene<'a, W, D> {
    /// The services that the saga calls.
    pub world: &'a W,
    /// Its own database.
    pub database: &'a D,
    /// Every message that was published through the outbox, in the order of the commits.
    pub published: &'a [OutboxMessage],
    /// How the saga has ended, if it has.
    pub outcome: Option<Outcome>,
}

/// An [`Environment`] in memory: services of type `W`, a database of type `D`.
pub struct World<W, D> {
    world: Handle<W>,
    database: D,
}

impl<W, D> World<W, D> {
    pub(super) fn new(world: Handle<W>, database: D) -> Self {
        Self { world, database }
    }

    pub(super) fn handle(&self) -> Handle<W> {
        self.world.clone()
    }

    pub(super) fn database(&self) -> &D {
        &self.database
    }

    pub(super) fn look<R>(&self, look: impl FnOnce(&W, &D) -> R) -> R {
        look(&self.world.lock(), &self.database)
    }
}

impl<W, D> fmt::Debug for World<W, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").finish_non_exhaustive()
    }
}

/// Something that must hold in a [`Scene`].
pub type SceneRule<W, D> = Box<dyn Fn(&Scene<'_, W, D>) -> bool + Send>;

#[async_trait(?Send)]
impl<W, D> Environment for World<W, D>
where
    W: Clone + Hash + Send + 'static,
    D: Clone + Hash + Send + 'static,
{
    type Tx = TestTx<D>;
    type Saved = (W, D);
    type Rule = SceneRule<W, D>;

    async fn save(&mut self) -> (W, D) {
        (self.world.lock().clone(), self.database.clone())
    }

    async fn restore(&mut self, saved: &(W, D)) {
        self.world.lock().clone_from(&saved.0);
        self.database.clone_from(&saved.1);
    }

    async fn begin(&mut self) -> TestTx<D> {
        TestTx { database: self.database.clone(), outbox: Vec::new() }
    }

    async fn end(&mut self, tx: TestTx<D>, commit: bool) -> Result<(), StoreError> {
        if commit {
            self.database = tx.database;
        }
        Ok(())
    }

    async fn holds(&mut self, rule: &SceneRule<W, D>, facts: Facts<'_>) -> Result<bool, String> {
        let Facts { published, outcome } = facts;
        Ok(self.look(|world, database| rule(&Scene { world, database, published, outcome })))
    }

    async fn hash(&mut self, mut hasher: &mut dyn Hasher) -> bool {
        self.world.lock().hash(&mut hasher);
        self.database.hash(&mut hasher);
        true
    }
}
