//! The snapshot cursor on real PostgreSQL: the schedules that break each simpler cursor lose nothing here.

#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use amends_postgres::cursor::{Lane, LaneError, Page, Unpublished};
use amends_postgres::testing::TestDatabase;
use sqlx::postgres::PgConnection;
use sqlx::{PgPool, Postgres, Transaction};
use uuid::Uuid;

const LEASE: Duration = Duration::from_secs(30);

async fn acquire(pool: &PgPool) -> Lane {
    Lane::acquire(pool, 0, Uuid::now_v7(), "test", LEASE).await.unwrap().expect("nobody holds the lane")
}

/// As after a crash: the lane is taken by another, the memory of the first is gone.
async fn crash_and_acquire(pool: &PgPool, lane: Lane) -> Lane {
    drop(lane);
    sqlx::query("update amends.cursor set expires_at = clock_timestamp()").execute(pool).await.unwrap();
    acquire(pool).await
}

async fn insert(conn: &mut PgConnection, key: &str, name: &str) {
    sqlx::query(
        "insert into amends.outbox (id, key, topic, name, payload) values (gen_random_uuid(), $1, 't', $2, '')",
    )
    .bind(key)
    .bind(name)
    .execute(conn)
    .await
    .unwrap();
}

async fn commit_one(pool: &PgPool, name: &str) {
    insert(&mut pool.acquire().await.unwrap(), name, name).await;
}

async fn open_with(pool: &PgPool, name: &str) -> Transaction<'static, Postgres> {
    let mut tx = pool.begin().await.unwrap();
    insert(&mut tx, name, name).await;
    tx
}

fn names(page: &Page) -> Vec<String> {
    page.messages.iter().map(|message| message.message.name.clone()).collect()
}

async fn read_and_settle(lane: &mut Lane, limit: usize) -> Vec<String> {
    let page = lane.read(limit).await.unwrap();
    lane.settle(&page, &[]).await.unwrap();
    names(&page)
}

#[tokio::test]
async fn an_open_transaction_above_the_snapshots_xmax_is_not_lost() {
    let database = TestDatabase::create().await;
    let pool = database.pool();
    let mut lane = acquire(pool).await;
    commit_one(pool, "first").await;
    // Its xid is the snapshot's xmax, so it is in neither part of the snapshot, and its seq is below the sequence's value.
    let open = open_with(pool, "open").await;
    assert_eq!(read_and_settle(&mut lane, 10).await, ["first"]);
    open.commit().await.unwrap();
    commit_one(pool, "later").await;
    assert_eq!(read_and_settle(&mut lane, 10).await, ["open", "later"]);
}

#[tokio::test]
async fn the_first_message_of_a_fresh_sequence_is_not_lost() {
    let database = TestDatabase::create().await;
    let mut lane = acquire(database.pool()).await;
    assert!(read_and_settle(&mut lane, 10).await.is_empty());
    commit_one(database.pool(), "first").await;
    assert_eq!(read_and_settle(&mut lane, 10).await, ["first"]);
    assert!(read_and_settle(&mut lane, 10).await.is_empty());
}

#[tokio::test]
async fn the_default_of_seq_assigns_the_xid_first_in_every_partition() {
    let database = TestDatabase::create().await;
    let defaults: Vec<(String, String)> = sqlx::query_as(
        "select c.relname::text, pg_get_expr(d.adbin, d.adrelid) from pg_attrdef d
         join pg_class c on c.oid = d.adrelid and c.relnamespace = 'amends'::regnamespace and c.relname like 'outbox%'
         join pg_attribute a on a.attrelid = d.adrelid and a.attnum = d.adnum and a.attname = 'seq'",
    )
    .fetch_all(database.pool())
    .await
    .unwrap();
    assert!(defaults.len() >= 4, "the table, its partitions and the default partition: {defaults:?}");
    for (table, default) in defaults {
        let (xid, nextval) = (default.find("pg_current_xact_id()"), default.find("nextval"));
        assert!(xid > nextval && nextval.is_some(), "{table}: the xid is an argument of nextval: {default}");
    }
    // Straight into a partition, columns in the wrong order, many rows at once.
    sqlx::query(
        "insert into amends.outbox_0 (seq, xid, id, topic, name, payload)
         values (default, default, gen_random_uuid(), 't', 'a', ''), (default, default, gen_random_uuid(), 't', 'b', '')",
    )
    .execute(database.pool())
    .await
    .unwrap();
    assert_eq!(read_and_settle(&mut acquire(database.pool()).await, 10).await, ["a", "b"]);
}

