//! What hangs on an append: children, wakes, causes of parking; and the order of claims.

#![allow(missing_docs, clippy::unwrap_used)]

use std::time::Duration;

use amends::store::{Append, Appended, Claim, Head, NewSaga, Priority, WorkerStore};
use amends::{Definition, Event, Json, SagaId, Status, StepTransaction, Store, StoreError, WorkerId};
use amends_postgres::PgStore;
use amends_postgres::testing::TestDatabase;
use futures_util::future::join_all;
use sqlx::PgPool;
use uuid::Uuid;

fn new_saga(priority: Priority, parent: Option<SagaId>) -> NewSaga {
    let definition = Definition::new("shop".into(), 1, Vec::new().into());
    let input = Json::encode("eine \"Bestellung\" \u{1f600}").unwrap();
    NewSaga { trace: Some("00-trace".into()), priority, parent, ..NewSaga::new(&definition, input) }
}

fn append(saga: SagaId, seq: i64, head: Option<Head>) -> Append {
    Append {
        saga,
        seq,
        writer: WorkerId::new(),
        nonce: 0,
        events: vec![Event::Succeeded { step: "reserve".into(), output: Json::null() }],
        head,
        outbox: Vec::new(),
        starts: Vec::new(),
        wakes: None,
    }
}

fn head(status: Status, wake_in: Option<Duration>, release: bool) -> Head {
    Head { status, wake_in, release, parked: None }
}

/// A saga that a worker owns, as after a claim.
async fn owned(store: &PgStore) -> SagaId {
    store.start(new_saga(Priority::Normal, None), Some(WorkerId::new())).await.unwrap().id()
}

async fn is_due(pool: &PgPool, saga: SagaId) -> bool {
    sqlx::query_scalar("select coalesce(wake_at <= clock_timestamp(), false) from amends.saga where id = $1")
        .bind(saga.0)
        .fetch_one(pool)
        .await
        .unwrap()
}

fn claim(limit: usize) -> Claim {
    Claim {
        worker: WorkerId::new(),
        registered: vec![("other".into(), 1), ("shop".into(), 1)],
        limit,
        forward_limit: limit,
        bounds: Vec::new(),
        hints: Vec::new(),
        sweep: false,
        driven: Vec::new(),
    }
}

fn done(answer: Result<Appended, StoreError>) -> bool {
    matches!(answer.unwrap(), Appended::Done(_))
}

