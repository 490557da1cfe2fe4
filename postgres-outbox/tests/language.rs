//! The SQL functions by which other languages publish, start, signal, answer and cancel.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use amends::{
    Answer, Begin, Capability, Data, Definition, Json, MessageId, OutboxMessage, Rejection, SagaId, Sagas, Step, StepFuture,
    StepKind, StepResult, Steps, Store, WorkerOptions,
};
use amends_postgres::testing::TestDatabase;
use amends_postgres::{Delivered, PgStore, StepTx, deliver_reply};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, PgPool};
use support::until;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// approve (signal) → offer (request; compensated by a request too) → decide (request, pivot).
fn definition(patience: Duration) -> Definition {
    let offer = Step {
        after: vec![0].into(),
        compensation: Some(amends::Compensation::new("withdraw".into(), StepKind::Request)),
        ..Step::new("offer".into(), StepKind::Request)
    };
    let decide = Step {
        after: vec![1].into(),
        pivot: true,
        timeout: patience,
        ..Step::new("decide".into(), StepKind::Request)
    };
    let steps = vec![Step::new("approve".into(), StepKind::Signal), offer, decide];
    Definition::new("approval".into(), 1, steps.into())
}

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

async fn define(conn: &mut PgConnection, definition: &Definition) {
    sqlx::query("insert into amends.definition (fingerprint, name, version, definition) values ($1, $2, $3, $4)")
        .bind(definition.fingerprint())
        .bind(&*definition.name)
        .bind(definition.version as i32)
        .bind(serde_json::to_value(definition).unwrap())
        .execute(conn)
        .await
        .unwrap();
}

async fn start(
    conn: &mut PgConnection,
    name: &str,
    key: Option<&str>,
    input: &Value,
    version: Option<i32>,
) -> Result<SagaId, sqlx::Error> {
    let id: Uuid = sqlx::query_scalar("select amends.start_saga($1, $2, $3, $4)")
        .bind(name)
        .bind(key)
        .bind(input)
        .bind(version)
        .fetch_one(conn)
        .await?;
    Ok(SagaId(id))
}

async fn signal(
    conn: &mut PgConnection,
    saga: SagaId,
    step: &str,
    payload: Value,
    id: Uuid,
) -> Result<(), sqlx::Error> {
    sqlx::query("select amends.signal($1, $2, $3, $4)")
        .bind(saga.0)
        .bind(step)
        .bind(payload)
        .bind(id)
        .execute(conn)
        .await
        .map(drop)
}

async fn cancel(conn: &mut PgConnection, saga: SagaId, id: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query("select amends.cancel_saga($1, $2, $3)")
        .bind(saga.0)
        .bind("the \"customer\" changed \\ her mind")
        .bind(id)
        .execute(conn)
        .await
        .map(drop)
}

fn code<T: std::fmt::Debug>(result: Result<T, sqlx::Error>) -> String {
    result.unwrap_err().as_database_error().unwrap().code().unwrap().into_owned()
}

fn done(value: &Value) -> Answer {
    Answer::Done(Json::encode(value).unwrap())
}

fn nested(levels: usize) -> Value {
    (0..levels).fold(json!(1), |inner, level| if level % 2 == 0 { json!([inner]) } else { json!({ "a": inner }) })
}

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
        assert_eq!(stage.reply(saga, "offer", false, &done(&json!({ "price": 1.10 })), offer).await, Delivered::Appended);
    }
    stage.until(ASKED).await;
    assert_eq!(stage.reply(saga, "decide", false, &done(&nested(99)), Uuid::new_v4()).await, Delivered::Appended);
    stage.until(COMPLETED).await;

    // The same id counted once, and what was said is what the steps returned.
    let state = stage_store(&stage).load(saga).await.unwrap().unwrap();
    assert_eq!(state.input.decode::<Value>().unwrap(), input);
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
    let gaps: i64 = sqlx::query_scalar("select max(seq) - count(*) from amends.journal")
        .fetch_one(stage.pool())
        .await
        .unwrap();
    assert_eq!(gaps, 0);
    // In a transaction that is rolled back it was never sent.
    let mut tx = stage.conn.begin().await.unwrap();
    signal(&mut tx, saga, "approve", json!(1), Uuid::new_v4()).await.unwrap();
    tx.rollback().await.unwrap();
    assert_eq!(journal(stage.pool(), "signalled").await, 15);
    stage.finish().await;
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
    let rows: i64 = sqlx::query_scalar("select (select count(*) from amends.journal) + (select count(*) from amends.outbox)")
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
