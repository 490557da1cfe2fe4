//! Savepoints, and paths that are taken instead of others.

use amends::Resolution;

use super::script::{Body, Log, Script, fails, gives, json, notes, ok, reads, rejects};
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
    assert_eq!(script.log.lines(), ["hold", "fly", "seat", "undo fly", "train", "berth", "undo train", "undo hold"]);
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

/// hold, a savepoint → fly, or else → walk, a savepoint → train → or else bus, → sleep; then pay.
fn nested(bus: Body, sleep: Body, pay: Body) -> Script {
    Script::new()
        .tx("hold", ok())
        .undo(ok())
        .savepoint()
        .call("fly", rejects("fog"))
        .alternate(5)
        .call("walk", ok())
        .undo(ok())
        .savepoint()
        .after(&["hold"])
        .call("train", rejects("strike"))
        .alternate(4)
        .call("bus", bus)
        .undo(ok())
        .after(&["walk"])
        .call("sleep", sleep)
        .undo(ok())
        .after(&["train"])
        .tx("pay", pay)
        .after(&["fly"])
}

#[tokio::test]
async fn a_path_that_is_taken_instead_may_have_a_savepoint_and_an_alternate_of_its_own() {
    let script = nested(ok(), ok(), ok());
    let stage = Stage::new().await;

    let (_worker, saga) = stage.play(&script).await;

    stage.completes(saga).await;
    assert_eq!(script.log.lines(), ["hold", "fly", "walk", "train", "bus", "sleep", "pay"]);
}

