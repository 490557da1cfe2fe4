//! A consumer that keeps the order of each key: a message that fails holds up its key alone.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use amends_relay::{Consumer, Handler, HandlerError, Incoming, KEY_HEADER, Order};
use async_trait::async_trait;
use lapin::BasicProperties;
use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable};
use sqlx::PgConnection;
use support::{World, until};
use tokio_util::sync::CancellationToken;

/// Writes down what it gets; what has the key `stuck` fails for as long as it is told.
struct Ledger {
    is_stuck: Arc<AtomicBool>,
}

#[async_trait]
impl Handler for Ledger {
    async fn handle(&self, tx: &mut PgConnection, message: &Incoming) -> Result<(), HandlerError> {
        if message.key.as_deref() == Some("stuck") && self.is_stuck.load(Ordering::SeqCst) {
            return Err(HandlerError::Retry("not now".into()));
        }
        let text = String::from_utf8_lossy(&message.payload).into_owned();
        sqlx::query("insert into ledger (key, text) values ($1, $2)").bind(&message.key).bind(text).execute(tx).await?;
        Ok(())
    }
}

async fn send(world: &World, key: Option<&str>, text: &str) {
    let mut headers = FieldTable::default();
    if let Some(key) = key {
        headers.insert(KEY_HEADER.into(), AMQPValue::LongString(key.into()));
    }
    let properties = BasicProperties::default().with_message_id(text.into()).with_headers(headers);
    let (exchange, options) = (world.name.as_str().into(), BasicPublishOptions::default());
    world.channel.basic_publish(exchange, "t".into(), options, text.as_bytes(), properties).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_fails_holds_up_its_key_alone_and_each_key_keeps_its_order() {
    let mut world = World::create().await;
    let table = "create table ledger (position bigserial, key text, text text not null)";
    sqlx::query(table).execute(world.pool()).await.unwrap();
    let queue = world.queue("ledger", &["#"]);
    let is_stuck = Arc::new(AtomicBool::new(true));
    let consumer = Consumer::builder(world.pool().clone(), World::url())
        .name("ledger")
        .queue(queue.clone())
        .order(Order::Key)
        .concurrency(3)
        .attempts(u32::MAX)
        .handler(Ledger { is_stuck: Arc::clone(&is_stuck) })
        .build()
        .unwrap();
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    let consuming = tokio::spawn(async move { consumer.run(stop).await });
    world.until_consumed(&queue.name).await;

    for number in 0..10 {
        for key in ["stuck", "a", "b"] {
            send(&world, Some(key), &format!("{key} {number}")).await;
        }
        send(&world, None, &format!("free {number}")).await;
    }
    until(world.pool(), "select count(*) = 30 from ledger").await;
    let stuck: i64 =
        sqlx::query_scalar("select count(*) from ledger where key = 'stuck'").fetch_one(world.pool()).await.unwrap();
    assert_eq!(stuck, 0, "the others did not wait for it");
    is_stuck.store(false, Ordering::SeqCst);
    until(world.pool(), "select count(*) = 40 from ledger").await;

    for key in ["stuck", "a", "b"] {
        let texts: Vec<String> = sqlx::query_scalar("select text from ledger where key = $1 order by position")
            .bind(key)
            .fetch_all(world.pool())
            .await
            .unwrap();
        assert_eq!(texts, (0..10).map(|number| format!("{key} {number}")).collect::<Vec<_>>());
    }
    shutdown.cancel();
    consuming.await.unwrap();
    world.clean_up().await;
}
