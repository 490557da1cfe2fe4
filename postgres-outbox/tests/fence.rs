//! The journal's primary key is the fence, and one bad or slow write never harms its neighbours.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::time::Duration;

use amends::store::{Append, Appended, Head, NewSaga, Started, WorkerStore};
use amends::{
    Definition, Error, Event, Json, MessageId, OutboxMessage, SagaId, Status, StepTransaction, Store, StoreError,
    WorkerId,
};
use amends_postgres::PgStore;
use amends_postgres::testing::TestDatabase;
use sqlx::PgPool;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(10);

fn new_saga(key: Option<&str>, input: i64) -> NewSaga {
    let definition = Definition::new("shop".into(), 1, Vec::new().into());
    NewSaga { key: key.map(str::to_owned), ..NewSaga::new(&definition, Json::encode(&input).unwrap()) }
}

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
    store.start(new_saga(None, 1), None).await.unwrap().id()
}

async fn count(pool: &PgPool, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(pool).await.unwrap()
}

#[tokio::test]
async fn a_stale_append_changes_nothing_and_its_batch_goes_on() {
    let database = TestDatabase::create().await;
    let store = PgStore::new(database.pool().clone());
    let (first, stale) = (WorkerId::new(), WorkerId::new());
    let contested = start(&store).await;
    let adopted = Append {
        events: vec![Event::Adopted { by: first }],
        head: None,
        outbox: Vec::new(),
        ..append(contested, 1, first, 0)
    };
    assert!(matches!(store.append(adopted).await.unwrap(), Appended::Done(_)));

    let mut sagas = Vec::new();
    for _ in 0..50 {
        sagas.push(start(&store).await);
    }
    let mut writes = vec![store.append(append(contested, 1, stale, 0))];
    writes.extend(sagas.iter().map(|saga| store.append(append(*saga, 1, stale, 1))));
    let answers = futures_util::future::try_join_all(writes).await.unwrap();

    assert_eq!(answers[0], Appended::Conflict);
    assert!(answers[1..].iter().all(|answer| matches!(answer, Appended::Done(_))));
    let status: String = sqlx::query_scalar("select status from amends.saga where id = $1")
        .bind(contested.0)
        .fetch_one(database.pool())
        .await
        .unwrap();
    assert_eq!(status, "running", "the head did not move");
    assert_eq!(count(database.pool(), "select count(*) from amends.outbox").await, 50, "no message of the stale one");
}

#[tokio::test]
async fn a_repeated_append_whose_answer_was_lost_is_recognised() {
    let database = TestDatabase::create().await;
    let store = PgStore::new(database.pool().clone());
    let (saga, writer) = (start(&store).await, WorkerId::new());
    let first = store.append(append(saga, 1, writer, 7)).await.unwrap();
    assert_eq!(store.append(append(saga, 1, writer, 7)).await.unwrap(), first, "the same row, not a conflict");
    assert_eq!(store.append(append(saga, 1, writer, 8)).await.unwrap(), Appended::Conflict);
    assert_eq!(count(database.pool(), "select count(*) from amends.outbox").await, 1);
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
async fn an_interrupted_transaction_can_never_commit() {
    let database = TestDatabase::create().await;
    let store = PgStore::new(database.pool().clone());
    let saga = start(&store).await;
    let tx = store.begin().await.unwrap();
    tx.interrupter().await;
    let answer = tx.commit(append(saga, 1, WorkerId::new(), 0)).await;
    assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
    assert_eq!(count(database.pool(), "select count(*) from amends.journal").await, 0);
}

#[tokio::test]
async fn a_worker_whose_lease_has_run_out_cannot_renew_it() {
    let database = TestDatabase::create().await;
    let store = PgStore::new(database.pool().clone());
    let worker = WorkerId::new();
    store.register(worker, "it", SOON).await.unwrap();
    store.heartbeat(worker, SOON).await.unwrap();

    sqlx::query("update amends.worker set expires_at = clock_timestamp()").execute(database.pool()).await.unwrap();

    let renewed = store.heartbeat(worker, SOON).await;
    assert!(matches!(renewed, Err(StoreError::WorkerLost)), "others may have adopted its sagas: {renewed:?}");
}

#[tokio::test]
async fn a_business_key_starts_one_saga_however_many_ask_at_once() {
    let database = TestDatabase::create().await;
    let store = PgStore::new(database.pool().clone());
    let answers =
        futures_util::future::try_join_all((0..40).map(|_| store.start(new_saga(Some("o-1"), 1), None))).await.unwrap();
    let new = answers.iter().filter(|answer| matches!(answer, Started::New(_))).count();
    assert_eq!(new, 1);
    assert!(answers.iter().all(|answer| answer.id() == answers[0].id()));
    assert_eq!(count(database.pool(), "select count(*) from amends.saga").await, 1);

    let other = store.start(new_saga(Some("o-1"), 2), None).await;
    assert!(matches!(other, Err(Error::KeyConflict { existing, .. }) if existing == answers[0].id()), "{other:?}");
    let mut tx = database.pool().begin().await.unwrap();
    assert!(matches!(store.start_in(&mut tx, new_saga(Some("o-1"), 1)).await.unwrap(), Started::Existing(_)));
    assert!(matches!(store.start_in(&mut tx, new_saga(Some("o-1"), 2)).await, Err(Error::KeyConflict { .. })));
}

#[tokio::test]
async fn a_start_in_a_transaction_that_rolls_back_never_was() {
    let database = TestDatabase::create().await;
    let store = PgStore::new(database.pool().clone());
    let mut tx = database.pool().begin().await.unwrap();
    store.start_in(&mut tx, new_saga(Some("o-1"), 1)).await.unwrap();
    tx.rollback().await.unwrap();
    assert_eq!(count(database.pool(), "select count(*) from amends.saga").await, 0);
    assert!(matches!(store.start(new_saga(Some("o-1"), 2), None).await.unwrap(), Started::New(_)), "the key is free");
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