#[tokio::test]
async fn a_role_with_the_granted_columns_cannot_choose_xid_or_seq() {
    let database = TestDatabase::create().await;
    let role = format!("amends_test_{}", Uuid::new_v4().simple());
    let mut conn = database.pool().acquire().await.unwrap();
    let run = |sql: String| sqlx::raw_sql(sqlx::AssertSqlSafe(sql));
    run(format!(
        "create role {role}; grant usage on schema amends to {role}; grant usage on sequence amends.outbox_seq to {role};
         grant insert (id, key, topic, name, content_type, headers, payload) on amends.outbox to {role}; set role {role}"
    ))
    .execute(&mut *conn)
    .await
    .unwrap();
    insert(&mut conn, "k", "allowed").await;
    for column in ["seq", "xid"] {
        let sql = format!(
            "insert into amends.outbox ({column}, id, topic, name, payload) values ('1', gen_random_uuid(), 't', 'n', '')"
        );
        let refused = run(sql).execute(&mut *conn).await.unwrap_err();
        assert_eq!(refused.as_database_error().unwrap().code().as_deref(), Some("42501"), "{column}");
    }
    run(format!("reset role; drop owned by {role}; drop role {role}")).execute(&mut *conn).await.unwrap();
}

#[tokio::test]
async fn a_long_writing_transaction_delays_only_its_own_rows() {
    let database = TestDatabase::create().await;
    let pool = database.pool();
    let mut lane = acquire(pool).await;
    let long = open_with(pool, "long").await;
    for round in 0..20 {
        let name = format!("quick {round}");
        commit_one(pool, &name).await;
        assert_eq!(read_and_settle(&mut lane, 10).await, [name]);
    }
    long.commit().await.unwrap();
    assert_eq!(read_and_settle(&mut lane, 10).await, ["long"]);
}

#[tokio::test]
async fn rolled_back_rows_never_appear() {
    let database = TestDatabase::create().await;
    let mut lane = acquire(database.pool()).await;
    open_with(database.pool(), "gone").await.rollback().await.unwrap();
    commit_one(database.pool(), "kept").await;
    assert_eq!(read_and_settle(&mut lane, 10).await, ["kept"]);
}

#[tokio::test]
async fn a_pass_of_many_pages_reads_each_row_once_whatever_commits_meanwhile() {
    let database = TestDatabase::create().await;
    let pool = database.pool();
    let open = open_with(pool, "open").await;
    for number in 0..10 {
        commit_one(pool, &format!("old {number}")).await;
    }
    let mut lane = acquire(pool).await;
    let mut all = read_and_settle(&mut lane, 4).await;
    open.commit().await.unwrap();
    commit_one(pool, "new").await;
    while all.len() < 12 {
        all.extend(read_and_settle(&mut lane, 4).await);
    }
    let distinct: HashSet<_> = all.iter().collect();
    assert_eq!(distinct.len(), 12, "{all:?}");
    for _ in 0..3 {
        assert!(read_and_settle(&mut lane, 4).await.is_empty());
    }
}

#[tokio::test]
async fn what_was_read_but_not_settled_is_read_again_after_a_crash() {
    let database = TestDatabase::create().await;
    let pool = database.pool();
    for number in 0..9 {
        commit_one(pool, &number.to_string()).await;
    }
    let mut lane = acquire(pool).await;
    let first = lane.read(3).await.unwrap();
    // Read ahead, published perhaps, and never settled.
    let second = lane.read(3).await.unwrap();
    assert_eq!(
        (names(&first), names(&second)),
        (vec!["0".into(), "1".into(), "2".into()], vec!["3".into(), "4".into(), "5".into()])
    );
    lane.settle(&first, &[]).await.unwrap();
    let mut lane = crash_and_acquire(pool, lane).await;
    assert_eq!(read_and_settle(&mut lane, 3).await, ["3", "4", "5"]);
    assert_eq!(read_and_settle(&mut lane, 3).await, ["6", "7", "8"]);
}

