//! Semantic locks on PostgreSQL: what two open transactions do at once.
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use amends::store::{Append, Appended, Head, Lock, NewSaga};
use amends::{Definition, Error, Event, Json, Outcome, SagaId, Started, Status, Step, StepKind, Store, WorkerId};
use amends_postgres::PgStore;
use amends_postgres::testing::TestDatabase;

fn definition() -> Definition {
    Definition::new("transfer".into(), 1, vec![Step::new("a".into(), StepKind::Call)].into())
}

fn refusing() -> NewSaga {
    NewSaga { lock: Some(Lock { key: "x".into(), refuse: true }), ..NewSaga::new(&definition(), Json::null()) }
}

async fn end(store: &PgStore, saga: SagaId) {
    let head = Head { status: Status::Completed, wake_in: None, release: true, parked: None };
    let events = vec![Event::Ended { outcome: Outcome::Completed, output: None }];
    let append = Append::new(saga, 1, WorkerId::new(), 0, events);
    assert!(matches!(store.append(Append { head: Some(head), ..append }).await.unwrap(), Appended::Done(_)));
}

#[tokio::test]
async fn of_two_transactions_that_start_without_waiting_the_second_is_refused() {
    let database = TestDatabase::create().await;
    let store = PgStore::new(database.pool().clone());
    let mut open = database.pool().begin().await.unwrap();
    let first = store.start_in(&mut open, refusing()).await.unwrap().id();

    let racing = tokio::spawn({
        let store = store.clone();
        async move {
            let mut tx = store.pool().begin().await.unwrap();
            store.start_in(&mut tx, refusing()).await
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
    assert!(matches!(store.start(refusing(), None).await.unwrap(), Started::New(_)));
}
