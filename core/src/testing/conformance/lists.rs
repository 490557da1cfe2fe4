//! Lists of sagas: those that have ended, those that are parked, those that are live.

use uuid::Uuid;

use super::Backend;
use super::stage::{SHOP, Stage, head, record, saga};
use crate::SagaId;
use crate::store::{Append, Head, NewSaga, Status, Store};

pub(crate) async fn those_that_have_ended_or_are_not_there_are_told<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let mut sagas = Vec::new();
    for status in Status::ALL {
        let saga = stage.owned().await;
        stage.moves(saga, head(status, None, true)).await;
        sagas.push(saga);
    }
    let absent = SagaId::new();
    sagas.push(absent);

    let mut ended = stage.store.ended(&sagas).await.expect("the store knows who has ended");

    ended.sort();
    assert_eq!(ended, [sagas[3], sagas[4], absent]);
    assert!(stage.store.ended(&[]).await.expect("the store knows who has ended").is_empty());
}

pub(crate) async fn the_cause_of_parking_is_kept_while_it_is_parked<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let (cause, other) = (Uuid::new_v4(), Uuid::new_v4());
    let parked = |cause| Head { parked: Some(cause), ..head(Status::Parked, None, true) };
    let list = async |cause, after, limit| {
        stage.store.parked(cause, after, limit).await.expect("the store knows what is parked")
    };
    let mut stuck = Vec::new();
    for number in 0..5 {
        let saga = stage.owned().await;
        stage.moves(saga, parked(if number == 4 { other } else { cause })).await;
        stuck.push(saga);
    }
    stage.owned().await;

    assert_eq!(list(Some(cause), None, 10).await, stuck[..4]);
    assert_eq!(list(Some(cause), Some(stuck[1]), 1).await, stuck[2..3]);
    assert_eq!(list(None, None, usize::MAX).await, stuck);
    assert_eq!(list(None, Some(stuck[3]), 10).await, stuck[4..]);
    assert!(list(Some(Uuid::new_v4()), None, 10).await.is_empty() && list(None, None, 0).await.is_empty());

    stage.wake(stuck[0]).await;
    stage.write(record(stuck[0], 2)).await;
    assert_eq!(list(Some(cause), None, 1).await, stuck[..1], "woken or written to it is still parked");
    stage.moves(stuck[0], head(Status::Running, None, false)).await;
    stage.moves_in_step(stuck[1], head(Status::Running, None, false)).await;
    assert_eq!(list(Some(cause), None, 10).await, stuck[2..4], "moved on it is not");
    stage.moves(stuck[0], head(Status::Parked, None, true)).await;
    assert_eq!(list(Some(cause), None, 10).await, stuck[2..4], "nor is the old cause kept for later");
    stage.moves_in_step(stuck[1], parked(other)).await;
    assert_eq!(list(Some(other), None, 10).await, [stuck[1], stuck[4]]);
}

pub(crate) async fn those_that_are_live_are_listed_by_name_and_fingerprint<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let (old, new) = (Uuid::new_v4(), Uuid::new_v4());
    let of = |fingerprint, name| NewSaga { fingerprint, ..saga(name) };
    let mut live = Vec::new();
    for status in [Status::Running, Status::Compensating, Status::Parked, Status::Completed, Status::Compensated] {
        let saga = stage.start(of(old, SHOP)).await;
        stage.moves(saga, head(status, None, true)).await;
        if !status.is_final() {
            live.push(saga);
        }
    }
    let (fresh, bank) = (stage.start(of(new, SHOP)).await, stage.start(of(old, "bank")).await);
    stage.write(Append { head: None, ..record(live[0], 2) }).await;
    let list = async |names: &[&str], fingerprints: &[Uuid], after, limit| {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let live = stage.store.live(&names, fingerprints, after, limit).await.expect("the store knows what is live");
        for loaded in &live {
            assert_eq!(stage.load(loaded.id).await.journal, loaded.journal, "with their journals");
        }
        live.into_iter().map(|loaded| loaded.id).collect::<Vec<_>>()
    };

    assert_eq!(list(&[SHOP], &[], None, 10).await, [&live[..], &[fresh]].concat());
    assert_eq!(list(&[SHOP, "none"], &[new], None, 10).await, live);
    assert_eq!(list(&[SHOP, "bank"], &[old], None, 10).await, [fresh]);
    assert!(list(&[SHOP, "bank"], &[old, new], None, 10).await.is_empty());
    assert!(list(&[], &[], None, 10).await.is_empty() && list(&[SHOP], &[], None, 0).await.is_empty());
    assert_eq!(list(&["bank", SHOP], &[], Some(live[1]), 2).await, [live[2], fresh], "page by page");
    assert_eq!(list(&["bank", SHOP], &[], Some(fresh), usize::MAX).await, [bank]);
}
