//! Held messages: what is due is found, however much is held, and one key takes no place from others.
#![allow(missing_docs, clippy::unwrap_used)]

use std::time::{Duration, Instant};

use amends_postgres::cursor::{Held, Lane, Sequenced};
use amends_postgres::operator::{self, Which};
use amends_postgres::testing::TestDatabase;
use sqlx::{Executor, PgPool};
use uuid::Uuid;

async fn acquire(pool: &PgPool) -> Lane {
    Lane::acquire(pool, 0, Uuid::now_v7(), "test", Duration::from_secs(10)).await.unwrap().unwrap()
}

/// Holds messages of these numbers. `key` is an expression over the number `i`, and so is `parked`.
async fn hold(pool: &PgPool, from: i64, to: i64, key: &'static str, parked: &'static str) {
    let insert = format!(
        "insert into amends.held_message (lane, seq, id, key, topic, name, content_type, headers, payload, created_at, reason, parked)
         select 0, i, gen_random_uuid(), {key}, 't', 't', '', '{{}}', '', now(), 'nack', {parked} from generate_series({from}, {to}) i"
    );
    pool.execute(sqlx::AssertSqlSafe(insert)).await.unwrap();
}

async fn due(lane: &mut Lane, limit: usize) -> Vec<Sequenced> {
    lane.due_held(limit).await.unwrap().messages.into_iter().map(|Held { message, .. }| message).collect()
}

#[tokio::test]
async fn what_is_due_is_found_at_once_among_very_many() {
    let database = TestDatabase::create().await;
    let pool = database.pool();
    hold(pool, 1, 60_000, "'key-' || i", "i <= 30000").await;
    let mut lane = acquire(pool).await;
    let began = Instant::now();
    let due = due(&mut lane, 500).await;
    assert_eq!(due.len(), 500);
    assert!(due.iter().all(|message| message.seq > 30_000), "parked ones wait");
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_key_with_very_many_held_messages_leaves_room_for_others() {
    let database = TestDatabase::create().await;
    let pool = database.pool();
    hold(pool, 1, 5000, "'hot'", "false").await;
    hold(pool, 5001, 5010, "'key-' || i", "false").await;
    let due = due(&mut acquire(pool).await, 100).await;
    assert_eq!(due.iter().filter(|message| message.message.key.as_deref() != Some("hot")).count(), 10);
    let hot = due.iter().filter(|message| message.message.key.as_deref() == Some("hot")).map(|message| message.seq);
    assert!(hot.eq(1..=90), "its own come in their order");
}

#[tokio::test]
async fn what_has_just_failed_again_comes_after_those_that_wait_longer() {
    let database = TestDatabase::create().await;
    let pool = database.pool();
    hold(pool, 1, 20, "null::text", "false").await;
    let mut lane = acquire(pool).await;
    let failed: Vec<(i64, &str)> = due(&mut lane, 10).await.iter().map(|message| (message.seq, "gone")).collect();
    lane.postpone_held(&failed, Duration::ZERO).await.unwrap();
    assert!(due(&mut lane, 10).await.iter().all(|message| failed.iter().all(|(seq, _)| *seq != message.seq)));
}

#[tokio::test]
async fn a_key_is_free_once_its_last_held_message_is_published_or_discarded() {
    let database = TestDatabase::create().await;
    let pool = database.pool();
    hold(pool, 1, 3, "case when i = 3 then 'b' else 'a' end", "i = 3").await;
    let mut lane = acquire(pool).await;
    let first = due(&mut lane, 1).await;
    lane.settle_held(&first.iter().collect::<Vec<_>>()).await.unwrap();
    assert!(lane.is_held("a"), "its second is held");
    let second = due(&mut lane, 1).await;
    assert_eq!(second[0].seq, 2);
    lane.settle_held(&second.iter().collect::<Vec<_>>()).await.unwrap();
    assert!(!lane.is_held("a") && lane.is_held("b") && lane.has_held());
    operator::discard(pool, &Which::default()).await.unwrap();
    assert!(due(&mut lane, 1).await.is_empty());
    assert!(!lane.is_held("b") && !lane.has_held());
}

#[tokio::test]
async fn a_key_longer_than_an_index_takes_can_be_held() {
    let database = TestDatabase::create().await;
    hold(database.pool(), 1, 2, "(select string_agg(md5(n::text), '') from generate_series(1, 1000) n)", "false").await;
    let mut lane = acquire(database.pool()).await;
    assert_eq!(due(&mut lane, 10).await.iter().map(|message| message.seq).collect::<Vec<_>>(), [1, 2]);
}

#[tokio::test]
async fn large_messages_come_in_small_pages_and_none_is_left_out() {
    const LARGE: i32 = 3 << 20;
    let database = TestDatabase::create().await;
    let pool = database.pool();
    let insert = "insert into amends.outbox (id, topic, name, payload)
        select gen_random_uuid(), 't', 't', decode(repeat('ab', $1), 'hex') from generate_series(1, 10)";
    sqlx::query(insert).bind(LARGE).execute(pool).await.unwrap();
    let mut lane = acquire(pool).await;
    let mut seqs = Vec::new();
    while seqs.len() < 10 {
        let page = lane.read(1000).await.unwrap();
        assert!((1..=3).contains(&page.messages.len()), "{}", page.messages.len());
        assert_eq!(page.full, seqs.len() + page.messages.len() < 10);
        seqs.extend(page.messages.iter().map(|message| message.seq));
        lane.settle(&page, &[]).await.unwrap();
    }
    assert!(seqs.windows(2).all(|pair| pair[0] < pair[1]));
    assert!(lane.read(1000).await.unwrap().messages.is_empty());
}

#[tokio::test]
async fn to_begin_anew_after_a_restore_may_take_as_long_as_it_takes() {
    let database = TestDatabase::create().await;
    let pool = database.pool();
    acquire(pool).await.release().await.unwrap();
    // In place of very many messages.
    pool.execute(
        "create function slow() returns trigger language plpgsql as $$ begin
            if current_setting('statement_timeout') <> '0' then raise 'it would be cancelled'; end if;
            return new;
         end $$;
         create trigger slow before update of system_id on amends.cursor for each row execute function slow();
         alter table amends.cursor disable trigger slow;
         update amends.cursor set system_id = 1;
         alter table amends.cursor enable trigger slow;",
    )
    .await
    .unwrap();
    acquire(pool).await;
    let system = "select system_id <> 1 from amends.cursor";
    assert!(sqlx::query_scalar::<_, bool>(system).fetch_one(pool).await.unwrap());
}

#[tokio::test]
async fn an_operator_acts_on_very_many_in_batches() {
    let database = TestDatabase::create().await;
    let pool = database.pool();
    hold(pool, 1, 2500, "'hot'", "true").await;
    hold(pool, 2501, 2510, "'other'", "true").await;
    let hot = Which { key: Some("hot".into()), ..Which::default() };
    assert_eq!(operator::reroute(pool, &hot, Some("x"), None).await.unwrap(), 2500);
    let rerouted =
        "select count(*) = 2500 and bool_and(exchange = 'x' and not parked) from amends.held_message where key = 'hot'";
    assert!(sqlx::query_scalar::<_, bool>(rerouted).fetch_one(pool).await.unwrap());
    assert_eq!(operator::release(pool, &Which { parked: true, ..Which::default() }).await.unwrap(), 10);
    assert_eq!(operator::discard(pool, &hot).await.unwrap(), 2500);
    assert_eq!(operator::discard(pool, &Which::default()).await.unwrap(), 10);
}
