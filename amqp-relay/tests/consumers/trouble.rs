//! What goes wrong around a consumer: nothing is lost, the others flow, and it recovers by itself.

use std::time::Duration;

use amends::Message;
use amends_postgres::Outbox;
use amends_relay::{Consumer, Handler, HandlerError, Incoming};
use async_trait::async_trait;
use lapin::BasicProperties;
use lapin::options::{QueueDeleteOptions, QueuePurgeOptions};
use lapin::types::{AMQPValue, FieldArray, FieldTable};
use serde::{Deserialize, Serialize};
use sqlx::{Connection, Executor, PgConnection};

use crate::proxy::Proxy;
use crate::support::until;
use crate::{Consuming, Sent, consumer, dead, ledger, publish, ready, world, write};

struct Ledger;

#[async_trait]
impl Handler for Ledger {
    async fn handle(&self, tx: &mut PgConnection, message: &Incoming) -> Result<(), HandlerError> {
        write(tx, message).await
    }
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_cut_again_and_again_loses_nothing_and_keeps_the_order() {
    let mut world = world().await;
    let queue = world.queue("ledger", &["#"]);
    let proxy = Proxy::start().await;
    let builder = Consumer::builder(world.pool().clone(), proxy.url()).name("ledger").queue(queue.clone());
    let consuming = Consuming::start(builder.longest_pause(Duration::from_millis(50)).handler(Ledger));
    world.until_consumed(&queue.name).await;
    for (number, text) in numbers(0..300).iter().enumerate() {
        Sent::text(text).to(&world).await;
        if number % 60 == 59 {
            proxy.cut();
        }
    }
    until(world.pool(), "select count(*) >= 300 from ledger").await;

    consuming.stop().await;
    assert_eq!(ledger(&world).await, numbers(0..300));
    assert_eq!(ready(&world, &queue.name).await, 0);
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_the_broker_closes_as_at_a_consumer_timeout_is_opened_anew() {
    let mut world = world().await;
    let queue = world.queue("ledger", &["#"]);
    let proxy = Proxy::start().await;
    let builder = Consumer::builder(world.pool().clone(), proxy.url()).name("ledger").queue(queue.clone());
    let consuming = Consuming::start(builder.longest_pause(Duration::from_millis(50)).handler(Ledger));
    world.until_consumed(&queue.name).await;
    Sent::text("0").to(&world).await;
    until(world.pool(), "select count(*) = 1 from ledger").await;

    proxy.acknowledge_what_was_never_delivered();
    for text in numbers(1..50) {
        Sent::text(&text).to(&world).await;
    }
    until(world.pool(), "select count(*) >= 50 from ledger").await;

    consuming.stop().await;
    assert_eq!(ledger(&world).await, numbers(0..50));
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_deleted_is_declared_anew_and_consumed() {
    let mut world = world().await;
    let queue = world.queue("ledger", &["#"]);
    let consuming = Consuming::start(consumer(&world, &queue).longest_pause(Duration::from_millis(50)).handler(Ledger));
    world.until_consumed(&queue.name).await;
    Sent::text("0").to(&world).await;
    until(world.pool(), "select count(*) = 1 from ledger").await;

    world.channel.queue_delete(queue.name.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    world.until_consumed(&queue.name).await;
    Sent::text("1").to(&world).await;
    until(world.pool(), "select count(*) = 2 from ledger").await;

    consuming.stop().await;
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_drops_its_sessions_burns_no_attempt_and_nothing_is_handled_twice() {
    let mut world = world().await;
    let queue = world.queue("ledger", &["#"]);
    let builder = consumer(&world, &queue).attempts(1).longest_pause(Duration::from_millis(50));
    let consuming = Consuming::start(builder.handler(Ledger));
    world.until_consumed(&queue.name).await;
    let admin = sqlx::PgPool::connect(&std::env::var("DATABASE_URL").unwrap()).await.unwrap();
    let kill = "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1";
    let database = world.database.url().rsplit('/').next().unwrap().to_owned();
    for (number, text) in numbers(0..200).iter().enumerate() {
        Sent::text(text).to(&world).await;
        if number % 40 == 39 {
            sqlx::query(kill).bind(&database).execute(&admin).await.unwrap();
        }
    }
    let deadline = tokio::time::Instant::now() + crate::support::PATIENCE;
    while sqlx::query_scalar::<_, i64>("select count(*) from ledger").fetch_one(world.pool()).await.unwrap_or(0) < 200 {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    consuming.stop().await;
    assert_eq!(ledger(&world).await, numbers(0..200));
    assert_eq!(ready(&world, &format!("{}.dead", queue.name)).await, 0);
    world.clean_up().await;
}

/// Says that all is well, whatever it does to its transaction.
struct Careless;

#[async_trait]
impl Handler for Careless {
    async fn handle(&self, tx: &mut PgConnection, message: &Incoming) -> Result<(), HandlerError> {
        write(tx, message).await?;
        let does = std::str::from_utf8(&message.payload)?;
        if does == "savepoint" {
            let mut savepoint = tx.begin().await?;
            let failed = savepoint.execute("select 1 / 0").await;
            savepoint.rollback().await?;
            assert!(failed.is_err());
        } else {
            let _ = tx.execute(sqlx::AssertSqlSafe(does.to_owned())).await;
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_returns_ok_over_a_failed_or_an_ended_transaction_has_handled_nothing() {
    let mut world = world().await;
    let queue = world.queue("ledger", &["#"]);
    let builder = consumer(&world, &queue).attempts(2).longest_pause(Duration::from_millis(20));
    let consuming = Consuming::start(builder.handler(Careless));
    world.until_consumed(&queue.name).await;

    for does in ["select 1 / 0", "rollback", "savepoint"] {
        Sent::text(does).to(&world).await;
    }
    let dead = dead(&world, &queue, 2).await;
    until(world.pool(), "select count(*) = 1 from ledger").await;

    assert!(dead.iter().all(|dead| dead.reason().contains("cannot be committed")), "{dead:?}");
    assert_eq!(ledger(&world).await, ["savepoint"]);
    consuming.stop().await;
    world.clean_up().await;
}

/// Waits for somebody else while it holds its transaction, and then may publish.
struct Idle;

#[async_trait]
impl Handler for Idle {
    async fn handle(&self, tx: &mut PgConnection, message: &Incoming) -> Result<(), HandlerError> {
        write(tx, message).await?;
        if message.payload.starts_with(b"idle") {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        if message.payload == b"idle, and publishes" {
            Outbox::publish(tx, &Told {}).await?;
        }
        Ok(())
    }
}

#[derive(Serialize, Deserialize, Message)]
#[message(name = "ledger.told")]
struct Told {}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_leaves_its_transaction_idle_for_too_long_fails_and_says_so() {
    let mut world = world().await;
    let queue = world.queue("ledger", &["#"]);
    let builder = consumer(&world, &queue).attempts(2).longest_pause(Duration::from_millis(20));
    let consuming = Consuming::start(builder.idle(Duration::from_millis(100)).handler(Idle));
    world.until_consumed(&queue.name).await;

    for text in ["idle", "idle, and publishes", "busy"] {
        Sent::text(text).to(&world).await;
    }
    until(world.pool(), "select count(*) = 1 from ledger").await;

    assert_eq!(ledger(&world).await, ["busy"]);
    for dead in dead(&world, &queue, 2).await {
        let reason = dead.reason();
        assert!(reason.contains("idle-in-transaction timeout") && reason.contains("2 times"), "{reason}");
    }
    consuming.stop().await;
    world.clean_up().await;
}

/// Its statement has more parameters than the protocol can carry.
struct TooMany;

#[async_trait]
impl Handler for TooMany {
    async fn handle(&self, tx: &mut PgConnection, message: &Incoming) -> Result<(), HandlerError> {
        if message.payload == b"many" {
            let mut insert = sqlx::QueryBuilder::new("insert into ledger (text) ");
            insert.push_values(0..70_000, |mut row, number| _ = row.push_bind(number.to_string()));
            insert.build().execute(&mut *tx).await?;
        }
        write(tx, message).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_can_never_be_sent_holds_up_nobody_for_ever() {
    let mut world = world().await;
    let queue = world.queue("ledger", &["#"]);
    let builder = consumer(&world, &queue).attempts(2).longest_pause(Duration::from_millis(20));
    let consuming = Consuming::start(builder.handler(TooMany));
    world.until_consumed(&queue.name).await;
    for text in ["many", "one"] {
        Sent::text(text).to(&world).await;
    }
    until(world.pool(), "select count(*) = 1 from ledger").await;
    assert!(dead(&world, &queue, 1).await[0].reason().contains("too many arguments"));
    consuming.stop().await;
    world.clean_up().await;
}

/// Writes what it sees of the headers.
struct Headers;

#[async_trait]
impl Handler for Headers {
    async fn handle(&self, tx: &mut PgConnection, message: &Incoming) -> Result<(), HandlerError> {
        let text = format!("{:?} {:?}", message.headers, message.key);
        sqlx::query("insert into ledger (text) values ($1)").bind(text).execute(tx).await?;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_of_odd_types_and_bytes_that_are_no_text_harm_nobody() {
    let mut world = world().await;
    let queue = world.queue("ledger", &["#"]);
    let consuming = Consuming::start(consumer(&world, &queue).handler(Headers));
    world.until_consumed(&queue.name).await;
    let odd = [
        ("bytes", AMQPValue::LongString(b"\xff\xfe\0".to_vec().into())),
        ("flag", AMQPValue::Boolean(true)),
        ("float", AMQPValue::Double(0.5)),
        ("list", AMQPValue::FieldArray(FieldArray::from(vec![AMQPValue::Void]))),
        ("nothing", AMQPValue::Void),
        ("number", AMQPValue::LongInt(-7)),
        ("table", AMQPValue::FieldTable(FieldTable::default())),
        ("time", AMQPValue::Timestamp(u64::MAX)),
        // Where a text is expected.
        (amends_relay::KEY_HEADER, AMQPValue::FieldTable(FieldTable::default())),
        (amends_relay::SEQ_HEADER, AMQPValue::LongString("many".into())),
        ("traceparent", AMQPValue::LongString("nonsense".into())),
    ];
    let mut headers = FieldTable::default();
    for (name, value) in odd {
        headers.insert(name.into(), value);
    }
    let properties =
        BasicProperties::default().with_message_id("1".into()).with_headers(headers).with_timestamp(u64::MAX);
    let plain = |id: &str| BasicProperties::default().with_message_id(id.into());
    publish(&world, b"before", plain("0")).await;
    publish(&world, b"\xff\xfe\0", properties).await;
    publish(&world, b"behind", plain("2")).await;
    until(world.pool(), "select count(*) = 3 from ledger").await;

    let odd = r#"{"amends-seq": "many", "bytes": "��␀", "number": "-7", "traceparent": "nonsense"} None"#;
    assert_eq!(ledger(&world).await, ["{} None", odd, "{} None"]);
    consuming.stop().await;
    world.clean_up().await;
}

/// The client library closes its connection over it.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_cannot_be_read_off_the_wire_is_kept_and_the_consumer_goes_on_once_it_is_removed() {
    let mut world = world().await;
    let queue = world.queue("ledger", &["#"]);
    let consuming =
        Consuming::start(consumer(&world, &queue).longest_pause(Duration::from_millis(300)).handler(Ledger));
    world.until_consumed(&queue.name).await;
    let proxy = Proxy::start().await;
    let _first = proxy.connect().await;

    proxy.publish_what_is_no_text(&world.name);
    let deadline = tokio::time::Instant::now() + crate::support::PATIENCE;
    // It is in the queue while the consumer pauses, each time.
    for _ in 0..2 {
        while ready(&world, &queue.name).await == 0 {
            assert!(tokio::time::Instant::now() < deadline, "it is lost");
        }
    }
    while world.channel.queue_purge(queue.name.as_str().into(), QueuePurgeOptions::default()).await.unwrap() == 0 {
        assert!(tokio::time::Instant::now() < deadline);
    }
    Sent::text("next").to(&world).await;
    until(world.pool(), "select count(*) = 1 from ledger").await;

    consuming.stop().await;
    world.clean_up().await;
}
