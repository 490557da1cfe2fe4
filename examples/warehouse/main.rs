//! The warehouse: hears every event of the shop from `RabbitMQ`, each once, with a database of its own.

mod ledger;

use std::net::SocketAddr;
use std::process::ExitCode;

use amends_relay::{Broker, Consumer, QueueTopology};
use axum::Router;
use axum::routing::get;
use clap::Parser;
use metrics_exporter_prometheus::PrometheusBuilder;
use shop::service::{self, Failure};

/// Keeps a ledger of the events of the shop.
#[derive(Debug, Parser)]
struct Args {
    /// Where to serve `/health` and `/metrics`.
    #[arg(long, default_value = "127.0.0.1:8082")]
    listen: SocketAddr,
    /// Its own database, with the schema of amends for the inbox (`amends-relay migrate`).
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database: String,
    /// Where `RabbitMQ` is.
    #[arg(long, env = "AMQP_URL", hide_env_values = true)]
    amqp: Broker,
    /// The exchange to which the relay publishes.
    #[arg(long, default_value = "amends")]
    exchange: String,
    /// Its own queue there.
    #[arg(long, default_value = "warehouse")]
    queue: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    service::run(warehouse(Args::parse())).await
}

async fn warehouse(args: Args) -> Result<(), Failure> {
    let shutdown = service::shutdown_on_signal()?;
    let metrics = PrometheusBuilder::new().install_recorder()?;
    let pool = service::database(&args.database, 4, include_str!("schema.sql")).await?;
    amends_postgres::schema::check(&pool).await?;

    let queue = QueueTopology {
        dead_letter_exchange: Some(format!("{}.dead", args.exchange)),
        ..QueueTopology::new(args.queue, args.exchange, ["order.*", "stock.*"])
    };
    let consumer = Consumer::builder(pool, args.amqp)
        .name("warehouse")
        .queue(queue)
        .on(ledger::placed)
        .on(ledger::shipped)
        .on(ledger::completed)
        .on(ledger::refused)
        .on(ledger::reserved)
        .on(ledger::released)
        .build()?;

    let routes = Router::new().route("/metrics", get(move || async move { metrics.render() }));
    let _guard = shutdown.clone().drop_guard();
    let consuming = async {
        consumer.run(shutdown.clone()).await;
        Ok(())
    };
    tokio::try_join!(service::serve(args.listen, routes, shutdown.clone()), consuming)?;
    Ok(())
}
