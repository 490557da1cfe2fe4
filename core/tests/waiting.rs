//! Sagas that wait cost the worker nothing.
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use amends::memory::MemoryTx;
use amends::store::{NewSaga, Store};
use amends::{
    Capability, Data, Definition, Json, MemoryStore, RetryPolicy, Sagas, Step, StepError, StepFuture, StepKind, Steps,
    WorkerOptions,
};
use tokio::runtime::Handle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

const SAGAS: usize = 100_000;
const HOUR: Duration = Duration::from_hours(1);

/// Asks once, is told to come again in an hour, and counts who asked.
struct Patient(Arc<AtomicUsize>);

impl Steps<MemoryTx> for Patient {
    fn execute<'a>(&'a self, _: usize, _: Capability<'a, MemoryTx>, _: Data) -> StepFuture<'a> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Box::pin(async { Err(StepError::retry("not yet")) })
    }

    fn compensate<'a>(&'a self, _: usize, _: Capability<'a, MemoryTx>, _: Data) -> StepFuture<'a> {
        unreachable!("nothing to undo")
    }
}

fn definition() -> Definition {
    let retry = RetryPolicy { attempts: None, first: 2 * HOUR, longest: 2 * HOUR, ..RetryPolicy::STEP };
    let step = Step { retry, ..Step::new("ask".into(), StepKind::Call) };
    Definition::new("patient".into(), 1, vec![step].into())
}

#[tokio::test(start_paused = true)]
async fn a_hundred_thousand_sagas_that_wait_for_a_retry_hold_no_task_and_no_owner() {
    let (store, definition) = (MemoryStore::new(), definition());
    let mut sagas = Vec::with_capacity(SAGAS);
    for _ in 0..SAGAS {
        let saga = NewSaga::new(&definition, Json::null());
        sagas.push(store.start(saga, None).await.unwrap().id());
    }
    let asked = Arc::new(AtomicUsize::new(0));
    // Few claims, since the store in memory looks at every saga in each.
    let options = WorkerOptions { concurrency: 2 * SAGAS, batch: SAGAS, ..WorkerOptions::default() };
    let worker = Sagas::builder(store.clone())
        .register_dynamic(definition, Patient(Arc::clone(&asked)))
        .worker(options)
        .build()
        .unwrap();
    tokio::spawn(async move { worker.run(CancellationToken::new()).await });

    while asked.load(Ordering::SeqCst) < SAGAS || Handle::current().metrics().num_alive_tasks() > 2 {
        sleep(Duration::from_millis(100)).await;
    }

    // What is alive is the worker's loop and its heartbeat.
    for saga in sagas {
        let loaded = store.load(saga).await.unwrap().unwrap();
        assert_eq!((loaded.owner, loaded.journal.len()), (None, 1));
    }
}
