//! Whatever is wrong, the binary says it in one line that names the thing and the mend, and shows no password.

#![allow(missing_docs, clippy::unwrap_used)]

use std::process::{Command, Output};

use amends_postgres::testing::TestDatabase;

/// Runs the binary with nothing of the test's own environment that could configure it.
fn run(args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_amends-relay"));
    command.args(args).env_remove("DATABASE_URL").env_remove("AMQP_URL").envs(env.iter().copied());
    command.output().unwrap()
}

fn assert_one_clear_line(args: &[&str], env: &[(&str, &str)], needles: &[&str]) {
    let output = run(args, env);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success(), "{args:?} must fail");
    assert_eq!(text.trim_end().lines().count(), 1, "{args:?}: {text}");
    assert!(!text.contains("s3cret") && !text.contains("panicked"), "{args:?}: {text}");
    for needle in needles {
        assert!(text.contains(needle), "{args:?} should say `{needle}`: {text}");
    }
}

#[test]
fn wrong_settings_are_named_with_the_right_ones() {
    let database = [("DATABASE_URL", "postgres://u:s3cret@127.0.0.1:1/orders")];
    assert_one_clear_line(&["status"], &[], &["DATABASE_URL", "--database-url"]);
    assert_one_clear_line(&["status"], &[("DATABASE_URL", "mysql://u:s3cret@x")], &["postgres://user"]);
    assert_one_clear_line(&["status"], &database, &["127.0.0.1:1", "orders", "refused"]);
    assert_one_clear_line(&["run"], &database, &["no broker", "AMQP_URL"]);
    assert_one_clear_line(&["run", "--amqp-url", "http://u:s3cret@x"], &database, &["http", "amqp://user"]);
    assert_one_clear_line(&["run", "--ordering", "random"], &database, &["ordering", "strict", "pipelined"]);
    assert_one_clear_line(&["run", "--topology", "guess"], &database, &["topology", "declare", "verify", "off"]);
    assert_one_clear_line(&["status"], &[("AMENDS_WAEV", "1")], &["waev", "wave"]);
    assert_one_clear_line(&["status"], &[("AMENDS_PAGE", "0")], &["page", "greater than 0"]);
    assert_one_clear_line(&["status", "--reply-queue", "replies.#"], &[], &["reply_queue", "`#`"]);
    assert_one_clear_line(&["status", "--config", "/nowhere.toml"], &[], &["/nowhere.toml", "--config"]);
}

#[tokio::test]
async fn a_schema_that_is_missing_is_mended_by_migrate_which_is_safe_to_repeat() {
    let database = TestDatabase::create_empty().await;
    let url = [("DATABASE_URL", database.url())];
    assert_one_clear_line(&["status"], &url, &["amends-relay migrate"]);
    for _ in 0..2 {
        assert!(run(&["migrate"], &url).status.success());
    }
    let status = run(&["status"], &url);
    assert!(status.status.success() && String::from_utf8(status.stdout).unwrap().contains("LANE"));
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let database = TestDatabase::create().await;
    sqlx::query(
        "insert into amends._sqlx_migrations (version, description, success, checksum, execution_time)
         values (99, 'from the future', true, '', 0)",
    )
    .execute(database.pool())
    .await
    .unwrap();
    let url = [("DATABASE_URL", database.url())];
    assert_one_clear_line(&["status"], &url, &["update the program"]);
    assert_one_clear_line(&["migrate"], &url, &["99", "update the program"]);
}

#[tokio::test]
async fn a_role_without_permission_is_told_so() {
    let database = TestDatabase::create().await;
    let role = format!("amends_test_{}", uuid::Uuid::new_v4().simple());
    let run_sql = |sql: String| sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(database.pool());
    run_sql(format!("create role {role} login password 's3cret'")).await.unwrap();
    let url = database.url();
    let (scheme, rest) = url.split_once("://").unwrap();
    let host = rest.split_once('@').unwrap().1;
    let url = format!("{scheme}://{role}:s3cret@{host}");
    let env = [("DATABASE_URL", url.as_str())];
    assert_one_clear_line(&["status"], &env, &["permission denied", "grant"]);
    assert_one_clear_line(&["migrate"], &env, &["permission denied"]);
    run_sql(format!("drop role {role}")).await.unwrap();
}

#[test]
fn files_with_secrets_that_cannot_be_used_are_named_and_what_is_in_them_is_not_shown() {
    let dir = std::env::temp_dir().join(format!("amends-cli-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir(&dir).unwrap();
    let file = dir.join("file");
    std::fs::write(&file, "s3cret\n").unwrap();
    let file = file.to_str().unwrap();
    let env = [("DATABASE_URL", "postgres://u@127.0.0.1:1/orders"), ("AMQP_URL", "amqps://u:s3cret@localhost/")];
    let (database, url) = ([env[0]], "amqps://u:s3cret@localhost/");
    assert_one_clear_line(&["run", "--amqp-url-file", file], &env, &["amqp_url", "use one"]);
    assert_one_clear_line(&["run", "--database-url-file", file], &env, &["database_url", "use one"]);
    assert_one_clear_line(&["status", "--database-url-file", "/nowhere"], &[], &["database_url_file", "/nowhere"]);
    assert_one_clear_line(&["status", "--database-url-file", file], &[], &["database URL", "postgres://user"]);
    assert_one_clear_line(&["run", "--amqp-url-file", file], &database, &["AMQP URL", "amqp://user"]);
    assert_one_clear_line(&["run", "--amqp-password-file", "/nowhere"], &env, &["password", "/nowhere"]);
    assert_one_clear_line(&["run", "--amqp-ca-file", file], &env, &["CA", file, "BEGIN CERTIFICATE"]);
    assert_one_clear_line(
        &["run", "--amqp-cert-file", file, "--amqp-url", url],
        &database,
        &["amqp_key_file", "together"],
    );
    assert_one_clear_line(
        &["run", "--amqp-ca-file", file, "--amqp-url", "amqp://u:s3cret@localhost/"],
        &database,
        &["amqps://"],
    );
    std::fs::remove_dir_all(dir).unwrap();
}

#[tokio::test]
async fn the_database_is_found_by_the_url_in_a_file() {
    let database = TestDatabase::create().await;
    let file = std::env::temp_dir().join(format!("amends-cli-{}", uuid::Uuid::new_v4()));
    std::fs::write(&file, format!("{}\n", database.url())).unwrap();
    let status = run(&["status", "--database-url-file", file.to_str().unwrap()], &[]);
    std::fs::remove_file(file).unwrap();
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
}
