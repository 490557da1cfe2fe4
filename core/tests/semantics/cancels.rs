//! Undoing a saga because somebody says so, and what that would do.

use std::sync::Arc;
use std::time::Duration;

use amends::{Error, SagaId, Status};
use tokio::sync::Semaphore;

use super::script::{Log, Script, gives, json, notes_output, ok, waits_for};
use super::stage::{Stage, done, refusal};

#[tokio::test]
async fn a_saga_that_waits_for_a_signal_can_be_cancelled() {
    let script = Script::new().tx("reserve", ok()).undo(ok()).signal("approval").undo(ok());
    let stage = Stage::new().await;
    let (worker, saga) = stage.play(&script).await;
    stage.waits_at(saga, "approval").await;

    worker.sagas.cancel(saga, "the customer says so").await.unwrap();

    stage.is_compensated(saga).await;
    assert_eq!(script.log.lines(), ["reserve", "begin approval", "undo reserve"]);
    assert_eq!(stage.state(saga).await.cancel_reason.as_deref(), Some("the customer says so"));
}

#[tokio::test]
async fn a_cancelled_saga_undoes_a_request_without_waiting_for_its_reply() {
    let log = Log::default();
    let script = Script::new().request("ship").undo(notes_output(&log, 0));
    let stage = Stage::new().await;
    let (worker, saga) = stage.play(&script).await;
    stage.waits_at(saga, "ship").await;

    worker.sagas.cancel(saga, "no").await.unwrap();

    stage.is_compensated(saga).await;
    assert_eq!(log.lines(), ["None"]);
}

