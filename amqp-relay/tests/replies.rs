//! A saga asks through the outbox, a participant answers through its own, and the relay takes the reply home.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::time::Duration;

use amends::store::Loaded;
use amends::{CORRELATION_HEADER, Definition, Event, Outcome, SagaId, Sagas, StepRef};
use amends_postgres::PgStore;
use amends_relay::{OUTCOME_HEADER, QueueTopology};
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::options::{BasicGetOptions, BasicPublishOptions};
use lapin::types::{AMQPValue, FieldTable};
use support::courier::{self, Background, Order, Shipped, pivotal, undoable};
use support::{Running, World, until};

const SHIP: StepRef<Shipped> = StepRef::new("ship");

/// The shop with its relay. The courier's queue is there, but nobody works on it yet.
struct Street {
    world: World,
    parcels: QueueTopology,
    replies: String,
    relay: Option<Running>,
    sagas: Sagas<PgStore>,
    worker: Background,
    definition: Definition,
}

impl Street {
    async fn open(definition: Definition) -> Self {
        let mut world = World::create().await;
        sqlx::raw_sql(courier::TABLES).execute(world.pool()).await.unwrap();
        let parcels = world.queue("parcels", &["parcel.*"]);
        let replies = format!("{}-replies", world.name);
        let relay = Some(world.relay(world.options(vec![parcels.clone()])));
        world.until_consumed(&replies).await;
        // It declares its queues before it takes the lane; to get from a queue that is not there would close the channel.
        until(world.pool(), "select exists (select from amends.cursor where epoch > 0)").await;
        let (sagas, worker) = courier::shop(world.pool(), &definition);
        Self { world, parcels, replies, relay, sagas, worker, definition }
    }

    fn courier(&self) -> Background {
        courier::courier(self.world.pool(), &self.parcels)
    }

    async fn start(&self, id: i64, kilograms: u32, returned: bool) -> SagaId {
        courier::start(&self.sagas, &self.definition, &Order { id, kilograms, returned }).await
    }

