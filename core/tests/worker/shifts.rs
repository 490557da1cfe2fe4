//! Workers that come and go, and how they share the work.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use amends::event::{Event, Outcome};
use amends::store::WorkerStore;
use amends::{Error, Status, StepKind, WorkerOptions};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::script::{Script, fails_first, hangs, ok, rejects, takes, waits_for};
use crate::stage::{Stage, until, work};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);

#[tokio::test(start_paused = true)]
async fn a_worker_that_shuts_down_finishes_what_is_under_way_and_gives_the_rest_back() {
    let script = Script::new().call("slow", takes(5 * SECOND)).call("next", ok());
    let stage = Stage::new();
    let (worker, saga) = stage.play(&script).await;
    until(|| script.log.count("slow") == 1).await;

    worker.shuts_down().await;

    let loaded = stage.load(saga).await;
    assert_eq!((loaded.owner, loaded.status), (None, Status::Running));
    assert!(loaded.fold().output("slow", None).is_some(), "what was under way is recorded");
    assert_eq!(script.log.count("next"), 0, "nothing new was begun");
    let _other = stage.work(&script);
    assert_eq!(stage.outcome(saga).await, Some(Outcome::Completed));
    assert_eq!(script.log.count("slow"), 1);
    assert!(!stage.events(saga).await.iter().any(|event| matches!(event, Event::Adopted { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_step_that_outlasts_the_grace_is_left_to_another_worker_at_once() {
    let script = Script::new().call("slow", crate::script::hangs_first(ok())).timeout(3600 * SECOND);
    let stage = Stage::new();
    let (worker, saga) = stage.play(&script).await;
    until(|| script.log.count("slow") == 1).await;
    let began = tokio::time::Instant::now();

    worker.shuts_down().await;
    let _other = stage.work(&script);

    assert_eq!(stage.outcome(saga).await, Some(Outcome::Completed));
    assert!(began.elapsed() < 15 * SECOND, "ten seconds of grace, and no lease to wait for");
    assert!(stage.events(saga).await.iter().any(|event| matches!(event, Event::Adopted { .. })));
}

#[tokio::test(start_paused = true)]
async fn two_workers_share_the_sagas_and_no_step_runs_twice() {
    let script = Script::new().call("a", takes(SECOND)).tx("b", ok());
    let other = script.clone();
    let stage = Stage::new();
    let options = WorkerOptions { concurrency: 8, batch: 4, ..WorkerOptions::default() };
    let mut sagas = Vec::new();
    for _ in 0..40 {
        sagas.push(stage.start(&script).await);
    }

    let _one = stage.work_as(&script, options.clone());
    let _two = stage.work_as(&other, options);

    let mut owners = HashSet::new();
    while owners.len() < 2 {
        for saga in &sagas {
            owners.extend(stage.load(*saga).await.owner);
        }
        tokio::time::sleep(SECOND / 100).await;
    }
    for saga in sagas {
        assert_eq!(stage.outcome(saga).await, Some(Outcome::Completed));
    }
    assert_eq!((script.log.count("a"), script.log.count("b")), (40, 40));
}

#[tokio::test(start_paused = true)]
async fn a_compensating_saga_finds_a_place_while_forward_ones_take_all_of_theirs() {
    let undone = Script::new()
        .named("undone")
        .call("a", ok())
        .undo(StepKind::Call, fails_first(1, ok()))
        .retry(3, SECOND)
        .tx("no", rejects());
    let forward = Script::new().named("forward").call("stuck", hangs()).timeout(100_000 * SECOND);
    let stage = Stage::new();
    let options = WorkerOptions { concurrency: 8, ..WorkerOptions::default() };
    let first = stage.work(&undone);
    let saga = stage.start(&undone).await;
    stage.until(saga, |loaded| loaded.status == Status::Compensating && loaded.owner.is_none()).await;
    first.shuts_down().await;
    for _ in 0..100 {
        stage.start(&forward).await;
    }

    let both = stage.with(&undone).register_dynamic(forward.definition.clone(), forward.clone());
    let _worker = work(both.worker(options).build().unwrap());
    until(|| forward.log.count("stuck") == 7).await;

    assert_eq!(stage.outcome(saga).await, Some(Outcome::Compensated));
    assert_eq!(forward.log.count("stuck"), 7, "one place of eight is kept free");
}

#[tokio::test(start_paused = true)]
async fn compensating_sagas_are_claimed_first() {
    let gate = Arc::new(Semaphore::new(0));
    let undone =
        Script::new().named("undone").call("a", ok()).undo(StepKind::Call, waits_for(&gate, ok())).tx("no", rejects());
    let forward = Script::new().named("forward").call("stuck", hangs()).timeout(100_000 * SECOND);
    let stage = Stage::new();
    let first = stage.work(&undone);
    for _ in 0..100 {
        stage.start(&forward).await;
    }
    let saga = stage.start(&undone).await;
    until(|| undone.log.count("undo a") == 1).await;
    first.dies().await;
    let loaded = stage.load(saga).await;
    assert_eq!(loaded.status, Status::Compensating);
    // As if it had been released: due now, and started after all the others.
    stage.store.release(loaded.owner.unwrap(), &[(saga, Some(Duration::ZERO))]).await.unwrap();
    gate.add_permits(1);

    // A single place: whoever is claimed first gets it for good.
    let both = stage.with(&undone).register_dynamic(forward.definition.clone(), forward.clone());
    let options = WorkerOptions { concurrency: 1, ..WorkerOptions::default() };
    let _worker = work(both.worker(options).build().unwrap());

    assert_eq!(stage.outcome(saga).await, Some(Outcome::Compensated));
}

#[tokio::test(start_paused = true)]
async fn a_worker_does_not_start_that_would_strand_a_saga() {
    let gate = Arc::new(Semaphore::new(0));
    let old = Script::new().call("booked", ok()).call("b", waits_for(&gate, ok())).timeout(HOUR);
    let new = Script::new().call("a", ok()).call("b", ok());
    let stage = Stage::new();
    let (older, saga) = stage.play(&old).await;
    until(|| old.log.count("b") == 1).await;
    older.dies().await;

    let compatibility = stage.sagas(&new).check().await.unwrap();
    let started = stage.sagas(&new).run(CancellationToken::new()).await;

    assert!(compatibility.to_string().contains("strands 1 sagas at step `booked`"), "{compatibility}");
    assert!(matches!(started, Err(Error::Strands(_))), "{started:?}");
    gate.add_permits(2);
    let _older = stage.work(&old);
    assert_eq!(stage.outcome(saga).await, Some(Outcome::Completed));
}

#[tokio::test(start_paused = true)]
async fn a_saga_goes_on_under_a_newer_definition_that_fits_where_it_stands() {
    let gate = Arc::new(Semaphore::new(0));
    let old = Script::new().call("a", ok()).call("b", waits_for(&gate, ok())).timeout(HOUR);
    let mut new = Script::new().call("a", ok()).call("b", ok()).call("c", ok());
    (new.definition.version, new.definition.since) = (2, 1);
    let stage = Stage::new();
    let (older, saga) = stage.play(&old).await;
    until(|| old.log.count("b") == 1).await;
    older.dies().await;

    let newer = stage.work(&new);

    assert_eq!(stage.outcome(saga).await, Some(Outcome::Completed));
    assert_eq!(new.log.lines(), ["b", "c"]);
    assert!(newer.sagas.check().await.unwrap().is_safe());
}

#[tokio::test(start_paused = true)]
async fn a_saga_that_nobody_registered_is_left_alone() {
    let unknown = Script::new().named("unknown").call("a", ok());
    let known = Script::new().call("a", ok());
    let stage = Stage::new();
    let saga = stage.start(&unknown).await;

    let _worker = stage.work(&known);
    let fine = stage.start(&known).await;

    assert_eq!(stage.outcome(fine).await, Some(Outcome::Completed));
    let loaded = stage.load(saga).await;
    assert_eq!((loaded.owner, loaded.status, loaded.journal.len()), (None, Status::Running, 0));
}
