//! Sagas that are steps of other sagas.

use amends::event::{Outcome, ParkReason};
use amends::{Resolution, Status};

use super::script::{Log, Script, fails, gives, notes, ok, rejects};
use super::stage::{Stage, Worker};

/// Books a trip as a step of its own, then asks for approval.
fn parent(child: &Script) -> Script {
    Script::named("parent").tx("reserve", ok()).undo(ok()).child("book", child).undo_child()
}

fn play(stage: &Stage, parent: &Script, child: &Script) -> Worker {
    stage.work(&[parent, child])
}

#[tokio::test]
async fn what_a_child_returns_is_what_the_step_returns() {
    let log = Log::default();
    let child = Script::named("child").tx("a", ok()).tx("b", gives(7));
    let parent =
        parent(&child).tx("pay", notes(&log, |data| Ok(format!("pay {}", data.output::<u32>(1)?)))).reads(&["book"]);
    let stage = Stage::new().await;
    let _worker = play(&stage, &parent, &child);

    let saga = stage.start(&parent).await;

    stage.completes(saga).await;
    assert_eq!(log.lines(), ["pay 7"]);
    let child = stage.load(stage.child_of(saga, "book").await).await;
    assert_eq!((child.parent, child.status), (Some(saga), Status::Completed));
}

#[tokio::test]
async fn a_child_that_is_rejected_undoes_its_parent_which_says_why() {
    let child = Script::named("child").tx("a", ok()).undo(ok()).tx("b", rejects("sold_out"));
    let parent = parent(&child);
    let stage = Stage::new().await;
    let _worker = play(&stage, &parent, &child);

    let saga = stage.start(&parent).await;

    stage.is_compensated(saga).await;
    assert_eq!(child.log.lines(), ["a", "b", "undo a"]);
    assert_eq!(parent.log.lines(), ["reserve", "begin book", "undo reserve"]);
    let saga = stage.state(saga).await;
    assert_eq!(saga.rejection().map(|(step, why)| (step, &*why.code)), Some(("book", "sold_out")));
}

#[tokio::test]
async fn a_child_that_gives_up_undoes_its_parent_which_says_so() {
    let child = Script::named("child").tx("a", fails()).attempts(1);
    let parent = parent(&child);
    let stage = Stage::new().await;
    let _worker = play(&stage, &parent, &child);

    let saga = stage.start(&parent).await;

    stage.is_compensated(saga).await;
    let saga = stage.state(saga).await;
    let (_, why) = saga.rejection().unwrap();
    assert_eq!((&*why.code, &*why.message), ("child_gave_up", "`a` gave up: oops"));
}

#[tokio::test]
async fn a_completed_child_is_undone_when_its_parent_is() {
    let child = Script::named("child").tx("a", ok()).undo(ok()).call("b", ok()).undo(ok());
    let parent = parent(&child).tx("pay", rejects("no"));
    let stage = Stage::new().await;
    let _worker = play(&stage, &parent, &child);

    let saga = stage.start(&parent).await;

    stage.is_compensated(saga).await;
    assert_eq!(child.log.lines(), ["a", "b", "undo b", "undo a"]);
    assert_eq!(parent.log.lines(), ["reserve", "begin book", "pay", "undo reserve"]);
    let child = stage.load(stage.child_of(saga, "book").await).await;
    assert_eq!((child.status, child.fold().ended), (Status::Compensated, Some(Outcome::Compensated)));
}

#[tokio::test]
async fn what_came_before_a_child_is_undone_only_after_the_child_has_been() {
    let order = Log::default();
    let note = |line: &'static str| notes(&order, move |_| Ok(line.to_owned()));
    let child = Script::named("child").tx("a", ok()).undo(note("undo child"));
    let parent = Script::named("parent")
        .tx("reserve", ok())
        .undo(note("undo reserve"))
        .child("book", &child)
        .undo_child()
        .tx("pay", rejects("no"));
    let stage = Stage::new().await;
    let _worker = play(&stage, &parent, &child);

    let saga = stage.start(&parent).await;

    stage.is_compensated(saga).await;
    assert_eq!(order.lines(), ["undo child", "undo reserve"]);
}

