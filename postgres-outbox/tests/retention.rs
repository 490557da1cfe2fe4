//! What is old enough goes, and nothing else, while others write.
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use amends::store::{Append, Head, NewSaga};
use amends::{Definition, Event, Json, Outcome, SagaId, Status, Step, StepKind, Store, WorkerId};
use amends_postgres::cursor::{Lane, Layout};
use amends_postgres::testing::TestDatabase;
use amends_postgres::{Inbox, Inserted, PgStore, Received, Retention};
use sqlx::{AssertSqlSafe, Executor, PgConnection, PgPool};
use uuid::Uuid;

/// Nothing is too young.
const NOW: Retention = Retention {
    outbox: Duration::ZERO,
    sagas: Duration::ZERO,
    keys: Duration::ZERO,
    inbox: Duration::ZERO,
    barrier: Duration::ZERO,
    payloads: Duration::ZERO,
};

async fn tables(pool: &PgPool, like: &str) -> Vec<String> {
    let query = "select relname from pg_class where relkind = 'r' and relnamespace = 'amends'::regnamespace
        and relname ~ $1 order by relname";
    sqlx::query_scalar(query).bind(like).fetch_all(pool).await.unwrap()
}

async fn publish(pool: &PgPool, count: usize) {
    let insert = format!(
        "insert into amends.outbox (id, topic, name, payload) select gen_random_uuid(), 't', 'n', '' from generate_series(1, {count})"
    );
    pool.execute(AssertSqlSafe(insert)).await.unwrap();
}

/// The next message is the first of the next partition.
async fn go_to_next_partition(pool: &PgPool) {
    sqlx::query("select setval('amends.outbox_seq', 999999)").execute(pool).await.unwrap();
    publish(pool, 1).await;
}

/// A relay reads and settles all there is.
async fn drain(pool: &PgPool) {
    drain_lane(pool, 0).await;
}

async fn drain_lane(pool: &PgPool, number: i16) {
    let lease = Duration::from_secs(10);
    let mut lane = Lane::acquire(pool, number, Uuid::now_v7(), "relay", lease).await.unwrap().unwrap();
    for _ in 0..4 {
        let page = lane.read(1000).await.unwrap();
        lane.settle(&page, &[]).await.unwrap();
    }
    lane.release().await.unwrap();
}

#[tokio::test]
async fn a_partition_of_the_outbox_goes_when_all_of_it_is_published() {
    let database = TestDatabase::create().await;
    let pool = database.pool();
    publish(pool, 10).await;
    go_to_next_partition(pool).await;

    let kept = NOW.apply(pool).await.unwrap();
    assert_eq!(kept.kept, [("outbox_0".to_owned(), "not all of it is published".to_owned())]);

    drain(pool).await;
    let week = Retention { outbox: Duration::from_hours(168), ..NOW };
    assert_eq!(week.apply(pool).await.unwrap().kept, [("outbox_0".to_owned(), "it is not old enough".to_owned())]);
    assert_eq!(NOW.apply(pool).await.unwrap().dropped, ["outbox_0"]);
    assert!(tables(pool, "^outbox_0$").await.is_empty());
    assert!(!tables(pool, "^outbox_1$").await.is_empty(), "the newest is written to");
}

#[tokio::test]
async fn an_open_transaction_keeps_its_partition_and_holds_up_nobody() {
    let database = TestDatabase::create().await;
    let pool = database.pool();
    publish(pool, 1).await;
    let mut open = pool.begin().await.unwrap();
    open.execute("insert into amends.outbox (id, topic, name, payload) values (gen_random_uuid(), 't', 'late', '')")
        .await
        .unwrap();
    go_to_next_partition(pool).await;
    drain(pool).await;

    let began = tokio::time::Instant::now();
    assert_eq!(NOW.apply(pool).await.unwrap().kept, [("outbox_0".to_owned(), "it is in use".to_owned())]);
    assert!(began.elapsed() < Duration::from_secs(5));
    publish(pool, 1).await;
    open.commit().await.unwrap();

    assert_eq!(NOW.apply(pool).await.unwrap().kept, [("outbox_0".to_owned(), "not all of it is published".to_owned())]);
    drain(pool).await;
    assert_eq!(NOW.apply(pool).await.unwrap().dropped, ["outbox_0"]);
}

