//! Whose turn it is: semantic locks, and sagas that start by themselves.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use amends::event::Outcome;
use amends::memory::MemoryTx;
use amends::store::{Lock, NewSaga, Store};
use amends::{
    Capability, Data, Definition, Error, Json, Saga, SagaId, Schedule, Started, Step, StepFuture, StepKind, Steps, Tick,
};
use tokio::sync::Semaphore;

use crate::script::{Log, Script, ok, rejects, waits_for};
use crate::stage::{Stage, until, work};

async fn start(stage: &Stage, script: &Script, lock: &str, refuse: bool) -> Result<Started, Error> {
    let lock = Some(Lock { key: lock.to_owned(), refuse });
    stage.store.start(NewSaga { lock, ..NewSaga::new(&script.definition, Json::null()) }, None).await
}

async fn waiting(stage: &Stage, script: &Script, lock: &str) -> SagaId {
    start(stage, script, lock, false).await.unwrap().id()
}

#[tokio::test(start_paused = true)]
async fn of_sagas_with_one_lock_one_runs_at_a_time_in_the_order_of_their_starts() {
    let gate = Arc::new(Semaphore::new(0));
    let script = Script::new().call("a", waits_for(&gate, ok())).timeout(Duration::from_hours(1));
    let stage = Stage::new();
    let first = waiting(&stage, &script, "account 1").await;
    let second = waiting(&stage, &script, "account 1").await;
    let third = waiting(&stage, &script, "account 1").await;
    let other = waiting(&stage, &script, "account 2").await;
    let _worker = stage.work(&script);

    until(|| script.log.count("a") == 2).await;
    for (ends, waits) in [(first, second), (second, third)] {
        stage.until(waits, |loaded| loaded.owner.is_none()).await;
        assert!(stage.load(waits).await.journal.is_empty(), "it is not its turn");
        gate.add_permits(if ends == first { 2 } else { 1 });
        assert_eq!(stage.outcome(ends).await, Some(Outcome::Completed));
    }
    gate.add_permits(1);
    assert_eq!(stage.outcome(third).await, Some(Outcome::Completed));
    assert_eq!(stage.outcome(other).await, Some(Outcome::Completed));
}

#[tokio::test(start_paused = true)]
async fn a_saga_that_is_undone_holds_its_lock_until_it_is() {
    let gate = Arc::new(Semaphore::new(0));
    let script = Script::new()
        .call("a", ok())
        .undo(StepKind::Call, waits_for(&gate, ok()))
        .call("no", rejects())
        .named("undone");
    let stage = Stage::new();
    let first = waiting(&stage, &script, "x").await;
    let second = waiting(&stage, &script, "x").await;
    let _worker = stage.work(&script);

    until(|| script.log.count("undo a") == 1).await;
    assert_eq!(script.log.count("a"), 1, "the second one waits");
    gate.add_permits(2);

    assert_eq!(stage.outcome(first).await, Some(Outcome::Compensated));
    assert_eq!(stage.outcome(second).await, Some(Outcome::Compensated));
}

#[tokio::test(start_paused = true)]
async fn a_saga_that_waits_for_its_turn_can_be_cancelled() {
    let gate = Arc::new(Semaphore::new(0));
    let script = Script::new().call("a", waits_for(&gate, ok())).timeout(Duration::from_hours(1));
    let stage = Stage::new();
    let _first = waiting(&stage, &script, "x").await;
    let second = waiting(&stage, &script, "x").await;
    let worker = stage.work(&script);
    until(|| script.log.count("a") == 1).await;

    worker.sagas.cancel(second, "too slow").await.unwrap();

    assert_eq!(stage.outcome(second).await, Some(Outcome::Compensated));
    assert_eq!(script.log.lines(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_does_not_wait_is_refused_while_another_saga_has_the_lock() {
    let script = Script::new().call("a", ok());
    let stage = Stage::new();
    let first = start(&stage, &script, "x", true).await.unwrap().id();

    let refused = start(&stage, &script, "x", true).await;
    let _worker = stage.work(&script);
    stage.rests(first).await;
    let later = start(&stage, &script, "x", true).await;

    assert!(matches!(&refused, Err(Error::Locked { holder, .. }) if *holder == first), "{refused:?}");
    assert!(later.is_ok(), "{later:?}");
}

/// Notes when it was started.
struct Report(Log);

impl Saga for Report {
    type Input = Tick;
    type Output = ();
    const DEFINITION: &'static Definition = &Definition {
        name: Cow::Borrowed("report"),
        version: 1,
        since: 1,
        steps: Cow::Borrowed(STEPS),
        deadline: None,
        concurrency: None,
        schedule: Some(Schedule::Every(Duration::from_mins(5))),
    };

    fn scheduled(tick: Tick) -> Option<Tick> {
        Some(tick)
    }
}

const STEPS: &[Step] = &[Step::new(Cow::Borrowed("send"), StepKind::Call)];

impl Steps<MemoryTx> for Report {
    fn execute<'a>(&'a self, _: usize, _: Capability<'a, MemoryTx>, data: Data) -> StepFuture<'a> {
        Box::pin(async move {
            self.0.push(data.input::<Tick>()?.at.to_rfc3339());
            Ok(Json::null())
        })
    }

    fn compensate<'a>(&'a self, _: usize, _: Capability<'a, MemoryTx>, _: Data) -> StepFuture<'a> {
        unreachable!("nothing to undo")
    }
}

#[tokio::test(start_paused = true)]
async fn a_saga_with_a_schedule_starts_once_for_all_workers() {
    let (stage, log) = (Stage::new(), Log::default());
    let sagas = || amends::Sagas::builder(stage.store.clone()).register(Report(log.clone())).build().unwrap();
    let _workers = [work(sagas()), work(sagas()), work(sagas())];

    tokio::time::sleep(Duration::from_mins(26)).await;

    let lines = log.lines();
    assert!(lines.len() == 5 || lines.len() == 6, "every five minutes: {lines:?}");
    let mut once = lines.clone();
    once.dedup();
    assert_eq!(once, lines);
    assert!(lines.iter().all(|line| line.contains("0:00+") || line.contains("5:00+")), "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn what_was_missed_is_made_up_for_once() {
    let (stage, log) = (Stage::new(), Log::default());
    let sagas = || amends::Sagas::builder(stage.store.clone()).register(Report(log.clone())).build().unwrap();
    let worker = work(sagas());
    until(|| log.lines().len() == 1).await;
    worker.shuts_down().await;

    tokio::time::sleep(Duration::from_hours(2)).await;
    let _worker = work(sagas());
    until(|| log.lines().len() == 3).await;

    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(log.lines().len(), 3, "one for all that was missed, then the next in its time");
}
