//! What the binary says of itself while the broker is in trouble.

use amends_relay::QueueKind;
use tokio::task::block_in_place;

use super::Scene;
use crate::binary::Binary;
use crate::support::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn the_binary_is_not_ready_while_it_cannot_publish_says_why_and_is_healthy_all_the_time() {
    let mut scene = Scene::set(QueueKind::Classic).await;
    let relay = scene.relay();
    scene.write(1..=1).done().await;
    scene.world.drain_into(&mut Vec::new(), &scene.queue, 5).await;
    relay.stop().await;
    let binary = block_in_place(|| {
        Binary::start(&scene.world, &scene.broker.url(), &["--database-url", scene.world.database.url()])
    });
    binary.until_ready_says(200, "publishing").await;

    scene.broker.ctl(&["set_vm_memory_high_watermark", "absolute", "1MB"]);
    eventually("the alarm is on", || {
        scene.broker.ctl(&["eval", "rabbit_alarm:get_alarms()."]).contains("resource_limit")
    })
    .await;
    scene.write(2..=2).done().await;
    binary.until_ready_says(503, "taken no messages").await;
    let metrics = binary.get("/metrics").1;
    assert!(metrics.contains("amends_relay_blocked 1") && metrics.contains("amends_relay_connected 1"), "{metrics}");
    scene.broker.ctl(&["set_vm_memory_high_watermark", "absolute", "1GB"]);
    binary.until_ready_says(200, "publishing").await;

    scene.broker.stop();
    binary.until_ready_says(503, "no connection to the broker for").await;
    let (status, health) = binary.get("/healthz");
    assert!(status == 200 && health.starts_with("ok, but no connection"), "{status} {health}");
    assert!(binary.get("/metrics").1.contains("amends_relay_connected 0"));
    scene.broker.start();
    binary.until_ready_says(200, "publishing").await;
    scene.assert_all_came_from(2, 2).await;
}
