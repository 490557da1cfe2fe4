//! Leases, and the sagas of workers that let theirs run out.

use std::time::Duration;

use futures_util::future::join_all;

use super::Backend;
use super::stage::{LONG, SHOP, Stage, claim, completed, head, ids, message, record, saga};
use crate::event::Event;
use crate::store::{Append, Appended, Claim, NewSaga, Priority, Status, Store, WorkerStore};
use crate::{StoreError, WorkerId};

/// It runs out while a test watches.
const SHORT: Duration = Duration::from_secs(1);
/// A lease over at once, of a worker that never came to renew it.
const NONE: Duration = Duration::ZERO;

pub(crate) async fn a_worker_is_lost_once_its_lease_has_run_out<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let (lives, dies) = (stage.worker(SHORT).await, stage.worker(SHORT).await);
    let is_lost = async |worker| matches!(stage.store.heartbeat(worker, LONG).await, Err(StoreError::WorkerLost));
    assert!(is_lost(WorkerId::new()).await, "one that never was");
    stage.store.heartbeat(lives, LONG).await.expect("its lease has not run out");

    // To ask it would renew its lease.
    let left = stage.owned_by(dies).await;
    assert_eq!(ids(&stage.adopts(claim(1)).await), [left]);

    assert!(is_lost(dies).await && is_lost(dies).await, "and stays so");
    stage.store.heartbeat(lives, LONG).await.expect("its lease was renewed");
}

pub(crate) async fn a_lease_of_any_length_is_kept<B: Backend>() {
    let stage = Stage::<B>::open().await;
    for lease in [Duration::from_secs_f32(61.1), Duration::from_secs(100) / 3, Duration::MAX] {
        let worker = stage.worker(lease).await;
        stage.store.heartbeat(worker, lease).await.unwrap_or_else(|error| panic!("{lease:?}: {error}"));
    }
}

pub(crate) async fn only_the_sagas_of_the_dead_are_adopted_and_their_journals_say_so<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let (dead, living, heir) = (stage.worker(NONE).await, stage.worker(LONG).await, stage.worker(LONG).await);
    let (fresh, old, ended) = (stage.owned_by(dead).await, stage.owned_by(dead).await, stage.owned_by(dead).await);
    stage.write(record(old, 1)).await;
    stage.wake(old).await;
    stage.moves(ended, head(Status::Completed, None, false)).await;
    let kept = stage.owned_by(living).await;
    let free = stage.start(saga(SHOP)).await;
    let claim = Claim { worker: heir, ..claim(10) };

    let adopted = stage.adopts(claim.clone()).await;

    assert_eq!(ids(&adopted), [fresh, old]);
    for loaded in adopted {
        let last = loaded.journal.last().expect("an adoption is written down");
        assert_eq!((last.events.as_slice(), loaded.owner), (&[Event::Adopted { by: heir }][..], Some(heir)));
        assert_eq!(stage.load(loaded.id).await.journal, loaded.journal);
    }
    assert_eq!(stage.load(old).await.journal.len(), 2);
    assert!(!stage.is_nudged(old, heir).await, "it has just read why it was due");
    assert!(stage.adopt(claim).await.is_empty(), "once");
    for (saga, owner) in [(kept, Some(living)), (free, None)] {
        let loaded = stage.load(saga).await;
        assert!(loaded.owner == owner && loaded.journal.is_empty());
    }
    assert_eq!(stage.load(ended).await.journal.len(), 1, "nothing happens to what has ended");
}

pub(crate) async fn what_a_dead_worker_still_writes_is_fenced_off<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let (dead, heir) = (stage.worker(NONE).await, stage.worker(LONG).await);
    let saga = stage.owned_by(dead).await;
    stage.adopts(Claim { worker: heir, ..claim(10) }).await;

    let late =
        Append { writer: dead, head: Some(completed()), outbox: vec![message("of.the.dead")], ..record(saga, 1) };
    assert_eq!(stage.append(late.clone()).await, Appended::Conflict);
    assert_eq!(stage.commit(late).await, Appended::Conflict);
    stage.release(dead, saga, Some(Duration::ZERO)).await;

    let loaded = stage.load(saga).await;
    assert_eq!((loaded.owner, loaded.status, loaded.journal.len()), (Some(heir), Status::Running, 1));
    assert!(stage.backend.published().await.is_empty());
}

pub(crate) async fn the_sagas_of_a_retired_worker_are_adopted_at_once<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let (retired, heir) = (stage.worker(LONG).await, stage.worker(LONG).await);
    let saga = stage.owned_by(retired).await;
    let claim = Claim { worker: heir, ..claim(10) };
    assert!(stage.adopt(claim.clone()).await.is_empty());

    stage.store.retire(retired).await.expect("a worker can retire");

    assert!(matches!(stage.store.heartbeat(retired, LONG).await, Err(StoreError::WorkerLost)));
    assert_eq!(ids(&stage.adopt(claim).await), [saga]);
}

pub(crate) async fn an_adoption_takes_what_it_may_and_no_more<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let dead = stage.worker(NONE).await;
    let start = async |wanted: NewSaga| stage.store.start(wanted, Some(dead)).await.expect("it starts").id();
    start(saga("bank")).await;
    start(NewSaga { version: 2, ..saga(SHOP) }).await;
    let low = start(NewSaga { priority: Priority::Low, ..saga(SHOP) }).await;
    let high = start(NewSaga { priority: Priority::High, ..saga(SHOP) }).await;
    let undone = start(NewSaga { priority: Priority::Low, ..saga(SHOP) }).await;
    stage.moves(undone, head(Status::Compensating, None, false)).await;

    let adopt = async |limit| {
        let adopted = stage.store.adopt(claim(limit)).await.expect("sagas can be adopted");
        ids(&adopted)
    };

    assert!(adopt(0).await.is_empty());
    assert_eq!(adopt(1).await, [undone], "in the order of claims");
    assert_eq!(adopt(1).await, [high]);
    assert_eq!(adopt(usize::MAX).await, [low], "only registered names and versions");
}

pub(crate) async fn two_workers_never_adopt_the_same_saga<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let dead = stage.worker(NONE).await;
    let mut sagas = join_all((0..40).map(|_| stage.owned_by(dead))).await;
    let processes: Vec<_> = (0..4).map(|_| stage.backend.connect()).collect();

    let mut adopted = Vec::new();
    for _ in 0..40 {
        let answers = join_all(processes.iter().map(|store| store.adopt(claim(15)))).await;
        adopted.extend(answers.into_iter().flat_map(|answer| ids(&answer.expect("sagas can be adopted"))));
        if adopted.len() >= sagas.len() {
            break;
        }
    }

    adopted.sort();
    sagas.sort();
    assert_eq!(adopted, sagas, "each of them once");
    for saga in sagas {
        assert_eq!(stage.load(saga).await.journal.len(), 1);
    }
}