    async fn ended(&self, saga: SagaId) -> Loaded {
        tokio::time::timeout(support::PATIENCE, async {
            loop {
                let loaded = self.sagas.load(saga).await.unwrap();
                if loaded.status.is_final() {
                    return loaded;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .expect("the saga ends")
    }

    async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(self.world.pool()).await.unwrap()
    }

    /// The next message of a queue.
    async fn next(&self, queue: &str) -> Delivery {
        tokio::time::timeout(support::PATIENCE, async {
            loop {
                let options = BasicGetOptions { no_ack: true };
                if let Ok(Some(got)) = self.world.channel.basic_get(queue.into(), options).await {
                    return got.delivery;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .expect("a message comes")
    }

    /// Answers as a participant does that knows AMQP and nothing of amends: to the queue, on the default exchange.
    async fn answer(&self, id: &str, correlation: Option<&str>, payload: &str) {
        let mut properties = BasicProperties::default().with_message_id(id.into());
        if let Some(correlation) = correlation {
            properties = properties.with_correlation_id(correlation.into());
        }
        self.send(properties, payload).await;
    }

    async fn send(&self, properties: BasicProperties, payload: &str) {
        let options = BasicPublishOptions::default();
        let publish = self.world.channel.basic_publish(
            "".into(),
            self.replies.as_str().into(),
            options,
            payload.as_bytes(),
            properties,
        );
        publish.await.unwrap();
    }

    async fn close(self) {
        self.worker.stop().await;
        if let Some(relay) = self.relay {
            relay.stop().await;
        }
        self.world.clean_up().await;
    }
}

fn replied(loaded: &Loaded) -> usize {
    let events = loaded.journal.iter().flat_map(|row| &row.events);
    events.filter(|event| matches!(event, Event::Replied { .. })).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_answered_and_the_saga_goes_on_with_the_typed_reply() {
    let street = Street::open(undoable()).await;
    let courier = street.courier();
    let saga = street.start(17, 2, false).await;
    let loaded = street.ended(saga).await;
    assert_eq!(loaded.fold().ended, Some(Outcome::Completed));
    assert_eq!(loaded.output(SHIP).unwrap(), Some(Shipped { tracking: "T-17".into() }));
    assert_eq!(street.count("select count(*) from notice where tracking = 'T-17'").await, 1);
    courier.stop().await;
    street.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_binary_takes_replies_home_too() {
    let mut street = Street::open(undoable()).await;
    street.relay.take().unwrap().stop().await;
    let mut relay = std::process::Command::new(env!("CARGO_BIN_EXE_amends-relay"))
        .args(["run", "--listen", "127.0.0.1:0", "--exchange", &street.world.name, "--reply-queue", &street.replies])
        .args(["--database-url", street.world.database.url(), "--amqp-url", &support::amqp_url()])
        .spawn()
        .unwrap();
    let courier = street.courier();
    let saga = street.start(17, 2, false).await;
    let loaded = street.ended(saga).await;
    assert_eq!(loaded.output(SHIP).unwrap(), Some(Shipped { tracking: "T-17".into() }));
    relay.kill().unwrap();
    relay.wait().unwrap();
    courier.stop().await;
    street.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejection_undoes_what_happened_before() {
    let street = Street::open(undoable()).await;
    let courier = street.courier();
    let saga = street.start(17, 31, false).await;
    let state = street.ended(saga).await.fold();
    assert_eq!(state.ended, Some(Outcome::Compensated));
    let (step, rejection) = state.rejection().unwrap();
    assert_eq!((step, rejection.code.as_str(), rejection.message.as_str()), ("ship", "too_heavy", "30 kg at most"));
    assert_eq!(street.count("select count(*) from reservation").await, 0);
    courier.stop().await;
    street.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compensation_asks_too() {
    let street = Street::open(undoable()).await;
    let courier = street.courier();
    let saga = street.start(17, 2, true).await;
    let loaded = street.ended(saga).await;
    assert_eq!(loaded.fold().ended, Some(Outcome::Compensated));
    assert_eq!(replied(&loaded), 2, "the parcel was shipped, and recalled");
    assert_eq!(street.count("select count(*) from parcel").await, 0);
    assert_eq!(street.count("select count(*) from reservation").await, 0);
    courier.stop().await;
    street.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn anybody_can_answer_by_the_amqp_properties_and_copies_of_a_reply_count_once() {
    let street = Street::open(undoable()).await;
    let saga = street.start(17, 2, false).await;
    let request = street.next(&street.parcels.name).await;
    let properties = &request.properties;
    assert_eq!(properties.reply_to().as_ref().unwrap().as_str(), street.replies);
    let correlation = properties.correlation_id().as_ref().unwrap().to_string();
    assert_eq!(correlation, format!("{saga}/ship#1"));

    for _ in 0..5 {
        street.answer("my own id", Some(&correlation), r#"{"tracking":"T-17"}"#).await;
    }
    street.answer("behind the copies", Some(&correlation), r#"{"tracking":"T-17"}"#).await;
    until(street.world.pool(), "select count(*) = 2 from amends.inbox").await;
    let loaded = street.ended(saga).await;
    assert_eq!(loaded.output(SHIP).unwrap(), Some(Shipped { tracking: "T-17".into() }));
    assert!((1..=2).contains(&replied(&loaded)), "one of the copies, and perhaps the other reply");
    assert_eq!(street.count("select count(*) from notice").await, 1);
    street.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_after_the_end_changes_nothing() {
    let street = Street::open(undoable()).await;
    let courier = street.courier();
    let saga = street.start(17, 2, false).await;
    let before = street.ended(saga).await;
    let handled = street.count("select count(*) from amends.inbox").await;
    street.answer("late", Some(&format!("{saga}/ship#1")), r#"{"tracking":"late"}"#).await;
    tokio::time::timeout(support::PATIENCE, async {
        while street.count("select count(*) from amends.inbox").await == handled {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("the late reply is handled");
    let after = street.sagas.load(saga).await.unwrap();
    assert_eq!((after.journal, after.status), (before.journal, before.status));
    assert!(street.world.is_empty(&format!("{}.dead", street.replies)).await);
    courier.stop().await;
    street.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_delivered_is_kept_with_the_dead_and_blocks_nobody() {
    let street = Street::open(undoable()).await;
    let saga = street.start(17, 2, false).await;
    let request = street.next(&street.parcels.name).await;
    let correlation = request.properties.correlation_id().as_ref().unwrap().to_string();
    let unknown = format!("{}/ship#1", SagaId::new());
    let deep = [vec![b'['; 100], vec![b']'; 100]].concat();
    let bad = [
        ("unknown", Some(unknown.as_str()), "1"),
        ("nobody's", None, "2"),
        ("broken", Some("ship"), "3"),
        ("no attempt", Some(&correlation.replace("#1", "#0")), "4"),
        ("no JSON", Some(&correlation), "{"),
        ("NUL", Some(&correlation), r#""\u0000""#),
        ("surrogate", Some(&correlation), r#""\ud800""#),
        ("number", Some(&correlation), "1e999999"),
        ("deep", Some(&correlation), std::str::from_utf8(&deep).unwrap()),
    ];
    for (id, correlation, payload) in bad {
        street.answer(id, correlation, payload).await;
    }
    let mut headers = FieldTable::default();
    headers.insert(OUTCOME_HEADER.into(), AMQPValue::LongString("rejected".into()));
    headers.insert(CORRELATION_HEADER.into(), AMQPValue::LongString(correlation.as_str().into()));
    let properties = BasicProperties::default().with_message_id("no rejection".into()).with_headers(headers);
    street.send(properties, "17").await;
    street.answer("good", Some(&correlation), r#"{"tracking":"good"}"#).await;

    let loaded = street.ended(saga).await;
    assert_eq!(loaded.output(SHIP).unwrap(), Some(Shipped { tracking: "good".into() }));
    let grave = format!("{}.dead", street.replies);
    let mut dead = Vec::new();
    while dead.len() < bad.len() + 1 {
        dead.push(street.next(&grave).await.properties.message_id().as_ref().unwrap().to_string());
    }
    let mut expected: Vec<_> = bad.iter().map(|(id, ..)| (*id).to_owned()).chain(["no rejection".into()]).collect();
    dead.sort();
    expected.sort();
    assert_eq!(dead, expected);
    street.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_reply_settles_what_the_timeout_left_open() {
    let street = Street::open(pivotal(Duration::from_millis(100))).await;
    let saga = street.start(17, 2, false).await;
    // Nobody answers in time, and there is no way back: it waits for an operator, or for the courier.
    until(street.world.pool(), "select count(*) = 1 from amends.saga where status = 'parked'").await;
    let courier = street.courier();
    let loaded = street.ended(saga).await;
    assert_eq!(loaded.fold().ended, Some(Outcome::Completed));
    assert_eq!(loaded.output(SHIP).unwrap(), Some(Shipped { tracking: "T-17".into() }));
    courier.stop().await;
    street.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saga_that_is_busy_holds_up_its_own_replies_only() {
    let street = Street::open(undoable()).await;
    let (busy, other) = (street.start(1, 2, false).await, street.start(2, 2, false).await);
    let requests = [street.next(&street.parcels.name).await, street.next(&street.parcels.name).await];
    assert!(requests.iter().all(|request| request.properties.reply_to().is_some()));
    // Somebody is about to move the first saga, and takes his time.
    let mut tx = street.world.pool().begin().await.unwrap();
    let insert = "insert into amends.journal (saga_id, seq, writer, nonce, events)
                  select saga_id, max(seq) + 1, $1, 0, '[]' from amends.journal where saga_id = $2 group by saga_id";
    sqlx::query(insert).bind(uuid::Uuid::nil()).bind(busy.0).execute(&mut *tx).await.unwrap();
    street.answer("1", Some(&format!("{busy}/ship#1")), r#"{"tracking":"1"}"#).await;
    street.answer("2", Some(&format!("{other}/ship#1")), r#"{"tracking":"2"}"#).await;
    street.ended(other).await;
    tx.rollback().await.unwrap();
    assert_eq!(street.ended(busy).await.output(SHIP).unwrap(), Some(Shipped { tracking: "1".into() }));
    street.close().await;
}
