//! The transaction of a tx step: all that hangs on it commits at once, or nothing does.

use super::Backend;
use super::stage::{SHOP, Stage, completed, message, record, saga};
use crate::store::{Append, Appended, Status, StepTransaction, Store};

pub(crate) async fn the_commit_of_a_step_makes_its_record_and_its_messages<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let (id, asleep, child) = (stage.owned().await, stage.owned().await, saga(SHOP));
    let mut tx = stage.store.begin().await.expect("a step gets its transaction");
    let sent = message("thing.happened");
    tx.outbox().push(sent.clone());
    // The engine takes them along in the record.
    let outbox = std::mem::take(tx.outbox());
    let append =
        Append { head: Some(completed()), outbox, starts: vec![child.clone()], wakes: Some(asleep), ..record(id, 1) };
    assert!(stage.backend.published().await.is_empty() && stage.load(id).await.journal.is_empty(), "not before");

    let answer = tx.commit(append.clone()).await.expect("it commits");

    let loaded = stage.load(id).await;
    assert_eq!(Appended::Done(loaded.journal[0].at), answer);
    assert_eq!((&loaded.journal[0].events, loaded.status), (&append.events, Status::Completed));
    assert_eq!(stage.backend.published().await, [sent]);
    assert!(stage.find(child.id).await.is_some());
    let owner = stage.load(asleep).await.owner.expect("it has an owner");
    assert!(stage.is_nudged(asleep, owner).await);
}

pub(crate) async fn a_step_that_is_rolled_back_leaves_nothing<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let saga = stage.owned().await;
    for dropped in [false, true] {
        let mut tx = stage.store.begin().await.expect("a step gets its transaction");
        tx.outbox().push(message("never.was"));
        if dropped { drop(tx) } else { tx.rollback().await }
    }

    assert!(stage.backend.published().await.is_empty() && stage.load(saga).await.journal.is_empty());
    stage.write(record(saga, 1)).await;
}

pub(crate) async fn a_step_that_lost_its_saga_leaves_nothing<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let id = stage.owned().await;
    let tx = stage.store.begin().await.expect("a step gets its transaction");
    stage.write(record(id, 1)).await;
    let before = stage.everything(&[id]).await;

    let outbox = vec![message("too.late")];
    let answer = tx.commit(Append { outbox, head: Some(completed()), ..record(id, 1) }).await;

    assert_eq!(answer.expect("the store answers a commit"), Appended::Conflict);
    assert_eq!(stage.everything(&[id]).await, before);
}

pub(crate) async fn an_interrupted_step_can_never_commit<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let saga = stage.owned().await;
    let (tx, other) = (stage.store.begin().await, stage.store.begin().await);
    let (tx, other) = (tx.expect("a step gets its transaction"), other.expect("a step gets its transaction"));
    tx.interrupter().await;

    let answer = tx.commit(Append { outbox: vec![message("too.late")], ..record(saga, 1) }).await;

    assert!(answer.is_err(), "{answer:?}");
    assert!(stage.load(saga).await.journal.is_empty() && stage.backend.published().await.is_empty());
    other.commit(record(saga, 1)).await.expect("another step is not disturbed");
}
