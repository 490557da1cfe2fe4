//! Trouble that others would notice: each of these tests has a broker of its own.

mod alarm;
mod consumer;
mod credentials;
mod health;
mod outage;
mod tls;
mod verdicts;

use amends_relay::{QueueKind, QueueTopology, RelayOptions};
use tokio::task::JoinHandle;

use crate::support::private_broker::PrivateBroker;
use crate::support::{Running, World, assert_order_per_key_from, publish, until};

/// A world on a broker of its own, in which five keys write all the time to a queue.
struct Scene {
    broker: PrivateBroker,
    world: World,
    queue: QueueTopology,
}

const KEYS: usize = 5;

impl Scene {
    async fn set(kind: QueueKind) -> Self {
        let broker = PrivateBroker::start_new();
        let mut world = World::create_on(&broker.url()).await;
        let queue = QueueTopology { kind, ..world.queue("all", &["#"]) };
        Self { broker, world, queue }
    }

    /// The relay parks what it was refused twice, and waits for confirms for two seconds at most.
    fn relay(&self) -> Running {
        let options = RelayOptions {
            most_attempts: 2,
            confirm_deadline: std::time::Duration::from_secs(2),
            ..self.world.options(vec![self.queue.clone()])
        };
        self.world.relay(options)
    }

    /// Writes so many messages of each key.
    fn write(&self, counters: std::ops::RangeInclusive<i64>) -> Writing {
        let write = |key| {
            let (pool, counters) = (self.world.pool().clone(), counters.clone());
            tokio::spawn(async move { publish(&pool, "thing.happened", &format!("k{key}"), counters).await })
        };
        Writing((0..KEYS).map(write).collect())
    }

    /// Nothing is lost, each key is in order, and no message was blamed for the trouble.
    async fn assert_all_came(&mut self, last: i64) {
        self.assert_all_came_from(1, last).await;
    }

    /// As [`assert_all_came`](Self::assert_all_came), where those before `first` have been taken.
    async fn assert_all_came_from(&mut self, first: i64, last: i64) {
        self.world.reconnect(&self.broker.url()).await;
        let got = self.world.drain(&self.queue, KEYS * (last - first + 1) as usize).await;
        assert_order_per_key_from(first, &got);
        until(self.world.pool(), "select not exists (select from amends.held_message)").await;
    }
}

/// Five writers.
struct Writing(Vec<JoinHandle<()>>);

impl Writing {
    async fn done(self) {
        for writer in self.0 {
            writer.await.unwrap();
        }
    }
}
