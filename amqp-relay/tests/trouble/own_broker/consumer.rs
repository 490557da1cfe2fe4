//! A consumer whose broker loses patience with it, or is gone for a while.

use std::sync::Arc;
use std::time::Duration;

use amends_relay::{Consumer, Handler, HandlerError, Incoming, QueueKind};
use async_trait::async_trait;
use sqlx::PgConnection;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Scene;
use crate::support::{eventually, publish, until};

/// Writes down what it hears; `slow:1` takes until it is let go.
struct Ledger {
    may: Arc<Semaphore>,
}

#[async_trait]
impl Handler for Ledger {
    async fn handle(&self, tx: &mut PgConnection, message: &Incoming) -> Result<(), HandlerError> {
        let text = String::from_utf8_lossy(&message.payload).into_owned();
        if text == "slow:1" {
            self.may.acquire().await?.forget();
        }
        sqlx::query("insert into ledger (text) values ($1)").bind(text).execute(tx).await?;
        Ok(())
    }
}

async fn consume(scene: &Scene, may: &Arc<Semaphore>) -> (CancellationToken, JoinHandle<()>) {
    let table = "create table ledger (position bigserial, text text not null)";
    sqlx::query(table).execute(scene.world.pool()).await.unwrap();
    let builder = Consumer::builder(scene.world.pool().clone(), scene.broker.url().parse().unwrap());
    let builder = builder.name("ledger").queue(scene.queue.clone()).longest_pause(Duration::from_millis(500));
    let consumer = builder.handler(Ledger { may: Arc::clone(may) }).build().unwrap();
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    let task = tokio::spawn(async move { consumer.run(stop).await });
    scene.world.until_consumed(&scene.queue.name).await;
    (shutdown, task)
}

async fn ledger(scene: &Scene) -> Vec<String> {
    let texts = sqlx::query_scalar("select text from ledger order by position").fetch_all(scene.world.pool());
    texts.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_takes_longer_than_the_consumer_timeout_takes_effect_once_and_the_rest_follows() {
    let scene = Scene::set(QueueKind::Classic).await;
    // It looks once a minute, else.
    for setting in ["consumer_timeout, 1000", "channel_tick_interval, 500"] {
        scene.broker.ctl(&["eval", &format!("application:set_env(rabbit, {setting}).")]);
    }
    let may = Arc::new(Semaphore::new(0));
    let (shutdown, consuming) = consume(&scene, &may).await;
    let relay = scene.relay();
    for key in ["slow", "next"] {
        publish(scene.world.pool(), "thing.happened", key, 1..=1).await;
    }

    eventually("the broker closes the channel", || scene.broker.logs().contains("timed out")).await;
    may.add_permits(1);
    until(scene.world.pool(), "select count(*) = 2 from ledger").await;
    scene.world.until_empty(&scene.queue.name).await;

    assert_eq!(ledger(&scene).await, ["slow:1", "next:1"], "the copy waits for the first, and changes nothing");
    shutdown.cancel();
    consuming.await.unwrap();
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_again_and_again_makes_nobody_handle_a_message_twice_or_never() {
    let mut scene = Scene::set(QueueKind::Classic).await;
    let may = Arc::new(Semaphore::new(0));
    let (shutdown, consuming) = consume(&scene, &may).await;
    let relay = scene.relay();
    for round in 0..2 {
        let from = round * 100 + 1;
        publish(scene.world.pool(), "thing.happened", "k", from..=from + 99).await;
        scene.broker.kill();
        scene.broker.start();
    }
    until(scene.world.pool(), "select count(*) >= 200 from ledger").await;

    assert_eq!(ledger(&scene).await, (1..=200).map(|number| format!("k:{number}")).collect::<Vec<_>>());
    shutdown.cancel();
    consuming.await.unwrap();
    relay.stop().await;
}
