//! A store that fails for a while, or for one saga.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use amends::event::{Event, Outcome, ParkReason};
use amends::{Error, Status, StepKind};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::flaky::Flaky;
use crate::script::{Body, Script, body, fails, hangs_first, ok, rejects};
use crate::stage::{Stage, until, work};

const SECOND: Duration = Duration::from_secs(1);

fn stage() -> Stage<Flaky> {
    Stage { store: Flaky::new() }
}

impl Stage<Flaky> {
    /// The store fails as soon as the body has begun.
    fn pulls_the_plug(&self, then: Body) -> Body {
        let faults = Arc::clone(&self.store.faults);
        body(move |capability, data| {
            faults.down.store(true, Ordering::SeqCst);
            then(capability, data)
        })
    }

    fn comes_back(&self) {
        self.store.faults.down.store(false, Ordering::SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_answered_during_an_outage_is_recorded_after_it_and_not_repeated() {
    let stage = stage();
    let script = Script::new().call("charge", stage.pulls_the_plug(ok())).call("ship", ok());
    let (_worker, saga) = stage.play(&script).await;
    until(|| script.log.count("charge") == 1).await;

    sleep(3 * SECOND).await;
    stage.comes_back();

    assert_eq!(stage.outcome(saga).await, Some(Outcome::Completed));
    assert_eq!(script.log.lines(), ["charge", "ship"]);
}

#[tokio::test(start_paused = true)]
async fn a_rejection_after_an_outage_does_not_hide_what_the_unrecorded_attempt_may_have_done() {
    let stage = stage();
    let script = Script::new().call("charge", hangs_first(rejects())).timeout(SECOND).undo(StepKind::Call, ok());
    let (_worker, saga) = stage.play(&script).await;
    until(|| script.log.count("charge") == 1).await;
    stage.store.faults.down.store(true, Ordering::SeqCst);

    sleep(4 * SECOND).await;
    stage.comes_back();

    assert_eq!(stage.outcome(saga).await, Some(Outcome::Compensated));
    assert_eq!(script.log.lines(), ["charge", "charge", "undo charge"]);
}

#[tokio::test(start_paused = true)]
async fn an_append_whose_answer_was_lost_is_written_once() {
    let stage = stage();
    let script = Script::new().call("charge", ok()).call("ship", ok());
    stage.store.faults.lost_answers.store(2, Ordering::SeqCst);

    let (_worker, saga) = stage.play(&script).await;

    assert_eq!(stage.outcome(saga).await, Some(Outcome::Completed));
    assert_eq!(script.log.lines(), ["charge", "ship"]);
    let successes = stage.events(saga).await.into_iter().filter(|event| matches!(event, Event::Succeeded { .. }));
    assert_eq!(successes.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_worker_survives_an_outage_that_outlasts_its_lease() {
    let stage = stage();
    let script = Script::new().call("charge", stage.pulls_the_plug(ok())).call("ship", ok());
    let (_worker, saga) = stage.play(&script).await;
    until(|| script.log.count("charge") == 1).await;
    sleep(300 * SECOND).await;

    let healed = tokio::time::Instant::now();
    stage.comes_back();
    until(|| script.log.count("charge") == 2).await;
    stage.comes_back();

    assert_eq!(stage.outcome(saga).await, Some(Outcome::Completed));
    assert!(healed.elapsed() < 60 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_cannot_register_at_all_says_so() {
    let stage = stage();
    stage.store.faults.down.store(true, Ordering::SeqCst);

    let answer = stage.sagas(&Script::new().call("a", ok())).run(CancellationToken::new()).await;

    assert!(matches!(answer, Err(Error::Store(_))));
}

#[tokio::test(start_paused = true)]
async fn sagas_are_claimed_even_while_none_can_be_adopted() {
    let stage = stage();
    let script = Script::new().call("a", ok());
    stage.store.faults.no_adoption.store(true, Ordering::SeqCst);
    let saga = stage.start(&script).await;

    let _worker = stage.work(&script);

    assert_eq!(stage.outcome(saga).await, Some(Outcome::Completed));
}

#[tokio::test(start_paused = true)]
async fn an_output_that_the_store_refuses_fails_its_step() {
    let stage = stage();
    *stage.store.faults.refuses.lock().unwrap() =
        Some(|append| append.events.iter().any(|event| matches!(event, Event::Succeeded { .. })));
    let script = Script::new().call("odd", ok()).undo(StepKind::Call, ok());

    let (_worker, saga) = stage.play(&script).await;

    assert_eq!(stage.outcome(saga).await, Some(Outcome::Compensated));
    assert_eq!(script.log.lines(), ["odd", "undo odd"]);
}

#[tokio::test(start_paused = true)]
async fn a_saga_of_which_no_outcome_can_be_stored_parks_and_harms_no_other() {
    let stage = stage();
    *stage.store.faults.refuses.lock().unwrap() = Some(|append| {
        let of_odd = |event: &Event| match event {
            Event::Succeeded { step, .. } | Event::Failed { step, .. } => step == "odd",
            _ => false,
        };
        append.events.iter().any(of_odd)
    });
    let script = Script::new().call("odd", ok());
    let good = Script::new().named("good").call("fine", ok());
    let both = stage.with(&script).register_dynamic(good.definition.clone(), good.clone());
    let _worker = work(both.build().unwrap());

    let (odd, fine) = (stage.start(&script).await, stage.start(&good).await);

    assert_eq!(stage.outcome(fine).await, Some(Outcome::Completed));
    assert_eq!(stage.rests(odd).await, Status::Parked);
    assert!(matches!(stage.parked(odd).await, Some(ParkReason::CrashLoop { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_saga_that_is_claimed_again_while_its_task_lets_go_of_it_is_driven() {
    let stage = stage();
    let script = Script::new().call("charge", fails()).retry(3, 3600 * SECOND).undo(StepKind::Call, ok());
    stage.store.faults.slow_answers.store(true, Ordering::SeqCst);
    let (_worker, saga) = stage.play(&script).await;
    stage.until(saga, |loaded| loaded.owner.is_none() && !loaded.journal.is_empty()).await;

    // Its worker does not know yet that it has released it.
    stage.sagas(&script).cancel(saga, "changed my mind").await.unwrap();

    assert_eq!(stage.outcome(saga).await, Some(Outcome::Compensated));
    assert_eq!(script.log.lines(), ["charge", "undo charge"]);
}
