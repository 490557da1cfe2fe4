//! A database for every test, on the server that `cargo xtask test` provides.

mod sandbox;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, PgPool};

pub use sandbox::{Sandbox, SandboxMoment, SandboxRule, sql, world};

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
const DAY: u64 = 86_400;

impl TestDatabase {
    /// Creates a database on the server of `DATABASE_URL`, as a copy of one that was migrated today.
    ///
    /// # Panics
    /// Panics with what to do if there is no such server, as a test should.
    pub async fn create() -> Self {
        let mut server = Server::connect().await;
        let template = server.template().await;
        server.create(&format!("template {template}")).await
    }

    /// Creates a database without the schema of amends.
    ///
    /// # Panics
    /// As [`create`](Self::create).
    pub async fn create_empty() -> Self {
        Server::connect().await.create("").await
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

/// A session on the server, outside of any test's database.
struct Server {
    url: String,
    admin: PgConnectOptions,
    conn: PgConnection,
    /// Seconds since 1970.
    now: u64,
}

impl Server {
    async fn connect() -> Self {
        let url = std::env::var("DATABASE_URL")
            .expect("DATABASE_URL must name a PostgreSQL server: run `cargo xtask test`, or eval \"$(cargo xtask services up)\"");
        let admin: PgConnectOptions = url.parse().expect("DATABASE_URL is a PostgreSQL URL");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut conn = PgConnection::connect_with(&admin).await.expect("the server of DATABASE_URL answers");
        drop_stale(&mut conn, now).await;
        Self { url, admin, conn, now }
    }

    async fn create(&mut self, like: &str) -> TestDatabase {
        let name = format!("amends_test_{}_{}", self.now, uuid::Uuid::new_v4().simple());
        let create = format!("create database {name} {like}");
        self.conn.execute(AssertSqlSafe(create)).await.expect("this role may create databases");
        let (admin, mut url) = (self.admin.clone(), url_of(&self.url));
        url.push_str(&name);
        let options = admin.clone().database(&name);
        let pool =
            PgPoolOptions::new().max_connections(20).connect_with(options).await.expect("the new database answers");
        TestDatabase { name, admin, pool, url }
    }

    /// The database that today's tests of these migrations are copied from. Whoever finds none makes it.
    async fn template(&mut self) -> String {
        let name = template_name(self.now);
        if !self.has(&name).await {
            // Once, however many tests begin together; held until the connection closes.
            sqlx::query("select pg_advisory_lock(hashtextextended($1, 0))")
                .bind(&name)
                .execute(&mut self.conn)
                .await
                .expect("the server of DATABASE_URL answers");
            if !self.has(&name).await {
                self.make_template(&name).await;
            }
        }
        name
    }

    async fn has(&mut self, database: &str) -> bool {
        let found = sqlx::query("select from pg_database where datname = $1").bind(database);
        found.fetch_optional(&mut self.conn).await.expect("the server of DATABASE_URL answers").is_some()
    }

    /// It has its name only once it is whole. Until then it is a test's database, and goes away like one.
    async fn make_template(&mut self, name: &str) {
        let database = self.create("").await;
        amends_migrations::migrator().run(&database.pool).await.expect("the migrations apply to an empty database");
        database.pool.close().await;
        let rename = format!("alter database {} rename to {name}", database.name);
        self.conn.execute(AssertSqlSafe(rename)).await.expect("nobody else makes the template");
    }
}

/// Of one UTC day, since the migrations make the partitions of the weeks to come; and of what the migrations are now.
fn template_name(now: u64) -> String {
    let mut hasher = DefaultHasher::new();
    amends_migrations::migrator().iter().for_each(|migration| migration.checksum.hash(&mut hasher));
    format!("amends_template_{}_{:016x}", now / DAY, hasher.finish())
}

/// The URL up to the database's name.
fn url_of(server: &str) -> String {
    let authority = server.find("://").map_or(0, |at| at + 3);
    let end = server[authority..].find(['/', '?']).map_or(server.len(), |at| authority + at);
    format!("{}/", &server[..end])
}

async fn drop_stale(conn: &mut PgConnection, now: u64) {
    let names: Vec<String> =
        sqlx::query_scalar("select datname from pg_database where datname ~ '^amends_(test|template)_[0-9]+_'")
            .fetch_all(&mut *conn)
            .await
            .unwrap_or_default();
    for name in names {
        if needed_until(&name).is_some_and(|until| now > until.saturating_add(STALE_AFTER.as_secs())) {
            let _ = conn.execute(AssertSqlSafe(format!("drop database if exists {name} with (force)"))).await;
        }
    }
}

/// A test's database is in use from when it was made, a template until its day is over.
fn needed_until(name: &str) -> Option<u64> {
    let mut parts = name.split('_').skip(1);
    let (what, number) = (parts.next()?, parts.next()?.parse::<u64>().ok()?);
    Some(if what == "template" { (number + 1).saturating_mul(DAY) } else { number })
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