#[tokio::test]
async fn what_a_slow_lane_has_not_read_is_kept() {
    let database = TestDatabase::create().await;
    let pool = database.pool();
    pool.execute("select amends.set_lanes(2)").await.unwrap();
    drain(pool).await;
    assert!(Layout::finish(pool).await.unwrap());
    publish(pool, 20).await;
    go_to_next_partition(pool).await;
    let unpublished = [("outbox_0".to_owned(), "not all of it is published".to_owned())];

    drain(pool).await;

    assert_eq!(NOW.apply(pool).await.unwrap().kept, unpublished);
    drain_lane(pool, 1).await;
    assert_eq!(NOW.apply(pool).await.unwrap().dropped, ["outbox_0"]);
}

#[tokio::test]
async fn a_lane_without_messages_keeps_no_partition() {
    let database = TestDatabase::create().await;
    let pool = database.pool();
    pool.execute("select amends.set_lanes(2)").await.unwrap();
    drain(pool).await;
    assert!(Layout::finish(pool).await.unwrap());
    let insert =
        "insert into amends.outbox (id, key, topic, name, payload) values (gen_random_uuid(), 'k', 't', 'n', '')";
    pool.execute(insert).await.unwrap();
    sqlx::query("select setval('amends.outbox_seq', 999999)").execute(pool).await.unwrap();
    pool.execute(insert).await.unwrap();
    let lane = "select amends.lane_of('k', gen_random_uuid(), 2::smallint)";
    drain_lane(pool, sqlx::query_scalar(lane).fetch_one(pool).await.unwrap()).await;
    assert_eq!(NOW.apply(pool).await.unwrap().dropped, ["outbox_0"]);
}

/// A week long ago, with a partition of its own.
const OLD_WEEK: &str = "
    create table amends.saga_20200106 partition of amends.saga
        for values from (amends.uuid_floor('2020-01-06Z')) to (amends.uuid_floor('2020-01-13Z'));
    create table amends.journal_20200106 partition of amends.journal
        for values from (amends.uuid_floor('2020-01-06Z')) to (amends.uuid_floor('2020-01-13Z'));
    create table amends.inbox_20200106 partition of amends.inbox
        for values from (amends.uuid_floor('2020-01-06Z')) to (amends.uuid_floor('2020-01-13Z'))";

async fn old_id(pool: &PgPool, number: i32) -> Uuid {
    let query = "select (overlay(left(amends.uuid_floor('2020-01-07Z')::text, 24) placing '7' from 15) || lpad($1::text, 12, '0'))::uuid";
    sqlx::query_scalar(query).bind(number).fetch_one(pool).await.unwrap()
}

#[tokio::test]
async fn a_week_of_sagas_goes_with_its_journals_when_all_have_ended() {
    let database = TestDatabase::create().await;
    let pool = database.pool();
    pool.execute(OLD_WEEK).await.unwrap();
    let store = PgStore::new(pool.clone());
    let definition = Definition::new("old".into(), 1, vec![Step::new("a".into(), StepKind::Call)].into());
    for number in 1..=2 {
        let id = SagaId(old_id(pool, number).await);
        let key = Some(format!("order {number}"));
        store.start(NewSaga { id, key, ..NewSaga::new(&definition, Json::null()) }, None).await.unwrap();
    }
    end(&store, SagaId(old_id(pool, 1).await)).await;

    assert_eq!(NOW.apply(pool).await.unwrap().kept, [("20200106".to_owned(), "not all of it has ended".to_owned())]);
    end(&store, SagaId(old_id(pool, 2).await)).await;
    let quarter = Retention { sagas: Duration::from_hours(90 * 24), ..NOW };
    assert_eq!(quarter.apply(pool).await.unwrap().kept, [("20200106".to_owned(), "it is not old enough".to_owned())]);
    let gone = NOW.apply(pool).await.unwrap();

    assert_eq!(gone.dropped, ["20200106"]);
    assert!(tables(pool, "20200106").await.is_empty());
    let again = NewSaga { key: Some("order 1".into()), ..NewSaga::new(&definition, Json::null()) };
    let id = again.id;
    assert_eq!(store.start(again, None).await.unwrap().id(), id, "its key has gone too");
}

async fn end(store: &PgStore, saga: SagaId) {
    let events = vec![Event::Ended { outcome: Outcome::Completed, output: None }];
    let head = Some(Head { status: Status::Completed, wake_in: None, release: true, parked: None });
    store.append(Append { head, ..Append::new(saga, 1, WorkerId::new(), 0, events) }).await.unwrap();
}

