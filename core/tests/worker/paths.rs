//! The ways through a saga: forward, and back.

use std::time::Duration;

use amends::event::{Event, Outcome};
use amends::{Json, Status, StepKind};
use tokio::time::Instant;

use crate::script::{Script, body, calls, ok, rejects, takes, writes};
use crate::stage::Stage;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_saga_runs_its_steps_in_order_and_completes() {
    let script = Script::new().tx("reserve", ok()).call("charge", ok()).tx("notify", ok());
    let stage = Stage::new();

    let (_worker, saga) = stage.play(&script).await;

    assert_eq!(stage.outcome(saga).await, Some(Outcome::Completed));
    assert_eq!(script.log.lines(), ["reserve", "charge", "notify"]);
    assert_eq!(stage.load(saga).await.owner, None, "nobody holds what is over");
}

#[tokio::test(start_paused = true)]
async fn a_step_reads_the_input_and_what_earlier_steps_returned() {
    let sum = body(|_, data| {
        Box::pin(async move { Ok(Json::encode(&(data.input::<u32>()? + data.output::<u32>(0)?)).unwrap()) })
    });
    let script = Script::new().call("two", calls(|_| Ok(Json::encode(&2).unwrap()))).tx("sum", sum);
    let stage = Stage::new();
    let _worker = stage.work(&script);

    let saga = stage.start_with(&script, Json::encode(&40).unwrap()).await;

    assert_eq!(stage.outcome(saga).await, Some(Outcome::Completed));
    assert_eq!(stage.state(saga).await.output("sum", None).unwrap().decode::<u32>().unwrap(), 42);
}

#[tokio::test(start_paused = true)]
async fn a_rejection_undoes_what_happened_in_reverse_and_not_itself() {
    let script = Script::new()
        .tx("reserve", ok())
        .undo(StepKind::Tx, ok())
        .call("charge", ok())
        .undo_output(StepKind::Call, ok())
        .call("ship", rejects())
        .undo(StepKind::Call, ok())
        .tx("notify", ok());
    let stage = Stage::new();

    let (_worker, saga) = stage.play(&script).await;

    assert_eq!(stage.outcome(saga).await, Some(Outcome::Compensated));
    assert_eq!(script.log.lines(), ["reserve", "charge", "ship", "undo charge", "undo reserve"]);
    let folded = stage.state(saga).await;
    let (step, rejection) = folded.rejection().unwrap();
    assert_eq!((step, &*rejection.code), ("ship", "no"));
}

#[tokio::test(start_paused = true)]
async fn a_compensation_receives_what_its_step_returned() {
    let refund = body(|_, data| {
        Box::pin(async move {
            assert_eq!(data.output::<String>(0)?, "payment-7");
            Ok(Json::null())
        })
    });
    let script = Script::new()
        .call("charge", calls(|_| Ok(Json::encode("payment-7").unwrap())))
        .undo_output(StepKind::Call, refund)
        .tx("ship", rejects());
    let stage = Stage::new();

    let (_worker, saga) = stage.play(&script).await;

    assert_eq!(stage.outcome(saga).await, Some(Outcome::Compensated));
}

#[tokio::test(start_paused = true)]
async fn branches_run_in_parallel_and_are_undone_in_parallel() {
    let slow = || takes(SECOND);
    let script = Script::new()
        .tx("begin", ok())
        .undo(StepKind::Tx, ok())
        .call("left", slow())
        .undo(StepKind::Call, slow())
        .after(&[0])
        .call("right", slow())
        .undo(StepKind::Call, slow())
        .after(&[0])
        .tx("join", rejects())
        .after(&[1, 2]);
    let stage = Stage::new();
    let began = Instant::now();

    let (_worker, saga) = stage.play(&script).await;

    assert_eq!(stage.outcome(saga).await, Some(Outcome::Compensated));
    let took = began.elapsed();
    assert!(took >= 2 * SECOND && took < 3 * SECOND, "one second there and one back, not {took:?}");
    let lines = script.log.lines();
    assert_eq!((&*lines[0], &*lines[3], lines.last().unwrap().as_str()), ("begin", "join", "undo begin"));
}

#[tokio::test(start_paused = true)]
async fn a_failing_branch_waits_for_its_siblings_before_anything_is_undone() {
    let script = Script::new()
        .call("slow", takes(10 * SECOND))
        .undo_output(StepKind::Call, ok())
        .tx("quick", ok())
        .undo(StepKind::Tx, ok())
        .after(&[])
        .tx("no", rejects())
        .after(&[1]);
    let stage = Stage::new();

    let (_worker, saga) = stage.play(&script).await;

    let loaded = stage.until(saga, |loaded| loaded.status == Status::Compensating).await;
    assert_eq!(script.log.count("undo quick"), 0);
    assert!(loaded.fold().output("slow", None).is_none());
    assert_eq!(stage.outcome(saga).await, Some(Outcome::Compensated));
    assert_eq!((script.log.count("slow"), script.log.count("undo slow"), script.log.count("undo quick")), (1, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn past_the_pivot_a_rejection_parks_the_saga_and_undoes_nothing() {
    let script =
        Script::new().tx("reserve", ok()).undo(StepKind::Tx, ok()).call("ship", ok()).pivot().tx("notify", rejects());
    let stage = Stage::new();

    let (_worker, saga) = stage.play(&script).await;

    assert_eq!(stage.rests(saga).await, Status::Parked);
    assert_eq!(script.log.lines(), ["reserve", "ship", "notify"]);
    let last = stage.events(saga).await.pop();
    assert!(matches!(last, Some(Event::Parked { .. })));
}

#[tokio::test(start_paused = true)]
async fn every_attempt_of_a_step_has_the_same_key_and_no_other_step_has_it() {
    let script = Script::new();
    let keys = script.log.clone();
    let record = || {
        let keys = keys.clone();
        calls(move |call| {
            keys.push(format!("{} {}", call.attempt(), call.idempotency_key()));
            if call.attempt() < 3 { Err(amends::StepError::retry("again")) } else { Ok(Json::null()) }
        })
    };
    let script =
        script.call("a", record()).undo(StepKind::Call, record()).tx("b", writes(|_| Err(amends::reject("no"))));
    let stage = Stage::new();

    let (_worker, saga) = stage.play(&script).await;

    assert_eq!(stage.outcome(saga).await, Some(Outcome::Compensated));
    let expected: Vec<_> = (1..=3).map(|n| format!("{n} {saga}/a")).collect();
    let undo: Vec<_> = (1..=3).map(|n| format!("{n} {saga}/a/undo")).collect();
    let lines: Vec<_> = script.log.lines().into_iter().filter(|line| line.contains('/')).collect();
    assert_eq!(lines, [expected, undo].concat());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_undone_while_a_forward_attempt_is_under_way() {
    let script = Script::new();
    let log = script.log.clone();
    let slow = body(move |_, _| {
        let log = log.clone();
        Box::pin(async move {
            tokio::time::sleep(10 * SECOND).await;
            log.push("slow has ended");
            Ok(Json::null())
        })
    });
    let script = script
        .call("slow", slow)
        .undo(StepKind::Call, ok())
        .call("quick", ok())
        .undo(StepKind::Call, ok())
        .after(&[])
        .tx("no", rejects())
        .after(&[1]);
    let stage = Stage::new();

    let (_worker, saga) = stage.play(&script).await;

    assert_eq!(stage.outcome(saga).await, Some(Outcome::Compensated));
    let lines = script.log.lines();
    assert_eq!(lines[..4], ["slow", "quick", "no", "slow has ended"], "then both are undone: {lines:?}");
    assert_eq!(lines.len(), 6);
}
