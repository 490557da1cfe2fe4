//! Lanes share the keys; their number can be changed while messages flow.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::Duration;

use amends_postgres::cursor::{Lane, LaneError, Layout};
use amends_postgres::testing::TestDatabase;
use sqlx::{Executor, PgConnection, PgPool};
use uuid::Uuid;

const LEASE: Duration = Duration::from_secs(10);

async fn acquire(pool: &PgPool, lane: i16) -> Option<Lane> {
    Lane::acquire(pool, lane, Uuid::now_v7(), "test", LEASE).await.unwrap()
}

/// Writes the next message of a key.
async fn write(conn: &mut PgConnection, key: i32, count: i32) {
    sqlx::query(
        "insert into amends.outbox (id, key, topic, name, payload) values (gen_random_uuid(), $1, 't', $2, '')",
    )
    .bind(format!("key-{key}"))
    .bind(count.to_string())
    .execute(conn)
    .await
    .unwrap();
}

/// What was delivered of each key, first deliveries only.
#[derive(Default)]
struct Delivered(BTreeMap<String, Vec<i32>>);

impl Delivered {
    /// Reads and settles one page.
    async fn page(&mut self, lane: &mut Lane, limit: usize) -> Result<bool, LaneError> {
        let page = lane.read(limit).await?;
        for sequenced in &page.messages {
            let (key, count) = (sequenced.message.key.clone().unwrap(), sequenced.message.name.parse().unwrap());
            let counts = self.0.entry(key).or_default();
            if !counts.contains(&count) {
                counts.push(count);
            }
        }
        lane.settle(&page, &[]).await.map(|()| !page.messages.is_empty())
    }

    async fn drain(&mut self, lane: &mut Lane) {
        // The idle read that ends a pass moves the cursor, too.
        while self.page(lane, 3).await.unwrap() || self.page(lane, 3).await.unwrap() {}
    }

    fn assert_all(&self, keys: i32, count: i32) {
        let expected: Vec<i32> = (1..=count).collect();
        for key in 1..=keys {
            assert_eq!(self.0.get(&format!("key-{key}")), Some(&expected), "key-{key}");
        }
    }
}

#[tokio::test]
async fn lanes_divide_the_keys_between_them() {
    let database = TestDatabase::create().await;
    let pool = database.pool();
    pool.execute("select amends.set_lanes(3)").await.unwrap();
    acquire(pool, 0).await.unwrap().read(1).await.unwrap();
    assert!(!Layout::finish(pool).await.unwrap(), "the old lane has not met yet");
    let mut delivered = Delivered::default();
    let mut lane = acquire(pool, 0).await;
    assert!(lane.is_none(), "it is held");
    pool.execute("update amends.cursor set owner = null").await.unwrap();
    lane = acquire(pool, 0).await;
    delivered.drain(lane.as_mut().unwrap()).await;
    assert!(lane.unwrap().has_arrived());
    assert!(Layout::finish(pool).await.unwrap());

    for key in 1..=20 {
        write(&mut pool.acquire().await.unwrap(), key, 1).await;
    }

    for number in 0..3 {
        let before = delivered.0.len();
        delivered.drain(&mut acquire(pool, number).await.unwrap()).await;
        assert!(delivered.0.len() > before, "lane {number} has some of twenty keys");
    }
    delivered.assert_all(20, 1);
    assert!(acquire(pool, 3).await.is_none(), "there is no fourth lane");
}

#[tokio::test]
async fn changing_the_number_of_lanes_loses_nothing_and_keeps_the_order_of_each_key() {
    for seed in 0..4 {
        let database = TestDatabase::create().await;
        let pool = database.pool();
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut delivered, mut count, mut open) = (Delivered::default(), 0, Vec::new());
        let mut lanes: BTreeMap<i16, Lane> = BTreeMap::new();
        for _ in 0..60 {
            match random.u8(0..10) {
                0..4 => {
                    // Of each key the next message; half of them are committed only later.
                    count += 1;
                    let mut tx = pool.begin().await.unwrap();
                    for key in 1..=6 {
                        write(&mut tx, key, count).await;
                    }
                    // Whoever writes a key next waits for its lock: so at most one is open.
                    for tx in open.drain(..) {
                        sqlx::Transaction::commit(tx).await.unwrap();
                    }
                    if random.bool() { open.push(tx) } else { tx.commit().await.unwrap() }
                }
                4..8 => {
                    let number = random.i16(0..4);
                    if !lanes.contains_key(&number)
                        && let Some(lane) = acquire(pool, number).await
                    {
                        lanes.insert(number, lane);
                    }
                    if let Some(lane) = lanes.get_mut(&number)
                        && delivered.page(lane, 3).await.is_err()
                    {
                        lanes.remove(&number);
                    }
                }
                8 => {
                    // Refused while another change is under way.
                    let _ = sqlx::query("select amends.set_lanes($1)").bind(random.i32(1..5)).execute(pool).await;
                }
                _ => _ = Layout::finish(pool).await.unwrap(),
            }
        }
        for tx in open {
            tx.commit().await.unwrap();
        }
        drop(lanes);
        // All relays die; others go on until nothing is left, the change of the lanes neither.
        for _ in 0..2 {
            pool.execute("update amends.cursor set owner = null").await.unwrap();
            for number in 0..4 {
                if let Some(mut lane) = acquire(pool, number).await {
                    delivered.drain(&mut lane).await;
                }
            }
            Layout::finish(pool).await.unwrap();
        }
        if count > 0 {
            delivered.assert_all(6, count);
        }
        let is_changing = "select meeting is not null from amends.layout";
        assert!(!sqlx::query_scalar::<_, bool>(is_changing).fetch_one(pool).await.unwrap(), "seed {seed}");
    }
}

