//! What a step may say of itself: nothing to do, or a definite no.

use std::borrow::Cow;

use amends::{
    Capability, Data, Definition, Ended, Json, Saga, Step, StepError, StepFuture, StepKind, Steps, reject_with, skip,
};
use serde::{Deserialize, Serialize};

use super::Tx;
use super::script::{Log, Script, fails_first, json, notes_output, ok, reads, rejects};
use super::stage::{Stage, Worker};

fn skips() -> super::script::Body {
    reads(|_| Err(skip("nothing to do")))
}

#[tokio::test]
async fn a_step_that_skips_itself_has_no_output_and_what_comes_after_it_runs() {
    let log = Log::default();
    let script = Script::new().tx("wrap", skips()).skippable().tx("ship", notes_output(&log, 0)).reads(&["wrap"]);
    let stage = Stage::new().await;

    let (_worker, saga) = stage.play(&script).await;

    stage.completes(saga).await;
    assert_eq!(log.lines(), ["None"]);
}

#[tokio::test]
async fn a_step_that_skipped_itself_is_not_undone() {
    let script = Script::new()
        .call("wrap", skips())
        .skippable()
        .undo(ok())
        .call("charge", ok())
        .undo(ok())
        .tx("ship", rejects("no"));
    let stage = Stage::new().await;

    let (_worker, saga) = stage.play(&script).await;

    stage.is_compensated(saga).await;
    assert_eq!(script.log.lines(), ["wrap", "charge", "ship", "undo charge"]);
}

#[tokio::test]
async fn a_skip_after_a_failed_attempt_does_not_hide_what_that_may_have_done() {
    let log = Log::default();
    let script = Script::new()
        .call("wrap", fails_first(1, skips()))
        .skippable()
        .undo(notes_output(&log, 0))
        .tx("ship", rejects("no"));
    let stage = Stage::new().await;

    let (_worker, saga) = stage.play(&script).await;

    stage.is_compensated(saga).await;
    assert_eq!(script.log.lines(), ["wrap", "wrap", "ship", "undo wrap"]);
    assert_eq!(log.lines(), ["None"]);
}

#[tokio::test]
async fn a_step_that_is_not_skippable_cannot_skip_itself() {
    let script = Script::new().tx("wrap", skips());
    let stage = Stage::new().await;

    let (_worker, saga) = stage.play(&script).await;

    stage.is_compensated(saga).await;
    assert_eq!(script.log.lines(), ["wrap"], "trying again cannot help");
}

#[tokio::test]
async fn a_rejection_after_a_failed_attempt_does_not_hide_what_that_may_have_done() {
    let script = Script::new().call("charge", fails_first(1, rejects("no"))).undo(ok());
    let stage = Stage::new().await;

    let (_worker, saga) = stage.play(&script).await;

    stage.is_compensated(saga).await;
    assert_eq!(script.log.lines(), ["charge", "charge", "undo charge"]);
}

/// Pays with a card that has a limit.
struct Pay;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Declined {
    limit_cents: i64,
    cards: Vec<String>,
}

impl Saga for Pay {
    type Input = i64;
    type Output = i64;
    const DEFINITION: &'static Definition = &Definition::new(Cow::Borrowed("pay"), 1, Cow::Borrowed(STEPS));
}

const STEPS: &[Step] = &[Step::new(Cow::Borrowed("charge"), StepKind::Call)];

impl Steps<Tx> for Pay {
    fn execute<'a>(&'a self, _: usize, _: Capability<'a, Tx>, data: Data) -> StepFuture<'a> {
        Box::pin(async move {
            let cents: i64 = data.input()?;
            match cents {
                ..0 => Err(StepError::Data(Json::null().decode::<i64>().unwrap_err())),
                0..=5_000 => Ok(json(&(cents + 1))),
                _ => Err(reject_with("declined", &Declined { limit_cents: 5_000, cards: vec!["gold".into()] })),
            }
        })
    }

    fn compensate<'a>(&'a self, _: usize, _: Capability<'a, Tx>, _: Data) -> StepFuture<'a> {
        unreachable!("nothing to undo")
    }
}

#[tokio::test]
async fn the_details_of_a_rejection_come_out_with_their_type() {
    let stage = Stage::new().await;
    let worker = Worker::of(stage.builder().register(Pay).build().unwrap());
    let saga = worker.sagas.start_now(Pay::unkeyed(), &9_999).await.unwrap().id();

    let Ended::Compensated(why) = worker.sagas.outcome::<Pay>(saga).await.unwrap() else { panic!("it completed") };

    assert_eq!(why.step.as_deref(), Some("charge"));
    let rejection = why.rejection.unwrap();
    assert_eq!(rejection.code, "declined");
    assert_eq!(rejection.details::<Declined>().unwrap(), Declined { limit_cents: 5_000, cards: vec!["gold".into()] });
}

#[tokio::test]
async fn a_step_that_gives_up_leaves_its_error_in_the_outcome() {
    let stage = Stage::new().await;
    let worker = Worker::of(stage.builder().register(Pay).build().unwrap());
    let saga = worker.sagas.start_now(Pay::unkeyed(), &-1).await.unwrap().id();

    let Ended::Compensated(why) = worker.sagas.outcome::<Pay>(saga).await.unwrap() else { panic!("it completed") };

    assert_eq!((why.step.as_deref(), why.rejection), (Some("charge"), None));
    assert!(why.error.unwrap().contains("invalid type: null"));
}

#[tokio::test]
async fn a_completed_saga_returns_what_its_last_step_did() {
    let stage = Stage::new().await;
    let worker = Worker::of(stage.builder().register(Pay).build().unwrap());
    let saga = worker.sagas.start_now(Pay::unkeyed(), &41).await.unwrap().id();

    assert_eq!(worker.sagas.outcome::<Pay>(saga).await.unwrap(), Ended::Completed(42));
}
