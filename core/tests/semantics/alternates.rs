//! Savepoints, and paths that are taken instead of others.

use super::script::{Body, Log, Script, gives, notes, ok, rejects};
use super::stage::Stage;

/// hold, a savepoint → fly → seat, or else → train → berth; then pay, which reads what `seat` returned.
fn trip(seat: Body, berth: Body, log: &Log) -> Script {
    Script::new()
        .tx("hold", ok())
        .undo(ok())
        .savepoint()
        .call("fly", ok())
        .undo(ok())
        .call("seat", seat)
        .undo(ok())
        .alternate(4)
        .call("train", ok())
        .undo(ok())
        .after(&["hold"])
        .call("berth", berth)
        .undo(ok())
        .tx("pay", notes(log, |data| Ok(format!("pay for {}", data.output::<String>(2)?))))
        .reads(&["seat"])
        .after(&["seat"])
}

#[tokio::test]
async fn a_path_that_succeeds_leaves_its_alternate_alone() {
    let log = Log::default();
    let script = trip(gives("17C"), gives("berth 4"), &log);
    let stage = Stage::new().await;

    let (_worker, saga) = stage.play(&script).await;

    stage.completes(saga).await;
    assert_eq!(script.log.lines(), ["hold", "fly", "seat", "pay"]);
    assert_eq!(log.lines(), ["pay for 17C"]);
}

#[tokio::test]
async fn a_path_that_fails_is_undone_to_its_savepoint_and_the_other_one_is_taken_in_its_place() {
    let log = Log::default();
    let script = trip(rejects("full"), gives("berth 4"), &log);
    let stage = Stage::new().await;

    let (_worker, saga) = stage.play(&script).await;

    stage.completes(saga).await;
    assert_eq!(script.log.lines(), ["hold", "fly", "seat", "undo fly", "train", "berth", "pay"]);
    assert_eq!(log.lines(), ["pay for berth 4"], "it is read by the name of what it replaces");
}

#[tokio::test]
async fn if_the_alternate_fails_too_everything_is_undone_and_nothing_twice() {
    let log = Log::default();
    let script = trip(rejects("full"), rejects("strike"), &log);
    let stage = Stage::new().await;

    let (_worker, saga) = stage.play(&script).await;

    stage.is_compensated(saga).await;
    assert_eq!(
        script.log.lines(),
        ["hold", "fly", "seat", "undo fly", "train", "berth", "undo train", "undo hold"]
    );
}

#[tokio::test]
async fn a_failure_in_the_middle_of_a_path_takes_its_alternate_too() {
    let log = Log::default();
    let script = Script::new()
        .tx("hold", ok())
        .savepoint()
        .call("fly", rejects("fog"))
        .call("seat", gives("17C"))
        .alternate(3)
        .call("train", gives("berth 4"))
        .after(&["hold"])
        .tx("pay", notes(&log, |data| Ok(format!("pay for {}", data.output::<String>(2)?))))
        .reads(&["seat"])
        .after(&["seat"]);
    let stage = Stage::new().await;

    let (_worker, saga) = stage.play(&script).await;

    stage.completes(saga).await;
    assert_eq!(script.log.lines(), ["hold", "fly", "train", "pay"]);
    assert_eq!(log.lines(), ["pay for berth 4"]);
}

#[tokio::test]
async fn a_failure_behind_the_paths_undoes_the_one_that_was_taken() {
    let script = Script::new()
        .tx("hold", ok())
        .undo(ok())
        .savepoint()
        .call("fly", rejects("fog"))
        .alternate(2)
        .call("train", ok())
        .undo(ok())
        .after(&["hold"])
        .tx("pay", rejects("broke"))
        .after(&["fly"]);
    let stage = Stage::new().await;

    let (_worker, saga) = stage.play(&script).await;

    stage.is_compensated(saga).await;
    assert_eq!(script.log.lines(), ["hold", "fly", "train", "pay", "undo train", "undo hold"]);
}

fn chain(bus: Body, log: &Log) -> Script {
    Script::new()
        .tx("hold", ok())
        .undo(ok())
        .savepoint()
        .call("fly", rejects("fog"))
        .alternate(2)
        .call("train", rejects("strike"))
        .alternate(3)
        .after(&["hold"])
        .call("bus", bus)
        .undo(ok())
        .after(&["hold"])
        .tx("pay", notes(log, |data| Ok(format!("pay for {}", data.output::<String>(1)?))))
        .reads(&["fly"])
        .after(&["fly"])
}

#[tokio::test]
async fn an_alternate_may_have_an_alternate() {
    let log = Log::default();
    let script = chain(gives("seat 12"), &log);
    let stage = Stage::new().await;

    let (_worker, saga) = stage.play(&script).await;

    stage.completes(saga).await;
    assert_eq!(script.log.lines(), ["hold", "fly", "train", "bus", "pay"]);
    assert_eq!(log.lines(), ["pay for seat 12"]);
}

#[tokio::test]
async fn when_the_last_alternate_fails_everything_is_undone() {
    let log = Log::default();
    let script = chain(rejects("snow"), &log);
    let stage = Stage::new().await;

    let (_worker, saga) = stage.play(&script).await;

    stage.is_compensated(saga).await;
    assert_eq!(script.log.lines(), ["hold", "fly", "train", "bus", "undo hold"]);
}
