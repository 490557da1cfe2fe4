//! The broker goes away and comes back, or closes connections.

use std::net::TcpListener;

use amends_relay::{QueueKind, RelayOptions, TopologyMode};
use lapin::options::QueueDeleteOptions;

use super::Scene;
use crate::support::private_broker::PrivateBroker;
use crate::support::{assert_order_per_key_from, eventually, until};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_while_the_broker_is_stopped_comes_in_order_once_it_is_back() {
    let mut scene = Scene::set(QueueKind::Classic).await;
    let relay = scene.relay();
    let writing = scene.write(1..=100);
    until(scene.world.pool(), "select exists (select from amends.cursor where prev::text <> '1:1:')").await;

    scene.broker.stop();
    writing.done().await;
    scene.write(101..=150).done().await;
    eventually("it says that there is no connection", || {
        relay.relay.state().trouble().is_some_and(|trouble| trouble.to_string().contains("refused"))
    })
    .await;
    scene.broker.start();

    scene.assert_all_came(150).await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_and_killed_again_loses_nothing_and_breaks_no_order() {
    let mut scene = Scene::set(QueueKind::Quorum).await;
    let relay = scene.relay();
    scene.world.until_there(&scene.queue.name).await;
    // RabbitMQ 3.10 may forget that it leads a quorum queue if it is killed in the first moments after the queue's creation.
    scene.broker.ctl(&["eval", "[ok = dets:sync(Table) || Table <- dets:all()]."]);
    for round in 0..2 {
        let writing = scene.write(round * 100 + 1..=round * 100 + 100);
        until(scene.world.pool(), "select exists (select from amends.cursor where prev::text <> '1:1:')").await;
        scene.broker.kill();
        writing.done().await;
        scene.broker.start();
    }
    scene.assert_all_came(200).await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_the_broker_closes_are_made_anew() {
    let mut scene = Scene::set(QueueKind::Classic).await;
    let relay = scene.relay();
    let writing = scene.write(1..=300);
    until(scene.world.pool(), "select exists (select from amends.cursor where prev::text <> '1:1:')").await;
    for _ in 0..2 {
        scene.broker.ctl(&["close_all_connections", "maintenance"]);
    }
    writing.done().await;
    scene.assert_all_came(300).await;
    relay.stop().await;
}

/// It would miss what the other queue gets, and nobody would notice.
#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_connects_anew_publishes_nothing_while_one_of_its_queues_is_missing() {
    let mut scene = Scene::set(QueueKind::Classic).await;
    let second = scene.world.queue("second", &["#"]);
    let mut options = RelayOptions { replies: None, ..scene.world.options(vec![scene.queue.clone(), second.clone()]) };
    options.topology.ensure(&scene.world.broker).await.unwrap();
    options.topology.mode = TopologyMode::Verify;
    let relay = scene.world.relay(options.clone());
    scene.write(1..=10).done().await;
    scene.assert_all_came(10).await;

    scene.world.channel.queue_delete(second.name.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    scene.broker.ctl(&["close_all_connections", "maintenance"]);
    eventually("it says what is missing", || {
        relay.relay.state().trouble().is_some_and(|trouble| trouble.to_string().contains("create what is missing"))
    })
    .await;
    scene.write(11..=20).done().await;
    options.topology.mode = TopologyMode::Declare;
    options.topology.ensure(&scene.world.broker).await.unwrap();

    scene.assert_all_came_from(11, 20).await;
    assert_order_per_key_from(11, &scene.world.drain(&second, 50).await);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_broker_keeps_its_data_through_a_kill_and_leaves_nothing_when_it_is_dropped() {
    let mut broker = PrivateBroker::start_new();
    broker.ctl(&["add_user", "someone", "secret"]);
    broker.kill();
    broker.start();
    assert!(broker.ctl(&["list_users"]).contains("someone"));
    let (dir, address) = (broker.path(""), ("127.0.0.1", broker.port()));

    drop(broker);

    assert!(!dir.exists());
    assert!(TcpListener::bind(address).is_ok(), "nothing listens there any more");
}
