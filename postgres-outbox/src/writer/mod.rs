//! Group commit: writes of many sagas that gathered while a connection was busy go in one statement.
//!
//! There is no timer: a writer writes as soon as it is free. One commit for a batch is what makes a step cheap
//! (LIMITS: 80 000 to 127 000 records a second against 6 000 for a transaction each).

mod append;
mod release;
mod start;

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use amends::{SagaId, StoreError};
use async_trait::async_trait;
use sqlx::{PgConnection, PgPool};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep};

use crate::error::{Fault, fault};

pub(crate) use append::{Appends, Write};
pub(crate) use release::{Release, Releases};
pub(crate) use start::Starts;

/// The most writes in one statement.
const MAX_BATCH: usize = 256;
/// The most payload bytes in one statement, so that large writes do not pile up into a huge one.
const MAX_BATCH_BYTES: usize = 4 << 20;
/// A write that meets a lock waits this long, beside the others, before it is tried again.
const PAUSE_AFTER_CONTENTION: Duration = Duration::from_millis(50);
/// Between two attempts to reach a database that is away.
const PAUSE_WITHOUT_DATABASE: Duration = Duration::from_millis(200);
/// After so long without a database the caller is told.
const PATIENCE: Duration = Duration::from_secs(20);

/// A statement that performs a batch of writes at once. Performing a batch twice must be as good as once.
#[async_trait]
pub(crate) trait Statement: Send + Sync + 'static {
    type Op: Send + Sync + 'static;
    type Answer: Send + 'static;

    fn bytes(op: &Self::Op) -> usize;

    /// The saga of which a batch holds one write, since its answers and effects are told apart by their sagas.
    fn alone(op: &Self::Op) -> Option<SagaId>;

    /// One answer for each write, in order.
    async fn perform(&self, conn: &mut PgConnection, ops: &[&Self::Op]) -> Result<Vec<Self::Answer>, sqlx::Error>;
}

pub(crate) struct GroupCommit<S: Statement> {
    queue: Arc<Queue<S>>,
}

struct Queue<S: Statement> {
    statement: S,
    pool: PgPool,
    waiting: Mutex<VecDeque<Ticket<S>>>,
    arrived: Notify,
    closed: tokio_util::sync::CancellationToken,
}

struct Ticket<S: Statement> {
    op: S::Op,
    since: Instant,
    answer: oneshot::Sender<Result<S::Answer, StoreError>>,
}

impl<S: Statement> GroupCommit<S> {
    pub(crate) fn spawn(statement: S, pool: PgPool, writers: usize) -> Arc<Self> {
        let queue = Arc::new(Queue {
            statement,
            pool,
            waiting: Mutex::default(),
            arrived: Notify::new(),
            closed: tokio_util::sync::CancellationToken::new(),
        });
        for _ in 0..writers {
            // Never cancelled: a writer ends when its store is gone and nothing waits.
            tokio::spawn(Arc::clone(&queue).run());
        }
        Arc::new(Self { queue })
    }

    /// Queues a write and waits for its answer.
    pub(crate) async fn submit(&self, op: S::Op) -> Result<S::Answer, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.queue.waiting().push_back(Ticket { op, since: Instant::now(), answer });
        self.queue.arrived.notify_one();
        answered.await.unwrap_or_else(|gone| Err(StoreError::Unavailable(Box::new(gone))))
    }
}

impl<S: Statement> Drop for GroupCommit<S> {
    fn drop(&mut self) {
        self.queue.closed.cancel();
    }
}

