//! What the inbox remembers, and what it cannot.

use std::time::{Duration, SystemTime};

use amends_relay::{Handler, HandlerError, Incoming};
use async_trait::async_trait;
use sqlx::PgConnection;
use uuid::{NoContext, Timestamp, Uuid};

use crate::support::until;
use crate::{Consuming, Sent, consumer, dead, ledger, ready, world, write};

struct Ledger;

#[async_trait]
impl Handler for Ledger {
    async fn handle(&self, tx: &mut PgConnection, message: &Incoming) -> Result<(), HandlerError> {
        write(tx, message).await
    }
}

fn id_of_age(age: Duration) -> String {
    let sent = (SystemTime::now() - age).duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Uuid::new_v7(Timestamp::from_unix(NoContext, sent.as_secs(), sent.subsec_nanos())).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_beyond_the_window_is_a_dead_letter_unless_it_is_known_or_accepted() {
    let mut world = world().await;
    let queue = world.queue("ledger", &["#"]);
    let hours = |hours| id_of_age(Duration::from_hours(hours));
    let [young, known, old] = [hours(24 * 28), hours(24 * 40), hours(24 * 30)];
    let lenient = Consuming::start(consumer(&world, &queue).accept_older().handler(Ledger));
    world.until_consumed(&queue.name).await;
    Sent { id: Some(&known), ..Sent::text("known") }.to(&world).await;
    until(world.pool(), "select count(*) = 1 from ledger").await;
    lenient.stop().await;

    let strict = Consuming::start(consumer(&world, &queue).handler(Ledger));
    world.until_consumed(&queue.name).await;
    Sent { id: Some(&known), ..Sent::text("known") }.to(&world).await;
    Sent { id: Some(&old), ..Sent::text("old") }.to(&world).await;
    Sent { id: Some(&young), ..Sent::text("young") }.to(&world).await;
    until(world.pool(), "select count(*) = 2 from ledger").await;

    assert_eq!(ledger(&world).await, ["known", "young"]);
    let dead = dead(&world, &queue, 1).await.remove(0);
    assert_eq!(dead.payload, b"old");
    let reason = dead.reason();
    assert!(
        reason.contains("30 days ago") && reason.contains("29 days") && reason.contains("accept_older"),
        "{reason}"
    );
    strict.stop().await;
    assert_eq!(ready(&world, &format!("{}.dead", queue.name)).await, 0);
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_comes_again_with_another_body_or_type_is_no_copy_but_a_dead_letter() {
    let mut world = world().await;
    let queue = world.queue("ledger", &["#"]);
    let consuming = Consuming::start(consumer(&world, &queue).handler(Ledger));
    world.until_consumed(&queue.name).await;

    for text in ["one", "one", "another"] {
        Sent { id: Some("1"), ..Sent::text(text) }.to(&world).await;
    }
    Sent { id: Some("1"), kind: Some("else.happened"), ..Sent::text("one") }.to(&world).await;
    Sent::text("behind them").to(&world).await;
    until(world.pool(), "select count(*) = 2 from ledger").await;

    assert_eq!(ledger(&world).await, ["one", "behind them"]);
    let dead = dead(&world, &queue, 2).await;
    assert_eq!([dead[0].payload.as_slice(), dead[1].payload.as_slice()], [b"another".as_slice(), b"one"]);
    assert!(dead.iter().all(|dead| dead.reason().contains("the id 1 was handled before, and was another")), "{dead:?}");
    consuming.stop().await;
    world.clean_up().await;
}
