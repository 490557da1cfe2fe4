//! Claims: who gets which sagas, in which order, and how many.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::sleep;

use super::Backend;
use super::stage::{LONG, SHOP, Stage, claim, completed, head, ids, new, record, saga};
use crate::store::{Append, Claim, NewSaga, Priority, Status, Store, WorkerStore};
use crate::{SagaId, WorkerId};

fn of_priority(priority: Priority) -> NewSaga {
    NewSaga { priority, ..saga(SHOP) }
}

impl<B: Backend> Stage<B> {
    /// A saga that is due, and is to be undone.
    async fn compensating(&self, priority: Priority) -> SagaId {
        let saga = self.start(of_priority(priority)).await;
        self.moves(saga, head(Status::Compensating, Some(Duration::ZERO), true)).await;
        saga
    }
}

pub(crate) async fn only_what_is_due_and_nobodys_is_claimed<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let due = stage.start(saga(SHOP)).await;
    stage.owned().await;
    for rest in [
        head(Status::Running, Some(LONG), true),
        head(Status::Compensating, None, true),
        head(Status::Parked, Some(Duration::ZERO), true),
        completed(),
        head(Status::Compensated, Some(Duration::ZERO), true),
    ] {
        let saga = stage.owned().await;
        stage.moves(saga, rest).await;
    }
    let worker = WorkerId::new();

    let claimed = stage.claim(Claim { worker, sweep: true, ..claim(100) }).await;

    assert_eq!(ids(&claimed), [due]);
    assert_eq!(claimed[0].owner, Some(worker), "it is read as it is now");
    assert_eq!(stage.load(due).await.owner, Some(worker));
    assert!(stage.claim(Claim { sweep: true, ..claim(100) }).await.is_empty(), "it is somebody's now");
}

/// A worker names them in another order each time, so that a backlog of one does not stop the other.
pub(crate) async fn of_two_kinds_the_one_that_is_named_first_comes_first<B: Backend>() {
    let stage = Stage::<B>::open().await;
    for name in [SHOP, "other"] {
        for _ in 0..3 {
            stage.start(saga(name)).await;
        }
    }
    let registered = |names: [&str; 2]| names.map(|name| (name.to_owned(), 1)).to_vec();

    let others = stage.claim(Claim { registered: registered(["other", SHOP]), ..claim(2) }).await;
    let shops = stage.claim(Claim { registered: registered([SHOP, "other"]), ..claim(2) }).await;

    assert!(others.iter().all(|loaded| loaded.name == "other"), "{others:?}");
    assert!(shops.iter().all(|loaded| loaded.name == SHOP), "{shops:?}");
    assert_eq!((others.len(), shops.len()), (2, 2));
}

pub(crate) async fn those_that_compensate_come_first_then_those_of_a_higher_priority<B: Backend>() {
    let stage = Stage::<B>::open().await;
    for priority in [Priority::Low, Priority::Normal, Priority::High, Priority::High, Priority::Low] {
        stage.start(of_priority(priority)).await;
    }
    for priority in [Priority::Low, Priority::High] {
        stage.compensating(priority).await;
    }

    let mut taken = Vec::new();
    for _ in 0..7 {
        let claimed = stage.claim(claim(1)).await;
        assert_eq!(claimed.len(), 1, "one at a time: {claimed:#?}");
        taken.extend(claimed.into_iter().map(|saga| (saga.status, saga.priority)));
    }

    let forward = [Priority::High, Priority::High, Priority::Normal, Priority::Low, Priority::Low];
    let undo = [Priority::High, Priority::Low].map(|priority| (Status::Compensating, priority));
    assert_eq!(taken, [&undo[..], &forward.map(|priority| (Status::Running, priority))].concat());
}

pub(crate) async fn of_one_kind_those_that_wait_longest_come_first<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let mut sagas = join_all((0..6).map(|_| stage.owned())).await;
    // Due in another order than they were started.
    sagas.reverse();
    sagas.swap(1, 4);
    for saga in &sagas {
        stage.moves(*saga, head(Status::Running, Some(Duration::ZERO), true)).await;
    }

    for two in sagas.chunks(2) {
        let claimed = stage.claim(claim(2)).await;
        let mut expected = two.to_vec();
        expected.sort();
        assert_eq!(ids(&claimed), expected);
    }
}