impl<S: Statement> Queue<S> {
    fn waiting(&self) -> MutexGuard<'_, VecDeque<Ticket<S>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(self: Arc<Self>) {
        loop {
            let batch = self.take();
            if batch.is_empty() {
                tokio::select! {
                    () = self.arrived.notified() => {}
                    () = self.closed.cancelled() => return,
                }
            } else {
                self.write(batch).await;
            }
        }
    }

    fn take(&self) -> Vec<Ticket<S>> {
        let mut waiting = self.waiting();
        let (mut batch, mut bytes) = (Vec::new(), 0);
        let (mut sagas, mut next_time) = (HashSet::new(), Vec::new());
        while batch.len() < MAX_BATCH && (batch.is_empty() || bytes < MAX_BATCH_BYTES) {
            let Some(ticket) = waiting.pop_front() else { break };
            if S::alone(&ticket.op).is_some_and(|saga| !sagas.insert(saga)) {
                next_time.push(ticket);
                continue;
            }
            bytes += S::bytes(&ticket.op);
            batch.push(ticket);
        }
        next_time.into_iter().rev().for_each(|ticket| waiting.push_front(ticket));
        if !waiting.is_empty() {
            // The next writer takes what is left.
            self.arrived.notify_one();
        }
        batch
    }

    /// Writes a batch. One that fails is halved until the culprit stands alone, and only that one is told.
    async fn write(self: &Arc<Self>, batch: Vec<Ticket<S>>) {
        let mut stack = vec![batch];
        while let Some(mut batch) = stack.pop() {
            // Whoever asked may have gone; the write is still made, since its journal row decides, not its caller.
            let error = match self.perform(&batch).await {
                Ok(answers) => {
                    for (ticket, answer) in batch.into_iter().zip(answers) {
                        let _ = ticket.answer.send(Ok(answer));
                    }
                    continue;
                }
                Err(error) => error,
            };
            match fault(&error) {
                Fault::Connection => {
                    tracing::warn!(%error, writes = batch.len(), "the database is away; the batch waits");
                    sleep(PAUSE_WITHOUT_DATABASE).await;
                    stack.extend(keep_the_patient(batch, &error));
                }
                Fault::Schema => batch.into_iter().for_each(|ticket| refuse(ticket, &error)),
                Fault::Contention | Fault::Data if batch.len() > 1 => {
                    let half = batch.split_off(batch.len() / 2);
                    stack.extend([half, batch]);
                }
                Fault::Contention => batch.into_iter().for_each(|ticket| self.later(ticket)),
                Fault::Data => batch.into_iter().for_each(|ticket| refuse(ticket, &error)),
            }
        }
    }

    async fn perform(&self, batch: &[Ticket<S>]) -> Result<Vec<S::Answer>, sqlx::Error> {
        let ops: Vec<_> = batch.iter().map(|ticket| &ticket.op).collect();
        let mut conn = self.pool.acquire().await?;
        self.statement.perform(&mut conn, &ops).await
    }

    /// Tries a write again after a pause, in nobody's way.
    fn later(self: &Arc<Self>, ticket: Ticket<S>) {
        let queue = Arc::clone(self);
        tokio::spawn(async move {
            sleep(PAUSE_AFTER_CONTENTION).await;
            queue.waiting().push_back(ticket);
            queue.arrived.notify_one();
        });
    }
}

/// Those that have not waited too long; the others are told.
fn keep_the_patient<S: Statement>(batch: Vec<Ticket<S>>, error: &sqlx::Error) -> Option<Vec<Ticket<S>>> {
    let (patient, spent): (Vec<_>, Vec<_>) = batch.into_iter().partition(|ticket| ticket.since.elapsed() < PATIENCE);
    for ticket in spent {
        refuse(ticket, error);
    }
    (!patient.is_empty()).then_some(patient)
}

fn refuse<S: Statement>(ticket: Ticket<S>, error: &sqlx::Error) {
    // An sqlx error cannot be copied; each caller gets its text, under the kind that it acts on.
    let text = error.to_string();
    let copy = match fault(error) {
        Fault::Connection | Fault::Contention => StoreError::Unavailable(text.into()),
        Fault::Data => StoreError::Refused(text.into()),
        Fault::Schema => StoreError::Schema(text),
    };
    let _ = ticket.answer.send(Err(copy));
}

impl<S: Statement> fmt::Debug for GroupCommit<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupCommit").field("waiting", &self.queue.waiting().len()).finish_non_exhaustive()
    }
}
