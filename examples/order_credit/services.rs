//! Both services in one process, each with a database and a relay of its own.

use amends::Sagas;
use amends_postgres::PgStore;
use amends_postgres::testing::TestDatabase;
use amends_relay::{Broker, Consumer, QueueTopology, Relay, RelayOptions, ReplyQueue, Topology};
use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use lapin::{Connection, ConnectionProperties};
use sqlx::{Executor, PgPool};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::{CreateOrder, Customers};

pub(crate) type AnyResult<T> = Result<T, Box<dyn std::error::Error>>;

pub(crate) struct Services {
    pub(crate) sagas: Sagas<PgStore>,
    exchange: String,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    _databases: [TestDatabase; 2],
}

impl Services {
    pub(crate) async fn start() -> AnyResult<Self> {
        let (orders, customers) = (TestDatabase::create().await, TestDatabase::create().await);
        orders.pool().execute("create table orders (id bigint primary key, state text not null)").await?;
        customers.pool().execute("create table customer (name text primary key, credit bigint not null)").await?;
        customers.pool().execute("insert into customer values ('Ann', 10000)").await?;
        let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());
        let url = std::env::var("AMQP_URL")?.parse::<Broker>()?;
        let exchange = format!("example-credit-{}", uuid::Uuid::new_v4().simple());
        let commands = QueueTopology::new(format!("{exchange}.customers"), &exchange, ["credit.*"]);

        // The relay of whoever asks takes the replies home.
        let replies = ReplyQueue { name: format!("{exchange}.replies"), ..ReplyQueue::default() };
        for (pool, replies) in [(orders.pool(), Some(replies)), (customers.pool(), None)] {
            let relay = relay(pool, &url, &commands, replies);
            let shutdown = shutdown.clone();
            tasks.spawn(async move { relay.run(shutdown).await });
        }
        let consumer = Consumer::builder(customers.pool().clone(), url).name("customers").queue(commands);
        let consumer = consumer.handler(Customers).build()?;
        let sagas = Sagas::builder(PgStore::connect(orders.pool().clone()).await?).register(CreateOrder).build()?;
        let (stop, worker) = (shutdown.clone(), sagas.clone());
        tasks.spawn(async move { consumer.run(stop).await });
        let stop = shutdown.clone();
        tasks.spawn(async move { worker.run(stop).await });
        Ok(Self { sagas, exchange, tasks, shutdown, _databases: [orders, customers] })
    }

    /// Leaves nothing behind on the broker; the databases go by themselves.
    pub(crate) async fn stop(self) -> AnyResult<()> {
        self.shutdown.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        let connection = Connection::connect(&std::env::var("AMQP_URL")?, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        for queue in ["customers", "customers.dead", "replies", "replies.dead"] {
            channel.queue_delete(format!("{}.{queue}", self.exchange).into(), QueueDeleteOptions::default()).await?;
        }
        for exchange in ["", ".customers.dead", ".replies.dead"] {
            let exchange = format!("{}{exchange}", self.exchange);
            channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default()).await?;
        }
        Ok(())
    }
}

fn relay(pool: &PgPool, url: &Broker, commands: &QueueTopology, replies: Option<ReplyQueue>) -> Relay {
    let exchange = commands.exchange.clone();
    let topology =
        Topology { exchanges: vec![exchange.as_str().into()], queues: vec![commands.clone()], ..Topology::default() };
    Relay::new(pool.clone(), url.clone(), RelayOptions { exchange, topology, replies, ..RelayOptions::default() })
}
