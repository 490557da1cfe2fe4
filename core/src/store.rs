//! The seam between the engine and a database. Every method is one transaction.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures_util::future::BoxFuture;
use uuid::Uuid;

use crate::event::{Event, JournalRow};
use crate::message::{Message, OutboxMessage};
use crate::state::State;
use crate::{Error, Json, SagaId, StepError, StoreError, WorkerId};

/// Keeps sagas and their journals.
///
/// # Guarantees that an implementation gives
/// An [`Append`] at a sequence number that is taken changes nothing at all. Its events, its head change and its
/// messages become true together or not. One write that cannot be stored never harms another.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The application's open connection or transaction, in which a saga can be started.
    type Conn: Send + ?Sized;
    /// The transaction of a tx step.
    type Tx: StepTransaction;

    /// Starts a saga in the application's transaction: it runs if, and only if, that commits.
    async fn start_in(&self, conn: &mut Self::Conn, saga: NewSaga) -> Result<Started, Error>;

    /// Starts a saga in a transaction of its own. With `owner`, it is that worker's from the beginning.
    async fn start(&self, saga: NewSaga, owner: Option<WorkerId>) -> Result<Started, Error>;

    /// Appends to a saga's journal.
    async fn append(&self, append: Append) -> Result<Appended, StoreError>;

    /// Opens the transaction of a tx step.
    async fn begin(&self) -> Result<Self::Tx, StoreError>;

    /// Reads one saga, with its journal.
    async fn load(&self, saga: SagaId) -> Result<Option<Loaded>, StoreError>;
}

/// The part of a store that workers use to share the sagas between them.
#[async_trait]
pub trait WorkerStore: Store {
    /// Registers a worker, which is believed dead when it has not renewed for `lease`.
    async fn register(&self, worker: WorkerId, name: &str, lease: Duration) -> Result<(), StoreError>;

    /// Renews a worker's lease.
    ///
    /// # Errors
    /// Returns [`StoreError::WorkerLost`] if it had run out and others may have adopted its sagas.
    async fn heartbeat(&self, worker: WorkerId, lease: Duration) -> Result<(), StoreError>;

    /// Takes due sagas that nobody owns, those that compensate first, and hands back the worker's own that were
    /// written to from outside.
    async fn claim(&self, claim: Claim) -> Result<Vec<Loaded>, StoreError>;

    /// Takes over sagas of a worker whose lease has run out, by an [`Event::Adopted`] in each journal. An empty answer
    /// means that there is no such saga now.
    async fn adopt(&self, claim: Claim) -> Result<Vec<Loaded>, StoreError>;

    /// Gives sagas back without a word in their journals, due after the given time; `None` is never.
    async fn release(&self, worker: WorkerId, sagas: &[(SagaId, Option<Duration>)]) -> Result<(), StoreError>;

    /// Ends a worker's registration: what it still owns is up for adoption at once.
    async fn retire(&self, worker: WorkerId) -> Result<(), StoreError>;
}

/// The open transaction of a tx step: the body writes in it, the engine commits it.
#[async_trait]
pub trait StepTransaction: Send + 'static {
    /// The messages that the step's record takes along.
    fn outbox(&mut self) -> &mut Vec<OutboxMessage>;

    /// Publishes a message: an outbox row in the same commit as the step's record.
    ///
    /// # Errors
    /// Returns [`StepError::Data`] if the message cannot be stored.
    fn publish<M: Message>(&mut self, message: &M) -> Result<(), StepError>
    where
        Self: Sized,
    {
        let message = OutboxMessage::new(message).map_err(StepError::from_data)?;
        self.outbox().push(message);
        Ok(())
    }

    /// Ends the transaction's session from outside, so that whatever its body still does can never commit.
    fn interrupter(&self) -> BoxFuture<'static, ()>;

    /// Appends and commits; on a conflict rolls back.
    async fn commit(self, append: Append) -> Result<Appended, StoreError>
    where
        Self: Sized;

    /// Undoes everything that the body wrote.
    async fn rollback(self)
    where
        Self: Sized;
}