#[tokio::test]
async fn the_inbox_forgets_what_is_old_and_keeps_what_was_handled_lately() {
    let database = TestDatabase::create().await;
    let pool = database.pool();
    pool.execute(OLD_WEEK).await.unwrap();
    let mut conn = pool.acquire().await.unwrap();
    let old = old_id(pool, 1).await.to_string();
    for id in [old.as_str(), "of another producer"] {
        assert!(is_new(&mut conn, id).await);
    }
    let month = Retention { inbox: Duration::from_hours(30 * 24), ..NOW };
    let kept = month.apply(pool).await.unwrap();
    assert!(kept.kept.contains(&("20200106".to_owned(), "it is not old enough".to_owned())), "{kept:?}");
    conn.execute("update amends.inbox set handled_at = handled_at - interval '31 days'").await.unwrap();

    let gone = month.apply(pool).await.unwrap();

    assert_eq!(gone.deleted, 1, "the one whose id tells no time");
    assert!(tables(pool, "inbox_20200106").await.is_empty());
    assert!(is_new(&mut conn, &old).await);
}

async fn is_new(conn: &mut PgConnection, id: &str) -> bool {
    let message = Received { id, name: "thing.happened", payload: b"{}" };
    Inbox::insert(conn, "warehouse", &[message]).await.unwrap() == [Inserted::New]
}

#[tokio::test]
async fn sagas_of_a_week_without_partitions_go_one_at_a_time() {
    let database = TestDatabase::create().await;
    let pool = database.pool();
    let store = PgStore::new(pool.clone());
    let definition = Definition::new("old".into(), 1, vec![Step::new("a".into(), StepKind::Call)].into());
    for number in 1..=2 {
        let id = SagaId(old_id(pool, number).await);
        store.start(NewSaga { id, ..NewSaga::new(&definition, Json::null()) }, None).await.unwrap();
    }
    end(&store, SagaId(old_id(pool, 1).await)).await;
    let quarter = Retention { sagas: Duration::from_hours(90 * 24), ..NOW };
    assert_eq!(quarter.apply(pool).await.unwrap().deleted, 0, "it ended a moment ago");

    assert_eq!(NOW.apply(pool).await.unwrap().deleted, 1);

    let left = "select array(select id from amends.saga union all select distinct saga_id from amends.journal)";
    let left: Vec<Uuid> = sqlx::query_scalar(left).fetch_one(pool).await.unwrap();
    assert_eq!(left, [old_id(pool, 2).await], "the other went with its journal");
}

#[tokio::test]
async fn partitions_are_made_beside_an_open_transaction_that_has_written_everywhere() {
    let database = TestDatabase::create().await;
    let pool = database.pool();
    let made = tables(pool, "_[0-9]+$").await;
    for parent in ["saga_", "journal_", "inbox_", "outbox_"] {
        let last = made.iter().rfind(|table| table.starts_with(parent)).unwrap();
        pool.execute(AssertSqlSafe(format!("drop table amends.{last}"))).await.unwrap();
    }
    let store = PgStore::new(pool.clone());
    let definition = Definition::new("new".into(), 1, vec![Step::new("a".into(), StepKind::Call)].into());
    let mut open = pool.begin().await.unwrap();
    store.start_in(&mut open, NewSaga::new(&definition, Json::null())).await.unwrap();
    assert!(is_new(&mut open, &Uuid::now_v7().to_string()).await);
    let publish = "insert into amends.outbox (id, topic, name, payload) values (gen_random_uuid(), 't', 'n', '')";
    open.execute(publish).await.unwrap();

    Retention::make_ahead(pool).await.unwrap();

    let missing = async || {
        let now = tables(pool, "_[0-9]+$").await;
        made.iter()
            .filter(|table| !now.contains(table))
            .map(|table| table.split('_').next().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(missing().await, ["saga"], "whoever starts a saga has looked into the default partition");
    open.commit().await.unwrap();
    Retention::make_ahead(pool).await.unwrap();
    assert_eq!(missing().await, [""; 0]);
}

#[tokio::test]
async fn partitions_that_cannot_be_made_now_hold_up_nobody() {
    let database = TestDatabase::create().await;
    let pool = database.pool();
    pool.execute("drop table amends.outbox_2").await.unwrap();
    let mut open = pool.begin().await.unwrap();
    open.execute("lock table amends.outbox_default in access share mode").await.unwrap();

    let made = tokio::time::timeout(Duration::from_secs(10), Retention::make_ahead(pool)).await;
    made.expect("it does not wait for long").unwrap();

    assert!(tables(pool, "^outbox_2$").await.is_empty());
    publish(pool, 1).await;
    open.commit().await.unwrap();
    Retention::make_ahead(pool).await.unwrap();
    assert!(!tables(pool, "^outbox_2$").await.is_empty(), "it is tried again");
}
