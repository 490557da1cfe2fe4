//! Large payloads in a table, for messages that carry a claim check.

use std::time::Duration;

use amends::PayloadStore;
use async_trait::async_trait;
use sqlx::PgPool;

use crate::hook;
use crate::retention::delete;

/// Keeps large payloads in the table `amends.payload` of a database that publishers and consumers both reach: the publisher's,
/// or one of its own with these migrations.
///
/// Publishers need `select`, `insert` and `update` on the table, consumers `select`, and whoever prunes it `delete`. The relay of
/// that database prunes it, as [`Retention::payloads`](crate::Retention) says; that must be longer than messages stay in the
/// outbox, in queues and among the dead letters.
#[derive(Debug, Clone)]
pub struct PgPayloads {
    pool: PgPool,
}

impl PgPayloads {
    /// Payloads in the database of `pool`. It takes a connection of its own for each: with a pool that handlers empty, give
    /// it another.
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Deletes payloads that were last put here before `age`, and says how many.
    ///
    /// # Errors
    /// Returns the database's error; what has gone by then is gone.
    pub async fn prune(pool: &PgPool, age: Duration) -> Result<u64, sqlx::Error> {
        delete(pool, OLD, age).await
    }
}

#[async_trait]
impl PayloadStore for PgPayloads {
    async fn put(&self, key: &str, payload: &[u8]) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        hook::before("put payload");
        // What is there is the same; that it is needed again makes it young.
        sqlx::query(
            "insert into amends.payload (key, payload) values ($1, $2)
             on conflict (key) do update set stored_at = clock_timestamp()",
        )
        .bind(key)
        .bind(payload)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Box<dyn std::error::Error + Send + Sync>> {
        hook::before("get payload");
        let found = sqlx::query_scalar("select payload from amends.payload where key = $1").bind(key);
        Ok(found.fetch_optional(&self.pool).await?)
    }
}

/// One that is put here again meanwhile is locked, or is young.
const OLD: &str = "
    delete from amends.payload where key in (
        select key from amends.payload where stored_at < clock_timestamp() - $1 * interval '1 millisecond'
        order by stored_at limit $2 for update skip locked
    )";
