//! What a body may do wrong: fail, take too long, panic.

use std::sync::Arc;
use std::time::Duration;

use amends::event::{Cause, Event, Outcome, ParkReason};
use amends::{Json, Status, StepKind};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use crate::script::{Script, answers, body, fails, fails_first, hangs, ok, rejects, takes, waits_for};
use crate::stage::{Stage, until};

const MINUTE: Duration = Duration::from_mins(1);

#[tokio::test(start_paused = true)]
async fn a_saga_that_waits_for_a_retry_is_held_by_nobody_and_then_goes_on() {
    let script = Script::new().call("charge", fails_first(1, ok())).retry(3, MINUTE);
    let stage = Stage::new();

    let (_worker, saga) = stage.play(&script).await;

    let waiting = stage.until(saga, |loaded| loaded.owner.is_none() && !loaded.journal.is_empty()).await;
    let began = Instant::now();
    assert_eq!(waiting.status, Status::Running);
    assert_eq!(script.log.count("charge"), 1);
    until(|| script.log.count("charge") == 2).await;
    assert!(began.elapsed() > MINUTE / 3, "the pause is at least half of what the policy says");
    assert_eq!(stage.outcome(saga).await, Some(Outcome::Completed));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_used_up_its_attempts_may_have_happened_and_is_undone() {
    let script = Script::new().call("charge", fails()).undo(StepKind::Call, ok());
    let stage = Stage::new();

    let (_worker, saga) = stage.play(&script).await;

    assert_eq!(stage.outcome(saga).await, Some(Outcome::Compensated));
    assert_eq!(script.log.lines(), ["charge", "charge", "charge", "undo charge"]);
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_used_up_its_attempts_did_not_happen() {
    let script = Script::new().tx("reserve", fails()).undo(StepKind::Tx, ok());
    let stage = Stage::new();

    let (_worker, saga) = stage.play(&script).await;

    assert_eq!(stage.outcome(saga).await, Some(Outcome::Compensated));
    assert_eq!(script.log.count("undo reserve"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_without_an_answer_in_time_is_undone_without_knowing() {
    let undo = body(|_, data| {
        Box::pin(async move {
            assert_eq!(data.maybe_output::<()>(0)?, None);
            Ok(amends::Json::null())
        })
    });
    let script = Script::new().call("charge", hangs()).timeout(MINUTE).retry(1, MINUTE).undo(StepKind::Call, undo);
    let stage = Stage::new();

    let (_worker, saga) = stage.play(&script).await;

    assert_eq!(stage.outcome(saga).await, Some(Outcome::Compensated));
    assert_eq!(script.log.lines(), ["charge", "undo charge"]);
    let events = stage.events(saga).await;
    assert!(matches!(&events[0], Event::Failed { failure, .. } if failure.cause == Cause::Timeout));
}

#[tokio::test(start_paused = true)]
async fn a_call_in_doubt_whose_compensation_needs_its_output_parks() {
    let script = Script::new().call("charge", hangs()).retry(2, MINUTE).undo_output(StepKind::Call, ok());
    let stage = Stage::new();

    let (_worker, saga) = stage.play(&script).await;

    assert_eq!(stage.rests(saga).await, Status::Parked);
    assert_eq!(stage.parked(saga).await, Some(ParkReason::InDoubt { step: "charge".into() }));
    assert_eq!(script.log.count("undo charge"), 0, "never undone blindly");
}

#[tokio::test(start_paused = true)]
async fn a_rejection_after_a_failed_attempt_does_not_hide_what_the_first_may_have_done() {
    let script = Script::new().call("charge", fails_first(1, rejects())).undo(StepKind::Call, ok());
    let stage = Stage::new();

    let (_worker, saga) = stage.play(&script).await;

    assert_eq!(stage.outcome(saga).await, Some(Outcome::Compensated));
    assert_eq!(script.log.lines(), ["charge", "charge", "undo charge"]);
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_a_failed_attempt_and_harms_no_other_saga() {
    let panics = Script::new().call("boom", answers(|| panic!("boom"))).retry(1, MINUTE).tx("never", ok());
    let healthy = Script::new().named("healthy").call("fine", takes(MINUTE)).timeout(2 * MINUTE);
    let stage = Stage::new();
    let sagas = stage.with(&panics).register_dynamic(healthy.definition.clone(), healthy.clone()).build().unwrap();
    let _worker = crate::stage::work(sagas);

    let (panicking, fine) = (stage.start(&panics).await, stage.start(&healthy).await);

    assert_eq!(stage.outcome(panicking).await, Some(Outcome::Compensated));
    assert_eq!(stage.outcome(fine).await, Some(Outcome::Completed));
    let events = stage.events(panicking).await;
    let Event::Failed { failure, .. } = &events[0] else { panic!("{events:?}") };
    assert_eq!((failure.cause, &*failure.error), (Cause::Panic, "the body panicked: boom"));
}

#[tokio::test(start_paused = true)]
async fn a_step_without_a_limit_to_its_time_runs() {
    let script = Script::new().call("long", takes(MINUTE)).timeout(Duration::MAX).retry(2, Duration::MAX);
    let stage = Stage::new();

    let (_worker, saga) = stage.play(&script).await;

    assert_eq!(stage.outcome(saga).await, Some(Outcome::Completed));
}

#[tokio::test(start_paused = true)]
async fn an_endless_pause_is_a_long_one() {
    let script = Script::new().call("charge", fails()).retry(2, Duration::MAX);
    let stage = Stage::new();

    let (_worker, saga) = stage.play(&script).await;

    let waiting = stage.until(saga, |loaded| loaded.owner.is_none() && !loaded.journal.is_empty()).await;
    assert_eq!(waiting.status, Status::Running);
}

#[tokio::test(start_paused = true)]
async fn a_compensation_that_waits_for_its_retry_does_not_wait_for_its_siblings() {
    let script = Script::new()
        .call("left", ok())
        .undo(StepKind::Call, fails_first(1, ok()))
        .call("right", ok())
        .undo(StepKind::Call, takes(20 * Duration::from_secs(1)))
        .after(&[])
        .tx("no", rejects())
        .after(&[0, 1]);
    let stage = Stage::new();

    let (_worker, saga) = stage.play(&script).await;

    until(|| script.log.count("undo left") == 2).await;
    assert_eq!(stage.load(saga).await.status, Status::Compensating, "the other one is still being undone");
    assert_eq!(stage.outcome(saga).await, Some(Outcome::Compensated));
}

#[tokio::test(start_paused = true)]
async fn a_compensation_that_gives_up_parks_the_saga() {
    let script = Script::new().call("charge", ok()).undo(StepKind::Call, fails()).tx("no", rejects());
    let stage = Stage::new();

    let (_worker, saga) = stage.play(&script).await;

    assert_eq!(stage.rests(saga).await, Status::Parked);
    assert_eq!(script.log.count("undo charge"), 3);
    assert_eq!(stage.parked(saga).await, Some(ParkReason::CompensationStuck { step: "charge".into() }));
}

#[tokio::test(start_paused = true)]
async fn a_call_is_not_tried_again_while_somebody_finds_out_whether_it_happened() {
    let (refusal, answer) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let script = Script::new()
        .call("charge", fails_first(1, ok()))
        .retry(3, MINUTE)
        .undo_output(StepKind::Call, ok())
        .probe(&answer, Json::encode(&7).unwrap(), 10 * MINUTE)
        .call("pay", takes(MINUTE / 3))
        .after(&[])
        .pivot()
        .call("check", waits_for(&refusal, rejects()))
        .after(&[]);
    let stage = Stage::new();
    let (_worker, saga) = stage.play(&script).await;
    until(|| script.log.count("charge") == 1).await;

    // It goes back and asks; then it is past its pivot and goes on, and the pause before the next attempt ends.
    refusal.add_permits(1);
    until(|| script.log.count("probe charge") == 1).await;
    sleep(2 * MINUTE).await;
    answer.add_permits(1);

    assert_eq!(stage.rests(saga).await, Status::Parked);
    assert_eq!(stage.parked(saga).await, Some(ParkReason::ForwardStuck { step: "check".into() }));
    assert_eq!(stage.state(saga).await.output("charge", None), Some(&Json::encode(&7).unwrap()));
    assert_eq!(script.log.count("charge"), 1);
}