#[tokio::test]
async fn a_cancelled_saga_waits_for_the_reply_that_its_compensation_needs() {
    let log = Log::default();
    let script = Script::new().request("ship").undo_output(notes_output(&log, 0)).tx("mail", ok());
    let stage = Stage::new().await;
    let (worker, saga) = stage.play(&script).await;
    stage.waits_at(saga, "ship").await;
    worker.sagas.cancel(saga, "no").await.unwrap();
    stage.until(saga, |loaded| loaded.owner.is_none() && loaded.status == Status::Compensating).await;
    assert_eq!(log.lines(), Vec::<String>::new());

    stage.reply_to(saga, "ship", done(7)).await;

    stage.is_compensated(saga).await;
    assert_eq!(log.lines(), [r#"Some("7")"#]);
    assert_eq!(script.log.count("mail"), 0);
}

#[tokio::test]
async fn a_cancelled_saga_undoes_the_child_that_it_waits_for_first() {
    let child = Script::named("child").tx("a", ok()).undo(ok()).signal("stay");
    let script = Script::new().tx("reserve", ok()).undo(ok()).child("book", &child).undo_child();
    let stage = Stage::new().await;
    let worker = stage.work(&[&script, &child]);
    let saga = stage.start(&script).await;
    let booking = stage.child_of(saga, "book").await;
    stage.waits_at(booking, "stay").await;

    worker.sagas.cancel(saga, "no").await.unwrap();

    stage.is_compensated(saga).await;
    assert_eq!(stage.load(booking).await.status, Status::Compensated);
    assert_eq!(child.log.lines(), ["a", "begin stay", "undo a"]);
    assert_eq!(script.log.lines(), ["reserve", "begin book", "undo reserve"]);
}

#[tokio::test]
async fn a_call_that_is_under_way_when_its_saga_is_cancelled_is_undone_once_it_has_come_back() {
    let gate = Arc::new(Semaphore::new(0));
    let log = Log::default();
    let script = Script::new().call("charge", waits_for(&gate, gives(7))).undo(notes_output(&log, 0)).tx("ship", ok());
    let stage = Stage::new().await;
    let (worker, saga) = stage.play(&script).await;
    super::stage::until(|| script.log.count("charge") == 1).await;

    worker.sagas.cancel(saga, "no").await.unwrap();
    gate.add_permits(1);

    stage.is_compensated(saga).await;
    assert_eq!(log.lines(), [r#"Some("7")"#]);
    assert_eq!(script.log.lines(), ["charge", "undo charge"]);
}

#[tokio::test]
async fn a_saga_that_is_cancelled_before_any_worker_has_seen_it_does_nothing() {
    let script = Script::new().tx("reserve", ok()).undo(ok());
    let stage = Stage::new().await;
    let saga = stage.start(&script).await;
    let sagas = stage.sagas(&[&script]);
    sagas.cancel(saga, "no").await.unwrap();

    let _worker = super::stage::Worker::of(sagas);

    stage.is_compensated(saga).await;
    assert_eq!(script.log.lines(), Vec::<String>::new());
}

#[tokio::test]
async fn what_has_ended_is_past_its_pivot_or_never_was_cannot_be_cancelled() {
    let script = Script::new().tx("reserve", ok()).undo(ok()).tx("ship", ok()).pivot().signal("receipt");
    let stage = Stage::new().await;
    let (worker, saga) = stage.play(&script).await;
    stage.waits_at(saga, "receipt").await;

    let past_pivot = refusal(worker.sagas.cancel(saga, "no").await);
    worker.signal(saga, "receipt", ()).await.unwrap();
    stage.completes(saga).await;
    let ended = refusal(worker.sagas.cancel(saga, "no").await);
    let nobody = worker.sagas.cancel(SagaId::new(), "no").await;

    assert!(past_pivot.contains("past its pivot"), "{past_pivot}");
    assert!(ended.contains("it has ended"), "{ended}");
    assert!(matches!(nobody, Err(Error::NoSuchSaga(_))));
    assert_eq!(script.log.count("undo reserve"), 0);
}

#[tokio::test]
async fn a_plan_lists_the_compensations_in_their_order_with_what_they_receive_and_what_stays() {
    let script = Script::new()
        .tx("reserve", gives(1))
        .undo(ok())
        .undo_reads(&["input"])
        .call("charge", gives(2))
        .undo(ok())
        .undo_reads(&["reserve", "charge"])
        .call("insure", gives(3))
        .after(&["reserve"])
        .undo(ok())
        .call("mail", ok())
        .after(&["charge", "insure"])
        .signal("approval")
        .tx("ship", ok())
        .undo(ok());
    let stage = Stage::new().await;
    let worker = stage.work(&[&script]);
    let saga = stage.start_with(&script, "order 7").await;
    stage.waits_at(saga, "approval").await;

    let plan = worker.sagas.plan(saga).await.unwrap();

    let rounds: Vec<Vec<&str>> =
        plan.rounds.iter().map(|round| round.iter().map(|undo| &*undo.step).collect()).collect();
    assert_eq!(rounds, [vec!["insure", "charge"], vec!["reserve"]]);
    let charge = &plan.rounds[0][1];
    assert_eq!(charge.compensation, "undo_charge");
    assert_eq!(charge.arguments, [("reserve".into(), Some(json(&1))), ("charge".into(), Some(json(&2)))]);
    assert_eq!(plan.rounds[1][0].arguments, [("input".into(), Some(json("order 7")))]);
    assert_eq!((plan.in_doubt, plan.refused), (Vec::<String>::new(), None));
    assert_eq!(plan.not_undone, ["mail"], "a signal that has not come did not happen");
}

#[tokio::test]
async fn a_plan_says_what_would_have_to_be_found_out_first_and_what_nobody_undoes() {
    let script = Script::new()
        .request("ship")
        .undo_output(ok())
        .undo_reads(&["ship"])
        .call("mail", super::script::fails())
        .after(&[])
        .with(|step| step.retry.first = Duration::from_mins(1))
        .with(|step| step.retry.longest = Duration::from_mins(1));
    let stage = Stage::new().await;
    let (worker, saga) = stage.play(&script).await;
    stage.waits_at(saga, "ship").await;
    stage.until(saga, |loaded| loaded.owner.is_none() && loaded.fold().steps.len() == 2).await;

    let plan = worker.sagas.plan(saga).await.unwrap();

    assert_eq!(plan.in_doubt, ["ship"]);
    assert_eq!(plan.rounds.len(), 1);
    assert_eq!(plan.rounds[0][0].step, "ship");
    assert_eq!(plan.rounds[0][0].arguments, [("ship".into(), None)], "nobody knows it yet");
    assert_eq!(plan.not_undone, ["mail"], "an attempt that failed may have sent it");
}

#[tokio::test]
async fn a_plan_of_what_cannot_be_undone_says_why() {
    let script = Script::new().tx("ship", ok()).pivot().signal("receipt");
    let stage = Stage::new().await;
    let (worker, saga) = stage.play(&script).await;
    stage.waits_at(saga, "receipt").await;

    let plan = worker.sagas.plan(saga).await.unwrap();

    assert!(plan.refused.unwrap().contains("past its pivot"));
    assert!(plan.rounds.is_empty());
}
