//! Nothing holds a waiting saga: no task, no connection, no memory.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::time::Duration;

use amends_postgres::testing::TestDatabase;
use support::{definition, sagas, until};
use tokio_util::sync::CancellationToken;

const WAITING: i64 = 100_000;

/// Every saga is claimed, its first step fails, and it waits an hour for the next attempt.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_waiting_sagas_cost_the_worker_nothing() {
    let database = TestDatabase::create().await;
    let pool = database.pool();
    let fingerprint = definition("shop").fingerprint();
    let failed =
        r#"[{"failed":{"step":"reserve","failure":{"attempt":1,"cause":"error","error":"x","retry_in":3600000}}}]"#;
    sqlx::query(
        "with s as (
            insert into amends.saga (id, name, version, fingerprint, input)
            select gen_random_uuid(), 'shop', 1, $1, '{\"id\":1,\"card\":1}' from generate_series(1, $2) returning id
         )
         insert into amends.journal (saga_id, seq, writer, nonce, events) select id, 1, $1, 0, $3::json from s",
    )
    .bind(fingerprint)
    .bind(WAITING)
    .bind(failed)
    .execute(pool)
    .await
    .unwrap();

    let before = resident_bytes();
    let sagas = sagas(pool, &["shop".into()], None);
    let shutdown = CancellationToken::new();
    let worker = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { sagas.run(shutdown).await }
    });
    // The worker looks at every one of them, sees that it is not due, and lets go of it.
    until(
        pool,
        "select count(*) = 100000 from amends.saga where owner is null and wake_at > now() + interval '30 minutes'",
    )
    .await;
    let grown = resident_bytes().saturating_sub(before);
    shutdown.cancel();
    worker.await.unwrap().unwrap();
    eprintln!("{WAITING} waiting sagas: {} KiB more", grown / 1024);
    assert!(grown < 50 << 20, "{} MiB more", grown >> 20);
    // Closing waits for every connection to come back.
    tokio::time::timeout(Duration::from_secs(5), pool.close()).await.expect("no connection is held");
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}
