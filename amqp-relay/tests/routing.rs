//! Messages go where the routes say; an exchange that takes nothing holds up its own messages alone.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use amends_relay::{RelayOptions, Route, Topology};
use lapin::ExchangeKind;
use lapin::options::{ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions};
use lapin::types::FieldTable;
use support::{World, assert_order_per_key, publish, until};

fn route(types: &str, exchange: &str) -> Route {
    Route { types: types.into(), exchange: Some(exchange.into()), routing_key: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_says_to_which_exchange_and_under_which_key_a_type_goes() {
    let mut world = World::create().await;
    let (all, bills) = (world.queue("all", &["#"]), world.queue("bills", &[]));
    let ledger = format!("{}-dead", world.name);
    let route = Route { routing_key: Some("{type}.of.{key}".into()), ..route("invoice.*", &ledger) };
    let mut topology = world.options(vec![all.clone()]).topology;
    topology.queues.push(amends_relay::QueueTopology {
        exchange: ledger.clone(),
        patterns: vec!["invoice.sent.of.a".into()],
        ..bills.clone()
    });
    let relay = world.relay(RelayOptions { topology, routes: vec![route], ..world.options(Vec::new()) });
    publish(world.pool(), "thing.happened", "a", 1..=1).await;
    publish(world.pool(), "invoice.sent", "a", 2..=2).await;
    assert_eq!(world.drain(&bills, 1).await[0].topic, "invoice.sent.of.a");
    assert_eq!(world.drain(&all, 1).await[0].topic, "thing.happened");
    assert!(world.is_empty(&all.name).await);
    relay.stop().await;
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_that_is_not_there_holds_up_its_own_messages_and_no_others() {
    let mut world = World::create().await;
    let queue = world.queue("all", &["#"]);
    let missing = format!("{}-dead", world.name);
    let routes = vec![route("lost.*", &missing)];
    let relay = world.relay(RelayOptions { routes, ..world.options(vec![queue.clone()]) });
    // Of key `mixed` some go here and some there: they keep their order, so those behind the first lost one wait.
    publish(world.pool(), "good.one", "mixed", 1..=1).await;
    for counter in 1..=200 {
        publish(world.pool(), "lost.one", "bad", counter..=counter).await;
        publish(world.pool(), "good.one", "good", counter..=counter).await;
    }
    publish(world.pool(), "lost.one", "mixed", 2..=2).await;
    publish(world.pool(), "good.one", "mixed", 3..=3).await;

    let mut got = world.drain(&queue, 201).await;
    until(
        world.pool(),
        "select count(*) = 202 from amends.held_message where reason like '%NOT_FOUND%' or reason like 'behind%'",
    )
    .await;
    assert!(world.is_empty(&queue.name).await);
    assert_eq!(got.iter().filter(|message| message.key().0 == "mixed").count(), 1);

    // No attempt is counted: an operator may take a day to make the exchange.
    let attempts = "select max(attempts) = 0 and not bool_or(parked) from amends.held_message";
    assert!(sqlx::query_scalar::<_, bool>(attempts).fetch_one(world.pool()).await.unwrap());
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let (channel, name) = (&world.channel, missing.as_str());
    channel.exchange_declare(name.into(), ExchangeKind::Topic, durable, FieldTable::default()).await.unwrap();
    let bind = QueueBindOptions::default();
    channel.queue_bind(queue.name.as_str().into(), name.into(), "#".into(), bind, FieldTable::default()).await.unwrap();

    world.drain_into(&mut got, &queue, 403).await;
    assert_order_per_key(&got);
    until(world.pool(), "select count(*) = 0 from amends.held_message").await;
    relay.stop().await;
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_that_is_deleted_under_way_loses_nothing_and_stops_nobody() {
    let mut world = World::create().await;
    let queue = world.queue("all", &["#"]);
    let other = format!("{}-dead", world.name);
    let mut topology: Topology = world.options(vec![queue.clone()]).topology;
    topology.queues.push(amends_relay::QueueTopology { exchange: other.clone(), ..queue.clone() });
    let relay =
        world.relay(RelayOptions { topology, routes: vec![route("other.*", &other)], ..world.options(Vec::new()) });
    let mut got = Vec::new();
    for round in 0..3 {
        let counters = 1 + round * 50..=50 + round * 50;
        publish(world.pool(), "other.one", "there", 1 + round * 51..=50 + round * 51).await;
        world.channel.exchange_delete(other.as_str().into(), ExchangeDeleteOptions::default()).await.unwrap();
        publish(world.pool(), "other.one", "there", 51 + round * 51..=51 + round * 51).await;
        publish(world.pool(), "good.one", "here", counters).await;
    }
    // The topology is declared again as soon as an exchange is missed.
    world.drain_into(&mut got, &queue, 303).await;
    assert_order_per_key(&got);
    relay.stop().await;
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_that_may_not_be_written_to_burns_no_attempts_whatever_its_name() {
    let mut world = World::create().await;
    let queue = world.queue("all", &["#"]);
    let internal = format!("{}-topic", world.name);
    world.also_delete_exchange(internal.clone());
    let options = ExchangeDeclareOptions { internal: true, ..ExchangeDeclareOptions::default() };
    let declared =
        world.channel.exchange_declare(internal.as_str().into(), ExchangeKind::Topic, options, FieldTable::default());
    declared.await.unwrap();
    let routes = vec![route("inner.*", &internal)];
    let relay = world.relay(RelayOptions { routes, most_attempts: 1, ..world.options(vec![queue.clone()]) });
    publish(world.pool(), "inner.one", "bad", 1..=20).await;
    publish(world.pool(), "good.one", "good", 1..=20).await;
    world.drain(&queue, 20).await;
    until(world.pool(), "select count(*) = 20 and bool_or(reason like '%ACCESS_REFUSED%') from amends.held_message")
        .await;
    let attempts = "select max(attempts) = 0 and not bool_or(parked) from amends.held_message";
    assert!(sqlx::query_scalar::<_, bool>(attempts).fetch_one(world.pool()).await.unwrap());
    relay.stop().await;
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_whose_name_amqp_cannot_carry_stops_nobody() {
    let mut world = World::create().await;
    let queue = world.queue("good", &["good.*"]);
    let relay = world.relay(RelayOptions { most_attempts: 2, ..world.options(vec![queue.clone()]) });
    publish(world.pool(), "lost.one", "a", 1..=1).await;
    until(world.pool(), "select count(*) = 1 from amends.held_message").await;
    let to = "update amends.held_message set exchange = repeat('x', 300), retry_at = now()";
    sqlx::query(to).execute(world.pool()).await.unwrap();
    until(world.pool(), "select parked and reason like '%longer than%' from amends.held_message").await;
    publish(world.pool(), "good.one", "b", 1..=5).await;
    world.drain(&queue, 5).await;
    let epoch = "select epoch = 1 from amends.cursor";
    assert!(sqlx::query_scalar::<_, bool>(epoch).fetch_one(world.pool()).await.unwrap(), "its session goes on");
    relay.stop().await;
    world.clean_up().await;
}
