//! The inbox: a message takes effect once, because its row is written in the handler's own transaction.

use sqlx::PgConnection;
use uuid::Uuid;

/// Remembers which messages a consumer has handled.
#[derive(Debug, Clone, Copy)]
pub struct Inbox;

/// Ids of other producers are texts; they become UUIDs of their own kind.
const FOREIGN: Uuid = Uuid::from_u128(0x616d_656e_6473_4000_8000_696e_626f_7831);

impl Inbox {
    /// Writes the row of a message; `false` if it is there, so the message was handled before.
    ///
    /// A second copy that arrives while the first is being handled waits for the first one's commit.
    ///
    /// # Errors
    /// Returns the database's error.
    pub async fn insert(conn: &mut PgConnection, consumer: &str, message_id: &str) -> Result<bool, sqlx::Error> {
        let id = message_id.parse().unwrap_or_else(|_| Uuid::new_v5(&FOREIGN, message_id.as_bytes()));
        crate::hook::before("inbox");
        let inserted =
            sqlx::query("insert into amends.inbox (consumer, message_id) values ($1, $2) on conflict do nothing")
                .bind(consumer)
                .bind(id)
                .execute(conn)
                .await?;
        Ok(inserted.rows_affected() == 1)
    }
}