#[tokio::test]
async fn a_relay_that_reads_when_the_number_is_changed_loses_its_lane() {
    let database = TestDatabase::create().await;
    let pool = database.pool();
    let mut lane = acquire(pool, 0).await.unwrap();
    write(&mut pool.acquire().await.unwrap(), 1, 1).await;
    let page = lane.read(10).await.unwrap();
    pool.execute("select amends.set_lanes(2)").await.unwrap();

    assert!(matches!(lane.settle(&page, &[]).await, Err(LaneError::Lost)));

    let refused = pool.execute("select amends.set_lanes(3)").await.unwrap_err();
    assert!(refused.to_string().contains("just being changed to 2"), "{refused}");
    let invalid = pool.execute("select amends.set_lanes(0)").await.unwrap_err();
    assert!(invalid.to_string().contains("1 to 64"), "{invalid}");
}

#[tokio::test]
async fn new_lanes_begin_only_once_all_old_ones_have_met() {
    let database = TestDatabase::create().await;
    let pool = database.pool();
    let mut delivered = Delivered::default();
    pool.execute("select amends.set_lanes(2)").await.unwrap();
    delivered.drain(&mut acquire(pool, 0).await.unwrap()).await;
    assert!(Layout::finish(pool).await.unwrap());
    for key in 1..=10 {
        write(&mut pool.acquire().await.unwrap(), key, 1).await;
    }
    pool.execute("select amends.set_lanes(3)").await.unwrap();
    delivered.drain(&mut acquire(pool, 0).await.unwrap()).await;
    assert!(!Layout::finish(pool).await.unwrap(), "the other has not published what was there");
    delivered.drain(&mut acquire(pool, 1).await.unwrap()).await;
    assert!(Layout::finish(pool).await.unwrap());
    delivered.assert_all(10, 1);
}

#[tokio::test]
async fn held_messages_go_to_the_new_lane_of_their_key() {
    let database = TestDatabase::create().await;
    let pool = database.pool();
    pool.execute(
        "insert into amends.held_message (lane, seq, id, key, topic, name, content_type, headers, payload, created_at, reason)
         select 0, i, gen_random_uuid(), 'key-' || i, 't', 't', '', '{}', '', now(), 'nack' from generate_series(1, 30) i",
    )
    .await
    .unwrap();
    pool.execute("select amends.set_lanes(3)").await.unwrap();
    Delivered::default().drain(&mut acquire(pool, 0).await.unwrap()).await;
    assert!(Layout::finish(pool).await.unwrap());

    let wrong = "select count(*) from amends.held_message where lane <> amends.lane_of(key, id, 3::smallint)";
    assert_eq!(sqlx::query_scalar::<_, i64>(wrong).fetch_one(pool).await.unwrap(), 0);
    let lanes = "select count(distinct lane) from amends.held_message";
    assert_eq!(sqlx::query_scalar::<_, i64>(lanes).fetch_one(pool).await.unwrap(), 3);
}

#[tokio::test]
async fn a_lane_without_messages_does_not_look_through_those_of_others_again_and_again() {
    let database = TestDatabase::create().await;
    let pool = database.pool();
    pool.execute("select amends.set_lanes(2)").await.unwrap();
    Delivered::default().drain(&mut acquire(pool, 0).await.unwrap()).await;
    assert!(Layout::finish(pool).await.unwrap());
    pool.execute(
        "insert into amends.outbox (id, key, topic, name, payload)
         select gen_random_uuid(), 'key-1', 't', 't', '' from generate_series(1, 20000)",
    )
    .await
    .unwrap();
    let idle = "select 1 - amends.lane_of('key-1', gen_random_uuid(), 2::smallint)";
    let idle: i32 = sqlx::query_scalar(idle).fetch_one(pool).await.unwrap();
    let mut lane = acquire(pool, idle as i16).await.unwrap();
    for _ in 0..5 {
        let page = lane.read(100).await.unwrap();
        assert!(page.messages.is_empty());
        lane.settle(&page, &[]).await.unwrap();
    }
    let floor = "select floor from amends.cursor where lane = $1";
    let floor: i64 = sqlx::query_scalar(floor).bind(idle as i16).fetch_one(pool).await.unwrap();
    assert!(floor > 14_000, "{floor}");

    // What comes for it then is not lost.
    for key in 2..=20 {
        write(&mut pool.acquire().await.unwrap(), key, 1).await;
    }
    let mut delivered = Delivered::default();
    delivered.drain(&mut lane).await;
    let its = "select count(*) from amends.outbox where amends.lane_of(key, id, 2::smallint) = $1";
    let its: i64 = sqlx::query_scalar(its).bind(idle as i16).fetch_one(pool).await.unwrap();
    assert_eq!(delivered.0.len() as i64, its);
}
