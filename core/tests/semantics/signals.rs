//! Steps that wait for somebody to say something.

use std::sync::Arc;
use std::time::Duration;

use amends::event::{Event, ParkReason};
use amends::{Correlation, Error, Status};
use tokio::sync::Semaphore;

use super::script::{Log, Script, fails, json, notes, ok, rejects, waits_for};
use super::stage::{Stage, done, refusal};

fn approval(log: &Log) -> Script {
    Script::new()
        .tx("reserve", ok())
        .undo(ok())
        .signal("approval")
        .accepts::<u32>()
        .tx("ship", notes(log, |data| Ok(format!("approved {}", data.output::<u32>(1)?))))
        .reads(&["approval"])
}

#[tokio::test]
async fn a_signal_is_what_the_step_that_waits_for_it_returns() {
    let log = Log::default();
    let script = approval(&log);
    let stage = Stage::new().await;
    let (worker, saga) = stage.play(&script).await;
    stage.waits_at(saga, "approval").await;

    worker.signal(saga, "approval", 7_u32).await.unwrap();

    stage.completes(saga).await;
    assert_eq!(log.lines(), ["approved 7"]);
}

#[tokio::test]
async fn a_signal_that_comes_before_the_step_waits_is_kept_for_it() {
    let gate = Arc::new(Semaphore::new(0));
    let script = Script::new().call("reserve", waits_for(&gate, ok())).signal("approval");
    let stage = Stage::new().await;
    let (worker, saga) = stage.play(&script).await;
    super::stage::until(|| script.log.count("reserve") == 1).await;

    worker.signal(saga, "approval", 7_u32).await.unwrap();
    gate.add_permits(1);

    stage.completes(saga).await;
    assert_eq!(stage.output(saga, "approval").await, Some(7));
    assert_eq!(script.log.count("reserve"), 1, "the call was not disturbed");
}

#[tokio::test]
async fn a_signal_that_comes_before_any_worker_has_seen_the_saga_is_kept_too() {
    let script = Script::new().tx("reserve", ok()).signal("approval");
    let stage = Stage::new().await;
    let saga = stage.start(&script).await;

    let sagas = stage.sagas(&[&script]);
    sagas.signal(saga, amends::StepRef::new("approval"), &7_u32).await.unwrap();
    let _worker = super::stage::Worker::of(sagas);

    stage.completes(saga).await;
    assert_eq!(stage.output(saga, "approval").await, Some(7));
}

#[tokio::test]
async fn a_step_may_refuse_a_signal_that_comes_before_it_waits() {
    let gate = Arc::new(Semaphore::new(0));
    let script =
        Script::new().call("reserve", waits_for(&gate, ok())).signal("approval").with(|step| step.refuses_early = true);
    let stage = Stage::new().await;
    let (worker, saga) = stage.play(&script).await;

    let early = refusal(worker.signal(saga, "approval", 7_u32).await);
    gate.add_permits(1);
    stage.waits_at(saga, "approval").await;
    worker.signal(saga, "approval", 8_u32).await.unwrap();

    assert!(early.contains("does not wait for a signal now"), "{early}");
    stage.completes(saga).await;
    assert_eq!(stage.output(saga, "approval").await, Some(8));
}

#[tokio::test]
async fn a_second_signal_is_refused_once_the_step_has_had_its_own() {
    let script = Script::new().signal("approval").signal("stay");
    let stage = Stage::new().await;
    let (worker, saga) = stage.play(&script).await;
    stage.waits_at(saga, "approval").await;
    worker.signal(saga, "approval", 7_u32).await.unwrap();
    stage.waits_at(saga, "stay").await;

    let second = refusal(worker.signal(saga, "approval", 8_u32).await);

    assert!(second.contains("has had its signal"), "{second}");
    worker.signal(saga, "stay", ()).await.unwrap();
    stage.completes(saga).await;
    assert_eq!(stage.output(saga, "approval").await, Some(7));
}

#[tokio::test]
async fn a_signal_of_another_type_is_refused_and_the_step_waits_on() {
    let log = Log::default();
    let script = approval(&log);
    let stage = Stage::new().await;
    let (worker, saga) = stage.play(&script).await;
    stage.waits_at(saga, "approval").await;

    worker.signal(saga, "approval", "yes".to_owned()).await.unwrap();
    let refused = |event: &Event| matches!(event, Event::SignalRefused { step, .. } if step == "approval");
    let was_refused = |loaded: &amends::store::Loaded| {
        loaded.owner.is_none() && loaded.journal.iter().flat_map(|row| &row.events).any(refused)
    };
    stage.until(saga, was_refused).await;
    worker.signal(saga, "approval", 7_u32).await.unwrap();

    stage.completes(saga).await;
    assert_eq!(log.lines(), ["approved 7"]);
}

#[tokio::test]
async fn of_a_wrong_and_a_right_signal_that_both_came_early_the_right_one_counts() {
    let log = Log::default();
    let script = approval(&log);
    let stage = Stage::new().await;
    let saga = stage.start(&script).await;
    let sagas = stage.sagas(&[&script]);
    sagas.signal(saga, amends::StepRef::new("approval"), &"yes".to_owned()).await.unwrap();
    sagas.signal(saga, amends::StepRef::new("approval"), &7_u32).await.unwrap();

    let _worker = super::stage::Worker::of(sagas);

    stage.completes(saga).await;
    assert_eq!(log.lines(), ["approved 7"]);
}

