//! The end of a consumer: asked for, or not; and who goes on in its place.

use std::sync::Arc;
use std::time::Duration;

use amends_relay::{Consumer, Handler, HandlerError, Incoming, QueueTopology};
use async_trait::async_trait;
use sqlx::{PgConnection, PgPool};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::support::{World, until};
use crate::{Calls, Consuming, Sent, consumer, ledger, ready, world, write};

/// Says that it is at work, and does it when it may.
#[derive(Clone)]
struct Gated {
    calls: Calls,
    at_work: Arc<Semaphore>,
    may: Arc<Semaphore>,
}

impl Gated {
    fn new() -> Self {
        Self { calls: Calls::default(), at_work: Arc::new(Semaphore::new(0)), may: Arc::new(Semaphore::new(0)) }
    }

    async fn until_at_work(&self) {
        self.at_work.acquire().await.unwrap().forget();
    }
}

#[async_trait]
impl Handler for Gated {
    async fn handle(&self, tx: &mut PgConnection, message: &Incoming) -> Result<(), HandlerError> {
        self.calls.next();
        self.at_work.add_permits(1);
        self.may.acquire().await.unwrap().forget();
        write(tx, message).await
    }
}

async fn send_twenty(world: &World) -> Vec<String> {
    let texts: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    for text in &texts {
        Sent::text(text).to(world).await;
    }
    texts
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_under_way_at_the_end_is_finished_and_the_rest_is_given_back() {
    let mut world = world().await;
    let queue = world.queue("ledger", &["#"]);
    let gated = Gated::new();
    let first = Consuming::start(consumer(&world, &queue).handler(gated.clone()));
    world.until_consumed(&queue.name).await;
    let texts = send_twenty(&world).await;
    gated.until_at_work().await;

    first.shutdown.cancel();
    gated.may.add_permits(1);
    first.stop().await;

    assert_eq!(ledger(&world).await, ["0"]);
    assert_eq!((gated.calls.count(), ready(&world, &queue.name).await), (1, 19));
    gated.may.add_permits(19);
    let second = Consuming::start(consumer(&world, &queue).handler(gated.clone()));
    until(world.pool(), "select count(*) = 20 from ledger").await;
    second.stop().await;
    assert_eq!(ledger(&world).await, texts);
    assert_eq!((gated.calls.count(), ready(&world, &queue.name).await), (20, 0), "nothing is begun twice");
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_does_not_wait_for_ever_and_what_comes_again_takes_effect_once() {
    let mut world = world().await;
    let queue = world.queue("ledger", &["#"]);
    let gated = Gated::new();
    let limit = Duration::from_millis(200);
    let first = Consuming::start(consumer(&world, &queue).drain(limit).handler(gated.clone()));
    world.until_consumed(&queue.name).await;
    Sent::text("slow").to(&world).await;
    gated.until_at_work().await;

    let asked = Instant::now();
    first.stop().await;
    assert!(asked.elapsed() >= limit, "it waits for what is under way");

    // Its transaction is still open: the copy waits for it, and then is one.
    let second = Consuming::start(consumer(&world, &queue).handler(gated.clone()));
    world.until_consumed(&queue.name).await;
    gated.may.add_permits(2);
    Sent::text("next").to(&world).await;
    until(world.pool(), "select count(*) = 2 from ledger").await;
    second.stop().await;
    assert_eq!((ledger(&world).await, gated.calls.count()), (vec!["slow".to_owned(), "next".to_owned()], 2));
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_hangs_in_a_message_does_not_keep_it_from_others_for_ever() {
    let mut world = world().await;
    let queue = world.queue("ledger", &["#"]);
    let gated = Gated::new();
    let hanging = consumer(&world, &queue).idle(Duration::from_millis(300)).drain(Duration::from_millis(1));
    let first = Consuming::start(hanging.handler(gated.clone()));
    world.until_consumed(&queue.name).await;
    Sent::text("stuck").to(&world).await;
    gated.until_at_work().await;
    first.stop().await;

    let second = Consuming::start(consumer(&world, &queue).handler(Named("second")));
    until(world.pool(), "select count(*) = 1 from ledger").await;

    gated.may.add_permits(1);
    Sent::text("next").to(&world).await;
    until(world.pool(), "select count(*) = 2 from ledger").await;
    second.stop().await;
    assert_eq!(ledger(&world).await, ["stuck", "next"]);
    world.clean_up().await;
}

/// Writes who it is, too.
struct Named(&'static str);

#[async_trait]
impl Handler for Named {
    async fn handle(&self, tx: &mut PgConnection, message: &Incoming) -> Result<(), HandlerError> {
        let text = String::from_utf8_lossy(&message.payload).into_owned();
        let insert = sqlx::query("insert into ledger (key, text) values ($1, $2)");
        insert.bind(self.0).bind(text).execute(tx).await?;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_consumers_of_a_single_active_queue_the_second_goes_on_in_order_when_the_first_dies() {
    let mut world = world().await;
    let queue = QueueTopology { single_active_consumer: true, ..world.queue("ledger", &["#"]) };
    // It ends as a process does: with everything in it, between two of its moments.
    let process = tokio::runtime::Runtime::new().unwrap();
    process.spawn({
        let (url, queue) = (world.database.url().to_owned(), queue.clone());
        async move {
            let pool = PgPool::connect(&url).await.unwrap();
            let consumer = Consumer::builder(pool, World::url()).name("ledger").queue(queue).handler(Named("first"));
            consumer.build().unwrap().run(CancellationToken::new()).await;
        }
    });
    world.until_consumed(&queue.name).await;
    let second = Consuming::start(consumer(&world, &queue).handler(Named("second")));
    let count = 300;
    for number in 0..count {
        Sent::text(&number.to_string()).to(&world).await;
        if number == count / 2 {
            until(world.pool(), "select count(*) >= 20 from ledger").await;
        }
    }
    process.shutdown_background();
    until(world.pool(), "select count(*) >= 300 from ledger").await;

    second.stop().await;
    assert_eq!(ledger(&world).await, (0..count).map(|number| number.to_string()).collect::<Vec<_>>());
    let hands: Vec<String> =
        sqlx::query_scalar("select key from ledger order by position").fetch_all(world.pool()).await.unwrap();
    let changes = hands.windows(2).filter(|two| two[0] != two[1]).count();
    assert!(changes <= 1 && hands[0] == "first", "one is active at a time: {hands:?}");
    world.clean_up().await;
}
