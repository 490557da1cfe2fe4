//! Partitions are made well ahead. What falls outside of all goes to the default partitions, so to fail here is no harm.

use sqlx::{Executor, PgConnection};

/// Makes the partitions of the next four weeks, and of the next three million messages.
pub(crate) async fn make_ahead(conn: &mut PgConnection) {
    // Each in a transaction of its own, which keeps the locks of all that it makes.
    for make in [
        "select amends.make_saga_partitions(interval '28 days')",
        "select amends.make_outbox_partitions(3000000)",
        "select amends.make_inbox_partitions(interval '28 days')",
    ] {
        if let Err(error) = conn.execute(make).await {
            tracing::warn!(%error, "cannot make partitions now; the default partitions take what comes");
        }
    }
}
