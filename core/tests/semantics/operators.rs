//! The ways out for a parked saga.

use amends::event::{Event, ParkReason};
use amends::machine::MAX_RECOVERIES;
use amends::{Error, Resolution, StepError, WorkerId};

use super::script::{
    Body, Log, Script, calls, fails, fails_first, fails_with, json, notes, notes_output, ok, reads, rejects,
};
use super::stage::{Stage, refusal};

/// It is past its pivot when `mail` is stuck.
fn stuck_ahead(mail: Body) -> Script {
    Script::new().tx("reserve", ok()).undo(ok()).tx("pay", ok()).pivot().call("mail", mail).attempts(1)
}

/// The refund is stuck.
fn stuck_behind(refund: Body) -> Script {
    Script::new().tx("reserve", ok()).undo(ok()).call("charge", ok()).undo(refund).tx("no", rejects("no"))
}

/// Nobody knows whether the card was charged.
fn in_doubt(log: &Log) -> Script {
    Script::new()
        .tx("reserve", ok())
        .undo(ok())
        .call("charge", fails())
        .attempts(1)
        .undo_output(notes_output(log, 1))
        .tx("ship", notes_output(log, 1))
}

#[tokio::test]
async fn a_retry_gives_a_step_behind_the_pivot_a_new_round_of_attempts() {
    let script = stuck_ahead(fails_first(1, ok()));
    let stage = Stage::new().await;
    let (worker, saga) = stage.play(&script).await;
    assert_eq!(stage.parks(saga).await, ParkReason::ForwardStuck { step: "mail".into() });

    worker.sagas.resolve(saga, &Resolution::Retry, "ann", "").await.unwrap();

    stage.completes(saga).await;
    assert_eq!(script.log.count("mail"), 2);
    assert_eq!(script.log.count("undo reserve"), 0);
}

#[tokio::test]
async fn a_retry_gives_a_compensation_a_new_round_of_attempts() {
    let script = stuck_behind(fails_first(3, ok()));
    let stage = Stage::new().await;
    let (worker, saga) = stage.play(&script).await;
    assert_eq!(stage.parks(saga).await, ParkReason::CompensationStuck { step: "charge".into() });
    assert_eq!(script.log.count("undo reserve"), 0, "what came before waits");

    worker.sagas.resolve(saga, &Resolution::Retry, "ann", "").await.unwrap();

    stage.is_compensated(saga).await;
    assert_eq!((script.log.count("undo charge"), script.log.count("undo reserve")), (4, 1));
}

#[tokio::test]
async fn a_step_that_is_stuck_behind_the_pivot_can_be_skipped_and_the_journal_says_who_did_and_why() {
    let script = stuck_ahead(rejects("no_such_address")).tx("close", ok());
    let stage = Stage::new().await;
    let (worker, saga) = stage.play(&script).await;
    stage.parks(saga).await;

    worker.sagas.resolve(saga, &Resolution::Skip, "ann", "told by telephone").await.unwrap();

    stage.completes(saga).await;
    assert_eq!(script.log.lines(), ["reserve", "pay", "mail", "close"]);
    let said = |event: &Event| {
        matches!(event, Event::Overruled { step, output: None, by, note, .. }
            if step == "mail" && by == "ann" && note == "told by telephone")
    };
    assert!(stage.events(saga).await.iter().any(said));
}

#[tokio::test]
async fn a_step_whose_output_is_needed_cannot_be_skipped_but_its_output_can_be_supplied() {
    let log = Log::default();
    let close = notes(&log, |data| Ok(format!("mailed {}", data.output::<u32>(2)?)));
    let script = stuck_ahead(rejects("no")).tx("close", close).reads(&["mail"]);
    let stage = Stage::new().await;
    let (worker, saga) = stage.play(&script).await;
    stage.parks(saga).await;

    let skip = refusal(worker.sagas.resolve(saga, &Resolution::Skip, "ann", "why not").await);
    worker.sagas.resolve(saga, &Resolution::Supply(json(&7)), "ann", "mailed by hand").await.unwrap();

    assert!(skip.contains("`close` reads what `mail` returns"), "{skip}");
    stage.completes(saga).await;
    assert_eq!(log.lines(), ["mailed 7"]);
}

