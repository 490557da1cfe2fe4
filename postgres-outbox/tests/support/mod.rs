//! A saga with every kind of effect, and the ledgers that say what it really did.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use std::borrow::Cow;
use std::time::Duration;

use amends::store::NewSaga;
use amends::{
    Capability, Compensation, Data, Definition, Json, Message, RetryPolicy, SagaId, Sagas, Step, StepError, StepFuture,
    StepKind, StepResult, Steps, WorkerOptions, reject,
};
use amends_postgres::testing::TestDatabase;
use amends_postgres::{PgStore, StepTx};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

pub mod process;
pub mod sql;

/// Which card pays.
pub const GOOD_CARD: i64 = 1;
pub const REFUSED_CARD: i64 = 2;
/// The bank itself says no to this one.
pub const DECLINED_CARD: i64 = 3;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    pub id: i64,
    pub card: i64,
}

#[derive(Debug, Serialize, Deserialize, Message)]
#[message(name = "stock.reserved", key = order)]
pub struct StockReserved {
    pub order: i64,
}

/// reserve (tx) → charge (call) → approve (call, may reject) → ship (tx, pivot).
pub fn definition(name: &str) -> Definition {
    let retry = RetryPolicy {
        attempts: Some(5),
        first: Duration::from_millis(20),
        longest: Duration::from_millis(100),
        ..RetryPolicy::STEP
    };
    let step = |name: &'static str, kind, after: &'static [usize], undo: Option<(&'static str, StepKind)>| Step {
        after: Cow::Borrowed(after),
        compensation: undo.map(|(name, kind)| Compensation {
            retry: RetryPolicy { attempts: None, ..retry },
            timeout: Duration::from_secs(10),
            ..Compensation::new(name.into(), kind)
        }),
        pivot: name == "ship",
        retry,
        timeout: Duration::from_secs(10),
        ..Step::new(name.into(), kind)
    };
    let steps = vec![
        step("reserve", StepKind::Tx, &[], Some(("release", StepKind::Tx))),
        step("charge", StepKind::Call, &[0], Some(("refund", StepKind::Call))),
        step("approve", StepKind::Call, &[1], None),
        step("ship", StepKind::Tx, &[2], None),
    ];
    Definition::new(name.to_owned().into(), 1, steps.into())
}

/// The bodies of the saga. `other` stands for another service's database.
#[derive(Debug, Clone)]
pub struct Shop {
    pub other: PgPool,
    /// This step waits until the row in `gate` is open, and says so.
    pub slow: Option<String>,
}

impl Steps<StepTx> for Shop {
    fn execute<'a>(&'a self, step: usize, capability: Capability<'a, StepTx>, data: Data) -> StepFuture<'a> {
        Box::pin(async move {
            let order: Order = data.input()?;
            self.wait_at_the_gate(STEPS[step]).await?;
            match step {
                0 => {
                    let tx = capability.tx();
                    ledger(tx, order.id, "reserved", 1).await?;
                    tx.publish(&StockReserved { order: order.id })?;
                }
                1 if order.card == DECLINED_CARD => return Err(reject("card_declined")),
                1 => {
                    self.at_the_bank(
                        "insert into charge (key, live) values ($1, true) on conflict do nothing",
                        capability,
                    )
                    .await?;
                }
                2 if order.card == REFUSED_CARD => return Err(reject("card_refused")),
                2 => {}
                _ => ledger(capability.tx(), order.id, "shipped", 1).await?,
            }
            Json::encode(&order.id).map_err(StepError::Data)
        })
    }

    fn compensate<'a>(&'a self, step: usize, capability: Capability<'a, StepTx>, data: Data) -> StepFuture<'a> {
        Box::pin(async move {
            let order: Order = data.input()?;
            match step {
                0 => ledger(capability.tx(), order.id, "reserved", -1).await?,
                // A tombstone: a charge that comes late finds it and does nothing.
                _ => {
                    self.at_the_bank(
                        "insert into charge (key, live) values ($1, false) on conflict (key) do update set live = false",
                        capability,
                    )
                    .await?;
                }
            }
            Ok(Json::null())
        })
    }
}

const STEPS: [&str; 4] = ["reserve", "charge", "approve", "ship"];

impl Shop {
    async fn wait_at_the_gate(&self, step: &str) -> StepResult<()> {
        if self.slow.as_deref() == Some(step) {
            sqlx::query("update gate set arrived = true").execute(&self.other).await?;
            until(&self.other, "select open from gate").await;
        }
        Ok(())
    }

    async fn at_the_bank(&self, sql: &'static str, capability: Capability<'_, StepTx>) -> StepResult<()> {
        let key = capability.call().step_key().to_owned();
        sqlx::query(sql).bind(key).execute(&self.other).await?;
        Ok(())
    }
}

async fn ledger(tx: &mut StepTx, order: i64, what: &str, amount: i64) -> StepResult<()> {
    sqlx::query("insert into ledger (order_id, what, amount) values ($1, $2, $3)")
        .bind(order)
        .bind(what)
        .bind(amount)
        .execute(tx.conn())
        .await?;
    Ok(())
}

