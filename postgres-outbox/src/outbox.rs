//! Publishing in the application's own transaction.

use amends::{Error, Message, MessageId, OutboxMessage};
use sqlx::PgConnection;

use crate::columns::{Bound, OutboxColumns};
use crate::error::start_error;
use crate::hints::{self, News, Written};
use crate::hook;

/// Publishes messages through the outbox.
///
/// A message reaches the broker if, and only if, the transaction commits. Messages of one key are first delivered in the
/// order of their commits, provided that their producers hold a common lock until they commit, as updating the
/// aggregate's row does.
#[derive(Debug, Clone, Copy)]
pub struct Outbox;

impl Outbox {
    /// Publishes a message in the transaction of `conn`.
    ///
    /// Relays hear of it a few milliseconds after the commit if this process holds [`Hints`](crate::Hints) of the database.
    ///
    /// # Errors
    /// As [`OutboxMessage::new`] if the message cannot be stored or sent; [`Error::Store`] if the database refuses.
    pub async fn publish<M: Message>(conn: &mut PgConnection, message: &M) -> Result<MessageId, Error> {
        let message = OutboxMessage::new(message)?;
        Self::publish_all(conn, std::slice::from_ref(&message)).await?;
        Ok(message.id)
    }

    /// Publishes messages, in their order, with one statement: what [`Payloads::pack`](amends::Payloads::pack) has made, or
    /// messages of no Rust type.
    ///
    /// # Errors
    /// As [`OutboxMessage::check`], before anything is written; [`Error::Store`] if the database refuses.
    pub async fn publish_all(conn: &mut PgConnection, messages: &[OutboxMessage]) -> Result<(), Error> {
        if messages.is_empty() {
            return Ok(());
        }
        messages.iter().try_for_each(OutboxMessage::check)?;
        let columns: OutboxColumns = messages.iter().collect();
        let mut bound = Bound::default();
        columns.bind(&mut bound);
        hook::before("publish");
        let written: Written = sqlx::query_as_with(
            "with message as (
             insert into amends.outbox (id, key, topic, name, content_type, headers, payload)
             select o.id, o.key, o.topic, o.name, o.content_type, o.headers::json, o.payload
             from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[])
                with ordinality as o(id, key, topic, name, content_type, headers, payload, position)
             order by o.position
             )
             select current_database()::text as database, pg_current_xact_id()::text::bigint as xid",
            bound.finish().map_err(start_error)?,
        )
        .fetch_one(conn)
        .await
        .map_err(start_error)?;
        hints::written(&written, News::OUTBOX);
        Ok(())
    }
}
