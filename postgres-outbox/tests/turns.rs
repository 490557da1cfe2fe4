//! Semantic locks and schedules on real PostgreSQL: what two transactions do at once.
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use amends::store::{Append, Appended, Head, Lock, NewSaga, WorkerStore};
use amends::{Definition, Error, Event, Json, Outcome, SagaId, Started, Status, Step, StepKind, Store, WorkerId};
use amends_postgres::PgStore;
use amends_postgres::testing::TestDatabase;
use chrono::{SubsecRound, Utc};

fn definition() -> Definition {
    Definition::new("transfer".into(), 1, vec![Step::new("a".into(), StepKind::Call)].into())
}

fn locking(key: &str, refuse: bool) -> NewSaga {
    NewSaga { lock: Some(Lock { key: key.to_owned(), refuse }), ..NewSaga::new(&definition(), Json::null()) }
}

async fn start(store: &PgStore, saga: NewSaga) -> SagaId {
    store.start(saga, None).await.unwrap().id()
}

async fn end(store: &PgStore, saga: SagaId) {
    let append = Append {
        saga,
        seq: 1,
        writer: WorkerId::new(),
        nonce: 0,
        events: vec![Event::Ended { outcome: Outcome::Completed, output: None }],
        head: Some(Head { status: Status::Completed, wake_in: None, release: true, parked: None }),
        outbox: Vec::new(),
        starts: Vec::new(),
        wakes: None,
    };
    assert!(matches!(store.append(append).await.unwrap(), Appended::Done(_)));
}

#[tokio::test]
async fn a_lock_goes_from_one_saga_to_the_next_in_the_order_of_their_starts() {
    let database = TestDatabase::create().await;
    let store = PgStore::new(database.pool().clone());
    let first = start(&store, locking("account '1' 🏦", false)).await;
    let second = start(&store, locking("account '1' 🏦", false)).await;
    let other = start(&store, locking("account 2", false)).await;

    assert!(!store.lock(second).await.unwrap(), "the first is first, also before it runs");
    assert!(store.lock(first).await.unwrap());
    assert!(store.lock(first).await.unwrap(), "it has it already");
    assert!(store.lock(other).await.unwrap());
    end(&store, first).await;
    store.pass_lock(first).await.unwrap();

    assert!(store.lock(second).await.unwrap());
    assert!(!store.lock(first).await.unwrap() || store.load(first).await.unwrap().unwrap().status.is_final());
}

#[tokio::test]
async fn a_saga_that_committed_late_does_not_take_the_lock_from_a_younger_one_that_has_it() {
    let database = TestDatabase::create().await;
    let store = PgStore::new(database.pool().clone());
    let mut open = database.pool().begin().await.unwrap();
    let older = store.start_in(&mut open, locking("x", false)).await.unwrap().id();
    let younger = start(&store, locking("x", false)).await;

    assert!(store.lock(younger).await.unwrap());
    open.commit().await.unwrap();

    assert!(!store.lock(older).await.unwrap());
    assert!(store.lock(younger).await.unwrap());
}

#[tokio::test]
async fn of_many_that_ask_at_once_one_gets_the_lock() {
    let database = TestDatabase::create().await;
    let store = PgStore::new(database.pool().clone());
    for round in 0..5 {
        let mut sagas = Vec::new();
        for _ in 0..8 {
            sagas.push(start(&store, locking(&format!("round {round}"), false)).await);
        }
        let asked = sagas.iter().map(|saga| store.lock(*saga));
        let got = futures_util::future::join_all(asked).await;
        assert_eq!(got.into_iter().filter(|got| *got.as_ref().unwrap()).count(), 1);
    }
}

#[tokio::test]
async fn of_two_transactions_that_start_without_waiting_the_second_is_refused() {
    let database = TestDatabase::create().await;
    let store = PgStore::new(database.pool().clone());
    let mut open = database.pool().begin().await.unwrap();
    let first = store.start_in(&mut open, locking("x", true)).await.unwrap().id();

    let racing = tokio::spawn({
        let store = store.clone();
        async move {
            let mut tx = store.pool().begin().await.unwrap();
            store.start_in(&mut tx, locking("x", true)).await
        }
    });
    while !sqlx::query_scalar::<_, bool>(
        "select exists (select from pg_locks l join pg_database d on d.oid = l.database
            where d.datname = current_database() and l.locktype = 'advisory' and not l.granted)",
    )
    .fetch_one(database.pool())
    .await
    .unwrap()
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    open.commit().await.unwrap();

    let refused = racing.await.unwrap();
    assert!(matches!(&refused, Err(Error::Locked { holder, .. }) if *holder == first), "{refused:?}");
    end(&store, first).await;
    assert!(matches!(store.start(locking("x", true), None).await.unwrap(), Started::New(_)));
}

#[tokio::test]
async fn of_many_workers_one_starts_what_is_due() {
    let database = TestDatabase::create().await;
    let store = PgStore::new(database.pool().clone());
    let at = (Utc::now() - Duration::from_secs(5)).trunc_subsecs(3);
    store.schedule("transfer", "every 5m", at).await.unwrap();
    store.schedule("transfer", "every 5m", at + Duration::from_mins(5)).await.unwrap();
    let (overdue, now) = store.overdue(&["transfer".to_owned()]).await.unwrap();
    assert_eq!(overdue, [("transfer".to_owned(), at)], "a worker that comes later does not put it off");
    assert!(now > at);

    let next = Some(at + Duration::from_mins(5));
    let starts = (0..8).map(|_| store.start_scheduled(NewSaga::new(&definition(), Json::null()), at, next));
    let started = futures_util::future::join_all(starts).await;

    assert_eq!(started.into_iter().filter(|started| *started.as_ref().unwrap()).count(), 1);
    let sagas: i64 = sqlx::query_scalar("select count(*) from amends.saga").fetch_one(database.pool()).await.unwrap();
    assert_eq!(sagas, 1);
    assert!(store.overdue(&["transfer".to_owned()]).await.unwrap().0.is_empty());
    store.schedule("transfer", "cron * * * * *", at).await.unwrap();
    assert_eq!(store.overdue(&["transfer".to_owned()]).await.unwrap().0.len(), 1, "another timetable replaces it");
}
