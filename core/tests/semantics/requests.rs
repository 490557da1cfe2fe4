//! Steps that ask through the outbox and wait for the reply.

use std::time::Duration;

use amends::event::{Event, Outcome, ParkReason};
use amends::store::{Loaded, Store};
use amends::{Answer, IDEMPOTENCY_HEADER, OutboxMessage, Rejection};

use super::script::{Log, Script, json, notes, notes_output, ok, rejects};
use super::stage::{Stage, done};

const SHORT: Duration = Duration::from_millis(60);

fn no(code: &str) -> Answer {
    Answer::Rejected(Rejection::new(code))
}

#[tokio::test]
async fn a_request_is_in_the_outbox_with_what_its_reply_belongs_to_and_no_worker_holds_the_saga() {
    let script = Script::new().tx("reserve", ok()).request("ship");
    let stage = Stage::new().await;

    let (_worker, saga) = stage.play(&script).await;

    stage.waits_at(saga, "ship").await;
    let requests = stage.requests().await;
    let [(correlation, message)] = &requests[..] else { panic!("{requests:?}") };
    assert_eq!((correlation.saga, &*correlation.step, correlation.undo, correlation.attempt), (saga, "ship", false, 1));
    assert_eq!(message.headers[IDEMPOTENCY_HEADER], format!("{saga}/ship"));
    assert_eq!((&*message.topic, &message.payload[..]), ("ask", &br#""ship""#[..]));
}

#[tokio::test]
async fn the_reply_is_what_the_step_returns() {
    let log = Log::default();
    let script = Script::new()
        .request("ship")
        .accepts::<u32>()
        .tx("mail", notes(&log, |data| Ok(format!("parcel {}", data.output::<u32>(0)?))))
        .reads(&["ship"]);
    let stage = Stage::new().await;
    let (_worker, saga) = stage.play(&script).await;
    stage.waits_at(saga, "ship").await;

    let (correlation, _) = &stage.requests().await[0];
    stage.reply(correlation, done(7)).await;

    stage.completes(saga).await;
    assert_eq!(log.lines(), ["parcel 7"]);
}

#[tokio::test]
async fn a_rejection_undoes_what_came_before_but_not_the_request() {
    let script = Script::new().tx("reserve", ok()).undo(ok()).request("ship").undo(ok());
    let stage = Stage::new().await;
    let (_worker, saga) = stage.play(&script).await;
    stage.waits_at(saga, "ship").await;

    stage.reply_to(saga, "ship", no("no_van")).await;

    stage.is_compensated(saga).await;
    assert_eq!(script.log.lines(), ["reserve", "begin ship", "undo reserve"]);
    let saga = stage.state(saga).await;
    assert_eq!(saga.rejection().map(|(step, rejection)| (step, &*rejection.code)), Some(("ship", "no_van")));
}

#[tokio::test]
async fn a_reply_that_does_not_come_in_time_leaves_the_outcome_unknown_so_that_it_is_undone() {
    let log = Log::default();
    let script = Script::new().request("ship").timeout(SHORT).undo(notes_output(&log, 0));
    let stage = Stage::new().await;

    let (_worker, saga) = stage.play(&script).await;

    stage.is_compensated(saga).await;
    assert_eq!(log.lines(), ["None"]);
}

#[tokio::test]
async fn a_request_that_is_asked_again_is_a_new_attempt_under_the_same_key() {
    let script = Script::new().request("ship").timeout(SHORT).attempts(2).undo(ok());
    let stage = Stage::new().await;

    let (_worker, saga) = stage.play(&script).await;

    stage.is_compensated(saga).await;
    let requests = stage.requests().await;
    let attempts: Vec<_> = requests.iter().map(|(correlation, _)| correlation.attempt).collect();
    assert_eq!(attempts, [1, 2]);
    let key = |message: &OutboxMessage| message.headers[IDEMPOTENCY_HEADER].clone();
    assert_eq!(key(&requests[0].1), key(&requests[1].1));
    assert_ne!(requests[0].1.id, requests[1].1.id, "they are two messages");
}

#[tokio::test]
async fn a_late_reply_settles_a_saga_that_is_parked_in_doubt() {
    let log = Log::default();
    let script = Script::new().request("ship").timeout(SHORT).undo_output(ok()).tx("mail", notes_output(&log, 0));
    let stage = Stage::new().await;
    let (_worker, saga) = stage.play(&script).await;
    assert_eq!(stage.parks(saga).await, ParkReason::InDoubt { step: "ship".into() });

    stage.reply_to(saga, "ship", done(7)).await;

    stage.completes(saga).await;
    assert_eq!(log.lines(), [r#"Some("7")"#]);
    assert_eq!(script.log.count("undo ship"), 0);
}

#[tokio::test]
async fn a_late_rejection_settles_a_saga_that_is_parked_in_doubt_too() {
    let script = Script::new().tx("reserve", ok()).undo(ok()).request("ship").timeout(SHORT).undo_output(ok());
    let stage = Stage::new().await;
    let (_worker, saga) = stage.play(&script).await;
    stage.parks(saga).await;

    stage.reply_to(saga, "ship", no("no_van")).await;

    stage.is_compensated(saga).await;
    assert_eq!(script.log.lines(), ["reserve", "begin ship", "undo reserve"]);
}

#[tokio::test]
async fn a_reply_after_the_end_changes_nothing() {
    let script = Script::new().request("ship").timeout(SHORT).undo(ok());
    let stage = Stage::new().await;
    let (_worker, saga) = stage.play(&script).await;
    stage.is_compensated(saga).await;
    let before = stage.state(saga).await;

    stage.reply_to(saga, "ship", done(7)).await;

    let loaded = stage.load(saga).await;
    let after = loaded.fold();
    assert_eq!(
        (after.ended, &after.steps, after.failing_since),
        (Some(Outcome::Compensated), &before.steps, before.failing_since)
    );
    assert!(loaded.status.is_final());
    assert_eq!(stage.store.ended(&[saga]).await.unwrap(), [saga]);
}

#[tokio::test]
async fn the_same_reply_twice_counts_once_and_a_second_one_changes_nothing() {
    let script = Script::new().request("ship").signal("stay");
    let stage = Stage::new().await;
    let (worker, saga) = stage.play(&script).await;
    stage.waits_at(saga, "ship").await;
    let reply = |id, answer| Event::Replied { id, step: "ship".into(), undo: false, attempt: 1, answer };
    let id = uuid::Uuid::now_v7();

    stage.append(saga, vec![reply(id, done(7))]).await;
    stage.append(saga, vec![reply(id, done(7))]).await;
    stage.waits_at(saga, "stay").await;
    stage.append(saga, vec![reply(uuid::Uuid::now_v7(), no("no_van"))]).await;
    worker.signal(saga, "stay", ()).await.unwrap();

    stage.completes(saga).await;
    assert_eq!(stage.output(saga, "ship").await, Some(7));
}

#[tokio::test]
async fn a_reply_of_another_type_leaves_the_outcome_unknown() {
    let script = Script::new().request("ship").accepts::<u32>().undo(ok());
    let stage = Stage::new().await;
    let (_worker, saga) = stage.play(&script).await;
    stage.waits_at(saga, "ship").await;

    stage.reply_to(saga, "ship", done("seven")).await;

    stage.is_compensated(saga).await;
    let said =
        |event: &Event| matches!(event, Event::Failed { failure, .. } if failure.error.contains("cannot be read"));
    assert!(stage.events(saga).await.iter().any(said));
    assert_eq!(script.log.lines(), ["begin ship", "undo ship"]);
}

#[tokio::test]
async fn a_compensation_by_request_is_done_once_its_reply_says_so() {
    let script =
        Script::new().tx("reserve", ok()).undo(ok()).request("ship").undo_by_request().tx("mail", rejects("no"));
    let stage = Stage::new().await;
    let (_worker, saga) = stage.play(&script).await;
    stage.waits_at(saga, "ship").await;
    stage.reply_to(saga, "ship", done(7)).await;
    let has_asked = |loaded: &Loaded| {
        let mut events = loaded.journal.iter().flat_map(|row| &row.events);
        loaded.owner.is_none() && events.any(|event| matches!(event, Event::Begun { undo: true, .. }))
    };
    stage.until(saga, has_asked).await;
    let requests = stage.requests().await;
    let (correlation, message) = requests.last().unwrap();
    assert!(correlation.undo && correlation.step == "ship");
    assert_eq!(message.headers[IDEMPOTENCY_HEADER], format!("{saga}/ship/undo"));
    assert_eq!(script.log.count("undo reserve"), 0, "not before the reply");

    stage.reply(correlation, Answer::Done(json(&()))).await;

    stage.is_compensated(saga).await;
    assert_eq!(script.log.count("undo reserve"), 1);
}

#[tokio::test]
async fn a_refused_compensation_by_request_is_asked_again_and_parks_when_its_attempts_are_used_up() {
    let script = Script::new().request("ship").undo_by_request().tx("mail", rejects("no"));
    let stage = Stage::new().await;
    let (_worker, saga) = stage.play(&script).await;
    stage.waits_at(saga, "ship").await;
    stage.reply_to(saga, "ship", done(7)).await;

    for attempt in 1..=3 {
        let has_asked = |loaded: &Loaded| {
            let mut events = loaded.journal.iter().flat_map(|row| &row.events);
            events.any(|event| matches!(event, Event::Begun { undo: true, attempt: begun, .. } if *begun == attempt))
        };
        stage.until(saga, has_asked).await;
        let correlation = amends::Correlation { saga, step: "ship".into(), undo: true, attempt };
        stage.reply(&correlation, no("too_late")).await;
    }

    assert_eq!(stage.parks(saga).await, ParkReason::CompensationStuck { step: "ship".into() });
}
