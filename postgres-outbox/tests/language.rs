//! The SQL functions by which other languages publish, start, signal, answer and cancel.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use amends::{
    Answer, Begin, Capability, Data, MessageId, OutboxMessage, Rejection, SagaId, Sagas, StepFuture, StepResult, Steps,
    Store, WorkerOptions,
};
use amends_postgres::testing::TestDatabase;
use amends_postgres::{Delivered, PgStore, StepTx, deliver_reply};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, PgPool};
use support::sql::{cancel, code, define, definition, done, nested, signal, start};
use support::until;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

struct Approval;

impl Steps<StepTx> for Approval {
    fn execute<'a>(&'a self, step: usize, _: Capability<'a, StepTx>, _: Data) -> StepFuture<'a> {
        panic!("step {step} waits")
    }

    fn compensate<'a>(&'a self, step: usize, _: Capability<'a, StepTx>, _: Data) -> StepFuture<'a> {
        panic!("step {step} is undone by a request")
    }

    fn begin(&self, step: usize, undo: bool, _: Data) -> StepResult<Begin> {
        let topic = match (step, undo) {
            (0, _) => return Ok(Begin::Listen),
            (1, false) => "offer.make",
            (1, true) => "offer.withdraw",
            _ => "decision.ask",
        };
        Ok(Begin::Message(OutboxMessage {
            id: MessageId::new(),
            topic: topic.into(),
            name: topic.into(),
            key: None,
            content_type: "application/json".into(),
            headers: BTreeMap::new(),
            payload: b"{}".to_vec(),
        }))
    }
}

/// A worker, and a plain connection as another language would open it.
struct Stage {
    database: TestDatabase,
    conn: PgConnection,
    shutdown: CancellationToken,
    worker: tokio::task::JoinHandle<Result<(), amends::Error>>,
}

impl Stage {
    async fn new(patience: Duration) -> Self {
        let database = TestDatabase::create().await;
        let definition = definition(patience);
        let mut conn = PgConnection::connect(database.url()).await.unwrap();
        define(&mut conn, &definition).await;
        let options = WorkerOptions { poll: Duration::from_millis(20), ..WorkerOptions::default() };
        let store = PgStore::new(database.pool().clone());
        let sagas = Sagas::builder(store).worker(options).register_dynamic(definition, Approval).build().unwrap();
        let shutdown = CancellationToken::new();
        let worker = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { sagas.run(shutdown).await }
        });
        Self { database, conn, shutdown, worker }
    }

    fn pool(&self) -> &PgPool {
        self.database.pool()
    }

    async fn start(&mut self) -> SagaId {
        start(&mut self.conn, "approval", None, &json!({}), None).await.unwrap()
    }

    async fn signal(&mut self, saga: SagaId, payload: Value, id: Uuid) -> Result<(), sqlx::Error> {
        signal(&mut self.conn, saga, "approve", payload, id).await
    }

    async fn reply(&mut self, saga: SagaId, step: &str, undo: bool, answer: &Answer, id: Uuid) -> Delivered {
        deliver_reply(&mut self.conn, saga, step, undo, 1, answer, id).await.unwrap()
    }

    async fn until(&self, condition: &'static str) {
        until(self.pool(), condition).await;
    }

    async fn finish(self) {
        self.shutdown.cancel();
        self.worker.await.unwrap().unwrap();
    }
}

const OFFERED: &str = "select exists (select from amends.outbox where topic = 'offer.make')";
const WITHDRAWN: &str = "select exists (select from amends.outbox where topic = 'offer.withdraw')";
const ASKED: &str = "select exists (select from amends.outbox where topic = 'decision.ask')";
const COMPLETED: &str = "select bool_and(status = 'completed') from amends.saga";
const COMPENSATED: &str = "select bool_and(status = 'compensated') from amends.saga";
const PARKED: &str = "select bool_and(status = 'parked' and parked_as is not null and owner is null) from amends.saga";

async fn journal(pool: &PgPool, event: &str) -> i64 {
    sqlx::query_scalar(
        "select count(*) from amends.journal j cross join json_array_elements(j.events) as e(event)
         where e.event -> $1 is not null",
    )
    .bind(event)
    .fetch_one(pool)
    .await
    .unwrap()
}

