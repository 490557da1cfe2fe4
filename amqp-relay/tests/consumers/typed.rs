//! Handlers by the type of the message.

use std::time::Duration;

use amends::Message;
use amends_postgres::Outbox;
use amends_relay::{Consumer, ConsumerError, Handle, Handler, HandlerError, Incoming, QueueTopology};
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgPool};

use crate::support::{World, until};
use crate::{Consuming, Sent, consumer, dead, ledger, ready, world};

#[derive(Serialize, Deserialize, Message)]
#[message(name = "stock.reserved", key = sku)]
struct Reserved {
    sku: String,
}

#[derive(Serialize, Deserialize, Message)]
#[message(name = "stock.released", key = sku)]
struct Released {
    sku: String,
}

#[derive(Serialize, Deserialize, Message)]
#[message(name = "goods.packed")]
struct Packed {
    sku: String,
}

async fn note(tx: &mut PgConnection, text: String) -> Result<(), HandlerError> {
    sqlx::query("insert into ledger (text) values ($1)").bind(text).execute(tx).await?;
    Ok(())
}

/// Writes, publishes, and fails for what is broken.
async fn pack(tx: &mut PgConnection, event: Reserved, _: &Incoming) -> Result<(), HandlerError> {
    note(tx, format!("reserved {}", event.sku)).await?;
    Outbox::publish(tx, &Packed { sku: event.sku.clone() }).await?;
    if event.sku == "broken" { Err(HandlerError::reject("it is broken")) } else { Ok(()) }
}

/// Holds something, as a service with clients does.
struct Shelf {
    name: &'static str,
}

impl Handle<Released> for Shelf {
    async fn handle(&self, tx: &mut PgConnection, event: Released, _: &Incoming) -> Result<(), HandlerError> {
        note(tx, format!("released {} to {}", event.sku, self.name)).await
    }
}

async fn send(world: &World, id: &str, kind: &str, sku: &str) {
    let text = format!(r#"{{"sku":"{sku}"}}"#);
    Sent { id: Some(id), kind: Some(kind), ..Sent::text(&text) }.to(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_type_comes_to_its_handler_and_what_that_publishes_commits_with_its_work() {
    let mut world = world().await;
    let queue = world.queue("stock", &["#"]);
    let consuming = Consuming::start(consumer(&world, &queue).on(pack).on(Shelf { name: "A" }));
    world.until_consumed(&queue.name).await;

    send(&world, "1", "stock.reserved", "mug").await;
    send(&world, "2", "stock.reserved", "broken").await;
    send(&world, "3", "stock.released", "mug").await;
    until(world.pool(), "select count(*) = 2 from ledger").await;

    assert_eq!(ledger(&world).await, ["reserved mug", "released mug to A"]);
    let published: Vec<Vec<u8>> = sqlx::query_scalar("select payload from amends.outbox where name = 'goods.packed'")
        .fetch_all(world.pool())
        .await
        .unwrap();
    assert_eq!(published, [br#"{"sku":"mug"}"#], "nothing of what was rejected");
    assert_eq!(dead(&world, &queue, 1).await[0].reason(), "it is broken");
    consuming.stop().await;
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_handler_knows_is_a_dead_letter_that_says_what_is_known_unless_it_is_to_be_ignored() {
    let mut world = world().await;
    let [strict, lenient] = [world.queue("strict", &["#"]), world.queue("lenient", &["#"])];
    let consuming = [
        Consuming::start(consumer(&world, &strict).name("strict").on(pack).on(Shelf { name: "A" })),
        Consuming::start(consumer(&world, &lenient).name("lenient").on(pack).ignore_unknown()),
    ];
    world.until_consumed(&strict.name).await;
    world.until_consumed(&lenient.name).await;

    send(&world, "1", "stock.burned", "mug").await;
    send(&world, "2", "stock.reserved", "mug").await;
    until(world.pool(), "select count(*) = 2 from ledger").await;

    let reason = dead(&world, &strict, 1).await[0].reason();
    for word in ["`stock.burned`", "`stock.released`", "`stock.reserved`", "ignore_unknown"] {
        assert!(reason.contains(word), "{reason}");
    }
    for consuming in consuming {
        consuming.stop().await;
    }
    assert_eq!((ready(&world, &lenient.name).await, ready(&world, &format!("{}.dead", lenient.name)).await), (0, 0));
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_as_its_type_is_a_dead_letter_and_blocks_nobody() {
    let mut world = world().await;
    let queue = world.queue("stock", &["#"]);
    let release = async |tx: &mut PgConnection, event: Released, _: &Incoming| note(tx, event.sku).await;
    let consuming = Consuming::start(consumer(&world, &queue).on(release));
    world.until_consumed(&queue.name).await;

    Sent { kind: Some("stock.released"), ..Sent::text(r#"{"sku":17}"#) }.to(&world).await;
    send(&world, "2", "stock.released", "mug").await;
    until(world.pool(), "select count(*) = 1 from ledger").await;

    let reason = dead(&world, &queue, 1).await[0].reason();
    assert!(reason.contains("is no `stock.released`") && reason.contains("expected a string"), "{reason}");
    consuming.stop().await;
    world.clean_up().await;
}

struct Nothing;

#[async_trait::async_trait]
impl Handler for Nothing {
    async fn handle(&self, _: &mut PgConnection, _: &Incoming) -> Result<(), HandlerError> {
        Ok(())
    }
}

#[tokio::test]
async fn a_consumer_that_could_not_work_is_not_built_and_the_error_says_what_to_do() {
    let builder = || {
        let pool = PgPool::connect_lazy("postgres://localhost/nowhere").unwrap();
        Consumer::builder(pool, "amqp://localhost".parse().unwrap())
    };
    let named = || builder().name("stock");
    let whole = || named().queue(QueueTopology::new("stock", "shop", ["stock.*"])).handler(Nothing);
    let many = async |_: &mut PgConnection, _: &[Incoming]| Ok(());
    let consumer = || "stock".to_owned();
    let cases = [
        (builder(), ConsumerError::NoName),
        (builder().name(""), ConsumerError::NoName),
        (builder().name("n".repeat(256)), ConsumerError::LongName("n".repeat(256))),
        (named(), ConsumerError::NoQueue(consumer())),
        (named().queue(QueueTopology::new("stock", "shop", ["#"])), ConsumerError::NoHandler(consumer())),
        (whole().on(pack), ConsumerError::TwoWays(consumer())),
        (whole().batch(10, Duration::ZERO, many), ConsumerError::TwoWays(consumer())),
        (whole().on(pack).on(pack), ConsumerError::TwoHandlers { consumer: consumer(), message: "stock.reserved" }),
        (whole().concurrency(0), ConsumerError::Zero { consumer: consumer(), setting: "concurrency" }),
        (whole().prefetch(0), ConsumerError::Zero { consumer: consumer(), setting: "prefetch" }),
        (whole().attempts(0), ConsumerError::Zero { consumer: consumer(), setting: "attempts" }),
        (
            named().queue(QueueTopology::new("stock", "shop", ["#"])).batch(200, Duration::ZERO, many),
            ConsumerError::BatchNeverFills { consumer: consumer(), size: 200, prefetch: 100 },
        ),
    ];
    for (builder, error) in cases {
        assert_eq!(builder.build().unwrap_err(), error);
    }
    whole().build().unwrap();
}
