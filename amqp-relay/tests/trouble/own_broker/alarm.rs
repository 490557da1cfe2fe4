//! The broker has no memory or disk left, and takes no messages until it has.

use std::time::Duration;

use amends_relay::{QueueKind, RelayOptions};
use tokio::time::timeout;

use super::Scene;
use crate::support::{eventually, publish, until};

#[tokio::test(flavor = "multi_thread")]
async fn without_memory_publishing_pauses_and_goes_on_by_itself() {
    pauses_and_goes_on(
        &["set_vm_memory_high_watermark", "absolute", "1MB"],
        &["set_vm_memory_high_watermark", "absolute", "1GB"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_disk_publishing_pauses_and_goes_on_by_itself() {
    pauses_and_goes_on(&["set_disk_free_limit", "1000000000000000"], &["set_disk_free_limit", "1MB"]).await;
}

/// The relay keeps its connection and its lane, and no message is blamed.
async fn pauses_and_goes_on(alarm: &[&str], relief: &[&str]) {
    let mut scene = Scene::set(QueueKind::Classic).await;
    let relay = scene.relay();
    scene.write(1..=10).done().await;
    scene.world.drain_into(&mut Vec::new(), &scene.queue, 50).await;

    scene.broker.ctl(alarm);
    eventually("the alarm is on", || {
        scene.broker.ctl(&["eval", "rabbit_alarm:get_alarms()."]).contains("resource_limit")
    })
    .await;
    scene.write(11..=60).done().await;
    eventually("the relay is blocked, and says so", || relay.relay.state().is_blocked()).await;
    let trouble = relay.relay.state().trouble().unwrap().to_string();
    assert!(trouble.contains("taken no messages") && trouble.contains("low on"), "{trouble}");
    let epoch = epoch(&scene).await;
    // Twice as long as the relay waits for confirms.
    until(
        scene.world.pool(),
        "select clock_timestamp() > (select max(created_at) from amends.outbox) + interval '5 seconds'",
    )
    .await;
    assert_eq!(self::epoch(&scene).await, epoch, "it has not given up its lane or its connection");
    until(scene.world.pool(), "select bool_and(expires_at > clock_timestamp()) from amends.cursor").await;

    scene.broker.ctl(relief);

    scene.assert_all_came_from(11, 60).await;
    assert_eq!(self::epoch(&scene).await, epoch);
    assert_eq!(relay.relay.state().trouble(), None);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_tries_a_held_message_again_without_memory_keeps_its_lane_and_stops_when_it_is_told_to() {
    let mut scene = Scene::set(QueueKind::Classic).await;
    scene.queue.patterns = vec!["good.#".to_owned()];
    let relay =
        scene.world.relay(RelayOptions { most_attempts: 1000, ..scene.world.options(vec![scene.queue.clone()]) });
    publish(scene.world.pool(), "lost.one", "k", 1..=1).await;
    until(scene.world.pool(), "select count(*) = 1 from amends.held_message").await;

    scene.broker.ctl(&["set_vm_memory_high_watermark", "absolute", "1MB"]);
    eventually("the relay is blocked, and says so", || relay.relay.state().is_blocked()).await;
    let epoch = epoch(&scene).await;
    // Longer than its lease.
    until(
        scene.world.pool(),
        "select clock_timestamp() > (select max(created_at) from amends.outbox) + interval '5 seconds'",
    )
    .await;
    until(scene.world.pool(), "select bool_and(expires_at > clock_timestamp()) from amends.cursor").await;
    assert_eq!(self::epoch(&scene).await, epoch);

    scene.write(1..=10).done().await;
    timeout(Duration::from_secs(10), relay.stop()).await.expect("it stops");
    until(scene.world.pool(), "select bool_and(owner is null) from amends.cursor").await;
}

/// It grows with each new session of the lane.
async fn epoch(scene: &Scene) -> i64 {
    sqlx::query_scalar("select epoch from amends.cursor").fetch_one(scene.world.pool()).await.unwrap()
}
