//! A newer definition that carries on what an older one started.

use amends::event::ParkReason;
use amends::{Data, Error, Json, Resolution, SagaId, StepError, StepResult};

use super::script::{Body, Log, Script, gives, json, notes, ok, reads, rejects};
use super::stage::{Stage, Worker, refusal};

/// Reserves, and waits for an approval.
fn approved() -> Script {
    Script::new().tx("reserve", gives(3_u32)).undo(ok()).signal("approval").undo(ok())
}

/// The first version.
fn first() -> Script {
    approved().tx("ship", ok())
}

/// The second version, which carries on the sagas of the first.
fn second(mut script: Script) -> Script {
    script.definition.version = 2;
    script.definition.since = 1;
    script
}

/// The last step is newer than the first version.
fn new(script: Script) -> Script {
    script.with(|step| step.since = 2)
}

/// Begins with a step that the first version did not have, and that is made up for whoever is past it.
fn checked() -> Script {
    checked_by(|data| Ok(json(&(data.output::<u32>(0)? * 100))))
}

fn checked_by(make_up: fn(&Data) -> StepResult<Json>) -> Script {
    new(Script::new().tx("reserve", gives(3_u32)).undo(ok()).call("check", gives(1_u32)))
        .undo(ok())
        .upcast(make_up)
        .reads(&["reserve"])
        .signal("approval")
        .undo(ok())
}

fn notes_check(log: &Log, step: usize) -> Body {
    notes(log, move |data| Ok(format!("checked {}", data.output::<u32>(step)?)))
}

/// A saga of the first version that waits for its approval, and that nobody runs any more.
async fn waits(stage: &Stage) -> SagaId {
    let (worker, saga) = stage.play(&first()).await;
    stage.waits_at(saga, "approval").await;
    worker.stop().await.unwrap();
    saga
}

async fn approve(worker: &Worker, saga: SagaId) {
    worker.signal(saga, "approval", ()).await.unwrap();
}

#[tokio::test]
async fn a_saga_that_is_past_a_new_step_goes_on_with_what_is_made_up_for_it() {
    let log = Log::default();
    let script = second(checked().tx("ship", notes_check(&log, 1)).reads(&["check"]));
    let stage = Stage::new().await;
    let old = waits(&stage).await;

    let worker = stage.work(&[&script]);
    approve(&worker, old).await;

    stage.completes(old).await;
    assert_eq!(script.log.lines(), ["make up check", "ship"]);
    assert_eq!(log.lines(), ["checked 300"]);
    assert_eq!(stage.output(old, "check").await, Some(300));
}

#[tokio::test]
async fn a_saga_of_the_new_version_runs_the_new_step_really() {
    let log = Log::default();
    let script = second(checked().tx("ship", notes_check(&log, 1)).reads(&["check"]));
    let stage = Stage::new().await;
    let (worker, saga) = stage.play(&script).await;
    stage.waits_at(saga, "approval").await;

    approve(&worker, saga).await;

    stage.completes(saga).await;
    assert_eq!(script.log.lines(), ["reserve", "check", "begin approval", "ship"]);
    assert_eq!(log.lines(), ["checked 1"]);
}

#[tokio::test]
async fn what_was_made_up_is_not_undone() {
    let script = second(checked().tx("ship", rejects("no")));
    let stage = Stage::new().await;
    let old = waits(&stage).await;

    let worker = stage.work(&[&script]);
    approve(&worker, old).await;

    stage.is_compensated(old).await;
    assert_eq!(script.log.lines(), ["make up check", "ship", "undo approval", "undo reserve"]);
}

#[tokio::test]
async fn a_saga_that_is_past_a_new_step_for_which_nothing_is_made_up_does_without() {
    let script = new(Script::new().tx("reserve", gives(3_u32)).undo(ok()).call("check", ok())).undo(ok());
    let script = second(script.signal("approval").undo(ok()).tx("ship", rejects("no")));
    let stage = Stage::new().await;
    let old = waits(&stage).await;

    let worker = stage.work(&[&script]);
    approve(&worker, old).await;

    stage.is_compensated(old).await;
    assert_eq!(script.log.lines(), ["ship", "undo approval", "undo reserve"]);
    assert_eq!(stage.output::<u32>(old, "check").await, None);
}