#[tokio::test]
async fn those_of_a_higher_priority_are_claimed_first_and_those_that_compensate_before_all() {
    let database = TestDatabase::create().await;
    let store = PgStore::new(database.pool().clone());
    for _ in 0..3 {
        for priority in [Priority::Low, Priority::Normal, Priority::High] {
            store.start(new_saga(priority, None), None).await.unwrap();
        }
    }
    for priority in [Priority::Low, Priority::High] {
        let undone = store.start(new_saga(priority, None), None).await.unwrap().id();
        let back = head(Status::Compensating, Some(Duration::ZERO), true);
        assert!(done(store.append(append(undone, 1, Some(back))).await));
    }
    let mut taken = Vec::new();
    for _ in 0..11 {
        let claimed = store.claim(claim(1)).await.unwrap();
        // The places of those that compensate are counted apart.
        taken.extend(claimed.into_iter().map(|saga| (saga.status, saga.priority)));
    }
    let (undo, forward): (Vec<_>, Vec<_>) = taken.into_iter().partition(|(status, _)| *status == Status::Compensating);
    assert_eq!(undo.iter().map(|(_, priority)| *priority).collect::<Vec<_>>(), [Priority::High, Priority::Low]);
    let mut expected = Vec::new();
    for priority in Priority::ALL {
        expected.extend([priority; 3]);
    }
    assert_eq!(forward.iter().map(|(_, priority)| *priority).collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn a_claim_that_is_full_does_not_touch_a_lower_priority() {
    let database = TestDatabase::create().await;
    let store = PgStore::new(database.pool().clone());
    for priority in [Priority::High, Priority::Low].repeat(50) {
        store.start(new_saga(priority, None), None).await.unwrap();
    }
    // Another worker's claim locks what it takes and nothing else, so that this one finds the rest at once.
    let (one, other) = tokio::join!(store.claim(claim(25)), store.claim(claim(25)));
    assert_eq!((one.unwrap().len(), other.unwrap().len()), (25, 25));
    let low: i64 = sqlx::query_scalar("select count(*) from amends.saga where owner is not null and priority = -1")
        .fetch_one(database.pool())
        .await
        .unwrap();
    assert_eq!(low, 0);
}

#[tokio::test]
async fn a_claim_leaves_alone_what_another_worker_drives() {
    let database = TestDatabase::create().await;
    let store = PgStore::new(database.pool().clone());
    let saga = store.start(new_saga(Priority::Normal, None), None).await.unwrap().id();
    let mine = claim(10);
    assert_eq!(store.claim(mine.clone()).await.unwrap().len(), 1);
    let child = owned(&store).await;
    let ends = Append { wakes: Some(saga), ..append(child, 1, Some(head(Status::Completed, None, true))) };
    assert!(done(store.append(ends).await));
    assert!(is_due(database.pool(), saga).await);

    let others = Claim { hints: vec![saga], sweep: true, ..claim(10) };
    assert!(store.claim(others).await.unwrap().is_empty());
    assert_eq!(store.claim(mine).await.unwrap().len(), 1, "its owner is told");
}

#[tokio::test]
async fn a_claim_does_not_wait_for_a_saga_that_somebody_else_has_locked() {
    let database = TestDatabase::create().await;
    let store = PgStore::new(database.pool().clone());
    for _ in 0..3 {
        store.start(new_saga(Priority::Normal, None), None).await.unwrap();
    }
    let mut open = database.pool().begin().await.unwrap();
    sqlx::query("select from amends.saga order by id limit 1 for update").execute(&mut *open).await.unwrap();

    let claimed = tokio::time::timeout(Duration::from_secs(10), store.claim(claim(10))).await;
    assert_eq!(claimed.expect("it takes the others at once").unwrap().len(), 2);
}

#[tokio::test]
async fn a_child_is_there_if_and_only_if_its_append_is() {
    let database = TestDatabase::create().await;
    let store = PgStore::new(database.pool().clone());
    let parent = owned(&store).await;
    let child = |priority| new_saga(priority, Some(parent));
    let (first, second, third) = (child(Priority::High), child(Priority::Low), child(Priority::Normal));

    let write = Append { starts: vec![first.clone(), second.clone()], ..append(parent, 1, None) };
    assert!(done(store.append(write.clone()).await));
    assert!(done(store.append(write).await), "a repetition whose answer was lost");
    let stale = Append { starts: vec![third.clone()], ..append(parent, 1, None) };
    assert_eq!(store.append(stale.clone()).await.unwrap(), Appended::Conflict);
    assert_eq!(store.begin().await.unwrap().commit(stale.clone()).await.unwrap(), Appended::Conflict);

    let loaded = store.load(first.id).await.unwrap().unwrap();
    assert_eq!((loaded.parent, loaded.priority, loaded.status), (Some(parent), Priority::High, Status::Running));
    assert_eq!((loaded.input, loaded.trace, loaded.owner), (first.input, first.trace, None));
    assert!(is_due(database.pool(), second.id).await);
    assert!(store.load(third.id).await.unwrap().is_none(), "its append was not written");

    // The same of a tx step.
    let commit = Append { seq: 2, ..stale };
    assert!(done(store.begin().await.unwrap().commit(commit).await));
    assert_eq!(store.load(third.id).await.unwrap().unwrap().parent, Some(parent));
}

#[tokio::test]
async fn a_child_with_a_business_key_is_refused() {
    let database = TestDatabase::create().await;
    let store = PgStore::new(database.pool().clone());
    let parent = owned(&store).await;
    let keyed = NewSaga { key: Some("o-1".into()), ..new_saga(Priority::Normal, Some(parent)) };
    let answer = store.append(Append { starts: vec![keyed], ..append(parent, 1, None) }).await;
    assert!(matches!(answer, Err(StoreError::Refused(_))), "{answer:?}");
}

#[tokio::test]
async fn a_wake_and_a_head_change_of_one_saga_in_one_batch_leave_it_due() {
    let database = TestDatabase::create().await;
    let store = PgStore::new(database.pool().clone());
    for round in 0..20 {
        // Ids in both orders, and the writes in both orders.
        let (one, other) = (owned(&store).await, owned(&store).await);
        let (parent, child) = if round % 2 == 0 { (one, other) } else { (other, one) };
        let sleeps = append(parent, 1, Some(head(Status::Running, None, true)));
        let ends = Append { wakes: Some(parent), ..append(child, 1, Some(head(Status::Completed, None, true))) };
        let batch = if round % 4 < 2 { [sleeps, ends] } else { [ends, sleeps] };
        let answers = join_all(batch.map(|write| store.append(write))).await;
        assert!(answers.into_iter().all(done));
        assert!(is_due(database.pool(), parent).await, "round {round}");
        assert!(!is_due(database.pool(), child).await, "what has ended is not due");
    }
}

#[tokio::test]
async fn what_was_made_due_from_outside_stays_due_until_it_has_ended() {
    let database = TestDatabase::create().await;
    let (pool, store) = (database.pool(), PgStore::new(database.pool().clone()));
    let (parent, child) = (owned(&store).await, owned(&store).await);
    let ends = Append { wakes: Some(parent), ..append(child, 1, Some(head(Status::Completed, None, true))) };
    assert!(done(store.append(ends.clone()).await));
    assert!(is_due(pool, parent).await);
    let later = head(Status::Running, Some(Duration::from_hours(1)), true);
    assert!(done(store.append(append(parent, 1, Some(later))).await));
    assert!(is_due(pool, parent).await, "a head change of the owner, in a statement of its own");
    let tx = store.begin().await.unwrap();
    assert!(done(tx.commit(append(parent, 2, Some(head(Status::Running, None, false)))).await));
    assert!(is_due(pool, parent).await, "and in a tx step");

    assert!(done(store.append(append(parent, 3, Some(head(Status::Compensated, None, true)))).await));
    assert!(!is_due(pool, parent).await, "nothing happens to it any more");
    let again = Append { wakes: Some(parent), ..append(child, 2, None) };
    assert!(done(store.append(again).await));
    assert!(!is_due(pool, parent).await, "a wake does not revive it");
    let stale = Append { wakes: Some(child), writer: WorkerId::new(), ..ends };
    assert_eq!(store.append(stale).await.unwrap(), Appended::Conflict);
    let ended: bool = sqlx::query_scalar("select bool_and(ended_at is not null and wake_at is null) from amends.saga")
        .fetch_one(pool)
        .await
        .unwrap();
    assert!(ended, "both have ended and stay so");
}

#[tokio::test]
async fn what_was_made_due_from_outside_stays_due_when_its_owner_gives_it_back() {
    let database = TestDatabase::create().await;
    let store = PgStore::new(database.pool().clone());
    let saga = store.start(new_saga(Priority::Normal, None), None).await.unwrap().id();
    let claim = claim(10);
    assert_eq!(store.claim(claim.clone()).await.unwrap().len(), 1);
    let child = owned(&store).await;
    let ends = Append { wakes: Some(saga), ..append(child, 1, Some(head(Status::Completed, None, true))) };
    assert!(done(store.append(ends).await));

    store.release(claim.worker, &[(saga, Some(Duration::from_hours(1)))]).await.unwrap();

    assert!(is_due(database.pool(), saga).await);
}

#[tokio::test]
async fn a_pause_beyond_the_calendar_is_a_long_one() {
    let database = TestDatabase::create().await;
    let store = PgStore::new(database.pool().clone());
    let (one, other) = (owned(&store).await, owned(&store).await);
    let for_ever = Some(head(Status::Running, Some(Duration::MAX), true));
    assert!(done(store.append(append(one, 1, for_ever)).await));
    assert!(done(store.begin().await.unwrap().commit(append(other, 1, for_ever)).await));
    assert!(!is_due(database.pool(), one).await && !is_due(database.pool(), other).await);
}

#[tokio::test]
async fn many_children_that_end_at_once_wake_one_parent() {
    let database = TestDatabase::create().await;
    let store = PgStore::new(database.pool().clone());
    let parent = owned(&store).await;
    let mut children = Vec::new();
    for _ in 0..60 {
        children.push(owned(&store).await);
    }
    let ends =
        |child: &SagaId| Append { wakes: Some(parent), ..append(*child, 1, Some(head(Status::Completed, None, true))) };
    assert!(join_all(children.iter().map(|child| store.append(ends(child)))).await.into_iter().all(done));
    assert!(is_due(database.pool(), parent).await);
}

#[tokio::test]
async fn the_cause_of_parking_is_kept_while_it_is_parked() {
    let database = TestDatabase::create().await;
    let store = PgStore::new(database.pool().clone());
    let (cause, other) = (Uuid::new_v4(), Uuid::new_v4());
    let parked = |cause| Some(Head { parked: Some(cause), ..head(Status::Parked, None, true) });
    let mut stuck = Vec::new();
    for nonce in 0..5 {
        let saga = owned(&store).await;
        assert!(done(store.append(append(saga, 1, parked(if nonce == 4 { other } else { cause }))).await));
        stuck.push(saga);
    }
    assert_eq!(store.parked(Some(cause), None, 10).await.unwrap(), stuck[..4]);
    assert_eq!(store.parked(Some(cause), Some(stuck[1]), 1).await.unwrap(), stuck[2..3]);
    assert_eq!(store.parked(None, None, 10).await.unwrap(), stuck);
    assert_eq!(store.parked(None, Some(stuck[3]), 10).await.unwrap(), stuck[4..]);

    // Woken it is still parked; moved on it is not.
    let wakes = Append { wakes: Some(stuck[0]), ..append(owned(&store).await, 1, None) };
    assert!(done(store.append(wakes).await));
    assert_eq!(store.parked(Some(cause), None, 1).await.unwrap(), stuck[..1]);
    assert!(done(store.append(append(stuck[0], 2, Some(head(Status::Running, None, false)))).await));
    let tx = store.begin().await.unwrap();
    assert!(done(tx.commit(append(stuck[1], 2, Some(head(Status::Running, None, false)))).await));
    assert_eq!(store.parked(Some(cause), None, 10).await.unwrap(), stuck[2..4]);
    let left: i64 =
        sqlx::query_scalar("select count(parked_as) from amends.saga").fetch_one(database.pool()).await.unwrap();
    assert_eq!(left, 3, "cleared in the others");
    let tx = store.begin().await.unwrap();
    assert!(done(tx.commit(append(stuck[1], 3, parked(other))).await));
    assert_eq!(store.parked(Some(other), None, 10).await.unwrap(), [stuck[1], stuck[4]]);
}

#[tokio::test]
async fn those_that_have_ended_or_are_not_there_are_told() {
    let database = TestDatabase::create().await;
    let store = PgStore::new(database.pool().clone());
    let mut sagas = Vec::new();
    for status in Status::ALL {
        let saga = owned(&store).await;
        assert!(done(store.append(append(saga, 1, Some(head(status, None, true)))).await));
        sagas.push(saga);
    }
    let absent = SagaId::new();
    sagas.push(absent);
    let mut ended = store.ended(&sagas).await.unwrap();
    ended.sort();
    assert_eq!(ended, [sagas[3], sagas[4], absent]);
    assert!(store.ended(&[]).await.unwrap().is_empty());
}
