//! What an operator can do about messages, by the binary.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::process::{Command, Output};

use amends_relay::{QueueTopology, RelayOptions};
use lapin::options::{QueueBindOptions, QueuePurgeOptions};
use lapin::types::FieldTable;
use support::{World, amqp_url, assert_order_per_key, publish, until};

fn relay(world: &World, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_amends-relay"));
    let name = world.name.as_str();
    command.args(args).args(["--exchange", name]).env("DATABASE_URL", world.database.url()).env("AMQP_URL", amqp_url());
    command.output().unwrap()
}

fn says(world: &World, args: &[&str]) -> String {
    let output = relay(world, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A relay whose messages of type `lost.*` find no queue and are parked soon, with three of key `a` behind the first, and of key `b`.
async fn parked(world: &mut World) -> (support::Running, QueueTopology) {
    let queue = world.queue("good", &["good.*"]);
    let relay = world.relay(RelayOptions { most_attempts: 1, ..world.options(vec![queue.clone()]) });
    publish(world.pool(), "lost.one", "a", 1..=1).await;
    publish(world.pool(), "lost.one", "b", 1..=1).await;
    until(world.pool(), "select count(*) = 2 from amends.held_message where parked").await;
    publish(world.pool(), "good.one", "a", 2..=4).await;
    until(world.pool(), "select count(*) = 5 from amends.held_message").await;
    (relay, queue)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_message_is_listed_and_once_released_is_published_before_those_behind_it() {
    let mut world = World::create().await;
    let (running, queue) = parked(&mut world).await;
    let list = says(&world, &["held", "list", "--parked"]);
    assert_eq!(list.lines().count(), 3, "{list}");
    assert!(list.contains("lost.one") && list.contains("NO_ROUTE") && list.contains("parked"), "{list}");
    let (channel, name, bind) = (&world.channel, world.name.as_str(), QueueBindOptions::default());
    channel
        .queue_bind(queue.name.as_str().into(), name.into(), "lost.*".into(), bind, FieldTable::default())
        .await
        .unwrap();

    assert_eq!(says(&world, &["held", "release", "--key", "a"]), "released 4 held messages\n");

    let got = world.drain(&queue, 4).await;
    assert!(got.iter().all(|message| message.key().0 == "a"));
    assert_order_per_key(&got);
    assert_eq!(says(&world, &["held", "list"]).lines().count(), 2, "b is parked yet");
    assert_eq!(says(&world, &["held", "release", "--parked"]), "released 1 held messages\n");
    world.drain(&queue, 1).await;
    running.stop().await;
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_discarded_lets_those_behind_it_go() {
    let mut world = World::create().await;
    let (running, queue) = parked(&mut world).await;

    assert_eq!(says(&world, &["held", "discard", "--key", "a", "--parked"]), "discarded 1 held messages\n");

    let got = world.drain(&queue, 3).await;
    assert_eq!(got.iter().map(|message| message.key().1).collect::<Vec<_>>(), [2, 3, 4]);
    // The key flows again.
    publish(world.pool(), "good.one", "a", 5..=5).await;
    assert_eq!(world.drain(&queue, 1).await[0].key().1, 5);
    running.stop().await;
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_rerouted_goes_elsewhere_and_those_behind_it_follow() {
    let mut world = World::create().await;
    let (running, queue) = parked(&mut world).await;
    let other = world.queue("other", &["saved"]);
    let other = QueueTopology { exchange: format!("{}-dead", world.name), ..other };
    world.declare(&other).await;

    let to = ["held", "reroute", "--type", "lost.one", "--to-exchange", &other.exchange, "--to-topic", "saved"];
    assert_eq!(says(&world, &to), "rerouted 2 held messages\n");

    let got = world.drain(&other, 2).await;
    assert!(got.iter().all(|message| message.topic == "saved" && message.key().1 == 1));
    assert_eq!(world.drain(&queue, 3).await.iter().map(|message| message.key().1).collect::<Vec<_>>(), [2, 3, 4]);
    running.stop().await;
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retained_messages_are_told_again_to_one_queue_in_their_order() {
    let mut world = World::create().await;
    let (all, late) = (world.queue("all", &["#"]), world.queue("late", &["nothing"]));
    let running = world.relay(world.options(vec![all.clone(), late.clone()]));
    publish(world.pool(), "order.placed", "a", 1..=1).await;
    let since: String =
        sqlx::query_scalar("select to_json(clock_timestamp()) #>> '{}'").fetch_one(world.pool()).await.unwrap();
    publish(world.pool(), "order.placed", "a", 2..=700).await;
    publish(world.pool(), "order.audited", "b", 1..=5).await;
    world.drain(&all, 705).await;
    // Relays that are paused have not published this one: it must not overtake.
    until(world.pool(), "select not exists (select from amends.outbox o, amends.cursor c where not pg_visible_in_snapshot(o.xid, c.prev))").await;
    assert!(relay(&world, &["pause"]).status.success());
    until(world.pool(), "select owner is null from amends.cursor").await;
    publish(world.pool(), "order.placed", "a", 701..=701).await;

    let replay = ["replay", "--since", &since, "--types", "*.placed", "--to-queue", &late.name, "--rate", "5000"];
    assert_eq!(says(&world, &replay), "published 699 messages once more\n");

    let got = world.drain(&late, 699).await;
    assert_eq!(got.iter().map(|message| message.key().1).collect::<Vec<_>>(), (2..=700).collect::<Vec<_>>());
    assert!(world.is_empty(&all.name).await, "nobody else hears it");
    assert!(says(&world, &["status"]).contains("paused"));
    assert!(relay(&world, &["resume"]).status.success());
    assert_eq!(world.drain(&all, 1).await[0].key().1, 701);
    world.channel.queue_purge(late.name.as_str().into(), QueuePurgeOptions::default()).await.unwrap();
    running.stop().await;
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_asks_for_wrongly_is_one_clear_line() {
    let world = World::create().await;
    for (args, needle) in [
        (&["held", "discard"][..], "--all"),
        (&["held", "release", "--key", "nobody"], "held list"),
        (&["held", "reroute", "--all"], "--to-exchange"),
        (&["lanes", "0"], "1 to 64"),
        (&["replay", "--since", "yesterday"], "--since"),
    ] {
        let output = relay(&world, args);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && text.contains(needle), "{args:?}: {text}");
    }
    world.clean_up().await;
}