pub(crate) async fn a_claim_takes_no_more_than_its_limits<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let mut started = Vec::new();
    for priority in Priority::ALL.repeat(3) {
        started.push(stage.start(of_priority(priority)).await);
        stage.compensating(priority).await;
    }
    // Nine of each kind; what is hinted at takes places like any other.
    for (limit, forward_limit, hints, undo, forward) in [
        (0, 0, &started[..], 0, 0),
        (3, 3, &[][..], 3, 0),
        (4, 2, &started[..], 4, 0),
        (5, 2, &started[..], 2, 2),
        (2, 0, &started[..], 0, 0),
        (4, 4, &started[..], 0, 4),
        (9, 9, &started[..1], 0, 3),
        (usize::MAX, usize::MAX, &[][..], 0, 0),
    ] {
        let claimed = stage.claim(Claim { forward_limit, hints: hints.to_vec(), ..claim(limit) }).await;
        let count = |status| claimed.iter().filter(|loaded| loaded.status == status).count();
        let counts = (count(Status::Compensating), count(Status::Running));
        assert_eq!(counts, (undo, forward), "at most {limit}, of which {forward_limit} go forward");
    }
}

pub(crate) async fn a_claim_that_is_full_does_not_hold_up_another<B: Backend>() {
    let stage = Stage::<B>::open().await;
    join_all([Priority::High, Priority::Low].repeat(30).into_iter().map(|priority| stage.start(of_priority(priority))))
        .await;
    let (one, other) = (stage.backend.connect(), stage.backend.connect());

    // It keeps from others what it takes and nothing else, so that the other finds the rest at once.
    let (one, other) = tokio::join!(one.claim(claim(15)), other.claim(claim(15)));

    let (one, other) = (one.expect("sagas can be claimed"), other.expect("sagas can be claimed"));
    assert_eq!((one.len(), other.len()), (15, 15));
    assert!(one.iter().chain(&other).all(|loaded| loaded.priority == Priority::High));
}

pub(crate) async fn only_registered_names_and_versions_are_claimed<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let mut started = Vec::new();
    for (name, version) in [("shop", 1), ("shop", 2), ("shop 2", 1), ("bank", 1)] {
        started.push(stage.start(NewSaga { version, ..saga(name) }).await);
    }
    let claim = |registered: &[(&str, u32)]| Claim {
        registered: registered.iter().map(|(name, version)| ((*name).to_owned(), *version)).collect(),
        hints: started.clone(),
        sweep: true,
        ..claim(10)
    };

    assert!(stage.claim(claim(&[])).await.is_empty());
    assert!(stage.claim(claim(&[("shop", 3), ("bank", 2), ("sho", 1), ("Shop", 1)])).await.is_empty());
    assert_eq!(ids(&stage.claim(claim(&[("shop", 2), ("bank", 1)])).await), [started[1], started[3]]);
    assert_eq!(ids(&stage.claim(claim(&[("shop", 1), ("shop 2", 1)])).await), [started[0], started[2]]);
}

pub(crate) async fn two_workers_never_get_the_same_saga<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let started = join_all((0..80).map(|_| stage.start(saga(SHOP)))).await;
    let processes: Vec<_> = (0..4).map(|_| stage.backend.connect()).collect();
    let claim = || Claim { sweep: true, hints: started[..40].to_vec(), ..claim(7) };

    let mut taken = Vec::new();
    for _ in 0..40 {
        let claims = processes.iter().map(|store| store.claim(claim()));
        let claimed = join_all(claims).await.into_iter().flat_map(|claimed| claimed.expect("sagas can be claimed"));
        taken.extend(claimed.map(|loaded| loaded.id));
        if taken.len() >= started.len() {
            break;
        }
    }

    taken.sort();
    let mut expected = started;
    expected.sort();
    assert_eq!(taken, expected, "each of them once");
}

pub(crate) async fn a_hint_finds_what_is_due_and_nothing_else<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let mut transaction = stage.backend.begin().await;
    let late = new(stage.store.start_in(B::conn(&mut transaction), saga(SHOP)).await);
    // A store may remember up to when it has seen everything. This one commits long after it was due.
    sleep(Duration::from_millis(1_100)).await;
    assert!(stage.claim(claim(10)).await.is_empty());
    B::commit(transaction).await.expect("the transaction commits");
    let (owned, asleep, parked) = (stage.owned().await, stage.owned().await, stage.owned().await);
    stage.moves(asleep, head(Status::Running, Some(LONG), true)).await;
    stage.moves(parked, head(Status::Parked, None, true)).await;
    stage.write(Append { wakes: Some(parked), ..record(owned, 1) }).await;
    let foreign = stage.start(saga("bank")).await;

    let claimed = stage.claim(Claim { hints: vec![owned, asleep, parked, foreign, late, SagaId::new()], ..claim(10) });

    assert_eq!(ids(&claimed.await), [late]);
}