pub async fn create_tables(pool: &PgPool) {
    for sql in [
        "create table orders (id bigint primary key, saga uuid not null)",
        "create table ledger (order_id bigint not null, what text not null, amount bigint not null)",
        "create table charge (key text primary key, live boolean not null)",
        "create table gate (arrived boolean not null, open boolean not null)",
        "insert into gate values (false, false)",
    ] {
        sqlx::query(sql).execute(pool).await.unwrap();
    }
}

/// Places an order and starts its saga in one transaction, as an application does.
pub async fn place(store: &PgStore, name: &str, order: &Order) -> SagaId {
    use amends::Store;
    let definition = definition(name);
    let mut tx = store.pool().begin().await.unwrap();
    let key = Some(order.id.to_string());
    let saga = NewSaga { key, ..NewSaga::new(&definition, Json::encode(order).unwrap()) };
    let id = store.start_in(&mut tx, saga).await.unwrap().id();
    sqlx::query("insert into orders (id, saga) values ($1, $2)")
        .bind(order.id)
        .bind(id.0)
        .execute(&mut *tx)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    id
}

/// A worker with a short lease that runs these sagas.
pub fn sagas(pool: &PgPool, names: &[String], slow: Option<String>) -> Sagas<PgStore> {
    let options =
        WorkerOptions { lease: Duration::from_secs(1), poll: Duration::from_millis(20), ..WorkerOptions::default() };
    let builder = Sagas::builder(PgStore::new(pool.clone())).worker(options);
    let shop = Shop { other: pool.clone(), slow };
    names
        .iter()
        .fold(builder, |builder, name| builder.register_dynamic(definition(name), shop.clone()))
        .build()
        .unwrap()
}

/// What an order's ledgers add up to, checked against how its saga ended.
pub async fn assert_balanced(pool: &PgPool, order: &Order, context: &str) {
    let (saga, status): (uuid::Uuid, String) =
        sqlx::query_as("select s.id, s.status from orders o join amends.saga s on s.id = o.saga where o.id = $1")
            .bind(order.id)
            .fetch_one(pool)
            .await
            .unwrap();
    let expected = if order.card == GOOD_CARD { "completed" } else { "compensated" };
    assert_eq!(status, expected, "{context}");
    let (reserved, shipped): (i64, i64) = sqlx::query_as(
        "select coalesce(sum(amount) filter (where what = 'reserved'), 0)::bigint,
                coalesce(sum(amount) filter (where what = 'shipped'), 0)::bigint from ledger where order_id = $1",
    )
    .bind(order.id)
    .fetch_one(pool)
    .await
    .unwrap();
    let live = i64::from(order.card == GOOD_CARD);
    assert_eq!((reserved, shipped), (live, live), "{context}: a tx step takes effect exactly once or is undone");
    let charged: i64 = sqlx::query_scalar("select count(*) from charge where key = $1 and live")
        .bind(format!("{saga}/charge"))
        .fetch_one(pool)
        .await
        .unwrap();
    assert_eq!(charged, live, "{context}: the call's effect");
    let published: i64 = sqlx::query_scalar("select count(*) from amends.outbox where key = $1")
        .bind(order.id.to_string())
        .fetch_one(pool)
        .await
        .unwrap();
    assert_eq!(published, 1, "{context}: one event for the reservation that committed");
}

/// Waits until a condition on the database holds.
pub async fn until(pool: &PgPool, condition: &'static str) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(100);
    while !sqlx::query_scalar::<_, bool>(condition).fetch_one(pool).await.unwrap() {
        assert!(tokio::time::Instant::now() < deadline, "still not true: {condition}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A worker in the test's own process, for what others leave behind.
pub struct Rescuer {
    pool: PgPool,
    shutdown: CancellationToken,
    worker: tokio::task::JoinHandle<Result<(), amends::Error>>,
}

impl Rescuer {
    pub fn start(database: &TestDatabase, names: &[String]) -> Self {
        let sagas = sagas(database.pool(), names, None);
        let shutdown = CancellationToken::new();
        let worker = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { sagas.run(shutdown).await }
        });
        Self { pool: database.pool().clone(), shutdown, worker }
    }

    /// Waits until every saga has ended, then stops.
    pub async fn finish(self) {
        until(&self.pool, "select count(*) = 0 from amends.saga where ended_at is null").await;
        self.shutdown.cancel();
        self.worker.await.unwrap().unwrap();
    }
}

/// How many transactions the database counts in a minute while nobody does anything, from a session of another database.
pub async fn transactions_a_minute(database: &TestDatabase, during: Duration) -> f64 {
    let name = database.pool().connect_options().get_database().unwrap().to_owned();
    let mut conn: sqlx::PgConnection =
        <sqlx::PgConnection as sqlx::Connection>::connect(&std::env::var("DATABASE_URL").unwrap()).await.unwrap();
    let (began, before) = (tokio::time::Instant::now(), transactions(&mut conn, &name).await);
    tokio::time::sleep(during).await;
    let count = transactions(&mut conn, &name).await - before;
    count as f64 * 60.0 / began.elapsed().as_secs_f64()
}

async fn transactions(conn: &mut sqlx::PgConnection, database: &str) -> i64 {
    sqlx::query_scalar("select xact_commit + xact_rollback from pg_stat_database where datname = $1")
        .bind(database)
        .fetch_one(conn)
        .await
        .unwrap()
}
