//! The three ways to apply the migrations are the same, in any order.

#![allow(missing_docs, clippy::unwrap_used)]

use std::path::Path;

use amends_postgres::testing::TestDatabase;
use amends_postgres::{Inbox, Inserted, Received};
use sqlx::migrate::Migrator;

/// What `sqlx migrate run` does in the folder, by the settings of its `sqlx.toml`.
async fn of_the_folder() -> Migrator {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations");
    let settings = std::fs::read_to_string(folder.join("sqlx.toml")).unwrap();
    assert!(settings.contains("table-name = \"amends._sqlx_migrations\""));
    assert!(settings.contains("create-schemas = [\"amends\"]"));
    let mut migrator = Migrator::new(folder).await.unwrap();
    migrator.dangerous_set_table_name("amends._sqlx_migrations");
    migrator.create_schema("amends");
    migrator
}

#[tokio::test]
async fn embedded_and_folder_migrations_are_the_same_in_both_orders() {
    let embedded = amends_migrations::migrator();
    let folder = of_the_folder().await;
    assert_eq!(embedded.iter().last().unwrap().version, amends_migrations::LATEST);
    for [first, second] in [[&embedded, &folder], [&folder, &embedded]] {
        let database = TestDatabase::create_empty().await;
        first.run(database.pool()).await.unwrap();
        second.run(database.pool()).await.unwrap();
        let applied: i64 = sqlx::query_scalar("select count(*) from amends._sqlx_migrations")
            .fetch_one(database.pool())
            .await
            .unwrap();
        assert_eq!(applied, embedded.iter().count() as i64);
    }
}

#[tokio::test]
async fn the_application_keeps_its_own_book_of_migrations() {
    let database = TestDatabase::create().await;
    let own: Option<String> = sqlx::query_scalar("select to_regclass('public._sqlx_migrations')::text")
        .fetch_one(database.pool())
        .await
        .unwrap();
    assert_eq!(own, None);
}

#[tokio::test]
async fn two_that_migrate_at_once_wait_for_each_other() {
    let database = TestDatabase::create_empty().await;
    let (one, other) = (amends_migrations::migrator(), amends_migrations::migrator());
    let (first, second) = tokio::join!(one.run(database.pool()), other.run(database.pool()));
    first.unwrap();
    second.unwrap();
}

#[tokio::test]
async fn the_inbox_recognises_ids_of_before_that_told_no_time() {
    let database = TestDatabase::create_empty().await;
    let pool = database.pool();
    let migrations = amends_migrations::migrator();
    let before = migrations.iter().filter(|migration| migration.version < 15).cloned().collect();
    let mut older = Migrator::with_migrations(before);
    older.dangerous_set_table_name("amends._sqlx_migrations");
    older.create_schema("amends");
    older.run(pool).await.unwrap();
    let ids = [uuid::Uuid::new_v4(), uuid::Uuid::now_v7()];
    let insert = "insert into amends.inbox (consumer, message_id) select 'warehouse', unnest($1::uuid[])";
    sqlx::query(insert).bind(&ids[..]).execute(pool).await.unwrap();

    migrations.run(pool).await.unwrap();

    let mut conn = pool.acquire().await.unwrap();
    for id in ids {
        let message = Received { id: &id.to_string(), name: "thing.happened", payload: b"{}" };
        assert_eq!(Inbox::insert(&mut conn, "warehouse", &[message]).await.unwrap(), [Inserted::Copy], "{id}");
    }
}
