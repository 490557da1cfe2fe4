//! Replies that arrive from outside.

use amends::{Answer, SagaId};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::hints::{self, News, Written};

/// What became of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivered {
    /// It is in the saga's journal, and the saga is due.
    Appended,
    /// The saga has ended, and takes no answer any more.
    Ended,
    /// There is no such saga.
    Unknown,
}

/// Writes the answer to a request step, or with `undo` to its compensation, in the transaction of `conn`.
///
/// `attempt` is the one that is answered, counted from 1. The same `id` counts once, however often it is delivered.
///
/// # Errors
/// Returns the database's error: of class 22 if the reply itself cannot be taken, however often it is delivered.
pub async fn deliver_reply(
    conn: &mut PgConnection,
    saga: SagaId,
    step: &str,
    undo: bool,
    attempt: u32,
    answer: &Answer,
    id: Uuid,
) -> Result<Delivered, sqlx::Error> {
    let answer = serde_json::to_string(answer).map_err(|error| sqlx::Error::Encode(Box::new(error)))?;
    crate::hook::before("reply");
    let (delivered, database, xid): (String, String, Option<i64>) = sqlx::query_as(
        "select amends.reply($1, $2, $3, $4, $5::jsonb, $6), current_database()::text,
            pg_current_xact_id_if_assigned()::text::bigint",
    )
    .bind(saga.0)
    .bind(step)
    .bind(undo)
    .bind(i32::try_from(attempt).unwrap_or(i32::MAX))
    .bind(answer)
    .bind(id)
    .fetch_one(conn)
    .await?;
    match delivered.as_str() {
        "appended" => {
            if let Some(xid) = xid {
                hints::written(&Written { database, xid }, News::SAGAS);
            }
            Ok(Delivered::Appended)
        }
        "ended" => Ok(Delivered::Ended),
        "unknown" => Ok(Delivered::Unknown),
        other => Err(sqlx::Error::Decode(format!("amends.reply returned {other}").into())),
    }
}
