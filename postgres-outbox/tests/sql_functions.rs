//! What the SQL functions for other languages take, refuse and write, without a worker.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::time::Duration;

use amends::store::{Lock, NewSaga};
use amends::{Answer, Definition, Json, Priority, SagaId, Store};
use amends_postgres::testing::TestDatabase;
use amends_postgres::{Delivered, PgStore, deliver_reply};
use serde_json::json;
use sqlx::{Connection, PgConnection};
use support::sql::{cancel, code, define, definition, nested, start};
use uuid::Uuid;

#[tokio::test]
async fn a_parked_saga_that_is_cancelled_stays_parked_but_for_a_crash_loop() {
    let database = TestDatabase::create().await;
    let mut conn = PgConnection::connect(database.url()).await.unwrap();
    define(&mut conn, &definition(Duration::MAX)).await;
    for (reason, expected) in [
        (r#"{"in_doubt":{"step":"decide"}}"#, ("parked", true)),
        (r#"{"crash_loop":{"recoveries":9}}"#, ("compensating", false)),
    ] {
        let saga = start(&mut conn, "approval", None, &json!({}), None).await.unwrap();
        let parked = format!(r#"[{{"adopted":{{"by":"{saga}"}}}},{{"parked":{{"reason":{reason}}}}}]"#);
        sqlx::query("insert into amends.journal (saga_id, seq, writer, nonce, events) values ($1, 1, $1, 0, $2::json)")
            .bind(saga.0)
            .bind(parked)
            .execute(&mut conn)
            .await
            .unwrap();
        sqlx::query("update amends.saga set status = 'parked', wake_at = null, parked_as = id where id = $1")
            .bind(saga.0)
            .execute(&mut conn)
            .await
            .unwrap();
        cancel(&mut conn, saga, Uuid::new_v4()).await.unwrap();
        let (status, is_parked): (String, bool) =
            sqlx::query_as("select status, parked_as is not null from amends.saga where id = $1")
                .bind(saga.0)
                .fetch_one(&mut conn)
                .await
                .unwrap();
        assert_eq!((status.as_str(), is_parked), expected, "{reason}");
    }
}

#[tokio::test]
async fn a_key_starts_one_saga_and_another_input_is_refused() {
    let database = TestDatabase::create().await;
    let mut conn = PgConnection::connect(database.url()).await.unwrap();
    assert_eq!(code(start(&mut conn, "approval", None, &json!(1), None).await), "42704");
    let newest = Definition { version: 3, ..definition(Duration::MAX) };
    define(&mut conn, &definition(Duration::MAX)).await;
    define(&mut conn, &newest).await;
    assert_eq!(code(start(&mut conn, "approval", None, &json!(1), Some(2)).await), "42704");

    for key in ["o-1", "O'Hara", "\"", "\\", "🦀 ünï", ""] {
        let input = json!({ "a": 1, "b": [key] });
        let first = start(&mut conn, "approval", Some(key), &input, None).await.unwrap();
        assert_eq!(first.0.get_version_num(), 7);
        let same = sqlx::query_scalar::<_, Uuid>("select amends.start_saga('approval', $1, $2::text::jsonb)")
            .bind(key)
            .bind(format!(r#"{{ "b": [{}],  "a": 1 }}"#, json!(key)))
            .fetch_one(&mut conn)
            .await
            .unwrap();
        assert_eq!(same, first.0);
        assert_eq!(code(start(&mut conn, "approval", Some(key), &json!(2), None).await), "23505");
    }
    let (version, fingerprint): (i32, Uuid) =
        sqlx::query_as("select distinct version, fingerprint from amends.saga").fetch_one(&mut conn).await.unwrap();
    assert_eq!((version, fingerprint), (3, newest.fingerprint()));
    let older = start(&mut conn, "approval", Some("older"), &json!(1), Some(1)).await.unwrap();
    assert_eq!(PgStore::new(database.pool().clone()).load(older).await.unwrap().unwrap().version, 1);

    for id in [Uuid::new_v4(), Uuid::nil()] {
        let wrong = sqlx::query("select amends.start_saga('approval', null, '1', null, $1)").bind(id);
        assert_eq!(code(wrong.execute(&mut conn).await), "22023");
    }
    assert_eq!(code(start(&mut conn, "approval", None, &nested(101), None).await), "22023");
    assert!(start(&mut conn, "approval", None, &nested(100), None).await.is_ok());
    // In a transaction that is rolled back it never was.
    let mut tx = conn.begin().await.unwrap();
    start(&mut tx, "approval", Some("gone"), &json!(1), None).await.unwrap();
    tx.rollback().await.unwrap();
    start(&mut conn, "approval", Some("gone"), &json!(2), None).await.unwrap();
}

#[tokio::test]
async fn a_key_that_many_use_at_once_starts_one_saga() {
    let database = TestDatabase::create().await;
    let mut conn = PgConnection::connect(database.url()).await.unwrap();
    define(&mut conn, &definition(Duration::MAX)).await;
    let starts = (0..15).map(|_| async {
        let mut conn = database.pool().acquire().await.unwrap();
        start(&mut conn, "approval", Some("o-1"), &json!(1), None).await.unwrap()
    });
    let started = futures_util::future::join_all(starts).await;
    assert!(started.iter().all(|saga| *saga == started[0]));
    let sagas: i64 = sqlx::query_scalar("select count(*) from amends.saga").fetch_one(&mut conn).await.unwrap();
    assert_eq!(sagas, 1);
}

/// Starts with `lock` and `refuse_if_locked`.
async fn start_or_be_refused(conn: &mut PgConnection, key: Option<&str>, lock: &str) -> Result<SagaId, sqlx::Error> {
    sqlx::query_scalar("select amends.start_saga('approval', $1, '1', lock => $2, refuse_if_locked => true)")
        .bind(key)
        .bind(lock)
        .fetch_one(conn)
        .await
        .map(SagaId)
}

async fn end(conn: &mut PgConnection, saga: SagaId) {
    let ended = sqlx::query("update amends.saga set status = 'completed', ended_at = now() where id = $1");
    ended.bind(saga.0).execute(conn).await.unwrap();
}

#[tokio::test]
async fn a_saga_that_is_started_in_sql_has_the_priority_the_lock_and_the_trace_that_were_given() {
    let database = TestDatabase::create().await;
    let mut conn = PgConnection::connect(database.url()).await.unwrap();
    define(&mut conn, &definition(Duration::MAX)).await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let saga: Uuid = sqlx::query_scalar(
        "select amends.start_saga('approval', null, '1', priority => 1, lock => 'account-7', trace => $1)",
    )
    .bind(trace)
    .fetch_one(&mut conn)
    .await
    .unwrap();
    let plain = start(&mut conn, "approval", None, &json!(1), None).await.unwrap();

    let store = PgStore::new(database.pool().clone());
    let saga = store.load(SagaId(saga)).await.unwrap().unwrap();
    assert_eq!(saga.priority, Priority::High);
    assert_eq!((saga.lock.as_deref(), saga.trace.as_deref()), (Some("account-7"), Some(trace)));
    let plain = store.load(plain).await.unwrap().unwrap();
    assert_eq!((plain.priority, plain.lock, plain.trace), (Priority::Normal, None, None));
    for priority in [2, -2, 70_000] {
        let wrong = sqlx::query("select amends.start_saga('approval', null, '1', priority => $1)").bind(priority);
        assert_eq!(code(wrong.execute(&mut conn).await), "22023");
    }
}

#[tokio::test]
async fn a_start_in_sql_may_be_refused_while_another_saga_has_the_lock_or_waits_for_it() {
    let database = TestDatabase::create().await;
    let mut conn = PgConnection::connect(database.url()).await.unwrap();
    define(&mut conn, &definition(Duration::MAX)).await;
    let first = start_or_be_refused(&mut conn, Some("a"), "x").await.unwrap();

    let refused = start_or_be_refused(&mut conn, Some("b"), "x").await;
    let text = refused.as_ref().unwrap_err().to_string();
    assert!(text.contains(&format!("saga approval: x is locked by saga {first}")), "{text}");
    assert_eq!(code(refused), "55006");
    assert_eq!(start_or_be_refused(&mut conn, Some("a"), "x").await.unwrap(), first, "its own lock");
    start_or_be_refused(&mut conn, None, "y").await.unwrap();
    let queued = sqlx::query_scalar("select amends.start_saga('approval', null, '1', lock => 'x')");
    let queued = SagaId(queued.fetch_one(&mut conn).await.unwrap());
    end(&mut conn, first).await;
    assert_eq!(code(start_or_be_refused(&mut conn, Some("b"), "x").await), "55006", "one is in line");
    end(&mut conn, queued).await;
    start_or_be_refused(&mut conn, Some("b"), "x").await.unwrap();
}

#[tokio::test]
async fn of_a_start_in_rust_and_one_in_sql_at_once_the_second_is_refused() {
    let database = TestDatabase::create().await;
    let store = PgStore::new(database.pool().clone());
    let mut conn = PgConnection::connect(database.url()).await.unwrap();
    define(&mut conn, &definition(Duration::MAX)).await;
    let lock = Some(Lock { key: "x".to_owned(), refuse: true });
    let saga = NewSaga { lock, ..NewSaga::new(&definition(Duration::MAX), Json::null()) };
    let mut open = database.pool().begin().await.unwrap();
    store.start_in(&mut open, saga).await.unwrap();

    let racing = tokio::spawn(async move { start_or_be_refused(&mut conn, None, "x").await });
    while !sqlx::query_scalar::<_, bool>(
        "select exists (select from pg_locks l join pg_database d on d.oid = l.database
            where d.datname = current_database() and l.locktype = 'advisory' and not l.granted)",
    )
    .fetch_one(database.pool())
    .await
    .unwrap()
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    open.commit().await.unwrap();

    assert_eq!(code(racing.await.unwrap()), "55006");
}

#[tokio::test]
async fn what_no_worker_could_read_does_not_get_into_a_journal() {
    let database = TestDatabase::create().await;
    let mut conn = PgConnection::connect(database.url()).await.unwrap();
    define(&mut conn, &definition(Duration::MAX)).await;
    let saga = start(&mut conn, "approval", None, &json!({}), None).await.unwrap();
    for answer in [
        json!(null),
        json!([]),
        json!({}),
        json!("done"),
        json!({ "Done": 1 }),
        json!({ "done": 1, "rejected": { "code": "x" } }),
        json!({ "done": 1, "more": 1 }),
        json!({ "rejected": null }),
        json!({ "rejected": "x" }),
        json!({ "rejected": [] }),
        json!({ "rejected": { "message": "x" } }),
        json!({ "rejected": { "code": 1 } }),
        json!({ "rejected": { "code": "x", "message": null } }),
        json!({ "done": nested(100) }),
        json!({ "done": "x".repeat(1 << 20) }),
    ] {
        let reply = sqlx::query("select amends.reply($1, 'decide', false, 1, $2, gen_random_uuid())");
        let refused = reply.bind(saga.0).bind(&answer).execute(&mut conn).await;
        assert_eq!(code(refused), "22023", "{:.80}", answer.to_string());
    }
    for sql in [
        "select amends.reply(id, 'decide', false, 0, '{\"done\":1}', gen_random_uuid()) from amends.saga",
        "select amends.reply(id, 'decide', false, -1, '{\"done\":1}', gen_random_uuid()) from amends.saga",
        "select amends.signal(id, 'approve', (repeat('[', 5000) || repeat(']', 5000))::jsonb) from amends.saga",
        "select amends.publish('t', '1', headers => '{\"n\":1}')",
        "select amends.publish('t', '1', headers => '[]')",
        "select amends.publish('t', '1', headers => null)",
    ] {
        assert_eq!(code(sqlx::query(sql).execute(&mut conn).await), "22023", "{sql}");
    }
    for sql in [
        "select amends.reply(id, null, false, 1, '{\"done\":1}', gen_random_uuid()) from amends.saga",
        "select amends.reply(id, 'decide', false, 1, '{\"done\":1}', null) from amends.saga",
        "select amends.signal(id, null, '1') from amends.saga",
        "select amends.signal(id, 'approve', '1', null) from amends.saga",
        "select amends.publish(null, '1')",
    ] {
        assert_eq!(code(sqlx::query(sql).execute(&mut conn).await), "22004", "{sql}");
    }
    let rows: i64 =
        sqlx::query_scalar("select (select count(*) from amends.journal) + (select count(*) from amends.outbox)")
            .fetch_one(&mut conn)
            .await
            .unwrap();
    assert_eq!(rows, 0);
    for answer in [json!({ "done": null }), json!({ "rejected": { "code": "🦀", "details": { "a": 1 } } })] {
        let answer: Answer = serde_json::from_value(answer).unwrap();
        let delivered = deliver_reply(&mut conn, saga, "decide", false, 1, &answer, Uuid::new_v4()).await.unwrap();
        assert_eq!(delivered, Delivered::Appended);
    }
    let state = PgStore::new(database.pool().clone()).load(saga).await.unwrap().unwrap().fold();
    assert_eq!(state.seq, 2, "and what was taken can be read");
}

#[tokio::test]
async fn a_message_is_published_with_the_transaction() {
    let database = TestDatabase::create().await;
    let mut conn = PgConnection::connect(database.url()).await.unwrap();
    let mut tx = conn.begin().await.unwrap();
    sqlx::query("select amends.publish('gone', '{}')").execute(&mut *tx).await.unwrap();
    tx.rollback().await.unwrap();
    let id: Uuid = sqlx::query_scalar("select amends.publish('order.placed', $1, $2, headers => $3)")
        .bind(json!({ "a": "O'Hara 🦀" }))
        .bind("k'1")
        .bind(json!({ "traceparent": "00-x" }))
        .fetch_one(&mut conn)
        .await
        .unwrap();
    assert_eq!(id.get_version_num(), 7, "consumers partition by it");
    sqlx::query("select amends.publish('order.placed', null, name => 'n', id => $1)")
        .bind(Uuid::nil())
        .execute(&mut conn)
        .await
        .unwrap();
    let rows: Vec<(Uuid, Option<String>, String, String, String, String)> = sqlx::query_as(
        "select id, key, topic, name, headers::text, convert_from(payload, 'UTF8') from amends.outbox
         where content_type = 'application/json' and xid <> '0' order by seq",
    )
    .fetch_all(&mut conn)
    .await
    .unwrap();
    let of = |text: &str| text.to_owned();
    let placed = of("order.placed");
    let headers = of("{\"traceparent\": \"00-x\"}");
    assert_eq!(rows[0], (id, Some(of("k'1")), placed.clone(), placed.clone(), headers, of("{\"a\": \"O'Hara 🦀\"}")));
    assert_eq!(rows[1], (Uuid::nil(), None, placed, of("n"), of("{}"), of("null")));
    assert_eq!(rows.len(), 2);
}
