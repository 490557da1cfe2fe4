//! Several relays share the lanes, come and go, and keep the order of each key.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::time::Duration;

use sqlx::Executor;
use support::{World, assert_order_per_key, publish, until};
use tokio::time::{Instant, sleep};

#[tokio::test(flavor = "multi_thread")]
async fn relays_share_the_lanes_and_their_number_changes_under_way() {
    let mut world = World::create().await;
    let queue = world.queue("all", &["#"]);
    let options = world.options(vec![queue.clone()]);
    let (first, second) = (world.relay(options.clone()), world.relay(options.clone()));
    let writers: Vec<_> = (0..8)
        .map(|key| {
            let pool = world.pool().clone();
            tokio::spawn(async move { publish(&pool, "thing.happened", &format!("k{key}"), 1..=150).await })
        })
        .collect();
    let mut got = world.drain(&queue, 50).await;
    world.pool().execute("select amends.set_lanes(4)").await.unwrap();
    until(world.pool(), "select lanes = 4 and meeting is null from amends.layout").await;
    until_so(|| first.relay.state().lanes() == 2 && second.relay.state().lanes() == 2).await;
    world.drain_into(&mut got, &queue, 400).await;

    let third = world.relay(options);
    until_so(|| third.relay.state().lanes() == 1).await;
    first.die().await;
    until_so(|| second.relay.state().lanes() + third.relay.state().lanes() == 4).await;
    world.pool().execute("select amends.set_lanes(2)").await.unwrap();
    for writer in writers {
        writer.await.unwrap();
    }

    world.drain_into(&mut got, &queue, 8 * 150).await;
    assert_order_per_key(&got);
    until(world.pool(), "select lanes = 2 and meeting is null from amends.layout").await;
    second.stop().await;
    third.stop().await;
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn paused_relays_publish_nothing_until_they_are_resumed() {
    let mut world = World::create().await;
    let queue = world.queue("all", &["#"]);
    let relay = world.relay(world.options(vec![queue.clone()]));
    until_so(|| relay.relay.state().is_active()).await;
    world.pool().execute("update amends.layout set paused = true").await.unwrap();
    until_so(|| !relay.relay.state().is_active()).await;
    publish(world.pool(), "thing.happened", "a", 1..=3).await;
    assert!(world.is_empty(&queue.name).await);

    world.pool().execute("update amends.layout set paused = false").await.unwrap();

    let got = world.drain(&queue, 3).await;
    assert_order_per_key(&got);
    relay.stop().await;
    world.clean_up().await;
}

async fn until_so(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + support::PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "it never is so");
        sleep(Duration::from_millis(10)).await;
    }
}