#[tokio::test]
async fn a_saga_that_has_not_come_to_a_new_step_runs_it_really() {
    let log = Log::default();
    let script = new(approved().call("check", gives(1_u32))).undo(ok()).upcast(|_| Ok(json(&300)));
    let script = second(script.tx("ship", notes_check(&log, 2)).reads(&["check"]));
    let stage = Stage::new().await;
    let old = waits(&stage).await;

    let worker = stage.work(&[&script]);
    approve(&worker, old).await;

    stage.completes(old).await;
    assert_eq!(script.log.lines(), ["check", "ship"]);
    assert_eq!(log.lines(), ["checked 1"]);
}

#[tokio::test]
async fn a_new_list_is_made_up_as_a_whole() {
    let log = Log::default();
    let picks = reads(|data| Ok(json(&(data.item::<u32>()? * 10))));
    let script = new(Script::new().tx("reserve", gives(3_u32)).undo(ok()).call("pick", picks).each("input", 2))
        .undo(ok())
        .upcast(|_| Ok(json(&[7, 8])));
    let ship = notes(&log, |data| Ok(format!("{:?}", data.output::<Vec<u32>>(1)?)));
    let script =
        second(script.signal("approval").undo(ok()).tx("ship", ship).reads(&["pick"]).tx("mail", rejects("no")));
    let stage = Stage::new().await;
    let old = waits(&stage).await;

    let worker = stage.work(&[&script]);
    approve(&worker, old).await;

    stage.is_compensated(old).await;
    assert_eq!(log.lines(), ["[7, 8]"]);
    assert_eq!(script.log.lines()[..3], ["make up pick", "ship", "mail"]);
    assert_eq!(script.log.count("undo reserve"), 1);
    assert!(script.log.lines().iter().all(|line| !line.starts_with("undo pick")));
}

#[tokio::test]
async fn a_worker_starts_again_after_a_list_was_made_up() {
    let script = new(Script::new().tx("reserve", gives(3_u32)).undo(ok()).call("pick", ok()).each("input", 2))
        .undo(ok())
        .upcast(|_| Ok(json(&[7, 8])));
    let script = second(script.signal("approval").undo(ok()).signal("shipment").undo(ok()).tx("mail", ok()));
    let stage = Stage::new().await;
    let old = waits(&stage).await;
    let worker = stage.work(&[&script]);
    approve(&worker, old).await;
    stage.waits_at(old, "shipment").await;
    worker.stop().await.unwrap();

    let worker = stage.work(&[&script]);
    worker.signal(old, "shipment", ()).await.unwrap();

    stage.completes(old).await;
    assert_eq!(script.log.count("make up pick"), 1);
}

/// A saga that is past its check, and for which nothing can be made up.
async fn is_stuck(stage: &Stage, script: &Script) -> (Worker, SagaId) {
    let old = waits(stage).await;
    let worker = stage.work(&[script]);
    approve(&worker, old).await;
    let reason = ParkReason::UpcastStuck { step: "check".into(), error: "no rate".into() };
    assert_eq!(stage.parks(old).await, reason);
    (worker, old)
}

fn cannot_be_checked() -> Script {
    checked_by(|_| Err(StepError::retry("no rate")))
}

#[tokio::test]
async fn a_step_for_which_nothing_can_be_made_up_is_not_run_in_its_stead() {
    let log = Log::default();
    let ship = || notes_check(&log, 1);
    let (old_code, new_code) = (cannot_be_checked().tx("ship", ship()), checked().tx("ship", ship()));
    let (script, mended) = (second(old_code.reads(&["check"])), second(new_code.reads(&["check"])));
    let stage = Stage::new().await;
    let (worker, old) = is_stuck(&stage, &script).await;
    worker.stop().await.unwrap();

    let worker = stage.work(&[&mended]);
    worker.sagas.resolve(old, &Resolution::Retry, "ann", "mended").await.unwrap();

    stage.completes(old).await;
    assert_eq!(script.log.lines(), ["make up check"]);
    assert_eq!(mended.log.lines(), ["make up check", "ship"]);
    assert_eq!(log.lines(), ["checked 300"]);
}

