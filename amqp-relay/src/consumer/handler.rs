//! What handles messages: one of any type, one of a known type, or many at once.

use std::error::Error as StdError;
use std::fmt;

use amends::{Error, StoreError};
use async_trait::async_trait;
use sqlx::PgConnection;

use crate::Incoming;

/// Handles the messages of a queue, whatever their type; [`Handle`] is for those of one type.
///
/// # Idempotency
/// The effects that it makes through `tx` happen once for each message id, within the consumer's
/// [window](crate::ConsumerBuilder::window). Whatever it does elsewhere may happen again.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Handles a message in the transaction that records it as handled.
    ///
    /// # Errors
    /// See [`HandlerError`]: an error rolls the transaction back.
    async fn handle(&self, tx: &mut PgConnection, message: &Incoming) -> Result<(), HandlerError>;
}

/// Handles the messages of type `M`, as [`Handler`] does.
///
/// An `async fn` is one, and so is an `async` closure that holds nothing:
///
/// ```
/// # use amends::Message;
/// # use amends_postgres::Outbox;
/// # use amends_relay::{HandlerError, Incoming};
/// # use serde::{Deserialize, Serialize};
/// # use sqlx::PgConnection;
/// # #[derive(Serialize, Deserialize, Message)]
/// # #[message(name = "stock.reserved")]
/// # struct StockReserved { sku: String, qty: i32 }
/// # #[derive(Serialize, Deserialize, Message)]
/// # #[message(name = "goods.packed")]
/// # struct GoodsPacked { sku: String }
/// async fn pack(tx: &mut PgConnection, event: StockReserved, _: &Incoming) -> Result<(), HandlerError> {
///     sqlx::query("update shelf set qty = qty - $2 where sku = $1")
///         .bind(&event.sku)
///         .bind(event.qty)
///         .execute(&mut *tx)
///         .await?;
///     Outbox::publish(tx, &GoodsPacked { sku: event.sku }).await?;
///     Ok(())
/// }
/// ```
///
/// A type that holds something implements it, for each message that it handles:
///
/// ```
/// # use amends::Message;
/// # use amends_relay::{Handle, HandlerError, Incoming};
/// # use serde::{Deserialize, Serialize};
/// # use sqlx::PgConnection;
/// # #[derive(Serialize, Deserialize, Message)]
/// # #[message(name = "stock.reserved")]
/// # struct StockReserved { sku: String, qty: i32 }
/// struct Warehouse { place: String }
///
/// impl Handle<StockReserved> for Warehouse {
///     async fn handle(&self, tx: &mut PgConnection, event: StockReserved, _: &Incoming) -> Result<(), HandlerError> {
///         let shelve = sqlx::query("insert into shelf (place, sku) values ($1, $2)");
///         shelve.bind(&self.place).bind(event.sku).execute(tx).await?;
///         Ok(())
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not handle messages of type `{M}`",
    note = "it takes an `async fn(tx: &mut PgConnection, event: {M}, message: &Incoming) -> Result<(), HandlerError>`, \
            or a type with `impl Handle<{M}>`"
)]
pub trait Handle<M>: Send + Sync + 'static {
    /// Handles a message in the transaction that records it as handled.
    ///
    /// # Errors
    /// See [`HandlerError`]: an error rolls the transaction back.
    fn handle(
        &self,
        tx: &mut PgConnection,
        event: M,
        message: &Incoming,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;
}

/// Handles many messages in one transaction.
///
/// An `async fn(tx: &mut PgConnection, messages: &[Incoming]) -> Result<(), HandlerError>` is one.
///
/// # Idempotency
/// As with [`Handler`]: it gets only messages that were not handled before. When it fails, its messages are handled one at
/// a time, so that the one to blame stands alone; so it must do with one message what it does with many.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not handle batches of messages",
    note = "it takes an `async fn(tx: &mut PgConnection, messages: &[Incoming]) -> Result<(), HandlerError>`, or a type with \
            `impl HandleBatch`"
)]
pub trait HandleBatch: Send + Sync + 'static {
    /// Handles messages, in the order of the queue, in the transaction that records them as handled.
    ///
    /// # Errors
    /// See [`HandlerError`]: an error rolls the transaction back.
    fn handle(
        &self,
        tx: &mut PgConnection,
        messages: &[Incoming],
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;
}

/// Why a message was not handled.
///
/// It does not implement [`std::error::Error`], so that `?` turns every error into one:
///
/// | error | becomes |
/// |---|---|
/// | the database is away, full, restarting, or chose this transaction to end a deadlock | `Unavailable` |
/// | a message or an input that can never be stored ([`amends::Error`]) | `Reject` |
/// | anything else | `Retry` |
#[derive(Debug)]
#[non_exhaustive]
pub enum HandlerError {
    /// It failed. Try it again after a pause, at most [`attempts`](crate::ConsumerBuilder::attempts) times in all; then it
    /// is a dead letter.
    Retry(Box<dyn StdError + Send + Sync>),
    /// What it needs is away, which is nothing that this message could be blamed for. Try it again for ever.
    Unavailable(Box<dyn StdError + Send + Sync>),
    /// It can never be handled: a dead letter at once, with this reason.
    Reject(String),
}

impl HandlerError {
    /// An error to be retried, made from a text.
    pub fn retry(message: impl Into<String>) -> Self {
        Self::Retry(message.into().into())
    }

