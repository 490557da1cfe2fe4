//! The seam between the engine and a database. Every method is one transaction.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures_util::future::BoxFuture;
use uuid::Uuid;

use crate::definition::Definition;
use crate::event::{Event, JournalRow};
use crate::message::{Message, OutboxMessage};
use crate::state::State;
use crate::{Error, Json, SagaId, StepError, StoreError, WorkerId};

pub use crate::bell::{Bell, BellListener};

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

    /// Which of these sagas have ended, or are not there.
    async fn ended(&self, sagas: &[SagaId]) -> Result<Vec<SagaId>, StoreError>;

    /// Parked sagas with this fingerprint, of any name if it is `None`, in the order of their ids behind `after`.
    async fn parked(
        &self,
        fingerprint: Option<Uuid>,
        after: Option<SagaId>,
        limit: usize,
    ) -> Result<Vec<SagaId>, StoreError>;

    /// Sagas of these names that have not ended and were started with none of these fingerprints, with their journals, in
    /// the order of their ids behind `after`.
    async fn live(
        &self,
        names: &[String],
        fingerprints: &[Uuid],
        after: Option<SagaId>,
        limit: usize,
    ) -> Result<Vec<Loaded>, StoreError>;
}

/// The part of a store that workers use to share the sagas between them.
#[async_trait]
pub trait WorkerStore: Store {
    /// Keeps definitions for those who have no code: operators, and starts from other languages.
    async fn define(&self, definitions: &[&Definition]) -> Result<(), StoreError>;

    /// Registers a worker, which is believed dead when it has not renewed for `lease`.
    async fn register(&self, worker: WorkerId, name: &str, lease: Duration) -> Result<(), StoreError>;

    /// Renews a worker's lease.
    ///
    /// # Errors
    /// Returns [`StoreError::WorkerLost`] if it had run out and others may have adopted its sagas.
    async fn heartbeat(&self, worker: WorkerId, lease: Duration) -> Result<(), StoreError>;

    /// Takes due sagas that nobody owns, those that compensate first, and hands back the worker's own that were
    /// written to from outside. However many workers claim at once, of a name in [`Claim::bounds`] no more go forward
    /// than that says.
    async fn claim(&self, claim: Claim) -> Result<Vec<Loaded>, StoreError>;

    /// Takes over sagas of a worker whose lease has run out, by an [`Event::Adopted`] in each journal. An empty answer
    /// means that there is no such saga now.
    async fn adopt(&self, claim: Claim) -> Result<Vec<Loaded>, StoreError>;

    /// Gives sagas back without a word in their journals, due after the given time; `None` is never.
    async fn release(&self, worker: WorkerId, sagas: &[(SagaId, Option<Duration>)]) -> Result<(), StoreError>;

    /// Hears when sagas may have become due by somebody else's doing. A worker polls less often while that is reliable; `None`,
    /// the default, if nobody can tell.
    fn bell(&self) -> Option<BellListener> {
        None
    }

    /// Ends a worker's registration: what it still owns is up for adoption at once.
    async fn retire(&self, worker: WorkerId) -> Result<(), StoreError>;

    /// Gives the saga its lock, if no other live saga of its name has it or waits for it since longer. A saga that has it
    /// gets it again. It is free when its holder has ended.
    async fn lock(&self, saga: SagaId) -> Result<bool, StoreError>;

    /// Makes due whoever waits longest for the lock of a saga that has ended. It may be forgotten: those who wait ask
    /// again by themselves.
    async fn pass_lock(&self, saga: SagaId) -> Result<(), StoreError>;

    /// Sets when a saga starts by itself next: at `next`, or earlier if that was set before from the same `timetable`.
    async fn schedule(&self, name: &str, timetable: &str, next: DateTime<Utc>) -> Result<(), StoreError>;

    /// Which sagas of these names should have started by themselves, with when, and the time.
    async fn overdue(&self, names: &[String]) -> Result<(Vec<(String, DateTime<Utc>)>, DateTime<Utc>), StoreError>;

