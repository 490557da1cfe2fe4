//! The SQL migrations of amends.
//!
//! They create and fill the schema `amends` and nothing else, and keep their own book of what was applied
//! (`amends._sqlx_migrations`), so they never collide with the application's own migrations. Apply them in
//! code, with `amends-relay migrate`, or with `sqlx migrate run` in this folder: all three are the same.
//!
//! ```no_run
//! # async fn example(pool: sqlx::PgPool) -> Result<(), sqlx::migrate::MigrateError> {
//! amends_migrations::migrator().run(&pool).await
//! # }
//! ```

use sqlx::SqlStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};

/// The newest migration; a database that has applied a newer one belongs to a newer amends.
pub const LATEST: i64 = 15;

const MIGRATIONS: [(i64, &str, &str); 14] = [
    (1, "saga", include_str!("../0001_saga.sql")),
    (2, "outbox", include_str!("../0002_outbox.sql")),
    (3, "inbox", include_str!("../0003_inbox.sql")),
    (4, "language", include_str!("../0004_language.sql")),
    (5, "turns", include_str!("../0005_turns.sql")),
    (6, "bounds", include_str!("../0006_bounds.sql")),
    (7, "start", include_str!("../0007_start.sql")),
    (8, "barrier", include_str!("../0008_barrier.sql")),
    (9, "retention", include_str!("../0009_retention.sql")),
    (10, "inbox_body", include_str!("../0010_inbox_body.sql")),
    (12, "payload", include_str!("../0012_payload.sql")),
    (13, "lanes", include_str!("../0013_lanes.sql")),
    (14, "partitions", include_str!("../0014_partitions.sql")),
    (15, "inbox_foreign", include_str!("../0015_inbox_foreign.sql")),
];

/// All migrations, ready to run on a connection or a pool.
///
/// Running it again changes nothing, and two that run at once wait for each other.
pub fn migrator() -> Migrator {
    let migrations = MIGRATIONS.iter().map(|&(version, name, sql)| {
        Migration::new(version, name.into(), MigrationType::Simple, SqlStr::from_static(sql), false)
    });
    let mut migrator = Migrator::with_migrations(migrations.collect());
    migrator.dangerous_set_table_name("amends._sqlx_migrations");
    migrator.create_schema("amends");
    migrator
}
