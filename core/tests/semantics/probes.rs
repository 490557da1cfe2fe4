//! Finding out whether a step happened.

use amends::event::ParkReason;
use amends::{Resolution, StepError};

use super::script::{Log, Script, fails, json, notes, notes_output, ok};
use super::stage::Stage;

/// A charge that gives up in doubt, and whose refund needs to know what was charged.
fn in_doubt(log: &Log) -> Script {
    Script::new().tx("reserve", ok()).undo(ok()).call("charge", fails()).attempts(1).undo_output(notes_output(log, 1))
}

#[tokio::test]
async fn a_step_that_is_found_to_have_happened_has_succeeded_and_the_saga_goes_on() {
    let log = Log::default();
    let ship = notes(&log, |data| Ok(format!("paid {}", data.output::<u32>(1)?)));
    let script = in_doubt(&log).probe(|| Ok(Some(json(&7)))).tx("ship", ship).reads(&["charge"]);
    let stage = Stage::new().await;

    let (_worker, saga) = stage.play(&script).await;

    stage.completes(saga).await;
    assert_eq!(script.log.lines(), ["reserve", "charge", "probe charge", "ship"]);
    assert_eq!(log.lines(), ["paid 7"]);
}

#[tokio::test]
async fn a_step_that_is_found_not_to_have_happened_is_not_undone() {
    let log = Log::default();
    let script = in_doubt(&log).probe(|| Ok(None));
    let stage = Stage::new().await;

    let (_worker, saga) = stage.play(&script).await;

    stage.is_compensated(saga).await;
    assert_eq!(script.log.lines(), ["reserve", "charge", "probe charge", "undo reserve"]);
}

#[tokio::test]
async fn a_step_that_is_found_to_have_happened_is_undone_with_its_output_if_the_saga_failed_for_another_reason() {
    let log = Log::default();
    let script = Script::new()
        .call("charge", fails())
        .attempts(1)
        .undo_output(notes_output(&log, 0))
        .probe(|| Ok(Some(json(&7))))
        .call("check", super::script::rejects("no"))
        .after(&[]);
    let stage = Stage::new().await;

    let (_worker, saga) = stage.play(&script).await;

    stage.is_compensated(saga).await;
    assert_eq!(log.lines(), [r#"Some("7")"#]);
}

#[tokio::test]
async fn a_saga_whose_step_cannot_be_found_out_about_is_parked_and_undoes_nothing() {
    let log = Log::default();
    let script = in_doubt(&log).probe(|| Err(StepError::retry("the bank is closed")));
    let stage = Stage::new().await;

    let (_worker, saga) = stage.play(&script).await;

    assert_eq!(stage.parks(saga).await, ParkReason::InDoubt { step: "charge".into() });
    assert_eq!(script.log.lines(), ["reserve", "charge", "probe charge", "probe charge"]);
}

#[tokio::test]
async fn a_retry_of_a_saga_in_doubt_tries_to_find_out_again() {
    let log = Log::default();
    let asked = std::sync::atomic::AtomicU32::new(0);
    let third = move || match asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
        0 | 1 => Err(StepError::retry("the bank is closed")),
        _ => Ok(None),
    };
    let script = in_doubt(&log).probe(third);
    let stage = Stage::new().await;
    let (worker, saga) = stage.play(&script).await;
    stage.parks(saga).await;

    worker.sagas.resolve(saga, &Resolution::Retry, "ann", "the bank is open").await.unwrap();

    stage.is_compensated(saga).await;
    assert_eq!(script.log.count("undo charge"), 0);
}