#[tokio::test]
async fn what_an_operator_makes_up_is_not_undone() {
    let log = Log::default();
    let script =
        second(cannot_be_checked().tx("ship", notes_check(&log, 1)).reads(&["check"]).tx("mail", rejects("no")));
    let stage = Stage::new().await;
    let (worker, old) = is_stuck(&stage, &script).await;

    let skip = refusal(worker.sagas.resolve(old, &Resolution::Skip, "ann", "why not").await);
    worker.sagas.resolve(old, &Resolution::Supply(json(&7)), "ann", "asked the bank").await.unwrap();

    assert!(skip.contains("`ship` reads what `check` returns"), "{skip}");
    stage.is_compensated(old).await;
    assert_eq!(log.lines(), ["checked 7"]);
    assert_eq!(script.log.lines(), ["make up check", "ship", "mail", "undo approval", "undo reserve"]);
}

#[tokio::test]
async fn a_saga_can_do_without_what_cannot_be_made_up() {
    let script = second(cannot_be_checked().tx("ship", rejects("no")));
    let stage = Stage::new().await;
    let (worker, old) = is_stuck(&stage, &script).await;

    worker.sagas.resolve(old, &Resolution::Skip, "ann", "nobody needs it").await.unwrap();

    stage.is_compensated(old).await;
    assert_eq!(script.log.lines(), ["make up check", "ship", "undo approval", "undo reserve"]);
}

#[tokio::test]
async fn a_saga_for_which_nothing_can_be_made_up_can_be_undone() {
    let script = second(cannot_be_checked().tx("ship", ok()).reads(&["check"]));
    let stage = Stage::new().await;
    let (worker, old) = is_stuck(&stage, &script).await;

    let plan = worker.sagas.plan(old).await.unwrap();
    worker.sagas.resolve(old, &Resolution::Cancel, "ann", "").await.unwrap();

    stage.is_compensated(old).await;
    assert_eq!(script.log.lines(), ["make up check", "undo reserve"]);
    let planned: Vec<_> = plan.rounds.iter().flatten().map(|undo| &*undo.step).collect();
    assert_eq!((&planned[..], plan.not_undone.len()), (&["reserve"][..], 0));
}

#[tokio::test]
async fn a_worker_leaves_the_sagas_alone_that_its_definition_does_not_carry_on() {
    let mut script = second(checked().tx("ship", ok()));
    script.definition.since = 2;
    let stage = Stage::new().await;
    let old = waits(&stage).await;

    let worker = stage.work(&[&script]);
    approve(&worker, old).await;
    let new = stage.start(&script).await;
    approve(&worker, new).await;

    stage.completes(new).await;
    assert_eq!(stage.state(old).await.ended, None);
    assert_eq!(script.log.count("make up check"), 0);
    let _old_worker = stage.work(&[&first()]);
    stage.completes(old).await;
}

#[tokio::test]
async fn a_worker_does_not_start_if_it_could_carry_sagas_neither_on_nor_back() {
    let renamed = second(Script::new().tx("book", ok()).undo(ok()).signal("approval").undo(ok()).tx("ship", ok()));
    let log = Log::default();
    let read = new(Script::new().tx("reserve", gives(3_u32)).undo(ok()).call("check", ok())).undo(ok());
    let read = second(read.signal("approval").undo(ok()).tx("ship", notes_check(&log, 1)).reads(&["check"]));
    let stage = Stage::new().await;
    let old = waits(&stage).await;

    let stranded = stage.work(&[&renamed]).stop().await;
    let unread = stage.work(&[&read]).stop().await;

    let text = |refused: Result<(), Error>| match refused {
        Err(Error::Strands(text)) => text,
        other => panic!("it was not refused: {other:?}"),
    };
    let (stranded, unread) = (text(stranded), text(unread));
    assert!(stranded.contains("strands 1 sagas at step `reserve`"), "{stranded}");
    assert!(unread.contains("needs an upcast: 1 sagas are past step `check`"), "{unread}");
    assert!(stranded.contains(&old.to_string()), "{stranded}");
}