#[tokio::test]
async fn a_signal_that_does_not_come_in_time_did_not_come_and_the_saga_is_undone() {
    let script = Script::new()
        .tx("reserve", ok())
        .undo(ok())
        .signal("approval")
        .timeout(Duration::from_millis(60))
        .undo(ok())
        .tx("ship", ok());
    let stage = Stage::new().await;

    let (worker, saga) = stage.play(&script).await;

    stage.is_compensated(saga).await;
    assert_eq!(script.log.lines(), ["reserve", "begin approval", "undo reserve"]);
    let late = refusal(worker.signal(saga, "approval", 7_u32).await);
    assert!(late.contains("it has ended"), "{late}");
}

#[tokio::test]
async fn a_step_that_had_its_signal_is_undone_like_any_other() {
    let script = Script::new().signal("approval").undo(ok()).tx("ship", rejects("no"));
    let stage = Stage::new().await;
    let (worker, saga) = stage.play(&script).await;
    stage.waits_at(saga, "approval").await;

    worker.signal(saga, "approval", 7_u32).await.unwrap();

    stage.is_compensated(saga).await;
    assert_eq!(script.log.lines(), ["begin approval", "ship", "undo approval"]);
}

#[tokio::test]
async fn a_signal_to_a_step_that_waits_for_none_or_is_not_there_is_refused() {
    let script = Script::new().tx("reserve", ok()).signal("approval");
    let stage = Stage::new().await;
    let (worker, saga) = stage.play(&script).await;

    let no_signal = refusal(worker.signal(saga, "reserve", 7_u32).await);
    let no_step = refusal(worker.signal(saga, "aproval", 7_u32).await);
    let no_saga = worker.signal(amends::SagaId::new(), "approval", 7_u32).await;

    assert!(no_signal.contains("waits for no signal"), "{no_signal}");
    assert!(no_step.contains("no step `aproval`"), "{no_step}");
    assert!(matches!(no_saga, Err(Error::NoSuchSaga(_))));
}

#[tokio::test]
async fn a_signal_to_a_step_to_which_a_saga_that_is_undone_does_not_come_is_refused() {
    let script = Script::new().request("book").undo_by_request().tx("pay", rejects("no")).undo(ok()).signal("approval");
    let stage = Stage::new().await;
    let (worker, saga) = stage.play(&script).await;
    stage.waits_at(saga, "book").await;
    worker.signal(saga, "approval", 7_u32).await.unwrap();
    stage.reply_to(saga, "book", done(())).await;
    stage.until(saga, |loaded| loaded.owner.is_none() && loaded.status == Status::Compensating).await;

    let refused = refusal(worker.signal(saga, "approval", 8_u32).await);

    assert!(refused.contains("does not come to step `approval` any more"), "{refused}");
}

#[tokio::test]
async fn a_signal_to_a_step_that_waits_is_taken_while_the_saga_is_undone() {
    let script = Script::new().signal("approval").request("book").after(&[]).undo_by_request().undo_reads(&["book"]);
    let stage = Stage::new().await;
    let (worker, saga) = stage.play(&script).await;
    stage.waits_at(saga, "approval").await;
    stage.waits_at(saga, "book").await;
    worker.sagas.cancel(saga, "no").await.unwrap();
    let asked_back = |event: &Event| matches!(event, Event::Begun { undo: true, .. });
    stage
        .until(saga, |loaded| {
            loaded.owner.is_none() && loaded.journal.iter().flat_map(|row| &row.events).any(asked_back)
        })
        .await;

    worker.signal(saga, "approval", 7_u32).await.unwrap();
}

#[tokio::test]
async fn a_signal_is_kept_for_a_step_behind_one_that_is_in_doubt() {
    let script = Script::new()
        .call("pay", fails())
        .attempts(1)
        .pivot()
        .probe(|| Err(amends::StepError::retry("down")))
        .signal("approval");
    let stage = Stage::new().await;
    let (worker, saga) = stage.play(&script).await;
    assert_eq!(stage.parks(saga).await, ParkReason::InDoubt { step: "pay".into() });

    worker.signal(saga, "approval", 7_u32).await.unwrap();
    let supplied = amends::Resolution::Supply(json(&()));
    worker.sagas.resolve(saga, &supplied, "ann", "the bank says so").await.unwrap();

    stage.completes(saga).await;
    assert_eq!(stage.output(saga, "approval").await, Some(7));
}

#[tokio::test]
async fn a_signal_is_kept_for_the_way_that_is_taken_instead_and_refused_on_the_one_that_is_given_up() {
    let script = Script::new()
        .tx("open", ok())
        .undo(ok())
        .savepoint()
        .request("book")
        .undo_by_request()
        .call("ask", rejects("no"))
        .undo(ok())
        .signal("approval")
        .alternate(4)
        .signal("other")
        .after(&["open"])
        .tx("ship", ok())
        .after(&["approval"]);
    let stage = Stage::new().await;
    let (worker, saga) = stage.play(&script).await;
    stage.waits_at(saga, "book").await;
    stage.reply_to(saga, "book", done(())).await;
    stage.until(saga, |loaded| loaded.owner.is_none() && loaded.status == Status::Compensating).await;

    let given_up = refusal(worker.signal(saga, "approval", 7_u32).await);
    worker.signal(saga, "other", 8_u32).await.unwrap();
    stage.reply(&Correlation { saga, step: "book".to_owned(), undo: true, attempt: 1 }, done(())).await;

    assert!(given_up.contains("does not come to step `approval` any more"), "{given_up}");
    stage.completes(saga).await;
    assert_eq!(stage.output(saga, "other").await, Some(8));
}
