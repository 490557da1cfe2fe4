//! Somebody deletes what messages are published to.

use lapin::options::QueueDeleteOptions;

use crate::support::{World, publish};

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_queue_is_declared_again_and_its_messages_come_in_order_while_others_flow() {
    let mut world = World::create().await;
    let (deleted, other) = (world.queue("deleted", &["a.*"]), world.queue("other", &["b.*"]));
    let relay = world.relay(world.options(vec![deleted.clone(), other.clone()]));
    publish(world.pool(), "a.thing", "a", 1..=5).await;
    world.drain(&deleted, 5).await;

    world.channel.queue_delete(deleted.name.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    publish(world.pool(), "a.thing", "a", 6..=10).await;
    publish(world.pool(), "b.thing", "b", 1..=10).await;

    assert_eq!(world.drain(&other, 10).await.len(), 10);
    world.until_there(&deleted.name).await;
    let got = world.drain(&deleted, 5).await;
    assert_eq!(got.iter().map(|message| message.key().1).collect::<Vec<_>>(), [6, 7, 8, 9, 10]);
    publish(world.pool(), "a.thing", "a", 11..=12).await;
    assert_eq!(world.drain(&deleted, 2).await.len(), 2);
    relay.stop().await;
    world.clean_up().await;
}