    /// Something is away that every message needs; tried again for ever.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::Unavailable(message.into().into())
    }

    /// It can never be handled.
    pub fn reject(reason: impl Into<String>) -> Self {
        Self::Reject(reason.into())
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = match self {
            Self::Reject(reason) => return f.write_str(reason),
            Self::Retry(error) | Self::Unavailable(error) => error,
        };
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            // Many errors already quote their cause.
            let cause_text = cause.to_string();
            if !text.contains(&cause_text) {
                text = format!("{text}: {cause_text}");
            }
            source = cause.source();
        }
        f.write_str(&text)
    }
}

impl<E: StdError + Send + Sync + 'static> From<E> for HandlerError {
    fn from(error: E) -> Self {
        let error: Box<dyn StdError + Send + Sync> = Box::new(error);
        match Blame::of(&*error) {
            Blame::Database => Self::Unavailable(error),
            Blame::Message => Self::Reject(error.to_string()),
            Blame::Unknown => Self::Retry(error),
        }
    }
}

/// Whose fault an error is.
enum Blame {
    Database,
    Message,
    /// Also that of this attempt: its transaction had failed before, or its session was ended.
    Unknown,
}

impl Blame {
    fn of(error: &(dyn StdError + 'static)) -> Self {
        if let Some(statement) = error.downcast_ref::<sqlx::Error>() {
            return if amends_postgres::is_unavailable(statement) { Self::Database } else { Self::Unknown };
        }
        match error.downcast_ref::<Error>() {
            Some(
                Error::Json { .. }
                | Error::TooLarge { .. }
                | Error::Encoding { .. }
                | Error::NotPacked { .. }
                | Error::KeyConflict { .. },
            ) => Self::Message,
            Some(Error::Store(store)) => Self::of_store(store),
            _ => Self::Unknown,
        }
    }

    /// The statement was ours, so what it writes is the message's fault.
    fn of_store(error: &StoreError) -> Self {
        let (StoreError::Unavailable(cause) | StoreError::Refused(cause)) = error else { return Self::Unknown };
        match cause.downcast_ref::<sqlx::Error>() {
            Some(statement) if amends_postgres::is_refused(statement) => Self::Message,
            Some(statement) if amends_postgres::is_unavailable(statement) => Self::Database,
            Some(_) => Self::Unknown,
            None if matches!(error, StoreError::Refused(_)) => Self::Message,
            None => Self::Database,
        }
    }
}

/// A function of this shape, for one lifetime: `async fn` has a future of its own for each.
///
/// It is public because it stands in bounds, and is no part of the interface.
#[doc(hidden)]
pub trait HandleFn<'a, M>: Send + Sync + 'static {
    type Future: Future<Output = Result<(), HandlerError>> + Send + 'a;
    fn call(&self, tx: &'a mut PgConnection, event: M, message: &'a Incoming) -> Self::Future;
}

impl<'a, M, F, R> HandleFn<'a, M> for F
where
    F: Fn(&'a mut PgConnection, M, &'a Incoming) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), HandlerError>> + Send + 'a,
{
    type Future = R;

    fn call(&self, tx: &'a mut PgConnection, event: M, message: &'a Incoming) -> R {
        self(tx, event, message)
    }
}

impl<M: Send, F: for<'a> HandleFn<'a, M>> Handle<M> for F {
    async fn handle(&self, tx: &mut PgConnection, event: M, message: &Incoming) -> Result<(), HandlerError> {
        self.call(tx, event, message).await
    }
}

/// As [`HandleFn`], for batches.
#[doc(hidden)]
pub trait HandleBatchFn<'a>: Send + Sync + 'static {
    type Future: Future<Output = Result<(), HandlerError>> + Send + 'a;
    fn call(&self, tx: &'a mut PgConnection, messages: &'a [Incoming]) -> Self::Future;
}

impl<'a, F, R> HandleBatchFn<'a> for F
where
    F: Fn(&'a mut PgConnection, &'a [Incoming]) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), HandlerError>> + Send + 'a,
{
    type Future = R;

    fn call(&self, tx: &'a mut PgConnection, messages: &'a [Incoming]) -> R {
        self(tx, messages)
    }
}

impl<F: for<'a> HandleBatchFn<'a>> HandleBatch for F {
    async fn handle(&self, tx: &mut PgConnection, messages: &[Incoming]) -> Result<(), HandlerError> {
        self.call(tx, messages).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_database_counts_against_the_message_only_if_the_database_is_there() {
        let away = HandlerError::from(sqlx::Error::PoolTimedOut);
        assert!(matches!(away, HandlerError::Unavailable(_)), "{away:?}");
        let own = HandlerError::from(sqlx::Error::RowNotFound);
        assert!(matches!(own, HandlerError::Retry(_)), "{own:?}");
        let never = HandlerError::from(Error::Store(StoreError::Refused("a NUL".into())));
        assert!(matches!(never, HandlerError::Reject(_)), "{never:?}");
        let too_large = Error::TooLarge { what: "message `a`".into(), bytes: 2, limit: 1, advice: "make it smaller" };
        let never = HandlerError::from(too_large);
        assert!(matches!(never, HandlerError::Reject(_)), "{never:?}");
    }

    #[test]
    fn an_error_tells_its_causes_once() {
        let error = HandlerError::from(Error::Store(StoreError::Schema("no table".into())));
        assert_eq!(error.to_string(), "no table");
    }
}
