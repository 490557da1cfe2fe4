//! What comes with an append or not at all: messages, sagas that are started, and a saga that is woken.

use futures_util::future::join_all;

use super::Backend;
use super::stage::{SHOP, Stage, completed, head, is_done, json, keyed, locking, message, record, saga};
use crate::store::{Append, Appended, NewSaga, Priority, Status, Store};
use crate::{OutboxMessage, StepTransaction, StoreError};

pub(crate) async fn messages_come_with_the_append_and_in_order<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let saga = stage.owned().await;
    let rich = OutboxMessage {
        name: "Ding-Ereignis".into(),
        key: Some("Schlüssel 'ü' 🔑".into()),
        content_type: "application/octet-stream".into(),
        headers: [("traceparent".to_owned(), "00-1".to_owned()), ("\"x\"".to_owned(), "ß\n".to_owned())].into(),
        payload: (0..=255).collect(),
        ..message("thing.happened")
    };
    let mut messages: Vec<_> = (0..10).map(|number| message(&format!("number.{number}"))).collect();
    messages.push(rich);
    let (first, second) = messages.split_at(6);

    stage.write(Append { outbox: first.to_vec(), ..record(saga, 1) }).await;
    assert_eq!(stage.backend.published().await, first);
    assert!(is_done(stage.commit(Append { outbox: second.to_vec(), ..record(saga, 2) }).await));

    assert_eq!(stage.backend.published().await, messages);
}

pub(crate) async fn a_child_is_there_if_and_only_if_its_append_is<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let parent = stage.owned().await;
    let child = |priority| NewSaga {
        priority,
        parent: Some(parent),
        trace: Some("00-trace".into()),
        input: json(r#""eine \"Bestellung\" 😀""#),
        ..saga(SHOP)
    };
    let (first, second, third) = (child(Priority::High), child(Priority::Low), child(Priority::Normal));

    let write = Append { starts: vec![first.clone(), second.clone()], ..record(parent, 1) };
    stage.write(write.clone()).await;
    assert!(is_done(stage.append(write).await), "a repetition whose answer was lost");
    let late = Append { starts: vec![third.clone()], ..record(parent, 1) };
    assert_eq!(stage.append(late.clone()).await, Appended::Conflict);
    assert_eq!(stage.commit(late.clone()).await, Appended::Conflict);

    let loaded = stage.load(first.id).await;
    assert_eq!((loaded.parent, loaded.priority, loaded.status), (Some(parent), Priority::High, Status::Running));
    assert_eq!((loaded.input, loaded.trace, loaded.owner), (first.input, first.trace, None));
    assert!(stage.is_due(second.id).await);
    assert!(stage.find(third.id).await.is_none(), "its append was not written");

    assert!(is_done(stage.commit(Append { seq: 2, ..late }).await));
    assert_eq!(stage.load(third.id).await.parent, Some(parent), "the same of a step");
}

/// The start of one with a key or a lock might have to wait for another transaction, and an append never does.
pub(crate) async fn a_child_with_a_business_key_or_a_lock_or_that_is_there_is_refused<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let parent = stage.owned().await;
    let before = stage.everything(&[parent]).await;
    let there = saga(SHOP);
    stage.start(there.clone()).await;
    for child in [keyed("o-1", "1"), locking(SHOP, "account 1"), there.clone()] {
        let append =
            Append { starts: vec![child.clone()], outbox: vec![message("of.the.refused")], ..record(parent, 1) };

        let answer = stage.store.append(append.clone()).await;
        assert!(matches!(answer, Err(StoreError::Refused(_))), "{answer:?}");
        let tx = stage.store.begin().await.expect("a step gets its transaction");
        assert!(tx.commit(append).await.is_err(), "nor in a step");

        assert!(child.id == there.id || stage.find(child.id).await.is_none());
    }
    assert_eq!(stage.everything(&[parent]).await, before);
    stage.write(record(parent, 1)).await;
}

pub(crate) async fn a_wake_and_a_head_change_of_one_saga_at_once_leave_it_due<B: Backend>() {
    let stage = Stage::<B>::open().await;
    for round in 0..12 {
        // Ids in both orders, and the writes in both orders.
        let (one, other) = (stage.owned().await, stage.owned().await);
        let (parent, child) = if round % 2 == 0 { (one, other) } else { (other, one) };
        let sleeps = Append { head: Some(head(Status::Running, None, true)), ..record(parent, 1) };
        let ends = Append { wakes: Some(parent), head: Some(completed()), ..record(child, 1) };
        let batch = if round % 4 < 2 { [sleeps, ends] } else { [ends, sleeps] };
        assert!(join_all(batch.map(|write| stage.append(write))).await.into_iter().all(is_done));
        assert!(stage.is_due(parent).await, "round {round}");
        assert!(!stage.is_due(child).await, "what has ended is not due");
    }
    let itself = stage.owned().await;
    stage
        .write(Append { wakes: Some(itself), head: Some(head(Status::Running, None, true)), ..record(itself, 1) })
        .await;
    assert!(stage.is_due(itself).await, "one that wakes itself");
}

pub(crate) async fn many_that_end_at_once_wake_one_parent<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let parent = stage.owned().await;
    stage.moves(parent, head(Status::Running, None, true)).await;
    let children = join_all((0..60).map(|_| stage.owned())).await;
    let ends = |child| Append { wakes: Some(parent), head: Some(completed()), ..record(child, 1) };

    assert!(join_all(children.into_iter().map(|child| stage.append(ends(child)))).await.into_iter().all(is_done));

    assert!(stage.is_due(parent).await);
}