#[tokio::test]
async fn a_relay_that_lost_its_lane_moves_nothing() {
    let database = TestDatabase::create().await;
    let pool = database.pool();
    commit_one(pool, "a").await;
    let mut stale = acquire(pool).await;
    let page = stale.read(10).await.unwrap();
    assert!(Lane::acquire(pool, 0, Uuid::now_v7(), "other", LEASE).await.unwrap().is_none(), "it is held");
    sqlx::query("update amends.cursor set expires_at = clock_timestamp()").execute(pool).await.unwrap();
    let mut lane = acquire(pool).await;
    let held = Unpublished { message: &page.messages[0], refused: true, reason: "x".into() };
    assert!(matches!(stale.settle(&page, &[held]).await, Err(LaneError::Lost)));
    assert!(matches!(stale.renew().await, Err(LaneError::Lost)));
    let held: i64 = sqlx::query_scalar("select count(*) from amends.held_message").fetch_one(pool).await.unwrap();
    assert_eq!(held, 0, "nothing of the stale move remains");
    assert_eq!(read_and_settle(&mut lane, 10).await, ["a"]);
}

#[tokio::test]
async fn a_relay_that_has_its_lane_again_does_not_move_it_by_what_it_read_before() {
    let database = TestDatabase::create().await;
    let pool = database.pool();
    commit_one(pool, "a").await;
    let relay = Uuid::now_v7();
    let take = || async { Lane::acquire(pool, 0, relay, "test", LEASE).await.unwrap().unwrap() };
    let mut before = take().await;
    let page = before.read(10).await.unwrap();

    let mut again = take().await;

    assert!(matches!(before.settle(&page, &[]).await, Err(LaneError::Lost)));
    assert!(matches!(before.renew().await, Err(LaneError::Lost)));
    assert_eq!(read_and_settle(&mut again, 10).await, ["a"]);
}

#[tokio::test]
async fn after_a_restore_into_another_cluster_everything_retained_is_published_again() {
    let database = TestDatabase::create().await;
    let pool = database.pool();
    commit_one(pool, "a").await;
    let mut lane = acquire(pool).await;
    assert_eq!(read_and_settle(&mut lane, 10).await, ["a"]);
    lane.release().await.unwrap();
    // What a dump from elsewhere looks like: another system, and transaction ids that this one has not reached.
    sqlx::query("update amends.cursor set system_id = 1, prev = '900000000:900000000:'").execute(pool).await.unwrap();
    sqlx::query("update amends.outbox set xid = '900000000'").execute(pool).await.unwrap();
    commit_one(pool, "b").await;
    let mut lane = acquire(pool).await;
    assert_eq!(read_and_settle(&mut lane, 10).await, ["a", "b"]);
    assert!(read_and_settle(&mut lane, 10).await.is_empty());
}

#[tokio::test]
async fn a_lane_that_was_made_by_a_role_that_may_not_know_the_system_is_no_restore() {
    let database = TestDatabase::create().await;
    let pool = database.pool();
    commit_one(pool, "a").await;
    let mut lane = acquire(pool).await;
    assert_eq!(read_and_settle(&mut lane, 10).await, ["a"]);
    lane.release().await.unwrap();
    sqlx::query("update amends.cursor set system_id = 0").execute(pool).await.unwrap();
    assert!(read_and_settle(&mut acquire(pool).await, 10).await.is_empty());
    let known = "select system_id = (select system_identifier from pg_control_system()) from amends.cursor";
    assert!(sqlx::query_scalar::<_, bool>(known).fetch_one(pool).await.unwrap());
}

/// The next read would look through all of it once more, and might never come to its end.
#[tokio::test]
async fn a_lane_that_has_come_through_a_backlog_is_behind_all_of_it() {
    let database = TestDatabase::create().await;
    let pool = database.pool();
    let insert = "insert into amends.outbox (id, topic, name, payload) select gen_random_uuid(), 't', 'n', '' from generate_series(1, 100)";
    sqlx::query(insert).execute(pool).await.unwrap();
    let mut lane = acquire(pool).await;
    for _ in 0..4 {
        read_and_settle(&mut lane, 40).await;
    }
    let floor: i64 = sqlx::query_scalar("select floor from amends.cursor").fetch_one(pool).await.unwrap();
    let last: i64 = sqlx::query_scalar("select max(seq) from amends.outbox").fetch_one(pool).await.unwrap();
    assert_eq!(floor, last);
}

