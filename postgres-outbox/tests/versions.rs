//! A definition that carries on the sagas of older versions, on real PostgreSQL.
#![allow(clippy::unwrap_used, missing_docs)]

use amends::store::NewSaga;
use amends::{
    Capability, Data, Definition, Json, Sagas, Status, Step, StepFuture, StepKind, Steps, Store, WorkerOptions,
};
use amends_postgres::testing::TestDatabase;
use amends_postgres::{PgStore, StepTx};
use tokio_util::sync::CancellationToken;

struct Nothing;

impl Steps<StepTx> for Nothing {
    fn execute<'a>(&'a self, _: usize, _: Capability<'a, StepTx>, _: Data) -> StepFuture<'a> {
        Box::pin(async { Ok(Json::null()) })
    }

    fn compensate<'a>(&'a self, _: usize, _: Capability<'a, StepTx>, _: Data) -> StepFuture<'a> {
        unreachable!("nothing to undo")
    }
}

fn definition(version: u32) -> Definition {
    let step = Step::new(format!("a{version}").into(), StepKind::Call);
    Definition { since: 1, ..Definition::new("grown".into(), version, vec![step].into()) }
}

#[tokio::test]
async fn a_worker_carries_on_the_sagas_of_older_versions() {
    let database = TestDatabase::create().await;
    let store = PgStore::new(database.pool().clone());
    let old = store.start(NewSaga::new(&definition(1), Json::null()), None).await.unwrap().id();
    let sagas = Sagas::builder(store.clone())
        .register_dynamic(definition(3), Nothing)
        .worker(WorkerOptions { poll: std::time::Duration::from_millis(20), ..WorkerOptions::default() })
        .build()
        .unwrap();
    let shutdown = CancellationToken::new();
    let worker = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { sagas.run(shutdown).await }
    });

    while store.ended(&[old]).await.unwrap().is_empty() {
        assert!(!worker.is_finished(), "the worker does not start");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }

    assert_eq!(store.load(old).await.unwrap().unwrap().status, Status::Completed);
    shutdown.cancel();
    worker.await.unwrap().unwrap();
}
