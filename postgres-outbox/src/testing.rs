//! A database for every test, on the server that `cargo xtask test` provides.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, PgPool};

/// A fresh database with the migrations applied. It is dropped with this value, also when a test panics.
#[derive(Debug)]
pub struct TestDatabase {
    name: String,
    admin: PgConnectOptions,
    pool: PgPool,
    url: String,
}

/// What a killed test run has left behind is dropped by later runs after this time.
const STALE_AFTER: Duration = Duration::from_hours(1);

impl TestDatabase {
    /// Creates a database on the server of `DATABASE_URL`.
    ///
    /// # Panics
    /// Panics with what to do if there is no such server, as a test should.
    pub async fn create() -> Self {
        let database = Self::create_empty().await;
        amends_migrations::migrator().run(&database.pool).await.expect("the migrations apply to an empty database");
        database
    }

    /// Creates a database without the schema of amends.
    ///
    /// # Panics
    /// As [`create`](Self::create).
    pub async fn create_empty() -> Self {
        let server = std::env::var("DATABASE_URL")
            .expect("DATABASE_URL must name a PostgreSQL server: run `cargo xtask test`, or eval \"$(cargo xtask services up)\"");
        let admin: PgConnectOptions = server.parse().expect("DATABASE_URL is a PostgreSQL URL");
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let name = format!("amends_test_{seconds}_{}", uuid::Uuid::new_v4().simple());
        let mut conn = PgConnection::connect_with(&admin).await.expect("the server of DATABASE_URL answers");
        drop_stale(&mut conn, seconds).await;
        conn.execute(AssertSqlSafe(format!("create database {name}"))).await.expect("this role may create databases");
        let options = admin.clone().database(&name);
        let pool =
            PgPoolOptions::new().max_connections(20).connect_with(options).await.expect("the new database answers");
        let mut url = url_of(&server);
        url.push_str(&name);
        Self { name, admin, pool, url }
    }

    /// A pool on the database.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// The database's URL, for another process.
    pub fn url(&self) -> &str {
        &self.url
    }
}

/// The URL up to the database's name.
fn url_of(server: &str) -> String {
    let authority = server.find("://").map_or(0, |at| at + 3);
    let end = server[authority..].find(['/', '?']).map_or(server.len(), |at| authority + at);
    format!("{}/", &server[..end])
}

async fn drop_stale(conn: &mut PgConnection, now: u64) {
    let names: Vec<String> = sqlx::query_scalar("select datname from pg_database where datname like 'amends_test_%'")
        .fetch_all(&mut *conn)
        .await
        .unwrap_or_default();
    for name in names {
        let made = name.split('_').nth(2).and_then(|seconds| seconds.parse::<u64>().ok()).unwrap_or(now);
        if now.saturating_sub(made) > STALE_AFTER.as_secs() {
            let _ = conn.execute(AssertSqlSafe(format!("drop database if exists {name} with (force)"))).await;
        }
    }
}

impl Drop for TestDatabase {
    /// On a thread and a runtime of its own, since the test's runtime may be blocked or going away.
    fn drop(&mut self) {
        let (name, admin) = (self.name.clone(), self.admin.clone());
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let mut conn = PgConnection::connect_with(&admin).await.map_err(std::io::Error::other)?;
                conn.execute(AssertSqlSafe(format!("drop database if exists {name} with (force)")))
                    .await
                    .map_err(std::io::Error::other)
            })
        });
        if !matches!(dropped.join(), Ok(Ok(_))) {
            tracing::warn!(database = self.name, "cannot drop a test database; a later run will");
        }
    }
}
