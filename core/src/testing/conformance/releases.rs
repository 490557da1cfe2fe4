//! Sagas that their worker gives back without a word in their journals.

use std::time::Duration;

use super::Backend;
use super::stage::{LONG, Stage};
use crate::store::WorkerStore;
use crate::{SagaId, WorkerId};

pub(crate) async fn a_released_saga_is_due_when_its_worker_said<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let worker = WorkerId::new();
    let mut sagas = Vec::new();
    for pause in [Some(Duration::ZERO), Some(Duration::from_millis(40)), Some(LONG), None] {
        sagas.push((stage.owned_by(worker).await, pause));
    }

    stage.store.release(worker, &sagas).await.expect("sagas can be released");

    for (saga, _) in &sagas {
        let loaded = stage.load(*saga).await;
        assert!(loaded.owner.is_none() && loaded.journal.is_empty());
    }
    assert!(!stage.is_due(sagas[3].0).await && !stage.is_due(sagas[2].0).await);
    // Looking takes what is due.
    let [now, soon] = [sagas[0].0, sagas[1].0];
    assert!(stage.load(now).await.owner.is_some(), "it was due at once");
    if stage.load(soon).await.owner.is_none() {
        stage.becomes_due(soon).await;
    }
}

pub(crate) async fn a_release_of_what_is_not_ones_own_has_no_effect<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let worker = WorkerId::new();
    let (others, free) = (stage.owned().await, stage.owned_by(worker).await);
    let owner = stage.load(others).await.owner;
    stage.release(worker, free, None).await;

    let releases = [others, free, SagaId::new()].map(|saga| (saga, Some(Duration::ZERO)));
    stage.store.release(worker, &releases).await.expect("sagas can be released");
    stage.store.release(worker, &[]).await.expect("sagas can be released");

    assert_eq!(stage.load(others).await.owner, owner);
    assert!(!stage.is_due(free).await, "it was not the worker's any more");
}

pub(crate) async fn a_wake_that_came_meanwhile_outlives_the_release<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let worker = WorkerId::new();
    for pause in [None, Some(LONG)] {
        let (woken, nudged) = (stage.owned_by(worker).await, stage.owned_by(worker).await);
        stage.wake(woken).await;

        stage.release(worker, woken, pause).await;
        stage.release(worker, nudged, pause).await;

        assert!(stage.is_due(woken).await);
        assert!(!stage.is_due(nudged).await);
    }
}
