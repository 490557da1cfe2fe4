//! What a run makes on the servers and removes: four databases, an exchange and four queues.

use std::time::Duration;

use amends_relay::Broker;
use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use lapin::{Connection, ConnectionProperties};
use shop::service::Failure;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, PgPool};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::audit::{Outcome, audit};
use crate::events::OrderPlaced;
use crate::inventory::Inventory;
use crate::order::{self, Orders};
use crate::payment::Payments;
use crate::service::{Running, Service, queue_name};
use crate::shipping::Shipping;

const SERVICES: [&str; 4] = [Orders::NAME, Payments::NAME, Inventory::NAME, Shipping::NAME];
const PATIENCE: Duration = Duration::from_mins(2);

pub(crate) struct World {
    /// Of the exchange, and the beginning of all other names.
    name: String,
    server: PgConnectOptions,
    amqp_url: String,
}

impl World {
    pub(crate) async fn create(database_url: &str, amqp_url: &str) -> Result<Self, Failure> {
        // The parser's own words may quote the password.
        let server: PgConnectOptions = database_url.parse().map_err(|_| "DATABASE_URL is not a PostgreSQL URL")?;
        let server = server.disable_statement_logging();
        let name = format!("amends_choreography_{:08x}", fastrand::u32(..));
        let world = Self { name, server, amqp_url: amqp_url.to_owned() };
        let mut admin = world.server.connect().await?;
        for service in SERVICES {
            admin.execute(AssertSqlSafe(format!("create database {}_{service}", world.name))).await?;
        }
        Ok(world)
    }

    /// Runs the services until every order has come to an end, and looks at what they did.
    pub(crate) async fn run(&self, orders: i64) -> Result<Outcome, Failure> {
        let (amqp, shutdown): (Broker, _) = (self.amqp_url.parse()?, CancellationToken::new());
        // Whoever drops this run, as Ctrl-C does, also stops the services.
        let _stop = shutdown.clone().drop_guard();
        let order = Running::start::<Orders>(self.pool(Orders::NAME), &amqp, &self.name, &shutdown).await?;
        let payment = Running::start::<Payments>(self.pool(Payments::NAME), &amqp, &self.name, &shutdown).await?;
        let inventory = Running::start::<Inventory>(self.pool(Inventory::NAME), &amqp, &self.name, &shutdown).await?;
        let shipping = Running::start::<Shipping>(self.pool(Shipping::NAME), &amqp, &self.name, &shutdown).await?;
        let deadline = Instant::now() + PATIENCE;
        while ![&order, &payment, &inventory, &shipping].iter().all(|service| service.is_ready()) {
            wait(deadline, "the services to be ready; is there a broker at AMQP_URL?").await?;
        }
        for number in 1..=orders {
            let mut tx = order.pool.begin().await?;
            order::place(&mut tx, &nth_order(number)).await?;
            tx.commit().await?;
        }
        let open = "select exists (select from orders where status = 'placed')";
        while sqlx::query_scalar(open).fetch_one(&order.pool).await? {
            wait(deadline, "the orders to come to an end").await?;
        }
        shutdown.cancel();
        let (order, payment) = (order.stopped().await, payment.stopped().await);
        audit(&order, &payment, &inventory.stopped().await, &shipping.stopped().await).await
    }

    fn pool(&self, service: &str) -> PgPool {
        let options = self.server.clone().database(&format!("{}_{service}", self.name));
        PgPoolOptions::new().max_connections(8).connect_lazy_with(options)
    }

    pub(crate) async fn remove(self) -> Result<(), Failure> {
        let mut admin = self.server.connect().await?;
        for service in SERVICES {
            let drop = format!("drop database if exists {}_{service} with (force)", self.name);
            admin.execute(AssertSqlSafe(drop)).await?;
        }
        let broker = Connection::connect(&self.amqp_url, ConnectionProperties::default()).await?;
        let channel = broker.create_channel().await?;
        for service in SERVICES {
            let queue = queue_name(&self.name, service);
            let dead = format!("{queue}.dead");
            for queue in [&queue, &dead] {
                channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await?;
            }
            channel.exchange_delete(dead.into(), ExchangeDeleteOptions::default()).await?;
        }
        channel.exchange_delete(self.name.as_str().into(), ExchangeDeleteOptions::default()).await?;
        Ok(broker.close(200, "done".into()).await?)
    }
}

/// Most are fine; some customers are poor, lamps run out, and nothing is sent to Atlantis.
fn nth_order(number: i64) -> OrderPlaced {
    OrderPlaced {
        order: number,
        customer: if number % 7 == 0 {
            "poor"
        } else if number % 2 == 0 {
            "ada"
        } else {
            "bob"
        }
        .into(),
        cents: 500 + number,
        sku: if number % 3 == 0 { "lamp" } else { "mug" }.into(),
        qty: 1,
        to: if number % 5 == 0 { "Atlantis" } else { "Oslo" }.into(),
    }
}

async fn wait(deadline: Instant, what: &str) -> Result<(), Failure> {
    if Instant::now() > deadline {
        return Err(format!("waited in vain for {what}").into());
    }
    sleep(Duration::from_millis(20)).await;
    Ok(())
}
