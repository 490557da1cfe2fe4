//! What a worker's own claim hands back to it: sagas that were written to from outside, and those that it lost.

use super::Backend;
use super::stage::{Stage, claim, head, ids};
use crate::WorkerId;
use crate::store::{Claim, Status};

pub(crate) async fn an_owner_hears_of_what_was_written_from_outside<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let (worker, other) = (WorkerId::new(), WorkerId::new());
    let (quiet, woken, moved) =
        (stage.owned_by(worker).await, stage.owned_by(worker).await, stage.owned_by(worker).await);
    stage.wake(woken).await;
    stage.moves(moved, head(Status::Compensating, Some(std::time::Duration::ZERO), false)).await;

    assert!(stage.claim(Claim { worker: other, sweep: true, ..claim(10) }).await.is_empty(), "not another worker");
    // However many places it has, and whatever it can run.
    let nudged = stage.claim(Claim { worker, registered: Vec::new(), ..claim(0) }).await;

    assert_eq!(ids(&nudged), [woken, moved]);
    assert!(nudged.iter().all(|loaded| loaded.owner == Some(worker)));
    assert_eq!(nudged.iter().map(|loaded| loaded.journal.len()).sum::<usize>(), 1, "with their journals");
    assert!(stage.claim(Claim { worker, ..claim(10) }).await.is_empty(), "once is enough for now");
    assert_eq!(stage.load(quiet).await.owner, Some(worker));
}

pub(crate) async fn a_sweep_hands_back_what_its_worker_does_not_know_of<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let worker = WorkerId::new();
    let (driven, lost, ended) =
        (stage.owned_by(worker).await, stage.owned_by(worker).await, stage.owned_by(worker).await);
    stage.owned().await;
    stage.moves(ended, head(Status::Completed, None, false)).await;
    let sweep = |driven| Claim { worker, sweep: true, driven, ..claim(0) };

    assert!(stage.claim(Claim { sweep: false, ..sweep(vec![driven]) }).await.is_empty(), "without a sweep");
    assert_eq!(ids(&stage.claim(sweep(vec![driven])).await), [lost]);
    assert_eq!(ids(&stage.claim(sweep(Vec::new())).await), [driven, lost]);
    assert!(stage.claim(sweep(vec![lost, driven])).await.is_empty(), "it knows of all of them");
}
