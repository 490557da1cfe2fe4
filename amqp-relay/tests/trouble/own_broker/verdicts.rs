//! The broker closes the channel over one message, or over one exchange: the others flow.

use std::time::Duration;

use amends_relay::{QueueKind, RelayOptions, Route, Topology, TopologyMode};

use super::Scene;
use crate::support::private_broker::PrivateBroker;
use crate::support::{World, assert_order_per_key, publish, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_too_large_for_the_broker_is_found_among_the_others_and_parked_alone() {
    let mut broker = PrivateBroker::prepare();
    broker.configure("max_message_size = 2000\n");
    broker.start();
    let mut world = World::create_on(&broker.url()).await;
    let queue = world.queue("all", &["#"]);
    for (key, counter) in (1..=40).flat_map(|counter| [("good", counter), ("large", counter), ("fine", counter)]) {
        let payload = if key == "large" && counter == 20 { "x".repeat(3000) } else { format!("{key}:{counter}") };
        sqlx::query(
            "insert into amends.outbox (id, key, topic, name, payload) values (gen_random_uuid(), $1, 't', 't', $2)",
        )
        .bind(key)
        .bind(payload.into_bytes())
        .execute(world.pool())
        .await
        .unwrap();
    }
    let relay = world.relay(RelayOptions { most_attempts: 2, ..world.options(vec![queue.clone()]) });

    let mut got = world.drain(&queue, 40 + 19 + 40).await;
    until(
        world.pool(),
        "select count(*) = 1 from amends.held_message where parked and reason like '%larger than configured max size%'",
    )
    .await;
    until(world.pool(), "select count(*) = 21 from amends.held_message").await;
    assert_order_per_key(&got);
    publish(world.pool(), "t", "good", 41..=45).await;
    world.drain_into(&mut got, &queue, 99 + 5).await;
    assert_eq!(
        sqlx::query_scalar::<_, i64>("select epoch from amends.cursor").fetch_one(world.pool()).await.unwrap(),
        1
    );
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_that_the_relay_may_not_write_to_holds_up_its_own_messages_until_it_may() {
    let mut scene = Scene::set(amends_relay::QueueKind::Classic).await;
    let (name, secret) = (scene.world.name.clone(), format!("{}-dead", scene.world.name));
    let mut topology = Topology { queues: vec![scene.queue.clone()], ..Topology::default() };
    topology.queues.push(amends_relay::QueueTopology { exchange: secret.clone(), ..scene.queue.clone() });
    topology.ensure(&scene.world.broker).await.unwrap();
    topology.mode = TopologyMode::Off;
    scene.broker.ctl(&["add_user", "clerk", "clerk"]);
    scene.broker.ctl(&["set_permissions", "clerk", "", &format!("^{name}$"), ".*"]);
    scene.world.broker = scene.broker.url_of("clerk", "clerk").parse().unwrap();
    let routes = vec![Route { types: "secret.*".into(), exchange: Some(secret), routing_key: None }];
    let options = RelayOptions { routes, topology, replies: None, most_attempts: 2, ..scene.world.options(Vec::new()) };
    let relay = scene.world.relay(options);
    publish(scene.world.pool(), "secret.one", "secret", 1..=50).await;
    publish(scene.world.pool(), "open.one", "open", 1..=50).await;

    let mut got = scene.world.drain(&scene.queue, 50).await;
    assert!(got.iter().all(|message| message.key().0 == "open"));
    until(scene.world.pool(), "select count(*) = 50 and bool_or(reason like '%ACCESS_REFUSED%') and not bool_or(parked) from amends.held_message").await;
    scene.broker.ctl(&["set_permissions", "clerk", "", ".*", ".*"]);

    scene.world.drain_into(&mut got, &scene.queue, 100).await;
    assert_order_per_key(&got);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_the_relay_may_not_use_holds_up_its_own_messages_alone() {
    let mut scene = Scene::set(amends_relay::QueueKind::Classic).await;
    let name = scene.world.name.clone();
    scene.broker.ctl(&["add_user", "clerk", "clerk"]);
    scene.broker.ctl(&["set_permissions", "clerk", ".*", ".*", ".*"]);
    scene.broker.ctl(&["set_topic_permissions", "clerk", &name, "^open\\.", ".*"]);
    scene.world.broker = scene.broker.url_of("clerk", "clerk").parse().unwrap();
    let relay = scene.relay();
    publish(scene.world.pool(), "secret.one", "secret", 1..=3).await;
    publish(scene.world.pool(), "open.one", "open", 1..=50).await;

    let got = scene.world.drain(&scene.queue, 50).await;
    assert!(got.iter().all(|message| message.key().0 == "open"));
    until(
        scene.world.pool(),
        "select count(*) = 3 and bool_or(parked and reason like '%ACCESS_REFUSED%topic%') from amends.held_message",
    )
    .await;
    relay.stop().await;
}

/// As that of a quorum queue which has lost its majority.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_confirms_nothing_holds_up_its_own_messages_alone() {
    let mut scene = Scene::set(QueueKind::Classic).await;
    let stuck = scene.world.queue("stuck", &["stuck.*"]);
    scene.queue.patterns = vec!["thing.*".into()];
    let options = RelayOptions {
        confirm_deadline: Duration::from_secs(3),
        ..scene.world.options(vec![scene.queue.clone(), stuck.clone()])
    };
    let relay = scene.world.relay(options);
    scene.write(1..=10).done().await;
    let mut got = scene.world.drain(&scene.queue, 50).await;
    let process = |action: &str| {
        let name = &stuck.name;
        let lookup = format!("rabbit_amqqueue:lookup(rabbit_misc:r(<<\"/\">>, queue, <<\"{name}\">>))");
        scene.broker.ctl(&["eval", &format!("{{ok, Q}} = {lookup}, sys:{action}(amqqueue:get_pid(Q)).")]);
    };
    process("suspend");
    for key in ["a", "b", "c"] {
        publish(scene.world.pool(), "stuck.one", key, 1..=3).await;
    }
    scene.write(11..=50).done().await;
    scene.world.drain_into(&mut got, &scene.queue, 250).await;
    let held = "select count(*) = 9 from amends.held_message where key in ('a', 'b', 'c') and not parked";
    until(scene.world.pool(), held).await;
    scene.write(51..=100).done().await;
    scene.world.drain_into(&mut got, &scene.queue, 500).await;
    assert_order_per_key(&got);
    assert_eq!(got.len(), 500, "the others come once, for the session goes on");

    process("resume");
    assert_order_per_key(&scene.world.drain(&stuck, 9).await);
    until(scene.world.pool(), "select count(*) = 0 from amends.held_message").await;
    relay.stop().await;
}
