//! The order in which steps run and are undone.

use std::sync::Arc;

use tokio::sync::Barrier;

use super::script::{Script, gives, json, meets, ok, reads, rejects};
use super::stage::Stage;

#[tokio::test]
async fn steps_run_in_the_order_of_the_source_and_read_what_the_earlier_ones_returned() {
    let adds = |step| reads(move |data| Ok(json(&(data.output::<u32>(step)? + 1))));
    let script = Script::new().tx("a", gives(1)).call("b", adds(0)).tx("c", adds(1));
    let stage = Stage::new().await;

    let (_worker, saga) = stage.play(&script).await;

    stage.completes(saga).await;
    assert_eq!(script.log.lines(), ["a", "b", "c"]);
    assert_eq!(stage.output(saga, "c").await, Some(3));
}

#[tokio::test]
async fn what_happened_is_undone_in_reverse_order_and_what_did_not_is_not() {
    let script = Script::new()
        .tx("a", ok())
        .undo(ok())
        .call("b", ok())
        .undo(ok())
        .call("c", ok())
        .call("d", rejects("no"))
        .undo(ok())
        .call("e", ok())
        .undo(ok());
    let stage = Stage::new().await;

    let (_worker, saga) = stage.play(&script).await;

    stage.is_compensated(saga).await;
    assert_eq!(script.log.lines(), ["a", "b", "c", "d", "undo b", "undo a"]);
}

#[tokio::test]
async fn branches_run_at_the_same_time_and_the_join_waits_for_all() {
    let both = Arc::new(Barrier::new(2));
    let script = Script::new()
        .tx("root", ok())
        .call("left", meets(&both))
        .tx("right", meets(&both))
        .after(&["root"])
        .call("join", ok())
        .after(&["left", "right"]);
    let stage = Stage::new().await;

    let (_worker, saga) = stage.play(&script).await;

    stage.completes(saga).await;
    let lines = script.log.lines();
    assert_eq!((lines.len(), &*lines[0], &*lines[3]), (4, "root", "join"));
}

#[tokio::test]
async fn branches_are_undone_at_the_same_time_and_what_came_before_them_after_both() {
    let both = Arc::new(Barrier::new(2));
    let script = Script::new()
        .tx("root", ok())
        .undo(ok())
        .call("left", ok())
        .undo(meets(&both))
        .call("right", ok())
        .after(&["root"])
        .undo(meets(&both))
        .call("join", rejects("no"))
        .after(&["left", "right"]);
    let stage = Stage::new().await;

    let (_worker, saga) = stage.play(&script).await;

    stage.is_compensated(saga).await;
    let lines = script.log.lines();
    assert_eq!(lines.iter().filter(|line| line.starts_with("undo")).count(), 3);
    assert_eq!(lines.last().unwrap(), "undo root");
}

#[tokio::test]
async fn a_branch_that_is_under_way_when_another_is_rejected_is_undone_once_it_is_known_what_it_did() {
    let both = Arc::new(Barrier::new(2));
    let slow = {
        let both = Arc::clone(&both);
        super::script::body(move |_, _| {
            let both = Arc::clone(&both);
            Box::pin(async move {
                both.wait().await;
                tokio::time::sleep(2 * super::script::PAUSE).await;
                Ok(json(&7))
            })
        })
    };
    let rejecting = {
        let both = Arc::clone(&both);
        super::script::body(move |_, _| {
            let both = Arc::clone(&both);
            Box::pin(async move {
                both.wait().await;
                Err(amends::reject("no"))
            })
        })
    };
    let log = super::script::Log::default();
    let script = Script::new()
        .call("slow", slow)
        .undo_output(super::script::notes_output(&log, 0))
        .call("quick", rejecting)
        .after(&[])
        .undo(ok());
    let stage = Stage::new().await;

    let (_worker, saga) = stage.play(&script).await;

    stage.is_compensated(saga).await;
    assert_eq!(log.lines(), [r#"Some("7")"#]);
    assert_eq!(script.log.count("undo quick"), 0);
}
