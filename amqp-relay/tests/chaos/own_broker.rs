//! Sixteen writers, three relays as processes of their own, fifty keys.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use amends_postgres::operator;
use amends_relay::{Consumer, HandlerError, Incoming, QueueTopology, Topology};
use metrics_exporter_prometheus::PrometheusBuilder;
use sqlx::{Executor, PgConnection, PgPool};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::support::World;
use crate::support::private_broker::PrivateBroker;

const KEYS: i32 = 50;
const WRITERS: i64 = 16;
const RELAYS: usize = 3;
/// After this long a relay is killed although nothing has come since the last was.
const STANDSTILL: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn every_event_takes_effect_once_and_in_the_order_of_its_key_while_relays_and_broker_are_killed() {
    let metrics = PrometheusBuilder::new().install_recorder().unwrap();
    let events: i64 = std::env::var("AMENDS_CHAOS_EVENTS").map_or(5_000, |events| events.parse().unwrap());
    let mut broker = PrivateBroker::start_new();
    let world = World::create_on(&broker.url()).await;
    let pool = world.pool();
    pool.execute(
        "create table aggregate (key int primary key, count bigint not null);
         create table arrived (n bigserial, key text, count bigint, primary key (key, count));",
    )
    .await
    .unwrap();
    sqlx::query("insert into aggregate select i, 0 from generate_series(1, $1) i")
        .bind(KEYS)
        .execute(pool)
        .await
        .unwrap();
    operator::set_lanes(pool, RELAYS as i32).await.unwrap();
    let queue = QueueTopology::new(format!("{}-all", world.name), &world.name, ["#"]);
    Topology { queues: vec![queue.clone()], ..Topology::default() }.ensure(&world.broker).await.unwrap();
    let shutdown = CancellationToken::new();
    let consuming = consume(&world, &queue, &shutdown);
    let mut relays: Vec<Relay> = (0..RELAYS).map(|_| Relay::start(&world, &broker)).collect();
    let writing = write(pool, events);

    let deadline = Instant::now() + Duration::from_secs(90) + Duration::from_millis(10) * events as u32;
    let (mut killed, mut restarts) = (0, 0);
    let mut last_kill = (Instant::now(), 0);
    loop {
        let count = arrived(pool).await;
        if count >= events {
            break;
        }
        assert!(Instant::now() < deadline, "{count} of {events} events arrived; {killed} relays were killed");
        if restarts < 3 && count >= events / 4 * (restarts + 1) {
            restarts += 1;
            // In order the second time.
            if restarts == 2 {
                broker.stop();
            } else {
                broker.kill();
            }
            broker.start();
        }
        sleep(Duration::from_millis(fastrand::u64(200..1000))).await;
        // Where the machine is so slow that each would die before it had published anything, nothing would ever arrive.
        if count > last_kill.1 || last_kill.0.elapsed() > STANDSTILL {
            relays[fastrand::usize(..RELAYS)] = Relay::start(&world, &broker);
            last_kill = (Instant::now(), count);
            killed += 1;
        }
    }
    for writer in writing {
        writer.await.unwrap();
    }

    let out_of_order: Vec<(String, i64)> = sqlx::query_as(
        "select key, count from (select key, count, row_number() over (partition by key order by n) as place from arrived) a
         where count <> place",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    assert_eq!(out_of_order, [], "each key from 1 on, in order");
    assert_eq!(arrived(pool).await, events);
    assert_eq!(restarts, 3);
    let (epochs, held): (i64, i64) = sqlx::query_as(
        "select (select sum(epoch)::bigint from amends.cursor), (select count(*) from amends.held_message)",
    )
    .fetch_one(pool)
    .await
    .unwrap();
    let copies = copies(&metrics.render());
    println!("{events} events; {killed} relays were killed, lanes changed hands {epochs} times, {copies} copies came");
    assert!(held == 0 && epochs > RELAYS as i64 && copies > 0);
    shutdown.cancel();
    consuming.await.unwrap();
}

/// A relay in a process of its own, killed when it is dropped.
struct Relay(Child);

impl Relay {
    fn start(world: &World, broker: &PrivateBroker) -> Self {
        let arguments = ["run", "--exchange", &world.name, "--lease-seconds", "1", "--listen", "127.0.0.1:0"];
        let child = Command::new(env!("CARGO_BIN_EXE_amends-relay"))
            .args(arguments)
            .env("DATABASE_URL", world.database.url())
            .env("AMQP_URL", broker.url())
            // It is no setting of a relay.
            .env_remove("AMENDS_CHAOS_EVENTS")
            .stderr(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        assert!(self.0.try_wait().unwrap().is_none() || std::thread::panicking(), "a relay has ended by itself");
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Each event in a transaction that has locked its aggregate.
fn write(pool: &PgPool, events: i64) -> Vec<JoinHandle<()>> {
    let writer = |writer: i64| {
        let (pool, own) = (pool.clone(), events / WRITERS + i64::from(writer < events % WRITERS));
        tokio::spawn(async move {
            for _ in 0..own {
                let mut tx = pool.begin().await.unwrap();
                let (key, count): (i32, i64) =
                    sqlx::query_as("update aggregate set count = count + 1 where key = $1 returning key, count")
                        .bind(fastrand::i32(1..=KEYS))
                        .fetch_one(&mut *tx)
                        .await
                        .unwrap();
                sqlx::query("insert into amends.outbox (id, key, topic, name, payload) values ($1, $2, 'counted', 'counted', $3)")
                    .bind(uuid::Uuid::now_v7())
                    .bind(key.to_string())
                    .bind(count.to_string().into_bytes())
                    .execute(&mut *tx)
                    .await
                    .unwrap();
                tx.commit().await.unwrap();
            }
        })
    };
    (0..WRITERS).map(writer).collect()
}

/// Writes down what arrives, in its order; a copy would violate the primary key.
async fn write_down(tx: &mut PgConnection, messages: &[Incoming]) -> Result<(), HandlerError> {
    let keys: Vec<&str> = messages.iter().map(|message| message.key.as_deref().unwrap()).collect();
    let counts: Vec<i64> =
        messages.iter().map(|message| std::str::from_utf8(&message.payload).unwrap().parse().unwrap()).collect();
    sqlx::query(
        "insert into arrived (key, count)
         select key, count from unnest($1::text[], $2::bigint[]) with ordinality as a(key, count, n) order by a.n",
    )
    .bind(keys)
    .bind(counts)
    .execute(tx)
    .await?;
    Ok(())
}

fn consume(world: &World, queue: &QueueTopology, shutdown: &CancellationToken) -> JoinHandle<()> {
    let consumer = Consumer::builder(world.pool().clone(), world.broker.clone())
        .name("book")
        .queue(queue.clone())
        .batch(100, Duration::from_millis(5), write_down)
        .build()
        .unwrap();
    let shutdown = shutdown.clone();
    tokio::spawn(async move { consumer.run(shutdown).await })
}

async fn arrived(pool: &PgPool) -> i64 {
    sqlx::query_scalar("select count(*) from arrived").fetch_one(pool).await.unwrap()
}

/// How many messages the consumer has had before.
fn copies(metrics: &str) -> u64 {
    let counted = |line: &str| line.starts_with(amends_relay::telemetry::HANDLED) && line.contains("\"duplicate\"");
    metrics.lines().find(|line| counted(line)).map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}
