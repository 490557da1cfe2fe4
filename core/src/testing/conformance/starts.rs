//! Starting a saga: business keys, the application's own transaction, and a worker whose it is at once.

use futures_util::future::join_all;

use super::Backend;
use super::stage::{SHOP, Stage, claim, completed, definition, json, keyed, locking, new, refusing, saga};
use crate::store::{Claim, NewSaga, Priority, Started, Status, Store};
use crate::{Error, SagaId, WorkerId};

pub(crate) async fn a_saga_is_loaded_as_it_was_started<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let wanted = NewSaga {
        trace: Some("00-trace".into()),
        priority: Priority::Low,
        parent: Some(SagaId::new()),
        key: Some("order 7".into()),
        ..locking("Bestellung 🛒", "Konto 'ß'")
    };
    let wanted = NewSaga { input: json(r#"{"b": 1, "a":  [2]}"#), version: 3, ..wanted };
    stage.start(wanted.clone()).await;

    let loaded = stage.load(wanted.id).await;

    assert_eq!((&loaded.name, loaded.version, loaded.fingerprint), (&wanted.name, 3, wanted.fingerprint));
    assert_eq!((&loaded.input, &loaded.trace), (&wanted.input, &wanted.trace));
    assert_eq!((loaded.priority, loaded.parent), (Priority::Low, wanted.parent));
    assert_eq!(loaded.lock.as_deref(), Some("Konto 'ß'"));
    assert_eq!((loaded.status, loaded.owner, loaded.journal.len()), (Status::Running, None, 0));
    assert!(loaded.started_at <= loaded.now);
    assert!(stage.find(SagaId::new()).await.is_none(), "one that never was");
}

pub(crate) async fn the_same_key_and_an_equal_input_give_the_same_saga<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let first = stage.start(keyed("o-1", r#"{"sku":"pen","qty":[1,2.50]}"#)).await;

    let equal = r#" { "qty" : [1, 2.5],
        "sku": "p\u0065n" }"#;
    let existing = Started::Existing(first);
    assert_eq!(stage.store.start(keyed("o-1", equal), None).await.unwrap_or_else(|e| panic!("{e}")), existing);
    assert_eq!(stage.start_in(keyed("o-1", equal)).await.unwrap_or_else(|e| panic!("{e}")), existing);
    stage.moves(first, completed()).await;
    let owned = stage.store.start(keyed("o-1", equal), Some(WorkerId::new())).await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(owned, existing, "also when it has ended");

    let in_transaction = new(stage.start_in(keyed("o-2", "1")).await);
    let again = stage.store.start(keyed("o-2", "1.0"), None).await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(again, Started::Existing(in_transaction), "and the other way round");
    assert_eq!(stage.load(in_transaction).await.input.as_str(), "1");

    let other_name = NewSaga { key: Some("o-1".into()), ..saga("another name") };
    new(stage.store.start(other_name, None).await);
    new(stage.store.start(keyed("O-1", equal), None).await);
}

pub(crate) async fn the_same_key_and_another_input_are_a_conflict<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let first = stage.start(keyed("o-1", r#"{"qty": 1}"#)).await;

    for input in [r#"{"qty": 2}"#, r#"{"qty": "1"}"#, r#"{"qty": 1, "more": null}"#, "null", "[1]"] {
        let other = keyed("o-1", input);
        for refused in [stage.store.start(other.clone(), None).await, stage.start_in(other.clone()).await] {
            let Err(Error::KeyConflict { name, key, existing }) = refused else { panic!("{input}: {refused:?}") };
            assert_eq!((name.as_str(), key.as_str(), existing), (SHOP, "o-1", first));
        }
        assert!(stage.find(other.id).await.is_none(), "nothing was started");
    }
    let other_version = NewSaga { version: 2, input: json(r#"{"qty": 1}"#), ..keyed("o-1", "0") };
    let found = stage.store.start(other_version, None).await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(found, Started::Existing(first), "a key is of a name, not of a version");
}

pub(crate) async fn a_business_key_starts_one_saga_however_many_ask_at_once<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let processes: Vec<_> = (0..4).map(|_| stage.backend.connect()).collect();
    let starts = processes.iter().flat_map(|store| (0..10).map(|_| store.start(keyed("o-1", "1"), None)));

    let answers: Vec<_> = join_all(starts).await.into_iter().map(|it| it.unwrap_or_else(|e| panic!("{e}"))).collect();

    assert_eq!(answers.iter().filter(|answer| matches!(answer, Started::New(_))).count(), 1);
    assert!(answers.iter().all(|answer| answer.id() == answers[0].id()));
    assert_eq!(stage.claim(Claim { sweep: true, ..claim(100) }).await.len(), 1);
}

pub(crate) async fn a_start_in_a_transaction_is_there_once_that_commits<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let mut transaction = stage.backend.begin().await;
    let started = stage.store.start_in(B::conn(&mut transaction), keyed("o-1", "1")).await;
    let saga = new(started);
    assert!(stage.find(saga).await.is_none(), "not before");
    assert!(stage.claim(Claim { hints: vec![saga], ..claim(10) }).await.is_empty());

    B::commit(transaction).await.unwrap_or_else(|e| panic!("{e}"));

    assert_eq!(stage.load(saga).await.status, Status::Running);
    assert!(stage.is_due(saga).await);
}

pub(crate) async fn a_start_in_a_transaction_that_rolls_back_never_was<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let mut transaction = stage.backend.begin().await;
    let saga = new(stage.store.start_in(B::conn(&mut transaction), keyed("o-1", "1")).await);

    B::rollback(transaction).await;

    assert!(stage.find(saga).await.is_none());
    new(stage.store.start(keyed("o-1", "2"), None).await);
}

pub(crate) async fn one_transaction_knows_the_keys_that_it_took_itself<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let mut transaction = stage.backend.begin().await;
    let first = new(stage.store.start_in(B::conn(&mut transaction), keyed("o-1", "1")).await);
    let other = new(stage.store.start_in(B::conn(&mut transaction), keyed("o-2", "1")).await);

    let again = stage.store.start_in(B::conn(&mut transaction), keyed("o-1", "1")).await;
    let conflict = stage.store.start_in(B::conn(&mut transaction), keyed("o-1", "2")).await;
    B::commit(transaction).await.unwrap_or_else(|e| panic!("{e}"));

    assert_eq!(again.unwrap_or_else(|e| panic!("{e}")), Started::Existing(first));
    assert!(matches!(conflict, Err(Error::KeyConflict { existing, .. }) if existing == first), "{conflict:?}");
    assert!(stage.find(first).await.is_some() && stage.find(other).await.is_some());
}

