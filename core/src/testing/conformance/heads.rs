//! The scheduling part of a saga: its status, when it is due, and whose it is.

use std::time::Duration;

use super::Backend;
use super::stage::{LONG, Stage, completed, head, record};
use crate::WorkerId;
use crate::store::{Append, Status};

pub(crate) async fn a_head_change_moves_the_status_and_an_append_without_leaves_it<B: Backend>() {
    let stage = Stage::<B>::open().await;
    for in_step in [false, true] {
        for status in Status::ALL {
            let saga = stage.owned().await;
            assert_eq!(stage.load(saga).await.status, Status::Running, "as it was started");
            let change = head(status, None, true);
            stage.moves_by(in_step, saga, change).await;
            assert_eq!(stage.load(saga).await.status, status);

            stage.write(record(saga, 2)).await;
            assert_eq!(stage.load(saga).await.status, status, "it is left");
        }
    }
}

pub(crate) async fn a_saga_is_due_when_its_head_says_so<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let after = |pause| head(Status::Running, pause, true);
    for in_step in [false, true] {
        let [now, soon, later, never] =
            [stage.owned().await, stage.owned().await, stage.owned().await, stage.owned().await];
        let pauses = [Some(Duration::ZERO), Some(Duration::from_millis(40)), Some(LONG), None];
        for (saga, pause) in [now, soon, later, never].into_iter().zip(pauses) {
            stage.moves_by(in_step, saga, after(pause)).await;
        }

        assert!(stage.is_due(now).await);
        if stage.load(soon).await.owner.is_none() {
            stage.becomes_due(soon).await;
        }
        assert!(!stage.is_due(later).await && !stage.is_due(never).await);
    }
}

pub(crate) async fn a_pause_beyond_the_calendar_is_a_long_one<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let worker = WorkerId::new();
    let [appended, committed, released] = [stage.owned().await, stage.owned().await, stage.owned_by(worker).await];
    let for_ever = head(Status::Running, Some(Duration::MAX), true);

    stage.moves(appended, for_ever).await;
    stage.moves_in_step(committed, for_ever).await;
    stage.release(worker, released, Some(Duration::MAX)).await;

    for saga in [appended, committed, released] {
        assert!(!stage.is_due(saga).await);
    }
}

pub(crate) async fn what_was_made_due_from_outside_stays_due_until_it_has_ended<B: Backend>() {
    let stage = Stage::<B>::open().await;
    for in_step in [false, true] {
        for pause in [None, Some(LONG)] {
            let (stays, ends) = (stage.owned().await, stage.owned().await);
            stage.wake(stays).await;
            stage.wake(ends).await;
            let later = head(Status::Running, pause, true);
            stage.moves_by(in_step, stays, later).await;
            stage.moves_by(in_step, ends, completed()).await;

            assert!(stage.is_due(stays).await, "its owner has not seen why it was woken");
            assert!(!stage.is_due(ends).await, "nothing happens to it any more");
            stage.wake(ends).await;
            let woken = stage.load(ends).await;
            assert!(woken.status == Status::Completed && !stage.is_due(ends).await, "a wake does not revive it");
        }
    }
}

pub(crate) async fn an_owner_stays_until_it_lets_go<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let worker = WorkerId::new();
    for in_step in [false, true] {
        let saga = stage.owned_by(worker).await;
        // Whoever writes, and also from outside.
        for (release, owner) in [(false, Some(worker)), (true, None), (false, None)] {
            let change = head(Status::Compensating, Some(LONG), release);
            stage.moves_by(in_step, saga, change).await;
            assert_eq!(stage.load(saga).await.owner, owner);
        }
        let plain = Append { head: None, ..record(saga, 4) };
        stage.write(plain).await;
        assert_eq!(stage.load(saga).await.owner, None);
    }
}
