//! Semantic locks: of the sagas of one name with the same lock, one is live at a time.

use futures_util::future::join_all;

use super::Backend;
use super::stage::{LONG, SHOP, Stage, completed, head, locking, new, refusing, saga};
use crate::store::{NewSaga, Started, Status, Store, WorkerStore};
use crate::{Error, SagaId, WorkerId};

impl<B: Backend> Stage<B> {
    async fn gets_lock(&self, saga: SagaId) -> bool {
        self.store.lock(saga).await.expect("a saga can ask for its lock")
    }

    async fn passes_lock(&self, saga: SagaId) {
        self.store.pass_lock(saga).await.expect("a lock can be passed on");
    }
}

fn is_refused(answer: &Result<Started, Error>, by: SagaId) -> bool {
    matches!(answer, Err(Error::Locked { holder, .. }) if *holder == by)
}

pub(crate) async fn a_lock_goes_from_one_saga_to_the_next_in_the_order_of_their_starts<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let first = stage.start(locking(SHOP, "account '1' 🏦")).await;
    let second = stage.start(locking(SHOP, "account '1' 🏦")).await;
    let third = stage.start(locking(SHOP, "account '1' 🏦")).await;

    assert!(!stage.gets_lock(second).await, "the first is first, also before it runs");
    assert!(stage.gets_lock(first).await);
    assert!(stage.gets_lock(first).await, "it has it already");
    stage.moves(first, head(Status::Parked, None, true)).await;
    assert!(!stage.gets_lock(second).await, "what is parked has not ended");
    stage.moves(first, completed()).await;

    assert!(!stage.gets_lock(third).await);
    assert!(stage.gets_lock(second).await);
    assert!(!stage.gets_lock(first).await, "what has ended needs none");
    stage.moves(second, head(Status::Compensated, None, true)).await;
    assert!(stage.gets_lock(third).await);
}

pub(crate) async fn a_lock_is_of_one_name_and_one_key<B: Backend>() {
    let stage = Stage::<B>::open().await;
    for (name, key) in [(SHOP, "x"), (SHOP, "y"), ("bank", "x"), (SHOP, "X"), (SHOP, "")] {
        let holder = stage.start(locking(name, key)).await;
        assert!(stage.gets_lock(holder).await, "{key:?} of {name}");
        let waits = stage.start(locking(name, key)).await;
        assert!(!stage.gets_lock(waits).await, "{key:?} of {name}");
        let refused = stage.store.start(refusing(name, key), None).await;
        assert!(is_refused(&refused, holder), "{refused:?}");
    }
    let without = stage.start(saga(SHOP)).await;
    for nobody in [without, SagaId::new()] {
        assert!(!stage.gets_lock(nobody).await, "one that has no lock, or never was");
    }
}

pub(crate) async fn who_comes_late_does_not_take_the_lock_from_a_younger_one_that_has_it<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let mut open = stage.backend.begin().await;
    let older = new(stage.store.start_in(B::conn(&mut open), locking(SHOP, "x")).await);
    let younger = stage.start(locking(SHOP, "x")).await;
    assert!(stage.gets_lock(younger).await);

    B::commit(open).await.expect("the transaction commits");

    assert!(!stage.gets_lock(older).await);
    assert!(stage.gets_lock(younger).await);
    stage.moves(younger, completed()).await;
    assert!(stage.gets_lock(older).await);
}

pub(crate) async fn of_many_that_ask_at_once_one_gets_the_lock<B: Backend>() {
    let stage = Stage::<B>::open().await;
    for round in 0..5 {
        let sagas = join_all((0..8).map(|_| stage.start(locking(SHOP, &format!("round {round}"))))).await;
        let got = join_all(sagas.iter().map(|saga| stage.gets_lock(*saga))).await;
        assert_eq!(got.into_iter().filter(|got| *got).count(), 1);
    }
}

pub(crate) async fn a_start_that_does_not_wait_is_refused_while_another_saga_has_the_lock<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let waits = stage.start(locking(SHOP, "x")).await;
    for wanted in [refusing(SHOP, "x"), NewSaga { key: Some("o-1".into()), ..refusing(SHOP, "x") }] {
        let refused = [stage.store.start(wanted.clone(), None).await, stage.start_in(wanted.clone()).await];
        assert!(refused.iter().all(|answer| is_refused(answer, waits)), "{refused:?}");
        assert!(stage.find(wanted.id).await.is_none());
    }
    assert!(stage.gets_lock(waits).await, "they are not in line");
    stage.moves(waits, completed()).await;

    let mut transaction = stage.backend.begin().await;
    let first = new(stage.store.start_in(B::conn(&mut transaction), refusing(SHOP, "x")).await);
    let second = stage.store.start_in(B::conn(&mut transaction), refusing(SHOP, "x")).await;
    assert!(is_refused(&second, first), "one transaction knows what it started itself: {second:?}");
    B::commit(transaction).await.expect("the transaction commits");
    assert!(stage.gets_lock(first).await);
    let behind = stage.start(locking(SHOP, "x")).await;
    assert!(!stage.gets_lock(behind).await);
}

/// What was started is started, and a repetition finds it, whatever has happened to the lock since.
pub(crate) async fn a_key_that_is_taken_is_found_whoever_has_the_lock<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let keyed = || NewSaga { key: Some("o-1".into()), ..refusing(SHOP, "x") };
    let first = stage.start(keyed()).await;
    let lost = refusing(SHOP, "y");
    stage.start(lost.clone()).await;
    let behind = stage.start(locking(SHOP, "x")).await;
    stage.start(locking(SHOP, "y")).await;
    assert_eq!(new(stage.store.start(lost.clone(), None).await), lost.id, "nor is the very same start refused");
    for ended in [false, true] {
        if ended {
            stage.moves(first, completed()).await;
            assert!(stage.gets_lock(behind).await);
        }
        for again in [stage.store.start(keyed(), None).await, stage.start_in(keyed()).await] {
            assert_eq!(again.unwrap_or_else(|error| panic!("{error}")), Started::Existing(first));
        }
    }
}

pub(crate) async fn a_lock_that_is_passed_on_makes_the_next_in_line_due<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let first = stage.start(locking(SHOP, "x")).await;
    let sleeps = async || {
        let saga = new(stage.store.start(locking(SHOP, "x"), Some(WorkerId::new())).await);
        stage.moves(saga, head(Status::Running, Some(LONG), true)).await;
        saga
    };
    let (second, third) = (sleeps().await, sleeps().await);
    let without = stage.start(saga(SHOP)).await;
    stage.moves(first, completed()).await;
    stage.moves(without, completed()).await;
    assert!(!stage.is_due(second).await);

    for saga in [first, without, SagaId::new()] {
        stage.passes_lock(saga).await;
    }

    assert!(stage.is_due(second).await);
    assert!(!stage.is_due(third).await, "it is not its turn");
}
