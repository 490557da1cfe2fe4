//! Kinds of which only so many go forward at once.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use amends::{Capability, Data, Definition, Json, Saga, Step, StepFuture, StepKind, Steps};
use futures_util::future::join_all;
use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::Tx;
use super::script::{Script, ok, waits_for};
use super::stage::{Stage, Worker, until};

/// Counts how many of it are under way.
#[derive(Clone, Default)]
struct Narrow {
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

const STEPS: &[Step] = &[Step::new(Cow::Borrowed("pass"), StepKind::Call)];

impl Saga for Narrow {
    type Input = ();
    type Output = ();
    const DEFINITION: &'static Definition = &Definition {
        name: Cow::Borrowed("narrow"),
        version: 1,
        since: 1,
        steps: Cow::Borrowed(STEPS),
        deadline: None,
        schedule: None,
        concurrency: Some(3),
    };
}

impl Steps<Tx> for Narrow {
    fn execute<'a>(&'a self, _: usize, _: Capability<'a, Tx>, _: Data) -> StepFuture<'a> {
        Box::pin(async move {
            let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
            sleep(Duration::from_millis(10)).await;
            self.now.fetch_sub(1, Ordering::SeqCst);
            Ok(Json::null())
        })
    }

    fn compensate<'a>(&'a self, _: usize, _: Capability<'a, Tx>, _: Data) -> StepFuture<'a> {
        unreachable!("nothing to undo")
    }
}

#[tokio::test]
async fn no_more_go_forward_than_the_bound_says_in_all_workers_together() {
    let stage = Stage::new().await;
    let narrow = Narrow::default();
    let worker = || Worker::of(stage.builder().register(narrow.clone()).build().unwrap());
    let workers = [worker(), worker(), worker()];

    let starts = (0..24).map(|i| workers[i % 3].sagas.start_now(Narrow::unkeyed(), &()));
    let started = join_all(starts).await;
    for saga in started {
        stage.completes(saga.unwrap().id()).await;
    }

    assert_eq!(narrow.most.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn one_that_waits_takes_no_place() {
    let stage = Stage::new().await;
    let script = Script::new().call("a", ok()).signal("go").bounded(1);
    let _worker = stage.work(&[&script]);

    for _ in 0..3 {
        let saga = stage.start(&script).await;
        stage.waits_at(saga, "go").await;
    }
}

#[tokio::test]
async fn one_that_is_undone_is_not_held_up() {
    let stage = Stage::new().await;
    let gate = Arc::new(Semaphore::new(0));
    let script = Script::new().call("a", ok()).undo(ok()).signal("go").call("b", waits_for(&gate, ok())).bounded(1);
    let worker = stage.work(&[&script]);
    let (first, second) = (stage.start(&script).await, stage.start(&script).await);
    stage.waits_at(first, "go").await;
    stage.waits_at(second, "go").await;
    worker.signal(first, "go", ()).await.unwrap();
    until(|| script.log.count("b") == 1).await;

    worker.sagas.cancel(second, "changed my mind").await.unwrap();

    stage.is_compensated(second).await;
    gate.add_permits(1);
    stage.completes(first).await;
}

#[tokio::test]
async fn other_kinds_pass_by() {
    let stage = Stage::new().await;
    let gate = Arc::new(Semaphore::new(0));
    let narrow = Script::named("narrow").call("a", waits_for(&gate, ok())).bounded(1);
    let wide = Script::named("wide").call("a", ok());
    let _worker = stage.work(&[&narrow, &wide]);
    let held = [stage.start(&narrow).await, stage.start(&narrow).await];
    until(|| narrow.log.count("a") == 1).await;

    let passes = stage.start(&wide).await;
    stage.completes(passes).await;

    assert_eq!(narrow.log.count("a"), 1);
    gate.add_permits(2);
    for saga in held {
        stage.completes(saga).await;
    }
}