/// A saga to be started.
#[derive(Debug, Clone)]
pub struct NewSaga {
    /// Its identity.
    pub id: SagaId,
    /// The name of its definition.
    pub name: String,
    /// The version of its definition.
    pub version: u32,
    /// The fingerprint of its definition.
    pub fingerprint: Uuid,
    /// Its business key, unique with the name.
    pub key: Option<String>,
    /// What it is started with.
    pub input: Json,
    /// The `traceparent` of whoever starts it.
    pub trace: Option<String>,
}

/// The answer to a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Started {
    /// It is new.
    New(SagaId),
    /// A saga with this key and an equal input was there already.
    Existing(SagaId),
}

impl Started {
    /// The saga, new or not.
    pub fn id(self) -> SagaId {
        match self {
            Self::New(id) | Self::Existing(id) => id,
        }
    }
}

/// One append to a journal, with all that hangs on it.
#[derive(Debug, Clone)]
pub struct Append {
    /// The saga.
    pub saga: SagaId,
    /// The last sequence number seen, plus one.
    pub seq: i64,
    /// Who writes; with `nonce` it tells one's own row from another's when the answer to a commit was lost.
    pub writer: WorkerId,
    /// Differs for every append of this writer.
    pub nonce: i64,
    /// What becomes true.
    pub events: Vec<Event>,
    /// What becomes of the head row; `None` leaves it, which is cheapest.
    pub head: Option<Head>,
    /// Messages that are published with it.
    pub outbox: Vec<OutboxMessage>,
}

/// The scheduling part of a saga's head row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The new status.
    pub status: Status,
    /// When it is due, from now on the database's clock; `None` is never.
    pub wake_in: Option<Duration>,
    /// The writer lets go of it. Otherwise the owner stays whoever it is.
    pub release: bool,
}

/// The status of a saga, for scheduling and for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Status {
    /// It goes forward.
    Running,
    /// It undoes; claimed before all that run.
    Compensating,
    /// It waits for an operator.
    Parked,
    /// Every step succeeded.
    Completed,
    /// Everything that may have happened was undone.
    Compensated,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 5] = [Self::Running, Self::Compensating, Self::Parked, Self::Completed, Self::Compensated];

    /// The name in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Compensating => "compensating",
            Self::Parked => "parked",
            Self::Completed => "completed",
            Self::Compensated => "compensated",
        }
    }

    /// The status of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }

    /// Nothing will happen to it any more.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Compensated)
    }
}

/// The answer to an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// It is written; its time by the database's clock.
    Done(DateTime<Utc>),
    /// Somebody else moved the saga: drop what you hold, reload, decide again.
    Conflict,
}

/// Which sagas a worker wants.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The worker.
    pub worker: WorkerId,
    /// Names and versions that it can run.
    pub registered: Vec<(String, u32)>,
    /// At most so many, of all kinds.
    pub limit: usize,
    /// At most so many that go forward; the rest is kept for those that compensate.
    pub forward_limit: usize,
    /// Sagas that were started here a moment ago and may have been committed since.
    pub hints: Vec<SagaId>,
    /// Look at every due saga, not only at those due since the last look; and hand back the worker's own that it does not
    /// know of, because the answer to an earlier claim was lost.
    pub sweep: bool,
    /// With `sweep`: the worker's own that it knows of.
    pub driven: Vec<SagaId>,
}

/// A saga as it was read.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Its identity.
    pub id: SagaId,
    /// The name of its definition.
    pub name: String,
    /// The version of its definition.
    pub version: u32,
    /// The fingerprint of its definition.
    pub fingerprint: Uuid,
    /// What it was started with.
    pub input: Json,
    /// The `traceparent` of whoever started it.
    pub trace: Option<String>,
    /// The status in its head row.
    pub status: Status,
    /// Its journal, from the first row.
    pub journal: Vec<JournalRow>,
    /// The database's time of the read.
    pub now: DateTime<Utc>,
    /// The worker that owns it.
    pub owner: Option<WorkerId>,
}

impl Loaded {
    /// The state that the journal adds up to.
    pub fn fold(&self) -> State {
        let mut state = State::new(self.input.clone());
        self.journal.iter().for_each(|row| state.apply(row));
        state
    }
}