#[tokio::test]
async fn a_child_that_is_under_way_is_undone_when_its_parent_is() {
    let child = Script::named("child").tx("a", ok()).undo(ok()).signal("stay");
    let parent =
        Script::named("parent").child("book", &child).undo_child().signal("go").after(&[]).tx("no", rejects("no"));
    let stage = Stage::new().await;
    let worker = play(&stage, &parent, &child);
    let saga = stage.start(&parent).await;
    let booking = stage.child_of(saga, "book").await;
    stage.waits_at(booking, "stay").await;

    worker.signal(saga, "go", ()).await.unwrap();

    stage.is_compensated(saga).await;
    stage.is_compensated(booking).await;
    assert_eq!(child.log.lines(), ["a", "begin stay", "undo a"]);
}

/// The parent's worker does not know the child's definition, as when another service runs it.
async fn parks_since_its_child_is_past_its_pivot(child: Script, booked: Outcome) {
    let parent = parent(&child).signal("go").after(&["reserve"]).tx("pay", rejects("no"));
    let stage = Stage::new().await;
    let (worker, other) = (stage.work(&[&parent]), stage.work(&[&child]));
    let saga = stage.start(&parent).await;
    let booking = stage.child_of(saga, "book").await;
    stage.until(booking, |loaded| loaded.owner.is_none() && !loaded.journal.is_empty()).await;

    worker.signal(saga, "go", ()).await.unwrap();
    if !stage.load(booking).await.status.is_final() {
        other.signal(booking, "stay", ()).await.unwrap();
    }

    assert_eq!(stage.parks(saga).await, ParkReason::CompensationStuck { step: "book".into() });
    assert_eq!(parent.log.count("undo reserve"), 0);
    worker.sagas.resolve(saga, &Resolution::Skip, "ann", "cancelled by telephone").await.unwrap();
    stage.is_compensated(saga).await;
    assert_eq!(stage.ends(booking).await, booked);
    assert_eq!(child.log.count("undo a"), 0);
}

#[tokio::test]
async fn a_parent_whose_completed_child_is_past_its_pivot_cannot_be_undone_and_is_parked() {
    let child = Script::named("child").tx("a", ok()).undo(ok()).tx("b", ok()).pivot();
    parks_since_its_child_is_past_its_pivot(child, Outcome::Completed).await;
}

#[tokio::test]
async fn a_parent_whose_running_child_is_past_its_pivot_lets_it_go_on_and_is_parked() {
    let child = Script::named("child").tx("a", ok()).undo(ok()).tx("b", ok()).pivot().signal("stay");
    parks_since_its_child_is_past_its_pivot(child, Outcome::Completed).await;
}

#[tokio::test]
async fn a_step_that_would_have_to_undo_a_child_with_a_pivot_is_refused_where_both_are_registered() {
    let child = Script::named("child").tx("a", ok()).pivot();
    let parent = parent(&child);
    let stage = Stage::new().await;
    let builder = stage.builder().register_dynamic(parent.definition.clone(), parent.clone());

    let error = builder.register_dynamic(child.definition.clone(), child.clone()).build().unwrap_err();

    assert!(error.to_string().contains("starts a saga that has a pivot"), "{error}");
}

#[tokio::test]
async fn the_children_of_children_are_undone_too() {
    let grandchild = Script::named("grandchild").tx("a", ok()).undo(ok());
    let child = Script::named("child").child("inner", &grandchild).undo_child();
    let parent = parent(&child).tx("pay", rejects("no"));
    let stage = Stage::new().await;
    let _worker = stage.work(&[&parent, &child, &grandchild]);

    let saga = stage.start(&parent).await;

    stage.is_compensated(saga).await;
    assert_eq!(grandchild.log.lines(), ["a", "undo a"]);
}

#[tokio::test]
async fn a_child_for_every_item_is_a_saga_each() {
    let child = Script::named("child").tx("a", gives(7)).undo(ok());
    let parent = Script::named("parent").child("book", &child).each("input", 2).undo_child().tx("pay", rejects("no"));
    let stage = Stage::new().await;
    let _worker = play(&stage, &parent, &child);

    let saga = stage.start_with(&parent, &["one", "two", "three"]).await;

    stage.is_compensated(saga).await;
    assert_eq!((child.log.count("a"), child.log.count("undo a")), (3, 3));
}