#[tokio::test]
async fn a_saga_is_started_signalled_and_answered_in_plain_sql() {
    let mut stage = Stage::new(Duration::MAX).await;
    let input = json!({ "deep": nested(99), "text": "O'Hara \"quoted\" 🦀\n" });
    let key = Some("O'Hara; \"drop\" 🦀 \\");
    let saga = start(&mut stage.conn, "approval", key, &input, None).await.unwrap();
    let (early, offer) = (Uuid::new_v4(), Uuid::new_v4());
    for _ in 0..3 {
        stage.signal(saga, json!({ "by": "Zoë 'Q' 🦀", "deep": nested(98) }), early).await.unwrap();
    }
    stage.until(OFFERED).await;
    for _ in 0..2 {
        assert_eq!(
            stage.reply(saga, "offer", false, &done(&json!({ "price": 1.10 })), offer).await,
            Delivered::Appended
        );
    }
    stage.until(ASKED).await;
    assert_eq!(stage.reply(saga, "decide", false, &done(&nested(99)), Uuid::new_v4()).await, Delivered::Appended);
    stage.until(COMPLETED).await;

    // The same id counted once, and what was said is what the steps returned.
    let loaded = stage_store(&stage).load(saga).await.unwrap().unwrap();
    assert_eq!(loaded.input.decode::<Value>().unwrap(), input);
    assert_eq!(journal(stage.pool(), "succeeded").await, 3);
    let price: Value = sqlx::query_scalar(
        "select e.event -> 'succeeded' -> 'output' from amends.journal j cross join json_array_elements(j.events) as e(event)
         where e.event -> 'succeeded' ->> 'step' = 'offer'",
    )
    .fetch_one(stage.pool())
    .await
    .unwrap();
    assert_eq!(price, json!({ "price": 1.10 }));

    // It has ended.
    assert_eq!(stage.reply(saga, "decide", false, &done(&json!(1)), Uuid::new_v4()).await, Delivered::Ended);
    assert_eq!(code(stage.signal(saga, json!(1), Uuid::new_v4()).await), "55000");
    assert_eq!(code(cancel(&mut stage.conn, saga, Uuid::new_v4()).await), "55000");
    assert_eq!(stage.reply(SagaId::new(), "decide", false, &done(&json!(1)), early).await, Delivered::Unknown);
    assert_eq!(code(stage.signal(SagaId::new(), json!(1), early).await), "P0002");
    assert_eq!(code(cancel(&mut stage.conn, SagaId(Uuid::nil()), early).await), "P0002");
    stage.finish().await;
}

fn stage_store(stage: &Stage) -> PgStore {
    PgStore::new(stage.pool().clone())
}

#[tokio::test]
async fn a_late_reply_settles_what_a_saga_was_parked_over_and_another_one_does_not() {
    let mut stage = Stage::new(Duration::from_millis(100)).await;
    let saga = stage.start().await;
    stage.signal(saga, json!(true), Uuid::new_v4()).await.unwrap();
    stage.until(OFFERED).await;
    stage.reply(saga, "offer", false, &done(&json!(1)), Uuid::new_v4()).await;
    stage.until(PARKED).await;

    // What it was not parked over changes nothing.
    let cause = parked_as(stage.pool()).await;
    stage.reply(saga, "offer", false, &done(&json!(2)), Uuid::new_v4()).await;
    stage.reply(saga, "decide", true, &done(&json!(2)), Uuid::new_v4()).await;
    stage.signal(saga, json!(false), Uuid::new_v4()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    stage.until(PARKED).await;
    assert_eq!(parked_as(stage.pool()).await, cause);

    stage.reply(saga, "decide", false, &done(&json!("yes")), Uuid::new_v4()).await;
    stage.until(COMPLETED).await;
    let left: Option<Uuid> = parked_as(stage.pool()).await;
    assert_eq!(left, None);
    stage.finish().await;
}

async fn parked_as(pool: &PgPool) -> Option<Uuid> {
    sqlx::query_scalar("select parked_as from amends.saga").fetch_one(pool).await.unwrap()
}

#[tokio::test]
async fn a_rejection_and_a_cancellation_undo_what_was_done() {
    for cancelled in [false, true] {
        let mut stage = Stage::new(Duration::MAX).await;
        let saga = stage.start().await;
        stage.signal(saga, json!(true), Uuid::new_v4()).await.unwrap();
        stage.until(OFFERED).await;
        stage.reply(saga, "offer", false, &done(&json!(1)), Uuid::new_v4()).await;
        stage.until(ASKED).await;
        if cancelled {
            let id = Uuid::new_v4();
            cancel(&mut stage.conn, saga, id).await.unwrap();
            cancel(&mut stage.conn, saga, id).await.unwrap();
        }
        let no = Answer::Rejected(Rejection::new("too_dear"));
        stage.reply(saga, "decide", false, &no, Uuid::new_v4()).await;
        stage.until(WITHDRAWN).await;
        stage.reply(saga, "offer", true, &done(&Value::Null), Uuid::new_v4()).await;
        stage.until(COMPENSATED).await;
        assert_eq!(journal(stage.pool(), "compensated").await, 1);
        stage.finish().await;
    }
}

#[tokio::test]
async fn appends_from_outside_take_their_turns() {
    let mut stage = Stage::new(Duration::MAX).await;
    let saga = stage.start().await;
    let signals = (0..15).map(|round| {
        let pool = stage.pool().clone();
        async move {
            let mut conn = pool.acquire().await.unwrap();
            signal(&mut conn, saga, "other", json!(round), Uuid::new_v4()).await.unwrap();
        }
    });
    futures_util::future::join_all(signals).await;
    assert_eq!(journal(stage.pool(), "signalled").await, 15);
    let gaps: i64 =
        sqlx::query_scalar("select max(seq) - count(*) from amends.journal").fetch_one(stage.pool()).await.unwrap();
    assert_eq!(gaps, 0);
    // In a transaction that is rolled back it was never sent.
    let mut tx = stage.conn.begin().await.unwrap();
    signal(&mut tx, saga, "approve", json!(1), Uuid::new_v4()).await.unwrap();
    tx.rollback().await.unwrap();
    assert_eq!(journal(stage.pool(), "signalled").await, 15);
    stage.finish().await;
}