    /// Starts a saga that was due at `at`, and sets when the next one is; once for all workers. `false` if another one
    /// did.
    async fn start_scheduled(
        &self,
        saga: NewSaga,
        at: DateTime<Utc>,
        next: Option<DateTime<Utc>>,
    ) -> Result<bool, StoreError>;
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
        self.publish_message(OutboxMessage::new(message).map_err(StepError::from_data)?)
    }

    /// As [`publish`](Self::publish), what [`Payloads::pack`](crate::Payloads::pack) has made, or a message of no Rust type.
    ///
    /// # Errors
    /// Returns [`StepError::Unpublishable`] if it is too large.
    fn publish_message(&mut self, message: OutboxMessage) -> Result<(), StepError> {
        message.check().map_err(StepError::from_data)?;
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
    /// Which are claimed first.
    pub priority: Priority,
    /// The saga that starts it as one of its steps, and is woken when it has ended.
    pub parent: Option<SagaId>,
    /// What it locks from its first step to its end.
    pub lock: Option<Lock>,
}

/// A semantic lock: of the sagas of one name with the same lock, one is live at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    /// What is locked, such as an account's number.
    pub key: String,
    /// While another saga has it, a start is refused; otherwise the saga waits for its turn.
    pub refuse: bool,
}

impl NewSaga {
    /// A saga of this definition, without a key, that nobody traces.
    pub fn new(definition: &Definition, input: Json) -> Self {
        Self {
            id: SagaId::new(),
            name: definition.name.to_string(),
            version: definition.version,
            fingerprint: definition.fingerprint(),
            key: None,
            input,
            trace: None,
            priority: Priority::Normal,
            parent: None,
            lock: None,
        }
    }
}

/// Of sagas that are due, those of a higher priority are claimed first. Those that compensate come before all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Priority {
    /// After all others.
    Low,
    /// The default.
    #[default]
    Normal,
    /// Before all others.
    High,
}

impl Priority {
    /// Every priority, the highest first.
    pub const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];

    /// The number in the database: -1, 0 or 1.
    pub const fn as_i16(self) -> i16 {
        match self {
            Self::Low => -1,
            Self::Normal => 0,
            Self::High => 1,
        }
    }
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
    /// Sagas that are started with it.
    pub starts: Vec<NewSaga>,
    /// A saga that is due at once with it: whoever waits for this one's end.
    pub wakes: Option<SagaId>,
}

impl Append {
    /// These events and nothing else.
    pub const fn new(saga: SagaId, seq: i64, writer: WorkerId, nonce: i64, events: Vec<Event>) -> Self {
        Self { saga, seq, writer, nonce, events, head: None, outbox: Vec::new(), starts: Vec::new(), wakes: None }
    }
}

/// The scheduling part of a saga's head row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The new status.
    pub status: Status,
    /// When it is due, from now on the database's clock; `None` is never. If it was made due from outside meanwhile it
    /// stays due, unless it has ended.
    pub wake_in: Option<Duration>,
    /// The writer lets go of it. Otherwise the owner stays whoever it is.
    pub release: bool,
    /// Why it is parked, the same for all sagas that are stuck in the same way; `None` if it is not parked.
    pub parked: Option<Uuid>,
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
    /// Names and versions that it can run. Where there is not room for all that are due, the first of them come first within a
    /// priority; a worker shuffles them, so that a backlog of one kind does not stop the others.
    pub registered: Vec<(String, u32)>,
    /// At most so many, of all kinds.
    pub limit: usize,
    /// At most so many that go forward; the rest is kept for those that compensate.
    pub forward_limit: usize,
    /// Names of which at most so many may go forward at once, whoever owns them.
    pub bounds: Vec<(String, u32)>,
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
    /// When it was started.
    pub started_at: DateTime<Utc>,
    /// Which are claimed first.
    pub priority: Priority,
    /// The saga that started it as one of its steps.
    pub parent: Option<SagaId>,
    /// What it locks from its first step to its end.
    pub lock: Option<String>,
}

impl Loaded {
    /// The state that the journal adds up to.
    pub fn fold(&self) -> State {
        let mut state = State::new(self.input.clone(), self.version, self.started_at);
        self.journal.iter().for_each(|row| state.apply(row));
        state
    }
}
