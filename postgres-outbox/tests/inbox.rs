//! The inbox on real PostgreSQL: what is new, what is a copy, and what only has the id of another.
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use amends_postgres::testing::TestDatabase;
use amends_postgres::{Inbox, Inserted, Received};
use sqlx::{Executor, PgConnection};
use tokio::time::sleep;
use uuid::Uuid;

fn message<'a>(id: &'a str, payload: &'a str) -> Received<'a> {
    Received { id, name: "thing.happened", payload: payload.as_bytes() }
}

async fn insert(conn: &mut PgConnection, messages: &[Received<'_>]) -> Vec<Inserted> {
    Inbox::insert(conn, "here", messages).await.unwrap()
}

use Inserted::{Another, Copy, New};

#[tokio::test]
async fn of_many_messages_each_is_new_once_whatever_its_id_looks_like() {
    let database = TestDatabase::create().await;
    let mut conn = database.pool().acquire().await.unwrap();
    let ours = Uuid::now_v7().to_string();
    let batch = [message(&ours, "a"), message("of 'another' 🦀", "b"), message(&ours, "a"), message(&ours, "other")];

    assert_eq!(insert(&mut conn, &batch).await, [New, New, Copy, Another]);
    assert_eq!(insert(&mut conn, &batch).await, [Copy, Copy, Copy, Another]);
    let mixed = [message(&ours, "a"), message("new", "c"), message("of 'another' 🦀", "other")];
    assert_eq!(insert(&mut conn, &mixed).await, [Copy, New, Another]);
    let else_happened = Received { name: "else.happened", ..message(&ours, "a") };
    assert_eq!(insert(&mut conn, &[else_happened]).await, [Another], "the type is a part of what it says");
    assert_eq!(Inbox::insert(&mut conn, "there", &batch[..2]).await.unwrap(), [New, New]);
    assert_eq!(insert(&mut conn, &[]).await, []);
}

#[tokio::test]
async fn what_was_handled_before_bodies_were_remembered_has_only_copies() {
    let database = TestDatabase::create().await;
    let mut conn = database.pool().acquire().await.unwrap();
    assert_eq!(insert(&mut conn, &[message("1", "a")]).await, [New]);
    conn.execute("update amends.inbox set body = null").await.unwrap();
    assert_eq!(insert(&mut conn, &[message("1", "b")]).await, [Copy]);
}

#[tokio::test]
async fn a_copy_waits_for_the_transaction_of_the_first_however_that_ends() {
    let database = TestDatabase::create().await;
    for (id, commits) in [("1", true), ("2", false)] {
        let mut first = database.pool().begin().await.unwrap();
        assert_eq!(insert(&mut first, &[message(id, "a")]).await, [New]);
        let copies = tokio::spawn({
            let pool = database.pool().clone();
            async move { insert(&mut pool.acquire().await.unwrap(), &[message(id, "a"), message(id, "b")]).await }
        });
        let waits = "select exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock')";
        while !sqlx::query_scalar::<_, bool>(waits).fetch_one(database.pool()).await.unwrap() {
            assert!(!copies.is_finished(), "it waits");
            sleep(Duration::from_millis(2)).await;
        }
        if commits {
            first.commit().await.unwrap();
        } else {
            first.rollback().await.unwrap();
        }
        assert_eq!(copies.await.unwrap(), if commits { [Copy, Another] } else { [New, Another] });
    }
}

/// Two consumers of one name get the same messages in different orders, as after a lost connection.
#[tokio::test]
async fn batches_with_the_same_messages_in_other_orders_do_not_deadlock() {
    let database = TestDatabase::create().await;
    let ids: Vec<String> = (0..200).map(|number| number.to_string()).collect();
    for round in 0..20 {
        let one = |reversed: bool| {
            let (pool, ids) = (database.pool().clone(), ids.clone());
            tokio::spawn(async move {
                let ids: Vec<String> = ids.iter().map(|id| format!("{round}/{id}")).collect();
                let mut messages: Vec<Received<'_>> = ids.iter().map(|id| message(id, "a")).collect();
                if reversed {
                    messages.reverse();
                }
                let mut tx = pool.begin().await.unwrap();
                let new = insert(&mut tx, &messages).await.iter().filter(|&&inserted| inserted == New).count();
                tx.commit().await.unwrap();
                new
            })
        };
        let (left, right) = (one(false), one(true));
        assert_eq!(left.await.unwrap() + right.await.unwrap(), 200);
    }
}

#[tokio::test]
async fn ids_that_tell_no_time_are_recognised_and_keep_no_week_from_its_partition() {
    let database = TestDatabase::create().await;
    let mut conn = database.pool().acquire().await.unwrap();
    let v4 = uuid::Uuid::new_v4().to_string();
    let ids = ["order 7", &v4, "c232ab00-9414-11ec-b3c8-9f6bdeced846", "c232ab01-9414-11ec-b3c8-9f6bdeced846"];
    for id in ids {
        assert_eq!(insert(&mut conn, &[message(id, "a")]).await, [New], "{id}");
    }
    for id in [ids[0], &v4.to_uppercase(), ids[2], ids[3]] {
        assert_eq!(insert(&mut conn, &[message(id, "a")]).await, [Copy], "{id}");
    }
    let places = "select array_agg(distinct tableoid::regclass::text) from amends.inbox";
    let places: Vec<String> = sqlx::query_scalar(places).fetch_one(&mut *conn).await.unwrap();
    assert_eq!(places, ["amends.inbox_foreign"]);
}
