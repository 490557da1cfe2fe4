//! The journal's primary key is the fence, and one bad or slow write never harms its neighbours.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::time::Duration;

use amends::store::{Append, Appended, Head, NewSaga};
use amends::{
    Definition, Event, Json, MessageId, OutboxMessage, SagaId, Status, StepTransaction, Store, StoreError, WorkerId,
};
use amends_postgres::PgStore;
use amends_postgres::testing::TestDatabase;
use sqlx::PgPool;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(10);

fn message(topic: &str) -> OutboxMessage {
    OutboxMessage {
        id: MessageId::new(),
        topic: topic.into(),
        name: "thing.happened".into(),
        key: None,
        content_type: "application/json".into(),
        headers: std::collections::BTreeMap::new(),
        payload: b"{}".to_vec(),
    }
}

fn append(saga: SagaId, seq: i64, writer: WorkerId, nonce: i64) -> Append {
    let events = vec![Event::Succeeded { step: "reserve".into(), output: Json::null() }];
    let head = Some(Head { status: Status::Completed, wake_in: None, release: true, parked: None });
    let outbox = vec![message("thing.happened")];
    Append { saga, seq, writer, nonce, events, head, outbox, starts: Vec::new(), wakes: None }
}

async fn start(store: &PgStore) -> SagaId {
    let definition = Definition::new("shop".into(), 1, Vec::new().into());
    store.start(NewSaga::new(&definition, Json::null()), None).await.unwrap().id()
}

async fn count(pool: &PgPool, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(pool).await.unwrap()
}

#[tokio::test]
async fn a_stopped_tx_step_does_not_hold_up_the_appends_of_others() {
    let database = TestDatabase::create().await;
    let store = PgStore::new(database.pool().clone());
    let (blocked, worker) = (start(&store).await, WorkerId::new());
    // A tx step that has written its record and was stopped before its commit.
    let mut stopped = database.pool().begin().await.unwrap();
    sqlx::query("insert into amends.journal (saga_id, seq, writer, nonce, events) values ($1, 1, $2, 0, '[]')")
        .bind(blocked.0)
        .bind(WorkerId::new().0)
        .execute(&mut *stopped)
        .await
        .unwrap();
    let waiting = tokio::spawn({
        let (store, append) = (store.clone(), append(blocked, 1, worker, 0));
        async move { store.append(append).await }
    });
    for nonce in 0..100 {
        let saga = start(&store).await;
        let answer = timeout(SOON, store.append(append(saga, 1, worker, nonce))).await.expect("others go on").unwrap();
        assert!(matches!(answer, Appended::Done(_)));
    }
    assert!(!waiting.is_finished(), "its own append waits for the verdict");
    stopped.rollback().await.unwrap();
    let answer = timeout(SOON, waiting).await.expect("it goes on after the rollback").unwrap().unwrap();
    assert!(matches!(answer, Appended::Done(_)));
}

#[tokio::test]
async fn a_write_that_cannot_be_stored_fails_alone() {
    let database = TestDatabase::create().await;
    let store = PgStore::new(database.pool().clone());
    let worker = WorkerId::new();
    let mut writes = Vec::new();
    for nonce in 0..30 {
        let mut append = append(start(&store).await, 1, worker, nonce);
        if nonce == 13 {
            append.outbox = vec![message("a topic with a \0")];
        }
        writes.push(store.append(append));
    }
    let answers = futures_util::future::join_all(writes).await;
    for (nonce, answer) in answers.into_iter().enumerate() {
        match answer {
            Err(StoreError::Refused(_)) => assert_eq!(nonce, 13),
            answer => assert!(nonce != 13 && matches!(answer, Ok(Appended::Done(_))), "{nonce}: {answer:?}"),
        }
    }
}

#[tokio::test]
async fn a_tx_step_that_lost_its_saga_leaves_no_trace() {
    let database = TestDatabase::create().await;
    let store = PgStore::new(database.pool().clone());
    sqlx::query("create table ledger (amount int)").execute(database.pool()).await.unwrap();
    let saga = start(&store).await;
    let mut tx = store.begin().await.unwrap();
    sqlx::query("insert into ledger values (1)").execute(tx.conn()).await.unwrap();
    store.append(append(saga, 1, WorkerId::new(), 0)).await.unwrap();
    assert_eq!(tx.commit(append(saga, 1, WorkerId::new(), 0)).await.unwrap(), Appended::Conflict);
    assert_eq!(count(database.pool(), "select count(*) from ledger").await, 0);
}

#[tokio::test]
async fn a_body_that_commits_by_itself_is_found_out() {
    let database = TestDatabase::create().await;
    let store = PgStore::new(database.pool().clone());
    let saga = start(&store).await;
    let mut tx = store.begin().await.unwrap();
    sqlx::raw_sql("commit; begin").execute(tx.conn()).await.unwrap();
    let answer = tx.commit(append(saga, 1, WorkerId::new(), 0)).await;
    assert!(matches!(answer, Err(StoreError::TransactionEnded)), "{answer:?}");
    assert_eq!(count(database.pool(), "select count(*) from amends.journal").await, 0);
}

#[tokio::test]
async fn a_missing_or_newer_schema_is_one_clear_error() {
    let database = TestDatabase::create_empty().await;
    let missing = PgStore::connect(database.pool().clone()).await.unwrap_err();
    assert!(missing.to_string().contains("amends-relay migrate"), "{missing}");
    amends_migrations::migrator().run(database.pool()).await.unwrap();
    PgStore::connect(database.pool().clone()).await.unwrap();
    sqlx::query("insert into amends._sqlx_migrations select 99, description, installed_on, true, checksum, 0 from amends._sqlx_migrations limit 1")
        .execute(database.pool())
        .await
        .unwrap();
    let newer = PgStore::connect(database.pool().clone()).await.unwrap_err();
    assert!(newer.to_string().contains("update the program"), "{newer}");
}
