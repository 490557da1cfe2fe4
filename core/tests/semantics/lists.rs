//! A step that runs once for every item of a list.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use amends::event::Event;
use serde_json::json as value;

use super::script::{Body, Log, PAUSE, Script, body, json, notes, ok, reads, rejects};
use super::stage::{Stage, done};

fn times_ten() -> Body {
    reads(|data| Ok(json(&(data.item::<u32>()? * 10))))
}

/// Multiplies each item by ten, takes its time over it, and knows how many did so at once.
fn counts(most: &Arc<AtomicUsize>) -> Body {
    let (most, now) = (Arc::clone(most), Arc::new(AtomicUsize::new(0)));
    body(move |_, data| {
        let (most, now) = (Arc::clone(&most), Arc::clone(&now));
        Box::pin(async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(PAUSE).await;
            now.fetch_sub(1, Ordering::SeqCst);
            Ok(json(&(data.item::<u32>()? * 10)))
        })
    })
}

#[tokio::test]
async fn every_item_is_done_once_and_never_more_at_once_than_said() {
    let most = Arc::new(AtomicUsize::new(0));
    let log = Log::default();
    let script = Script::new()
        .call("pick", counts(&most))
        .each("input.lines", 2)
        .tx("pack", notes(&log, |data| Ok(format!("{:?}", data.output::<Vec<u32>>(0)?))))
        .reads(&["pick"]);
    let stage = Stage::new().await;
    let _worker = stage.work(&[&script]);

    let saga = stage.start_with(&script, &value!({ "lines": [1, 2, 3, 4, 5] })).await;

    stage.completes(saga).await;
    assert_eq!(most.load(Ordering::SeqCst), 2);
    assert_eq!(script.log.sorted(), ["pack", "pick 1", "pick 2", "pick 3", "pick 4", "pick 5"]);
    assert_eq!(log.lines(), ["[10, 20, 30, 40, 50]"], "the outputs are in the order of the items");
}

#[tokio::test]
async fn if_one_item_is_rejected_exactly_the_successful_ones_are_undone_each_with_its_own_item_and_output() {
    let log = Log::default();
    let picks = reads(|data| match data.item::<u32>()? {
        3 => Err(amends::reject("sold_out")),
        item => Ok(json(&(item * 10))),
    });
    let undo = notes(&log, |data| Ok(format!("{} {}", data.item::<u32>()?, data.output::<u32>(1)?)));
    let script = Script::new()
        .tx("reserve", ok())
        .undo(ok())
        .call("pick", picks)
        .each("input.lines", 2)
        .undo_output(undo)
        .tx("pack", ok());
    let stage = Stage::new().await;
    let _worker = stage.work(&[&script]);

    let saga = stage.start_with(&script, &value!({ "lines": [1, 2, 3, 4, 5] })).await;

    stage.is_compensated(saga).await;
    let picked = stage.state(saga).await;
    let successful: Vec<_> = (0..5_u32)
        .filter_map(|item| Some(format!("{} {}", item + 1, picked.output("pick", Some(item))?.as_str())))
        .collect();
    assert!(successful.len() >= 2 && successful.contains(&"1 10".to_owned()), "{successful:?}");
    let mut undone = log.lines();
    undone.sort();
    assert_eq!(undone, successful);
    assert_eq!(script.log.lines().last().unwrap(), "undo reserve");
    assert_eq!(script.log.count("pack"), 0);
}

#[tokio::test]
async fn the_items_of_a_transaction_are_undone_like_those_of_a_call() {
    let log = Log::default();
    let script = Script::new()
        .tx("pick", times_ten())
        .each("input.lines", 3)
        .undo(notes(&log, |data| Ok(format!("{} {:?}", data.item::<u32>()?, data.maybe_output::<u32>(0)?))))
        .tx("pack", rejects("no"));
    let stage = Stage::new().await;
    let _worker = stage.work(&[&script]);

    let saga = stage.start_with(&script, &value!({ "lines": [1, 2] })).await;

    stage.is_compensated(saga).await;
    let mut undone = log.lines();
    undone.sort();
    assert_eq!(undone, ["1 Some(10)", "2 Some(20)"]);
}

#[tokio::test]
async fn each_item_has_its_own_attempts_and_its_own_key() {
    let keys = Log::default();
    let noted = keys.clone();
    let picks = super::script::calls(move |call| {
        noted.push(call.idempotency_key());
        if call.attempt() == 1 { Err(amends::StepError::retry("again")) } else { Ok(amends::Json::null()) }
    });
    let script = Script::new().call("pick", picks).each("input", 2);
    let stage = Stage::new().await;
    let _worker = stage.work(&[&script]);

    let saga = stage.start_with(&script, &value!(["pen", "cup"])).await;

    stage.completes(saga).await;
    let key = |item| format!("{saga}/pick[{item}]");
    assert_eq!(keys.sorted(), [key(0), key(0), key(1), key(1)]);
}