/// Writers of three keys, open transactions, commits, rollbacks, pages of random size, reads ahead and crashes.
#[tokio::test]
async fn random_schedules_lose_nothing_and_keep_each_key_in_order() {
    let database = TestDatabase::create().await;
    let pool = database.pool();
    for seed in 0..25 {
        let mut random = fastrand_like(seed);
        sqlx::raw_sql("truncate amends.outbox; update amends.cursor set prev = pg_current_snapshot(), floor = 0, pass = null, pass_seq = null, pass_floor = null")
            .execute(pool)
            .await
            .unwrap();
        let mut lane = if let Some(lane) = Lane::acquire(pool, 0, Uuid::now_v7(), "test", LEASE).await.unwrap() {
            lane
        } else {
            sqlx::query("update amends.cursor set expires_at = clock_timestamp()").execute(pool).await.unwrap();
            acquire(pool).await
        };
        let mut open: HashMap<u64, (Transaction<'static, Postgres>, i64)> = HashMap::new();
        let mut committed: HashMap<u64, Vec<i64>> = HashMap::new();
        let mut counters: HashMap<u64, i64> = HashMap::new();
        let (mut delivered, mut unsettled): (Vec<String>, Vec<Page>) = (Vec::new(), Vec::new());
        for _ in 0..60 {
            let key = random(3);
            match random(8) {
                0 | 1 if !open.contains_key(&key) => {
                    let counter = counters.entry(key).or_default();
                    *counter += 1;
                    let mut tx = pool.begin().await.unwrap();
                    if random(2) == 0 {
                        sqlx::query("select pg_current_xact_id()").execute(&mut *tx).await.unwrap();
                    }
                    insert(&mut tx, &key.to_string(), &format!("{key}:{counter}")).await;
                    open.insert(key, (tx, *counter));
                }
                2 | 3 => {
                    if let Some((tx, counter)) = open.remove(&key) {
                        tx.commit().await.unwrap();
                        committed.entry(key).or_default().push(counter);
                    }
                }
                4 => {
                    if let Some((tx, _)) = open.remove(&key) {
                        tx.rollback().await.unwrap();
                    }
                }
                5 => unsettled.push(lane.read(1 + random(3) as usize).await.unwrap()),
                6 => {
                    for page in unsettled.drain(..) {
                        delivered.extend(names(&page));
                        lane.settle(&page, &[]).await.unwrap();
                    }
                }
                _ if random(4) == 0 => {
                    // Published, and dead before the move.
                    unsettled.drain(..).for_each(|page| delivered.extend(names(&page)));
                    lane = crash_and_acquire(pool, lane).await;
                }
                _ => {}
            }
        }
        for (key, (tx, counter)) in open {
            tx.commit().await.unwrap();
            committed.entry(key).or_default().push(counter);
        }
        let mut empty = 0;
        unsettled.push(lane.read(2).await.unwrap());
        while empty < 3 {
            for page in unsettled.drain(..) {
                delivered.extend(names(&page));
                lane.settle(&page, &[]).await.unwrap();
            }
            let page = lane.read(2).await.unwrap();
            empty = if page.messages.is_empty() { empty + 1 } else { 0 };
            unsettled.push(page);
        }
        for (key, expected) in &committed {
            let mut seen = HashSet::new();
            let prefix = format!("{key}:");
            let first: Vec<i64> = delivered
                .iter()
                .filter_map(|name| name.strip_prefix(&prefix)?.parse().ok())
                .filter(|counter| seen.insert(*counter))
                .collect();
            assert_eq!(&first, expected, "seed {seed}, key {key}: {delivered:?}");
        }
    }
}

/// A small generator: the schedules must be the same in every run.
fn fastrand_like(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) % below
    }
}

/// Otherwise each look of an idle relay would go through millions of rows that are settled.
#[tokio::test]
async fn behind_a_long_pass_an_idle_lane_reads_only_what_is_new() {
    let database = TestDatabase::create().await;
    let pool = database.pool();
    sqlx::query(
        "insert into amends.outbox (id, topic, name, payload) select gen_random_uuid(), 't', 't', '' from generate_series(1, 12000)",
    )
    .execute(pool)
    .await
    .unwrap();
    let mut lane = acquire(pool).await;
    while !read_and_settle(&mut lane, 5000).await.is_empty() {}
    for _ in 0..2 {
        assert!(read_and_settle(&mut lane, 5000).await.is_empty());
    }

    let floor: i64 = sqlx::query_scalar("select floor from amends.cursor").fetch_one(pool).await.unwrap();
    assert!(floor >= 12000, "{floor}");
    commit_one(pool, "new").await;
    assert_eq!(read_and_settle(&mut lane, 10).await, ["new"]);
}
