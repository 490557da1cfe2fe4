//! The transaction of a tx step: the body's writes, its messages and its record commit at once.

use std::fmt;

use amends::store::{Append, Appended};
use amends::{Message, OutboxMessage, StepError, StepTransaction, StoreError};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool, Postgres, Transaction};
use uuid::Uuid;

use crate::columns::{events, millis, seq};
use crate::effects::{EffectColumns, effects, follows};
use crate::error::{Fault, fault, store_error};
use crate::hints::{Hints, news};
use crate::hook;

/// Handed to the body of a tx step: a transaction that it can use and cannot commit.
///
/// ```no_run
/// # use amends::StepResult;
/// # use amends_postgres::StepTx;
/// async fn reserve(tx: &mut StepTx, sku: &str) -> StepResult<i64> {
///     let id = sqlx::query_scalar("insert into reservation (sku) values ($1) returning id")
///         .bind(sku)
///         .fetch_one(tx.conn())
///         .await?;
///     Ok(id)
/// }
/// ```
pub struct StepTx {
    tx: Transaction<'static, Postgres>,
    /// Set in the transaction when it begins; gone when the body has ended it.
    mark: String,
    backend: i32,
    own: PgPool,
    outbox: Vec<OutboxMessage>,
    /// `None` if it is not ours to commit.
    hints: Option<Hints>,
}

/// A body that sleeps in its transaction holds its locks no longer than this.
const IDLE_LIMIT: &str = "30s";

/// The same as an append of a group commit, for one saga. A conflict is an error here, and rolls the body's writes back; a
/// body that has ended the transaction writes nothing.
///
/// It names the two heads that it may touch, its own and the one that it wakes, so that PostgreSQL keeps one plan for it.
const RECORD: &str = concat!(
    "with written as (
        insert into amends.journal (saga_id, seq, writer, nonce, events)
        select $19::uuid, $20, $21, $22, $23::json where current_setting('amends.step', true) = $24 and ",
    follows!("$19", "$20"),
    "
        returning saga_id, at
    ), locked as (
        select s.id, s.id = $19 and $25::text is not null as moves, s.id = $29 as wakes from amends.saga s
        where s.id in ($19, $29) and ($25 is not null or $29::uuid is not null) and exists (select from written)
            and (s.id = $19 and $25 is not null or s.status not in ('completed', 'compensated'))
        order by s.id for update of s
    ), moved as (
        update amends.saga s set
            status = case when l.moves then $25 else s.status end,
            wake_at = case
                when l.moves and $25 in ('completed', 'compensated') then null
                when l.wakes then clock_timestamp()
                when l.moves then least(s.wake_at, clock_timestamp() + $26::bigint * interval '1 millisecond')
                else s.wake_at
            end,
            owner = case when not (l.moves and $27) then s.owner end,
            ended_at = case
                when not l.moves then s.ended_at
                when $25 in ('completed', 'compensated') then clock_timestamp()
            end,
            parked_as = case when l.moves then $28::uuid else s.parked_as end
        from locked l
        where s.id in ($19, $29) and s.id = l.id
    ), ",
    effects!(),
    " select coalesce(current_setting('amends.step', true) = $24, false), (select at from written)"
);

impl StepTx {
    pub(crate) async fn begin(pool: &PgPool, own: PgPool, hints: Hints) -> Result<Self, StoreError> {
        hook::before("begin");
        let mut tx = pool.begin().await.map_err(store_error)?;
        hook::before("mark transaction");
        let mark = Uuid::new_v4().to_string();
        let (backend, _, _): (i32, String, String) = sqlx::query_as(
            "select pg_backend_pid(), set_config('amends.step', $1, true),
                    set_config('idle_in_transaction_session_timeout', $2, true)",
        )
        .bind(&mark)
        .bind(IDLE_LIMIT)
        .fetch_one(&mut *tx)
        .await
        .map_err(store_error)?;
        Ok(Self { tx, mark, backend, own, outbox: Vec::new(), hints: Some(hints) })
    }

    /// A part of a transaction that is not ours to commit.
    #[cfg(feature = "testing")]
    pub(crate) fn lent(tx: Transaction<'static, Postgres>, own: PgPool) -> Self {
        Self { tx, mark: String::new(), backend: 0, own, outbox: Vec::new(), hints: None }
    }

