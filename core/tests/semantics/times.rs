//! Delays, timeouts, retries and deadlines.

use std::time::Duration;

use amends::event::{Cause, Event};
use amends::{Json, RetryPolicy, StepError};

use super::script::{Log, PAUSE, Script, calls, fails, hangs, json, notes_output, ok, takes};
use super::stage::Stage;

const SHORT: Duration = Duration::from_millis(60);
const LONG: Duration = Duration::from_millis(200);
/// Short enough to wait for, and long enough for a busy store to begin.
const DEADLINE: Duration = Duration::from_millis(400);

#[tokio::test]
async fn a_delayed_step_waits_before_its_first_attempt() {
    let script = Script::new().tx("a", ok()).tx("b", ok()).with(|step| step.delay = LONG);
    let stage = Stage::new().await;

    let (_worker, saga) = stage.play(&script).await;

    stage.completes(saga).await;
    let journal = stage.load(saga).await.journal;
    let waited = (journal[1].at - journal[0].at).to_std().unwrap();
    assert!(waited + PAUSE > LONG, "{waited:?}");
}

#[tokio::test]
async fn a_saga_that_fails_before_a_delayed_step_was_due_knows_that_it_did_not_run() {
    let script = Script::new()
        .call("later", ok())
        .with(|step| step.delay = Duration::from_hours(1))
        .undo(ok())
        .call("now", super::script::rejects("no"))
        .after(&[]);
    let stage = Stage::new().await;

    let (_worker, saga) = stage.play(&script).await;

    stage.is_compensated(saga).await;
    assert_eq!(script.log.lines(), ["now"]);
}

#[tokio::test]
async fn a_call_without_an_answer_in_time_may_have_happened_and_is_undone_without_its_output() {
    let log = Log::default();
    let script = Script::new().call("charge", hangs()).timeout(SHORT).attempts(1).undo(notes_output(&log, 0));
    let stage = Stage::new().await;

    let (_worker, saga) = stage.play(&script).await;

    stage.is_compensated(saga).await;
    assert_eq!(log.lines(), ["None"]);
    let events = stage.events(saga).await;
    assert!(matches!(&events[0], Event::Failed { failure, .. } if failure.cause == Cause::Timeout), "{events:?}");
}

#[tokio::test]
async fn a_transaction_that_takes_too_long_did_not_happen() {
    let script = Script::new().tx("reserve", takes(Duration::from_secs(2))).timeout(SHORT).attempts(1).undo(ok());
    let stage = Stage::new().await;

    let (_worker, saga) = stage.play(&script).await;

    stage.is_compensated(saga).await;
    assert_eq!(script.log.lines(), ["reserve"]);
}

#[tokio::test]
async fn a_failed_attempt_is_tried_again_until_one_succeeds() {
    let third =
        calls(|call| if call.attempt() < 3 { Err(StepError::retry("again")) } else { Ok(json(&call.attempt())) });
    let script = Script::new().call("charge", third).attempts(3);
    let stage = Stage::new().await;

    let (_worker, saga) = stage.play(&script).await;

    stage.completes(saga).await;
    assert_eq!(stage.output(saga, "charge").await, Some(3));
    assert_eq!(script.log.count("charge"), 3);
}

#[tokio::test]
async fn every_attempt_sees_the_same_idempotency_key_and_the_compensation_names_it() {
    let keys = Log::default();
    let (forward, undo) = (keys.clone(), keys.clone());
    let charge = calls(move |call| {
        forward.push(call.idempotency_key());
        Err(StepError::retry("again"))
    });
    let refund = calls(move |call| {
        undo.push(call.step_key());
        undo.push(call.idempotency_key());
        Ok(Json::null())
    });
    let script = Script::new().call("charge", charge).attempts(2).undo(refund);
    let stage = Stage::new().await;

    let (_worker, saga) = stage.play(&script).await;

    stage.is_compensated(saga).await;
    let key = format!("{saga}/charge");
    assert_eq!(keys.lines(), [key.clone(), key.clone(), key.clone(), format!("{key}/undo")]);
}

#[tokio::test]
async fn a_budget_ends_the_retries_however_many_attempts_are_left() {
    let policy = RetryPolicy { attempts: None, first: PAUSE, longest: PAUSE, jitter: 0, budget: Some(SHORT) };
    let script = Script::new().call("charge", fails()).with(|step| step.retry = policy);
    let stage = Stage::new().await;

    let (_worker, saga) = stage.play(&script).await;

    stage.is_compensated(saga).await;
    // After the first failure there is room for four pauses of 15 ms in 60 ms.
    let attempts = script.log.count("charge");
    assert!((2..=5).contains(&attempts), "{attempts}");
}

#[tokio::test]
async fn a_compensation_that_fails_is_tried_again() {
    let script = Script::new()
        .call("charge", ok())
        .undo(super::script::fails_first(2, ok()))
        .tx("no", super::script::rejects("no"));
    let stage = Stage::new().await;

    let (_worker, saga) = stage.play(&script).await;

    stage.is_compensated(saga).await;
    assert_eq!(script.log.count("undo charge"), 3);
}

#[tokio::test]
async fn a_saga_that_has_not_passed_its_pivot_by_its_deadline_is_undone() {
    let script =
        Script::new().tx("reserve", ok()).undo(ok()).signal("approval").tx("ship", ok()).pivot().deadline(DEADLINE);
    let stage = Stage::new().await;

    let (_worker, saga) = stage.play(&script).await;

    stage.is_compensated(saga).await;
    let log = &script.log;
    assert_eq!((log.count("undo reserve"), log.count("ship")), (log.count("reserve"), 0));
    assert!(stage.events(saga).await.contains(&Event::DeadlinePassed));
}

#[tokio::test]
async fn a_deadline_does_not_wait_for_the_next_attempt() {
    let hour = Duration::from_hours(1);
    let patient = RetryPolicy { first: hour, longest: hour, ..RetryPolicy::STEP };
    let script = Script::new().call("charge", fails()).with(|step| step.retry = patient).undo(ok()).deadline(DEADLINE);
    let stage = Stage::new().await;

    let (_worker, saga) = stage.play(&script).await;

    stage.is_compensated(saga).await;
    assert_eq!(script.log.lines(), ["charge", "undo charge"]);
}

#[tokio::test]
async fn a_saga_that_has_passed_its_pivot_has_no_deadline_any_more() {
    let deadline = Duration::from_secs(2);
    let script = Script::new()
        .tx("reserve", ok())
        .undo(ok())
        .tx("ship", ok())
        .pivot()
        .signal("receipt")
        .tx("mail", ok())
        .deadline(deadline);
    let stage = Stage::new().await;
    let (worker, saga) = stage.play(&script).await;
    stage.until(saga, |loaded| loaded.now > loaded.started_at + deadline).await;

    worker.signal(saga, "receipt", ()).await.unwrap();

    stage.completes(saga).await;
    assert_eq!(script.log.lines(), ["reserve", "ship", "begin receipt", "mail"]);
    assert!(!stage.events(saga).await.contains(&Event::DeadlinePassed));
}
