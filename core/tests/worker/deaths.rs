//! Workers that die, and what they leave to others.

use amends::event::{Event, Outcome, ParkReason};
use amends::machine::MAX_RECOVERIES;
use amends::{Status, StepKind};

use crate::script::{Script, hangs, hangs_first, ok, rejects};
use crate::stage::{Stage, until};

#[tokio::test(start_paused = true)]
async fn the_saga_of_a_dead_worker_is_adopted_and_completed() {
    let script = Script::new().tx("reserve", ok()).call("charge", hangs_first(ok())).tx("ship", ok());
    let stage = Stage::new();
    let (doomed, saga) = stage.play(&script).await;
    until(|| script.log.count("charge") == 1).await;

    doomed.dies().await;
    let _heir = stage.work(&script);

    assert_eq!(stage.outcome(saga).await, Some(Outcome::Completed));
    assert_eq!(script.log.lines(), ["reserve", "charge", "charge", "ship"]);
    assert!(stage.events(saga).await.iter().any(|event| matches!(event, Event::Adopted { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_rejection_after_an_adoption_does_not_hide_what_the_dead_worker_may_have_done() {
    let script = Script::new().call("charge", hangs_first(rejects())).undo(StepKind::Call, ok());
    let stage = Stage::new();
    let (doomed, saga) = stage.play(&script).await;
    until(|| script.log.count("charge") == 1).await;

    doomed.dies().await;
    let _heir = stage.work(&script);

    assert_eq!(stage.outcome(saga).await, Some(Outcome::Compensated));
    assert_eq!(script.log.lines(), ["charge", "charge", "undo charge"]);
}

#[tokio::test(start_paused = true)]
async fn a_compensation_survives_the_death_of_its_worker() {
    let script = Script::new().call("charge", ok()).undo(StepKind::Call, hangs_first(ok())).tx("no", rejects());
    let stage = Stage::new();
    let (doomed, saga) = stage.play(&script).await;
    until(|| script.log.count("undo charge") == 1).await;

    doomed.dies().await;
    let _heir = stage.work(&script);

    assert_eq!(stage.outcome(saga).await, Some(Outcome::Compensated));
    assert_eq!(script.log.count("undo charge"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_saga_that_kills_every_worker_is_parked() {
    let script = Script::new().call("deadly", hangs());
    let stage = Stage::new();
    let saga = stage.start(&script).await;

    for deaths in 1..=MAX_RECOVERIES as usize {
        let doomed = stage.work(&script);
        until(|| script.log.count("deadly") == deaths).await;
        doomed.dies().await;
    }
    let _heir = stage.work(&script);

    assert_eq!(stage.rests(saga).await, Status::Parked);
    assert_eq!(stage.parked(saga).await, Some(ParkReason::CrashLoop { recoveries: MAX_RECOVERIES }));
    assert_eq!(script.log.count("deadly"), MAX_RECOVERIES as usize);
}

#[tokio::test(start_paused = true)]
async fn an_orphan_is_adopted_while_more_sagas_wait_than_the_worker_can_take() {
    let orphan = Script::new().named("orphan").call("charge", hangs_first(ok()));
    let flood = Script::new().named("flood").call("a", ok());
    let stage = Stage::new();
    let both = || stage.with(&orphan).register_dynamic(flood.definition.clone(), flood.clone());
    let doomed = crate::stage::work(both().build().unwrap());
    let saga = stage.start(&orphan).await;
    until(|| orphan.log.count("charge") == 1).await;
    doomed.dies().await;
    let flooding = tokio::spawn({
        let (stage, flood) = (stage.clone(), flood.clone());
        async move {
            loop {
                for _ in 0..20 {
                    stage.start(&flood).await;
                }
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    });
    let options = amends::WorkerOptions { concurrency: 8, batch: 4, ..Default::default() };

    let _heir = crate::stage::work(both().worker(options).build().unwrap());

    let began = tokio::time::Instant::now();
    assert_eq!(stage.outcome(saga).await, Some(Outcome::Completed));
    assert!(began.elapsed() < std::time::Duration::from_mins(1));
    flooding.abort();
}