    #[cfg(feature = "testing")]
    pub(crate) fn give_back(self) -> Transaction<'static, Postgres> {
        self.tx
    }

    /// The connection, inside the step's transaction.
    ///
    /// A body that commits or rolls back by itself is found out when its step is recorded, and fails loudly.
    pub fn conn(&mut self) -> &mut PgConnection {
        &mut self.tx
    }

    /// Publishes a message in the same commit as the step's record.
    ///
    /// # Errors
    /// Returns [`StepError::Data`] if the message cannot be stored.
    pub fn publish<M: Message>(&mut self, message: &M) -> Result<(), StepError> {
        StepTransaction::publish(self, message)
    }

    /// As [`publish`](Self::publish), what [`Payloads::pack`](amends::Payloads::pack) has made.
    ///
    /// # Errors
    /// Returns [`StepError::Unpublishable`] if it is too large.
    pub fn publish_message(&mut self, message: OutboxMessage) -> Result<(), StepError> {
        StepTransaction::publish_message(self, message)
    }

    /// Whether the transaction is still the step's own, and when the record was written, if it was.
    async fn record(&mut self, append: &Append) -> Result<(bool, Option<DateTime<Utc>>), sqlx::Error> {
        let mut effects = EffectColumns::default();
        effects.push(append)?;
        let head = append.head;
        let mut bound = effects.bind();
        bound.add(append.saga.0);
        bound.add(seq(append)?);
        bound.add(append.writer.0);
        bound.add(append.nonce);
        bound.add(events(append)?);
        bound.add(&self.mark);
        bound.add(head.map(|head| head.status.as_str()));
        bound.add(head.and_then(|head| head.wake_in).map(millis));
        bound.add(head.is_some_and(|head| head.release));
        bound.add(head.and_then(|head| head.parked));
        bound.add(append.wakes.map(Uuid::from));
        hook::before("record");
        sqlx::query_as_with(RECORD, bound.finish()?).fetch_one(&mut *self.tx).await
    }
}

#[async_trait]
impl StepTransaction for StepTx {
    fn outbox(&mut self) -> &mut Vec<OutboxMessage> {
        &mut self.outbox
    }

    fn interrupter(&self) -> futures_util::future::BoxFuture<'static, ()> {
        let (own, backend) = (self.own.clone(), self.backend);
        Box::pin(async move {
            hook::before("interrupt");
            let ended = sqlx::query("select pg_terminate_backend($1)").bind(backend).execute(&own).await;
            if let Err(error) = ended {
                tracing::warn!(%error, backend, "cannot end the session of a step that took too long");
            }
        })
    }

    async fn commit(mut self, append: Append) -> Result<Appended, StoreError> {
        let at = match self.record(&append).await {
            Ok((_, Some(at))) => at,
            Ok((false, None)) => return Err(StoreError::TransactionEnded),
            Ok((true, None)) => {
                self.rollback().await;
                return Ok(Appended::Conflict);
            }
            Err(error) if is_journal_conflict(&error) => {
                self.rollback().await;
                return Ok(Appended::Conflict);
            }
            Err(error) => return Err(commit_error(error)),
        };
        hook::before("commit");
        self.tx.commit().await.map_err(commit_error)?;
        if let Some(hints) = self.hints {
            hints.committed(news(&append));
        }
        Ok(Appended::Done(at))
    }

    async fn rollback(self) {
        hook::before("rollback");
        if let Err(error) = self.tx.rollback().await {
            // The session is gone, and the transaction with it.
            tracing::debug!(%error, "the rollback of a step found no session");
        }
    }
}

fn is_journal_conflict(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else { return false };
    error.is_unique_violation() && error.table().is_some_and(|table| table.starts_with("journal"))
}

/// What fails at the commit, such as a deferred constraint, is the body's failure and is retried by its policy.
fn commit_error(error: sqlx::Error) -> StoreError {
    match fault(&error) {
        Fault::Connection => StoreError::Unavailable(Box::new(error)),
        Fault::Contention | Fault::Data => StoreError::CommitFailed(Box::new(error)),
        Fault::Schema => store_error(error),
    }
}

impl fmt::Debug for StepTx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StepTx")
            .field("backend", &self.backend)
            .field("messages", &self.outbox.len())
            .finish_non_exhaustive()
    }
}