pub(crate) async fn a_start_whose_answer_was_lost_can_be_repeated<B: Backend>() {
    let stage = Stage::<B>::open().await;
    for wanted in [saga(SHOP), keyed("o-1", "1"), locking(SHOP, "x"), refusing("other", "x")] {
        let id = stage.start(wanted.clone()).await;
        stage.moves(id, completed()).await;
        let before = stage.everything(&[id]).await;

        assert_eq!(new(stage.store.start(wanted.clone(), None).await), id, "it is the very same start");
        assert_eq!(new(stage.start_in(wanted).await), id);

        assert_eq!(stage.everything(&[id]).await, before);
    }
}

pub(crate) async fn a_saga_started_for_a_worker_is_its_own<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let worker = WorkerId::new();
    let all = vec![saga(SHOP), keyed("o-1", "1"), locking(SHOP, "x"), refusing(SHOP, "y")];
    for wanted in all {
        let id = new(stage.store.start(wanted.clone(), Some(worker)).await);
        assert_eq!(stage.load(id).await.owner, Some(worker), "{wanted:?}");
    }
    assert!(stage.claim(Claim { sweep: true, ..claim(10) }).await.is_empty(), "and nobody else's");
    assert!(stage.claim(Claim { worker, ..claim(10) }).await.is_empty(), "nor does it hear of them again");
    assert_eq!(definition(SHOP, 1).fingerprint(), saga(SHOP).fingerprint);
}