#[tokio::test]
async fn a_compensation_that_was_made_by_hand_can_be_skipped() {
    let script = stuck_behind(fails());
    let stage = Stage::new().await;
    let (worker, saga) = stage.play(&script).await;
    stage.parks(saga).await;

    let supply = refusal(worker.sagas.resolve(saga, &Resolution::Supply(json(&7)), "ann", "by hand").await);
    worker.sagas.resolve(saga, &Resolution::Skip, "ann", "refunded by hand").await.unwrap();

    assert!(supply.contains("a compensation returns nothing"), "{supply}");
    stage.is_compensated(saga).await;
    assert_eq!((script.log.count("undo charge"), script.log.count("undo reserve")), (3, 1));
}

#[tokio::test]
async fn a_step_in_doubt_that_is_skipped_did_not_happen() {
    let log = Log::default();
    let script = in_doubt(&log);
    let stage = Stage::new().await;
    let (worker, saga) = stage.play(&script).await;
    assert_eq!(stage.parks(saga).await, ParkReason::InDoubt { step: "charge".into() });

    worker.sagas.resolve(saga, &Resolution::Skip, "ann", "the bank knows of none").await.unwrap();

    stage.is_compensated(saga).await;
    assert_eq!(script.log.lines(), ["reserve", "charge", "undo reserve"]);
}

