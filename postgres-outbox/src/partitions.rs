//! Partitions are made well ahead. What falls outside of all goes to the default partitions, so to fail here is no harm.

use sqlx::{Executor, PgConnection};

/// Makes the partitions of the next four weeks, and of the next three million messages.
pub(crate) async fn make_ahead(conn: &mut PgConnection) {
    let made = conn
        .execute(
            "select amends.make_saga_partitions(interval '28 days'), amends.make_outbox_partitions(3000000),
                amends.make_inbox_partitions(interval '28 days')",
        )
        .await;
    if let Err(error) = made {
        tracing::warn!(%error, "cannot make partitions now; the default partitions take what comes");
    }
}