#[tokio::test]
async fn the_list_may_be_what_an_earlier_step_returned() {
    let find = super::script::gives(value!({ "found": [7, 8] }));
    let script = Script::new().tx("find", find).tx("pick", times_ten()).each("find.found", 1);
    let stage = Stage::new().await;

    let (_worker, saga) = stage.play(&script).await;

    stage.completes(saga).await;
    assert_eq!(script.log.lines(), ["find", "pick 7", "pick 8"], "one after the other, in their order");
}

#[tokio::test]
async fn a_step_over_an_empty_list_does_nothing_and_returns_an_empty_list() {
    let log = Log::default();
    let script = Script::new()
        .call("pick", ok())
        .each("input.lines", 2)
        .undo(ok())
        .tx("pack", notes(&log, |data| Ok(format!("{:?}", data.output::<Vec<u32>>(0)?))))
        .reads(&["pick"]);
    let stage = Stage::new().await;
    let _worker = stage.work(&[&script]);

    let saga = stage.start_with(&script, &value!({ "lines": [] })).await;

    stage.completes(saga).await;
    assert_eq!(script.log.lines(), ["pack"]);
    assert_eq!(log.lines(), ["[]"]);
}

#[tokio::test]
async fn a_saga_whose_list_is_none_fails_alone_and_says_why() {
    let script = Script::new().tx("reserve", ok()).undo(ok()).call("pick", ok()).each("input.lines", 2).undo(ok());
    let stage = Stage::new().await;
    let _worker = stage.work(&[&script]);

    let odd = stage.start_with(&script, &value!({ "lines": 7 })).await;
    let missing = stage.start_with(&script, &value!({})).await;
    let fine = stage.start_with(&script, &value!({ "lines": ["pen"] })).await;

    stage.completes(fine).await;
    for saga in [odd, missing] {
        stage.is_compensated(saga).await;
        let events = stage.events(saga).await;
        let error = events.iter().find_map(|event| match event {
            Event::Failed { step, failure } if step == "pick" => Some(failure.error.clone()),
            _ => None,
        });
        let error = error.unwrap();
        assert!(error.contains("`input.lines` is no list"), "{error}");
    }
    assert_eq!(script.log.count("undo reserve"), 2);
}

#[tokio::test]
async fn a_request_for_every_item_is_a_message_each_and_each_waits_for_its_own_reply() {
    let script = Script::new().request("ship").each("input", 2).undo(ok()).tx("pay", rejects("no"));
    let stage = Stage::new().await;
    let _worker = stage.work(&[&script]);
    let saga = stage.start_with(&script, &["pen", "cup", "hat"]).await;
    stage.waits_at(saga, "ship[1]").await;
    let asked: Vec<_> = stage.requests().await.into_iter().map(|(correlation, _)| correlation.step).collect();
    assert_eq!(asked, ["ship[0]", "ship[1]"], "two at once");

    stage.reply_to(saga, "ship[1]", done(2)).await;
    stage.waits_at(saga, "ship[2]").await;
    stage.reply_to(saga, "ship[2]", done(3)).await;
    stage.reply_to(saga, "ship[0]", done(1)).await;

    stage.is_compensated(saga).await;
    let saga = stage.state(saga).await;
    let outputs: Vec<_> =
        (0..3).map(|item| saga.output("ship", Some(item)).unwrap().decode::<u32>().unwrap()).collect();
    assert_eq!(outputs, [1, 2, 3]);
    assert_eq!(script.log.lines().iter().filter(|line| line.starts_with("undo ship")).count(), 3);
}

#[tokio::test]
async fn an_item_that_is_stuck_behind_the_pivot_can_be_skipped_alone() {
    let picks = reads(|data| match data.item::<u32>()? {
        2 => Err(amends::reject("sold_out")),
        item => Ok(json(&(item * 10))),
    });
    let script = Script::new().tx("pay", ok()).pivot().call("pick", picks).each("input", 3).tx("pack", ok());
    let stage = Stage::new().await;
    let worker = stage.work(&[&script]);
    let saga = stage.start_with(&script, &[1, 2, 3]).await;
    assert_eq!(stage.parks(saga).await, amends::event::ParkReason::ForwardStuck { step: "pick[1]".into() });

    worker.sagas.resolve(saga, &amends::Resolution::Skip, "ann", "told by telephone").await.unwrap();

    stage.completes(saga).await;
    assert_eq!(script.log.lines().last().unwrap(), "pack");
}
