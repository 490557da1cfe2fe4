//! What people ask of a saga: to undo it, to send it on.

use std::sync::Arc;
use std::time::Duration;

use amends::event::{Event, Outcome};
use amends::{Error, Resolution, Status, StepKind};
use tokio::sync::Semaphore;

use crate::script::{Script, fails, fails_first, hangs_first, ok, rejects, waits_for};
use crate::stage::{Stage, until};

const HOUR: Duration = Duration::from_hours(1);

#[tokio::test(start_paused = true)]
async fn a_cancelled_saga_is_undone() {
    let script = Script::new().tx("reserve", ok()).undo(StepKind::Tx, ok()).call("charge", fails()).retry(3, HOUR);
    let stage = Stage::new();
    let (worker, saga) = stage.play(&script).await;
    stage.until(saga, |loaded| loaded.owner.is_none() && loaded.journal.len() == 2).await;

    let began = tokio::time::Instant::now();
    worker.sagas.cancel(saga, "changed my mind").await.unwrap();

    assert_eq!(stage.outcome(saga).await, Some(Outcome::Compensated));
    assert!(began.elapsed() < HOUR / 2, "without waiting for the retry");
    assert_eq!(script.log.lines(), ["reserve", "charge", "undo reserve"]);
}

#[tokio::test(start_paused = true)]
async fn a_cancel_from_another_process_reaches_a_saga_while_it_runs() {
    let gate = Arc::new(Semaphore::new(0));
    let script = Script::new()
        .call("charge", waits_for(&gate, ok()))
        .undo_output(StepKind::Call, ok())
        .timeout(2 * HOUR)
        .call("ship", ok());
    let stage = Stage::new();
    let (_worker, saga) = stage.play(&script).await;
    until(|| script.log.count("charge") == 1).await;

    stage.sagas(&script).cancel(saga, "changed my mind").await.unwrap();
    stage.until(saga, |loaded| loaded.fold().cancelled_at.is_some()).await;
    gate.add_permits(1);

    assert_eq!(stage.outcome(saga).await, Some(Outcome::Compensated));
    assert_eq!(script.log.lines(), ["charge", "undo charge"], "what was under way is awaited, then undone");
}

#[tokio::test(start_paused = true)]
async fn a_cancel_wakes_the_owner_of_a_running_saga() {
    let script = Script::new()
        .call("slow", crate::script::takes(HOUR))
        .timeout(2 * HOUR)
        .call("retried", fails_first(1, ok()))
        .after(&[])
        .retry(3, HOUR / 2)
        .undo(StepKind::Call, ok());
    let stage = Stage::new();
    let (_worker, saga) = stage.play(&script).await;
    until(|| script.log.count("retried") == 1).await;

    stage.sagas(&script).cancel(saga, "changed my mind").await.unwrap();

    assert_eq!(stage.outcome(saga).await, Some(Outcome::Compensated));
    assert_eq!(script.log.lines(), ["slow", "retried", "undo retried"], "the retry was called off");
}

#[tokio::test(start_paused = true)]
async fn a_cancel_past_the_pivot_or_after_the_end_is_refused() {
    let script = Script::new().call("ship", ok()).pivot().call("notify", hangs_first(ok())).timeout(HOUR);
    let stage = Stage::new();
    let (worker, saga) = stage.play(&script).await;
    stage.until(saga, |loaded| loaded.journal.len() == 1).await;

    let past_pivot = worker.sagas.cancel(saga, "too late").await;
    assert_eq!(stage.outcome(saga).await, Some(Outcome::Completed));
    let after_end = worker.sagas.cancel(saga, "much too late").await;

    assert!(matches!(past_pivot, Err(Error::Refused { .. })), "{past_pivot:?}");
    assert!(matches!(after_end, Err(Error::Refused { .. })), "{after_end:?}");
    assert!(!stage.events(saga).await.iter().any(|event| matches!(event, Event::Cancelled { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_parked_saga_is_sent_on() {
    let script = Script::new().call("ship", ok()).pivot().call("notify", fails_first(3, ok()));
    let stage = Stage::new();
    let (worker, saga) = stage.play(&script).await;
    assert_eq!(stage.rests(saga).await, Status::Parked);

    worker.sagas.resolve(saga, &Resolution::Retry, "ann", "the service is back").await.unwrap();

    assert_eq!(stage.until(saga, |loaded| loaded.status.is_final()).await.status, Status::Completed);
    assert_eq!(script.log.count("notify"), 4);
}

#[tokio::test(start_paused = true)]
async fn a_stuck_compensation_is_sent_on() {
    let script = Script::new().call("charge", ok()).undo(StepKind::Call, fails_first(3, ok())).tx("no", rejects());
    let stage = Stage::new();
    let (worker, saga) = stage.play(&script).await;
    assert_eq!(stage.rests(saga).await, Status::Parked);

    worker.sagas.resolve(saga, &Resolution::Retry, "ann", "").await.unwrap();

    assert_eq!(stage.until(saga, |loaded| loaded.status.is_final()).await.status, Status::Compensated);
}

#[tokio::test(start_paused = true)]
async fn only_a_parked_saga_can_be_sent_on() {
    let script = Script::new().call("a", ok());
    let stage = Stage::new();
    let (worker, saga) = stage.play(&script).await;
    stage.rests(saga).await;

    let refused = worker.sagas.resolve(saga, &Resolution::Retry, "ann", "").await;
    let missing = worker.sagas.resolve(amends::SagaId::new(), &Resolution::Retry, "ann", "").await;

    assert!(matches!(refused, Err(Error::Refused { .. })));
    assert!(matches!(missing, Err(Error::NoSuchSaga(_))));
}