#[tokio::test]
async fn all_that_was_taken_instead_is_undone_in_reverse_order() {
    let stage = Stage::new().await;
    let (bus, sleep, pay) = (
        nested(rejects("snow"), ok(), ok()),
        nested(ok(), rejects("full"), ok()).called("sleep"),
        nested(ok(), ok(), rejects("broke")).called("pay"),
    );
    let _worker = stage.work(&[&bus, &sleep, &pay]);

    for script in [&bus, &sleep, &pay] {
        let saga = stage.start(script).await;
        stage.is_compensated(saga).await;
    }

    let undone =
        |script: &Script| script.log.lines().into_iter().skip_while(|line| !line.starts_with("undo")).collect();
    let (bus, sleep, pay): (Vec<_>, Vec<_>, Vec<_>) = (undone(&bus), undone(&sleep), undone(&pay));
    assert_eq!(bus, ["undo walk", "undo hold"]);
    assert_eq!(sleep, ["undo bus", "undo walk", "undo hold"]);
    assert_eq!(pay, ["undo sleep", "undo bus", "undo walk", "undo hold"]);
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

#[tokio::test]
async fn a_cancelled_saga_takes_no_alternate() {
    let script = Script::new()
        .tx("hold", ok())
        .undo(ok())
        .savepoint()
        .call("fly", ok())
        .undo(ok())
        .signal("seat")
        .alternate(3)
        .call("train", ok())
        .after(&["hold"]);
    let stage = Stage::new().await;
    let (worker, saga) = stage.play(&script).await;
    stage.waits_at(saga, "seat").await;

    worker.sagas.cancel(saga, "no").await.unwrap();

    stage.is_compensated(saga).await;
    assert_eq!(script.log.lines(), ["hold", "fly", "begin seat", "undo fly", "undo hold"]);
}

#[tokio::test]
async fn two_branches_that_fail_at_once_are_replaced_each_by_its_own_alternate() {
    let script = Script::new()
        .tx("hold", ok())
        .savepoint()
        .call("room", rejects("full"))
        .alternate(3)
        .call("car", rejects("sold_out"))
        .alternate(4)
        .after(&["hold"])
        .call("hostel", ok())
        .after(&["hold"])
        .call("bicycle", ok())
        .after(&["hold"])
        .tx("pay", ok())
        .after(&["room", "car"]);
    let stage = Stage::new().await;

    let (_worker, saga) = stage.play(&script).await;

    stage.completes(saga).await;
    assert_eq!(script.log.sorted(), ["bicycle", "car", "hold", "hostel", "pay", "room"]);
    assert_eq!(script.log.lines().last().unwrap(), "pay");
}

#[tokio::test]
async fn a_failure_beside_a_path_undoes_everything() {
    let script = Script::new()
        .tx("hold", ok())
        .undo(ok())
        .savepoint()
        .call("fly", ok())
        .undo(ok())
        .alternate(3)
        .call("check", rejects("no_visa"))
        .after(&["hold"])
        .call("train", ok())
        .after(&["hold"])
        .tx("pay", ok())
        .after(&["fly", "check"]);
    let stage = Stage::new().await;

    let (_worker, saga) = stage.play(&script).await;

    stage.is_compensated(saga).await;
    assert_eq!(script.log.sorted(), ["check", "fly", "hold", "undo fly", "undo hold"]);
    assert_eq!(script.log.lines().last().unwrap(), "undo hold");
}

#[tokio::test]
async fn the_items_of_a_list_on_a_path_are_undone_before_the_other_path_is_taken() {
    let picks = reads(|data| match data.item::<u32>()? {
        2 => Err(amends::reject("sold_out")),
        item => Ok(json(&item)),
    });
    let script = Script::new()
        .tx("hold", ok())
        .undo(ok())
        .savepoint()
        .call("pick", picks)
        .each("input", 1)
        .undo(ok())
        .alternate(2)
        .call("order", ok())
        .after(&["hold"])
        .tx("pay", ok())
        .after(&["pick"]);
    let stage = Stage::new().await;
    let _worker = stage.work(&[&script]);

    let saga = stage.start_with(&script, &[1, 2, 3]).await;

    stage.completes(saga).await;
    assert_eq!(script.log.lines(), ["hold", "pick 1", "pick 2", "undo pick 1", "order", "pay"]);
}

#[tokio::test]
async fn a_path_in_doubt_is_parked_and_its_alternate_is_taken_once_an_operator_says_that_it_did_not_happen() {
    let script = Script::new()
        .tx("hold", ok())
        .undo(ok())
        .savepoint()
        .call("fly", fails())
        .attempts(1)
        .undo_output(ok())
        .alternate(2)
        .call("train", ok())
        .after(&["hold"])
        .tx("pay", ok())
        .after(&["fly"]);
    let stage = Stage::new().await;
    let (worker, saga) = stage.play(&script).await;
    stage.parks(saga).await;

    worker.sagas.resolve(saga, &Resolution::Skip, "ann", "no booking there").await.unwrap();

    stage.completes(saga).await;
    assert_eq!(script.log.lines(), ["hold", "fly", "train", "pay"]);
}

/// To fly, or else to take the train, and a hotel; or else, instead of all that, to stay at home.
fn holiday(train: Body, hotel: Body, log: &Log) -> Script {
    Script::new()
        .tx("hold", ok())
        .undo(ok())
        .savepoint()
        .call("fly", rejects("fog"))
        .alternate(2)
        .call("train", train)
        .undo(ok())
        .after(&["hold"])
        .call("hotel", hotel)
        .undo(ok())
        .after(&["fly"])
        .alternate(4)
        .call("stay", gives("at home"))
        .after(&["hold"])
        .tx("pay", notes(log, |data| Ok(format!("pay for {}", data.output::<String>(3)?))))
        .reads(&["hotel"])
        .after(&["hotel"])
}

#[tokio::test]
async fn a_path_whose_own_alternate_succeeds_goes_on() {
    let log = Log::default();
    let script = holiday(ok(), gives("room 7"), &log);
    let stage = Stage::new().await;

    let (_worker, saga) = stage.play(&script).await;

    stage.completes(saga).await;
    assert_eq!(script.log.lines(), ["hold", "fly", "train", "hotel", "pay"]);
    assert_eq!(log.lines(), ["pay for room 7"]);
}

#[tokio::test]
async fn if_an_alternate_inside_a_path_fails_the_alternate_of_the_whole_path_is_taken() {
    let log = Log::default();
    let script = holiday(rejects("strike"), gives("room 7"), &log);
    let stage = Stage::new().await;

    let (_worker, saga) = stage.play(&script).await;

    stage.completes(saga).await;
    assert_eq!(script.log.lines(), ["hold", "fly", "train", "stay", "pay"]);
    assert_eq!(log.lines(), ["pay for at home"]);
}

#[tokio::test]
async fn what_was_taken_inside_a_path_is_undone_with_the_path() {
    let log = Log::default();
    let script = holiday(ok(), rejects("full"), &log);
    let stage = Stage::new().await;

    let (_worker, saga) = stage.play(&script).await;

    stage.completes(saga).await;
    assert_eq!(script.log.lines(), ["hold", "fly", "train", "hotel", "undo train", "stay", "pay"]);
}