#[tokio::test]
async fn a_child_that_does_not_end_in_time_is_undone_with_its_parent() {
    let child = Script::named("child").tx("a", ok()).undo(ok()).signal("stay");
    let parent = parent(&child).timeout(std::time::Duration::from_millis(100));
    let stage = Stage::new().await;
    let _worker = play(&stage, &parent, &child);

    let saga = stage.start(&parent).await;

    stage.is_compensated(saga).await;
    let booking = stage.child_of(saga, "book").await;
    assert_eq!(stage.load(booking).await.status, Status::Compensated);
    assert_eq!(parent.log.count("undo reserve"), 1);
}

#[tokio::test]
async fn a_parent_waits_for_a_child_that_is_stuck_while_it_is_undone_until_an_operator_has_seen_to_it() {
    let child = Script::named("child").tx("a", ok()).call("b", ok()).undo(fails());
    let parent = parent(&child).tx("pay", rejects("no"));
    let stage = Stage::new().await;
    let worker = play(&stage, &parent, &child);
    let saga = stage.start(&parent).await;
    let booking = stage.child_of(saga, "book").await;
    stage.until(booking, |loaded| loaded.status == Status::Parked).await;
    assert_eq!(stage.load(saga).await.status, Status::Compensating);

    worker.sagas.resolve(booking, &Resolution::Skip, "ann", "by hand").await.unwrap();

    stage.is_compensated(saga).await;
    assert_eq!(parent.log.count("undo reserve"), 1);
}

#[tokio::test]
async fn a_child_behind_the_pivot_that_was_rejected_is_started_anew_when_an_operator_says_so() {
    let child = Script::named("child").call("a", super::script::first(1, rejects("no"), gives(7)));
    let parent = Script::named("parent").tx("pay", ok()).pivot().child("book", &child);
    let stage = Stage::new().await;
    let worker = play(&stage, &parent, &child);
    let saga = stage.start(&parent).await;
    assert_eq!(stage.parks(saga).await, ParkReason::ForwardStuck { step: "book".into() });
    let first = stage.child_of(saga, "book").await;

    worker.sagas.resolve(saga, &Resolution::Retry, "ann", "").await.unwrap();

    stage.completes(saga).await;
    assert_eq!(stage.output(saga, "book").await, Some(7));
    assert_ne!(stage.child_of(saga, "book").await, first);
}

#[tokio::test]
async fn a_child_that_somebody_cancelled_undoes_its_parent_which_says_so() {
    let child = Script::named("child").tx("a", ok()).undo(ok()).signal("stay");
    let parent = parent(&child);
    let stage = Stage::new().await;
    let worker = play(&stage, &parent, &child);
    let saga = stage.start(&parent).await;
    let booking = stage.child_of(saga, "book").await;
    stage.waits_at(booking, "stay").await;

    worker.sagas.cancel(booking, "no more trips").await.unwrap();

    stage.is_compensated(saga).await;
    let saga = stage.state(saga).await;
    let (_, why) = saga.rejection().unwrap();
    assert_eq!((&*why.code, &*why.message), ("child_cancelled", "no more trips"));
}

/// A child that is not undone itself, but by a compensation that needs to know what it returned.
async fn cancelled_while_its_child_runs(child: Script, undone: &[&str]) {
    let log = Log::default();
    let undo = notes(&log, |data| Ok(format!("undo {}", data.output::<u32>(0)?)));
    let parent = Script::named("parent").child("book", &child).undo_output(undo).tx("pay", ok());
    let stage = Stage::new().await;
    let worker = play(&stage, &parent, &child);
    let saga = stage.start(&parent).await;
    let booking = stage.child_of(saga, "book").await;
    stage.waits_at(booking, "stay").await;

    worker.sagas.cancel(saga, "no").await.unwrap();
    stage.until(saga, |loaded| loaded.owner.is_none() && loaded.status == Status::Compensating).await;
    worker.signal(booking, "stay", ()).await.unwrap();

    stage.is_compensated(saga).await;
    assert_eq!(log.lines(), undone);
    assert_eq!(parent.log.count("pay"), 0);
}

#[tokio::test]
async fn a_compensation_that_needs_to_know_what_a_child_returned_waits_for_it() {
    let child = Script::named("child").signal("stay").tx("a", gives(7)).pivot();
    cancelled_while_its_child_runs(child, &["undo 7"]).await;
}

#[tokio::test]
async fn a_compensation_that_needs_to_know_what_a_child_returned_does_not_run_if_that_was_rejected() {
    let child = Script::named("child").signal("stay").tx("a", rejects("sold_out")).pivot();
    cancelled_while_its_child_runs(child, &[]).await;
}
