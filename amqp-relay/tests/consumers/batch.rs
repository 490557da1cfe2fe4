//! Messages that are handled together.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use amends_relay::{HandleBatch, HandlerError, Incoming, Order as Wait};
use sqlx::PgConnection;

use crate::support::until;
use crate::{Calls, Consuming, Sent, consumer, dead, ledger, world};

/// Writes all of them with one statement; fails for any that is poison.
async fn write_all(tx: &mut PgConnection, messages: &[Incoming]) -> Result<(), HandlerError> {
    let texts: Vec<String> =
        messages.iter().map(|message| String::from_utf8_lossy(&message.payload).into_owned()).collect();
    let keys: Vec<Option<&str>> = messages.iter().map(|message| message.key.as_deref()).collect();
    let insert = "insert into ledger (key, text) select key, text
        from unnest($1::text[], $2::text[]) with ordinality as m(key, text, position) order by m.position";
    sqlx::query(insert).bind(keys).bind(&texts).execute(tx).await?;
    if texts.iter().any(|text| text.ends_with("poison")) { Err(HandlerError::reject("it is poison")) } else { Ok(()) }
}

const SOON: Duration = Duration::from_millis(50);

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_the_queue_is_handled_in_few_transactions_each_message_once_and_in_order() {
    let mut world = world().await;
    let queue = world.queue("ledger", &["#"]);
    // It exists, and is filled, before anybody looks.
    let first = Consuming::start(consumer(&world, &queue).batch(20, SOON, write_all));
    world.until_consumed(&queue.name).await;
    first.stop().await;
    for number in 0..100 {
        let text = number.to_string();
        for _ in 0..2 {
            Sent::text(&text).to(&world).await;
        }
    }
    let consuming = Consuming::start(consumer(&world, &queue).batch(20, SOON, write_all));
    until(world.pool(), "select count(*) >= 100 from ledger").await;

    assert_eq!(ledger(&world).await, (0..100).map(|number| number.to_string()).collect::<Vec<_>>());
    let transactions: i64 =
        sqlx::query_scalar("select count(distinct xid) from ledger").fetch_one(world.pool()).await.unwrap();
    assert!(transactions <= 20, "{transactions} for 200 messages, 20 at a time");
    // One that never fills a batch does not wait for others.
    Sent::text("alone").to(&world).await;
    until(world.pool(), "select count(*) = 101 from ledger").await;
    consuming.stop().await;
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_poison_in_a_batch_is_a_dead_letter_alone_and_each_key_keeps_its_order() {
    let mut world = world().await;
    let queue = world.queue("ledger", &["#"]);
    let builder = || consumer(&world, &queue).order(Wait::Key).concurrency(3).batch(10, SOON, write_all);
    let consuming = Consuming::start(builder());
    world.until_consumed(&queue.name).await;
    for number in 0..20 {
        for key in ["a", "b"] {
            let text = if (key, number) == ("a", 7) { "a poison".to_owned() } else { format!("{key} {number}") };
            Sent { key: Some(key), ..Sent::text(&text) }.to(&world).await;
        }
    }
    until(world.pool(), "select count(*) >= 39 from ledger").await;

    let dead = dead(&world, &queue, 1).await.remove(0);
    assert_eq!((dead.reason().as_str(), dead.payload.as_slice()), ("it is poison", b"a poison".as_slice()));
    let all = ledger(&world).await;
    for key in ["a", "b"] {
        let of_key: Vec<&String> = all.iter().filter(|text| text.starts_with(key)).collect();
        let expected: Vec<String> =
            (0..20).filter(|&number| (key, number) != ("a", 7)).map(|number| format!("{key} {number}")).collect();
        assert_eq!(of_key, expected.iter().collect::<Vec<_>>());
    }
    consuming.stop().await;
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_waits_for_what_is_away_and_burns_no_attempt() {
    let mut world = world().await;
    let queue = world.queue("ledger", &["#"]);
    let calls = Calls::default();
    let handler = Flaky { calls: calls.clone() };
    let consumer = consumer(&world, &queue).attempts(1).longest_pause(SOON).batch(5, SOON, handler);
    let consuming = Consuming::start(consumer);
    world.until_consumed(&queue.name).await;
    for text in ["1", "2", "3", "4", "5"] {
        Sent::text(text).to(&world).await;
    }
    until(world.pool(), "select count(*) = 5 from ledger").await;
    assert!(calls.count() > 4);
    consuming.stop().await;
    world.clean_up().await;
}

/// Finds everything away at first.
struct Flaky {
    calls: Calls,
}

impl HandleBatch for Flaky {
    async fn handle(&self, tx: &mut PgConnection, messages: &[Incoming]) -> Result<(), HandlerError> {
        if self.calls.next() <= 4 {
            return Err(HandlerError::unavailable("it is away"));
        }
        write_all(tx, messages).await
    }
}

/// What one of the messages needs stays away.
struct OneTenant;

impl HandleBatch for OneTenant {
    async fn handle(&self, tx: &mut PgConnection, messages: &[Incoming]) -> Result<(), HandlerError> {
        if messages.iter().any(|message| message.payload == b"away") {
            return Err(HandlerError::unavailable("the bank of this one is away"));
        }
        write_all(tx, messages).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_away_for_one_message_of_a_batch_holds_up_its_key_alone() {
    let mut world = world().await;
    let queue = world.queue("ledger", &["#"]);
    let builder = consumer(&world, &queue).order(Wait::Key).longest_pause(SOON);
    let consuming = Consuming::start(builder.batch(5, SOON, OneTenant));
    world.until_consumed(&queue.name).await;
    for (key, text) in [("a", "away"), ("b", "1"), ("c", "2")] {
        Sent { key: Some(key), ..Sent::text(text) }.to(&world).await;
    }
    until(world.pool(), "select count(*) = 2 from ledger").await;
    for number in 3..20 {
        Sent { key: Some("b"), ..Sent::text(&number.to_string()) }.to(&world).await;
    }
    until(world.pool(), "select count(*) = 19 from ledger").await;
    consuming.stop().await;
    world.clean_up().await;
}

/// Fails for as long as it is told, if one of the messages is `stuck 0`.
struct Stuck {
    is_stuck: Arc<AtomicBool>,
}

impl HandleBatch for Stuck {
    async fn handle(&self, tx: &mut PgConnection, messages: &[Incoming]) -> Result<(), HandlerError> {
        let has_stuck = messages.iter().any(|message| message.payload == b"stuck 0");
        if has_stuck && self.is_stuck.load(Ordering::SeqCst) {
            return Err(HandlerError::retry("not now"));
        }
        write_all(tx, messages).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_message_of_a_batch_holds_up_its_key_alone_and_those_behind_it_wait() {
    let mut world = world().await;
    let queue = world.queue("ledger", &["#"]);
    let is_stuck = Arc::new(AtomicBool::new(true));
    let handler = Stuck { is_stuck: Arc::clone(&is_stuck) };
    let builder = consumer(&world, &queue).order(Wait::Key).attempts(u32::MAX).longest_pause(SOON);
    let consuming = Consuming::start(builder.batch(10, SOON, handler));
    world.until_consumed(&queue.name).await;
    // The first of them is tried alone by the time that those of the second half come.
    for half in 0..2 {
        for number in half * 10..(half + 1) * 10 {
            for key in ["stuck", "free"] {
                Sent { key: Some(key), ..Sent::text(&format!("{key} {number}")) }.to(&world).await;
            }
        }
        let free = if half == 0 { "select count(*) = 10 from ledger" } else { "select count(*) = 20 from ledger" };
        until(world.pool(), free).await;
    }
    is_stuck.store(false, Ordering::SeqCst);
    until(world.pool(), "select count(*) = 40 from ledger").await;

    let all = ledger(&world).await;
    for key in ["stuck", "free"] {
        let of_key: Vec<&String> = all.iter().filter(|text| text.starts_with(key)).collect();
        let expected: Vec<String> = (0..20).map(|number| format!("{key} {number}")).collect();
        assert_eq!(of_key, expected.iter().collect::<Vec<_>>());
    }
    consuming.stop().await;
    world.clean_up().await;
}
