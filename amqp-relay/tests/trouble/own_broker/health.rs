//! What the binary says of itself while the broker is in trouble.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use amends_relay::QueueKind;
use tokio::task::block_in_place;

use super::Scene;
use crate::support::eventually;

/// The binary, with the scene's database and broker; gone when dropped.
struct Binary {
    child: Child,
    address: String,
}

impl Binary {
    fn start(scene: &Scene) -> Self {
        let name = &scene.world.name;
        let mut child = Command::new(env!("CARGO_BIN_EXE_amends-relay"))
            .args(["run", "--listen", "127.0.0.1:0", "--exchange", name, "--reply-queue", &format!("{name}-replies")])
            .env("DATABASE_URL", scene.world.database.url())
            .env("AMQP_URL", scene.broker.url())
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let started = lines.find(|line| line.contains("the relay starts")).expect("it starts");
        let address = started.split("http=").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
        // What it says later must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address }
    }

    /// The status and the body.
    fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    async fn until_ready_says(&self, status: u16, needle: &str) {
        eventually(needle, || {
            let (got, body) = block_in_place(|| self.get("/readyz"));
            got == status && body.contains(needle)
        })
        .await;
    }
}

impl Drop for Binary {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_binary_is_not_ready_while_it_cannot_publish_says_why_and_is_healthy_all_the_time() {
    let mut scene = Scene::set(QueueKind::Classic).await;
    let relay = scene.relay();
    scene.write(1..=1).done().await;
    scene.world.drain_into(&mut Vec::new(), &scene.queue, 5).await;
    relay.stop().await;
    let binary = block_in_place(|| Binary::start(&scene));
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
