//! What the relay promises, on a real broker: nothing lost, order kept per key, the others flowing.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use amends_relay::{Ordering, RelayOptions};
use lapin::options::{ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use support::{World, assert_order_per_key, assert_order_per_key_from, publish, until};

#[tokio::test(flavor = "multi_thread")]
async fn every_message_arrives_and_each_key_in_order() {
    let mut world = World::create().await;
    let queue = world.queue("all", &["#"]);
    let relay = world.relay(world.options(vec![queue.clone()]));
    let writers: Vec<_> = (0..16)
        .map(|key| {
            let pool = world.pool().clone();
            tokio::spawn(async move { publish(&pool, "thing.happened", &format!("k{key}"), 1..=100).await })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let got = world.drain(&queue, 1600).await;
    assert_eq!(got.len(), 1600, "without a fault there is no duplicate");
    assert_order_per_key(&got);
    relay.stop().await;
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_returned_message_is_held_and_its_key_waits_while_others_flow() {
    let mut world = World::create().await;
    let queue = world.queue("good", &["good.*"]);
    let relay = world.relay(world.options(vec![queue.clone()]));
    publish(world.pool(), "good.one", "a", 1..=1).await;
    publish(world.pool(), "lost.one", "a", 2..=2).await;
    publish(world.pool(), "good.one", "a", 3..=5).await;
    publish(world.pool(), "good.one", "b", 1..=50).await;

    let got = world.drain(&queue, 51).await;
    assert_eq!(got.iter().filter(|message| message.key().0 == "a").count(), 1, "a:3 must wait for a:2");
    until(world.pool(), "select count(*) = 4 from amends.held_message").await;

    // Somebody binds a queue to what was unroutable: it goes on by itself, in order.
    let late = world.queue("late", &["lost.*"]);
    let channel = &world.channel;
    channel
        .queue_declare(late.name.as_str().into(), QueueDeclareOptions::default(), FieldTable::default())
        .await
        .unwrap();
    channel
        .queue_bind(
            late.name.as_str().into(),
            world.name.as_str().into(),
            "lost.*".into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await
        .unwrap();
    assert_eq!(world.drain(&late, 1).await[0].key(), ("a".into(), 2));
    let rest = world.drain(&queue, 3).await;
    assert_eq!(rest.iter().map(|message| message.key().1).collect::<Vec<_>>(), [3, 4, 5]);
    until(world.pool(), "select count(*) = 0 from amends.held_message").await;

    publish(world.pool(), "good.one", "a", 6..=6).await;
    assert_eq!(world.drain(&queue, 1).await[0].key().1, 6, "the key is back on the fast path");
    relay.stop().await;
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_for_which_a_queue_has_no_room_is_held_and_comes_in_order_once_there_is() {
    let mut world = World::create().await;
    let narrow = world.queue("narrow", &["thing.*"]);
    let wide = world.queue("wide", &["other.*"]);
    let relay = world.relay(world.options(vec![wide.clone()]));
    until(world.pool(), "select exists (select from amends.cursor where epoch > 0)").await;
    // A full queue of this kind is what a broker says nack for.
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(1));
    arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    let (channel, queue) = (&world.channel, narrow.name.as_str());
    channel.queue_declare(queue.into(), QueueDeclareOptions::default(), arguments).await.unwrap();
    let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
    channel.queue_bind(queue.into(), world.name.as_str().into(), "thing.*".into(), options, arguments).await.unwrap();

    publish(world.pool(), "thing.happened", "a", 1..=4).await;

    until(world.pool(), "select exists (select from amends.held_message where reason like '%nack%')").await;
    publish(world.pool(), "other.thing", "b", 1..=20).await;
    assert_order_per_key(&world.drain(&wide, 20).await);
    assert!(
        sqlx::query_scalar::<_, bool>("select count(*) > 0 from amends.held_message")
            .fetch_one(world.pool())
            .await
            .unwrap()
    );
    let got = world.drain(&narrow, 4).await;
    assert_eq!(got.iter().map(|message| message.key().1).collect::<Vec<_>>(), [1, 2, 3, 4]);
    until(world.pool(), "select count(*) = 0 from amends.held_message").await;
    relay.stop().await;
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_refused_too_often_is_parked_with_those_behind_it() {
    let mut world = World::create().await;
    let queue = world.queue("good", &["good.*"]);
    let options = RelayOptions { most_attempts: 2, ..world.options(vec![queue.clone()]) };
    let relay = world.relay(options);
    publish(world.pool(), "lost.one", "a", 1..=1).await;
    publish(world.pool(), "good.one", "a", 2..=2).await;
    until(world.pool(), "select exists (select from amends.held_message where parked)").await;
    publish(world.pool(), "good.one", "b", 1..=1).await;
    assert_eq!(world.drain(&queue, 1).await[0].key().0, "b");
    assert!(world.is_empty(&queue.name).await, "a:2 stays behind the parked a:1");
    relay.stop().await;
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_takes_over_from_a_relay_that_died_and_nothing_is_lost() {
    let mut world = World::create().await;
    let queue = world.queue("all", &["#"]);
    let first = world.relay(world.options(vec![queue.clone()]));
    until(world.pool(), "select exists (select from amends.cursor where owner is not null)").await;
    let standby = world.relay(world.options(vec![queue.clone()]));
    let writer = tokio::spawn({
        let pool = world.pool().clone();
        async move { publish(&pool, "thing.happened", "k", 1..=600).await }
    });
    let mut got = world.drain(&queue, 100).await;
    assert!(!standby.relay.state().is_active(), "one works, the other stands by");
    first.die().await;
    writer.await.unwrap();
    until(world.pool(), "select epoch >= 2 from amends.cursor").await;
    world.drain_into(&mut got, &queue, 600).await;
    assert_order_per_key(&got);
    standby.stop().await;
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_relay_had_read_when_it_died_is_published_by_the_next_one() {
    let mut world = World::create().await;
    let queue = world.queue("all", &["#"]);
    write_at_once(&world, 1000).await;
    // One page, of which the first relay has published a part when it dies.
    let options = amends_relay::RelayOptions { wave: 5, ..world.options(vec![queue.clone()]) };
    let first = world.relay(options);
    let mut got = world.drain(&queue, 20).await;
    first.die().await;

    let second = world.relay(world.options(vec![queue.clone()]));

    world.drain_into(&mut got, &queue, 1000).await;
    assert_order_per_key(&got);
    second.stop().await;
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_exchange_is_declared_again_and_nothing_is_lost() {
    let mut world = World::create().await;
    let queue = world.queue("all", &["#"]);
    let relay = world.relay(world.options(vec![queue.clone()]));
    publish(world.pool(), "thing.happened", "k", 1..=10).await;
    world.drain(&queue, 10).await;
    world.channel.exchange_delete(world.name.as_str().into(), ExchangeDeleteOptions::default()).await.unwrap();
    publish(world.pool(), "thing.happened", "k", 11..=20).await;
    let got = world.drain(&queue, 10).await;
    assert_eq!(got.iter().map(|message| message.key().1).max(), Some(20));
    assert_order_per_key_from(11, &got);
    relay.stop().await;
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_amqp_cannot_carry_is_held_alone() {
    let mut world = World::create().await;
    // Rows that were there before the constraint.
    sqlx::query("alter table amends.outbox drop constraint outbox_fits").execute(world.pool()).await.unwrap();
    let queue = world.queue("all", &["#"]);
    let relay = world.relay(world.options(vec![queue.clone()]));
    publish(world.pool(), &"x".repeat(300), "a", 1..=1).await;
    publish(world.pool(), "thing.happened", "b", 1..=3).await;
    let got = world.drain(&queue, 3).await;
    assert!(got.iter().all(|message| message.key().0 == "b"));
    until(world.pool(), "select count(*) = 1 from amends.held_message where reason like '%255 bytes%'").await;
    relay.stop().await;
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_while_no_relay_ran_is_published_in_order() {
    let mut world = World::create().await;
    let queue = world.queue("all", &["#"]);
    write_at_once(&world, 10_000).await;
    let relay = world.relay(world.options(vec![queue.clone()]));
    let got = world.drain(&queue, 10_000).await;
    assert_eq!(got.len(), 10_000);
    assert_order_per_key(&got);
    relay.stop().await;
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_smallest_pages_and_waves_are_enough() {
    let mut world = World::create().await;
    let queue = world.queue("all", &["#"]);
    let relay = world.relay(RelayOptions { page: 1, wave: 0, ..world.options(vec![queue.clone()]) });
    publish(world.pool(), "thing.happened", "k", 1..=5).await;
    assert_order_per_key(&world.drain(&queue, 5).await);
    relay.stop().await;
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_fit_the_table_but_no_frame_park_their_message_alone() {
    let mut world = World::create().await;
    let queue = world.queue("all", &["#"]);
    let relay = world.relay(RelayOptions { most_attempts: 1, ..world.options(vec![queue.clone()]) });
    // An event has it twice: as a header and as an attribute.
    let large = "insert into amends.outbox (id, key, topic, name, payload, headers)
        select gen_random_uuid(), 'large', 't', 't', '', json_build_object('tracestate', repeat('x', 90000))";
    sqlx::query(large).execute(world.pool()).await.unwrap();
    publish(world.pool(), "thing.happened", "k", 1..=5).await;
    assert_eq!(world.drain(&queue, 5).await.len(), 5);
    until(world.pool(), "select count(*) = 1 from amends.held_message where parked and reason like '%is the most%'")
        .await;
    let epoch = "select epoch = 1 from amends.cursor";
    assert!(sqlx::query_scalar::<_, bool>(epoch).fetch_one(world.pool()).await.unwrap(), "its session goes on");
    relay.stop().await;
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_keeps_the_order_of_each_key_while_none_is_refused() {
    let mut world = World::create().await;
    let queue = world.queue("all", &["#"]);
    write_at_once(&world, 10_000).await;
    let relay = world.relay(RelayOptions { ordering: Ordering::Pipelined, ..world.options(vec![queue.clone()]) });
    let got = world.drain(&queue, 10_000).await;
    assert_eq!(got.len(), 10_000);
    assert_order_per_key(&got);
    relay.stop().await;
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_refused_comes_behind_those_that_were_pipelined_with_it() {
    let mut world = World::create().await;
    let queue = world.queue("good", &["good.*"]);
    publish(world.pool(), "lost.one", "a", 1..=1).await;
    publish(world.pool(), "good.one", "a", 2..=5).await;
    let relay = world.relay(RelayOptions { ordering: Ordering::Pipelined, ..world.options(vec![queue.clone()]) });
    let mut got = world.drain(&queue, 4).await;
    let (channel, name) = (&world.channel, queue.name.as_str());
    let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
    channel.queue_bind(name.into(), world.name.as_str().into(), "lost.*".into(), options, arguments).await.unwrap();
    publish(world.pool(), "good.one", "a", 6..=7).await;
    world.drain_into(&mut got, &queue, 7).await;
    let counters: Vec<_> = got.iter().map(|message| message.key().1).collect();
    assert_eq!(counters, [2, 3, 4, 5, 1, 6, 7], "from the refusal on its key waits");
    relay.stop().await;
    world.clean_up().await;
}

/// So many messages of fifty keys, in one transaction.
async fn write_at_once(world: &World, messages: i32) {
    sqlx::query(
        "insert into amends.outbox (id, key, topic, name, payload)
         select gen_random_uuid(), 'k' || i % 50, 't', 't', convert_to('k' || i % 50 || ':' || i / 50 + 1, 'UTF8')
         from generate_series(0, $1 - 1) i",
    )
    .bind(messages)
    .execute(world.pool())
    .await
    .unwrap();
}
