//! Sagas a second, against the same rows written a commit a step.

use std::sync::Arc;
use std::time::{Duration, Instant};

use amends::{Call, Sagas, StepResult, WorkerOptions, saga};
use amends_postgres::PgStore;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::Fault;

/// A saga's place among those in flight.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Slot {
    slot: usize,
}

struct ThreeSteps {
    finished: Arc<[Notify]>,
}

/// Three steps that do nothing but be recorded.
#[saga(name = "bench-three-steps", version = 1, input = Slot)]
impl ThreeSteps {
    #[step(call, compensate = none)]
    async fn first(&self, _call: &Call, input: &Slot) -> StepResult<usize> {
        Ok(input.slot)
    }

    #[step(call, compensate = none)]
    async fn second(&self, _call: &Call, first: &usize) -> StepResult<usize> {
        Ok(first + 1)
    }

    #[step(call, compensate = none)]
    async fn third(&self, _call: &Call, input: &Slot, second: &usize) -> StepResult<usize> {
        self.finished[input.slot].notify_one();
        Ok(second + 1)
    }
}

/// Runs `total` sagas with `in_flight` at a time; sagas a second from the first start to the last end.
pub(crate) async fn orchestrated(pool: &PgPool, in_flight: usize, total: usize) -> Result<f64, Fault> {
    let finished: Arc<[Notify]> = (0..in_flight).map(|_| Notify::new()).collect();
    let options = WorkerOptions { concurrency: in_flight * 5 / 4, ..WorkerOptions::default() };
    let sagas = Sagas::builder(PgStore::connect(pool.clone()).await?)
        .register(ThreeSteps { finished: Arc::clone(&finished) })
        .worker(options)
        .build()?;
    let shutdown = CancellationToken::new();
    let worker = tokio::spawn({
        let (sagas, shutdown) = (sagas.clone(), shutdown.clone());
        async move { sagas.run(shutdown).await }
    });
    wait_for_worker(pool).await?;

    let began = Instant::now();
    let lanes = (0..in_flight).map(|slot| {
        let (sagas, finished) = (sagas.clone(), Arc::clone(&finished));
        tokio::spawn(async move {
            for _ in 0..total / in_flight {
                sagas.start_now(ThreeSteps::unkeyed(), &Slot { slot }).await?;
                finished[slot].notified().await;
            }
            Ok::<_, amends::Error>(())
        })
    });
    for lane in lanes.collect::<Vec<_>>() {
        lane.await??;
    }
    let expected = (total / in_flight * in_flight) as i64;
    while ended(pool).await? < expected {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let rate = expected as f64 / began.elapsed().as_secs_f64();
    shutdown.cancel();
    worker.await??;
    Ok(rate)
}

async fn wait_for_worker(pool: &PgPool) -> Result<(), Fault> {
    while sqlx::query_scalar::<_, i64>("select count(*) from amends.worker").fetch_one(pool).await? == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

async fn ended(pool: &PgPool) -> Result<i64, Fault> {
    Ok(sqlx::query_scalar("select count(*) from amends.saga where status = 'completed'").fetch_one(pool).await?)
}

/// Writes the same rows with a transaction a step: the head with the first, its end with the last.
pub(crate) async fn commit_per_step(pool: &PgPool, connections: usize, total: usize) -> Result<f64, Fault> {
    let began = Instant::now();
    let lanes: Vec<_> = (0..connections)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move {
                let mut conn = pool.acquire().await?;
                for _ in 0..total / connections {
                    one_saga(&mut conn).await?;
                }
                Ok::<_, sqlx::Error>(())
            })
        })
        .collect();
    for lane in lanes {
        lane.await??;
    }
    Ok((total / connections * connections) as f64 / began.elapsed().as_secs_f64())
}

async fn one_saga(conn: &mut sqlx::PgConnection) -> Result<(), sqlx::Error> {
    use sqlx::Connection;
    let id = Uuid::now_v7();
    for seq in 1..=3 {
        let mut tx = conn.begin().await?;
        if seq == 1 {
            sqlx::query(
                "insert into amends.saga (id, name, version, fingerprint, owner, wake_at, input) values ($1, 'raw', 1, $1, $1, null, $2::json)",
            )
            .bind(id)
            .bind(r#"{"slot":1}"#)
            .execute(&mut *tx)
            .await?;
        }
        sqlx::query(
            "insert into amends.journal (saga_id, seq, writer, nonce, events) values ($1, $2, $1, $2, $3::json)",
        )
        .bind(id)
        .bind(seq)
        .bind(r#"[{"succeeded":{"step":"first","output":1}}]"#)
        .execute(&mut *tx)
        .await?;
        if seq == 3 {
            sqlx::query(
                "update amends.saga set status = 'completed', owner = null, ended_at = clock_timestamp() where id = $1",
            )
            .bind(id)
            .execute(&mut *tx)
            .await?;
        }
        tx.commit().await?;
    }
    Ok(())
}