#[tokio::test]
async fn a_step_in_doubt_whose_output_is_supplied_happened_and_the_saga_goes_on() {
    let log = Log::default();
    let script = in_doubt(&log);
    let stage = Stage::new().await;
    let (worker, saga) = stage.play(&script).await;
    stage.parks(saga).await;

    worker.sagas.resolve(saga, &Resolution::Supply(json(&7)), "ann", "on the statement").await.unwrap();

    stage.completes(saga).await;
    assert_eq!(log.lines(), [r#"Some("7")"#]);
}

#[tokio::test]
async fn a_saga_that_kills_its_workers_can_be_cancelled_and_nothing_else_can_be_said_of_it_but_retry() {
    let script = Script::new().tx("reserve", ok()).undo(ok()).call("charge", ok()).undo(ok()).signal("stay");
    let stage = Stage::new().await;
    let (worker, saga) = stage.play(&script).await;
    stage.waits_at(saga, "stay").await;
    let deaths = vec![Event::Adopted { by: WorkerId::new() }; MAX_RECOVERIES as usize];
    stage.append(saga, deaths).await;
    assert_eq!(stage.parks(saga).await, ParkReason::CrashLoop { recoveries: MAX_RECOVERIES });

    let skip = refusal(worker.sagas.resolve(saga, &Resolution::Skip, "ann", "why not").await);
    worker.sagas.resolve(saga, &Resolution::Cancel, "ann", "enough").await.unwrap();

    assert!(skip.contains("retry or cancel"), "{skip}");
    stage.is_compensated(saga).await;
    assert_eq!(script.log.lines(), ["reserve", "charge", "begin stay", "undo charge", "undo reserve"]);
}

#[tokio::test]
async fn a_saga_that_is_stuck_elsewhere_cannot_be_cancelled() {
    let (ahead, behind) = (stuck_ahead(fails()).called("ahead"), stuck_behind(fails()).called("behind"));
    let stage = Stage::new().await;
    let worker = stage.work(&[&ahead, &behind]);
    let (one, two) = (stage.start(&ahead).await, stage.start(&behind).await);
    stage.parks(one).await;
    stage.parks(two).await;

    let past_pivot = refusal(worker.sagas.resolve(one, &Resolution::Cancel, "ann", "enough").await);
    let undone_already = refusal(worker.sagas.resolve(two, &Resolution::Cancel, "ann", "enough").await);

    assert!(past_pivot.contains("past its pivot"), "{past_pivot}");
    assert!(undone_already.contains("undone already"), "{undone_already}");
}

#[tokio::test]
async fn what_is_skipped_or_supplied_must_be_justified() {
    let script = stuck_behind(fails());
    let stage = Stage::new().await;
    let (worker, saga) = stage.play(&script).await;
    stage.parks(saga).await;

    let silent = refusal(worker.sagas.resolve(saga, &Resolution::Skip, "ann", " ").await);

    assert!(silent.contains("say why"), "{silent}");
    assert_eq!(stage.parks(saga).await, ParkReason::CompensationStuck { step: "charge".into() });
}

#[tokio::test]
async fn a_saga_that_is_not_parked_takes_no_decision() {
    let script = Script::new().signal("stay");
    let stage = Stage::new().await;
    let (worker, saga) = stage.play(&script).await;
    stage.waits_at(saga, "stay").await;

    let refused = refusal(worker.sagas.resolve(saga, &Resolution::Retry, "ann", "").await);

    assert!(refused.contains("not parked"), "{refused}");
}

#[tokio::test]
async fn of_two_operators_at_once_one_decides_and_the_other_is_told_so() {
    let script = stuck_behind(fails());
    let stage = Stage::new().await;
    let (worker, saga) = stage.play(&script).await;
    stage.parks(saga).await;
    let other = stage.sagas(&[&script]);

    let (one, two) = tokio::join!(
        worker.sagas.resolve(saga, &Resolution::Skip, "ann", "by hand"),
        other.resolve(saga, &Resolution::Skip, "bob", "by hand too"),
    );

    let refused = |result: &Result<(), Error>| matches!(result, Err(Error::Refused { .. }));
    assert!(one.is_ok() != two.is_ok() && (refused(&one) || refused(&two)), "{one:?} {two:?}");
    stage.is_compensated(saga).await;
    let decided = stage.events(saga).await.into_iter().filter(|event| matches!(event, Event::Overruled { .. }));
    assert_eq!(decided.count(), 1);
}

#[tokio::test]
async fn all_that_are_stuck_in_the_same_way_can_be_resolved_at_once_and_no_others() {
    // Numbers in an error do not count.
    let locked = calls(|call| Err(StepError::retry(format!("row {} is locked", call.saga().0.as_u128() % 1_000))));
    let (alike, other) = (stuck_behind(locked), stuck_behind(fails_with("the bank is closed")).called("other"));
    let stage = Stage::new().await;
    let worker = stage.work(&[&alike, &other]);
    let mut same = Vec::new();
    for _ in 0..3 {
        same.push(stage.start(&alike).await);
    }
    let different = stage.start(&other).await;
    for &saga in same.iter().chain([&different]) {
        stage.parks(saga).await;
    }
    let fingerprint = stage.state(same[0]).await.parked.unwrap().fingerprint;

    let resolved = worker.sagas.resolve_all(fingerprint, &Resolution::Skip, "ann", "by hand").await.unwrap();

    let mut done = resolved.done;
    done.sort();
    same.sort();
    assert_eq!(done, same);
    assert!(resolved.refused.is_empty());
    for saga in same {
        stage.is_compensated(saga).await;
    }
    stage.parks(different).await;
}

#[tokio::test]
async fn two_errors_of_one_step_are_two_fingerprints() {
    let refund = reads(|data| Err(StepError::retry(data.input::<String>()?)));
    let script = stuck_behind(refund);
    let stage = Stage::new().await;
    let worker = stage.work(&[&script]);
    let closed = stage.start_with(&script, "the bank is closed").await;
    let unknown = stage.start_with(&script, "no such account").await;
    stage.parks(closed).await;
    stage.parks(unknown).await;
    let fingerprint = stage.state(closed).await.parked.unwrap().fingerprint;

    let resolved = worker.sagas.resolve_all(fingerprint, &Resolution::Skip, "ann", "by hand").await.unwrap();

    assert_eq!(resolved.done, [closed]);
    stage.is_compensated(closed).await;
    stage.parks(unknown).await;
}

#[tokio::test]
async fn a_signal_to_a_parked_saga_leaves_it_parked_where_an_operator_finds_it() {
    let down = || Err(amends::StepError::retry("down"));
    let script = Script::new().call("pay", fails()).attempts(1).pivot().probe(down).signal("later");
    let stage = Stage::new().await;
    let (worker, saga) = stage.play(&script).await;
    stage.parks(saga).await;
    let fingerprint = stage.state(saga).await.parked.unwrap().fingerprint;

    worker.signal(saga, "later", 7_u32).await.unwrap();

    let resolved = worker.sagas.resolve_all(fingerprint, &Resolution::Skip, "ann", "by hand").await.unwrap();
    assert_eq!(resolved.done, [saga]);
    stage.is_compensated(saga).await;
}

#[tokio::test]
async fn a_reply_that_settles_nothing_leaves_a_parked_saga_parked_where_an_operator_finds_it() {
    let script = Script::new().request("ship").timeout(super::script::PAUSE).attempts(2).undo_output(ok());
    let stage = Stage::new().await;
    let (worker, saga) = stage.play(&script).await;
    assert_eq!(stage.parks(saga).await, ParkReason::InDoubt { step: "ship".into() });

    // The second attempt may still have been done.
    stage.reply_to(saga, "ship", amends::Answer::Rejected(amends::Rejection::new("no_van"))).await;

    stage.until(saga, |loaded| loaded.owner.is_none() && loaded.status == amends::Status::Parked).await;
    stage.is_listed_as_parked(saga).await;
    worker.sagas.resolve(saga, &Resolution::Skip, "ann", "they did not").await.unwrap();
    stage.is_compensated(saga).await;
    assert_eq!(script.log.count("undo ship"), 0);
}

#[tokio::test]
async fn a_step_over_whose_list_another_runs_cannot_be_skipped() {
    let script = stuck_ahead(rejects("no")).call("pick", ok()).each("mail.lines", 1);
    let stage = Stage::new().await;
    let (worker, saga) = stage.play(&script).await;
    stage.parks(saga).await;

    let skip = refusal(worker.sagas.resolve(saga, &Resolution::Skip, "ann", "why not").await);
    let list = json(&serde_json::json!({ "lines": [1, 2] }));
    worker.sagas.resolve(saga, &Resolution::Supply(list), "ann", "by hand").await.unwrap();

    assert!(skip.contains("`pick` reads what `mail` returns"), "{skip}");
    stage.completes(saga).await;
    assert_eq!(script.log.lines()[3..], ["pick 1", "pick 2"]);
}

#[tokio::test]
async fn a_retry_of_a_step_in_doubt_asks_again_and_counts_on() {
    let log = Log::default();
    let attempts = log.clone();
    let charge = calls(move |call| {
        attempts.push(format!("{} of {}", call.attempt(), call.idempotency_key()));
        if call.attempt() == 1 { Err(StepError::retry("oops")) } else { Ok(json(&7)) }
    });
    let script = Script::new().call("charge", charge).attempts(1).undo_output(ok()).tx("ship", ok());
    let stage = Stage::new().await;
    let (worker, saga) = stage.play(&script).await;
    stage.parks(saga).await;

    worker.sagas.resolve(saga, &Resolution::Retry, "ann", "").await.unwrap();

    stage.completes(saga).await;
    assert_eq!(log.lines(), [format!("1 of {saga}/charge"), format!("2 of {saga}/charge")]);
    assert_eq!(stage.output(saga, "charge").await, Some(7));
}

#[tokio::test]
async fn a_step_in_doubt_whose_output_is_supplied_is_undone_with_it_if_the_saga_failed_for_another_reason() {
    let log = Log::default();
    let script = Script::new()
        .call("charge", fails())
        .attempts(1)
        .undo_output(notes_output(&log, 0))
        .call("check", rejects("no"))
        .after(&[]);
    let stage = Stage::new().await;
    let (worker, saga) = stage.play(&script).await;
    stage.parks(saga).await;

    worker.sagas.resolve(saga, &Resolution::Supply(json(&7)), "ann", "on the statement").await.unwrap();

    stage.is_compensated(saga).await;
    assert_eq!(log.lines(), [r#"Some("7")"#]);
}
