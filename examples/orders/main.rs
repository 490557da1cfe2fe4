//! The order service: takes orders over HTTP and, in the same process, runs the sagas that carry them out.
//!
//! Any number of instances may run on one database; each takes orders, and each works on whichever sagas it claims.

#[cfg(test)]
mod explored;
mod http;
mod payments;
mod saga;

use std::net::SocketAddr;
use std::process::ExitCode;

use amends::Sagas;
use amends_postgres::PgStore;
use clap::Parser;
use shop::service::{self, Failure};

use crate::payments::Payments;
use crate::saga::PlaceOrder;

/// Takes orders and carries them out.
#[derive(Debug, Parser)]
struct Args {
    /// Where to serve HTTP.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Its own database, with the schema of amends (`amends-relay migrate`).
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database: String,
    /// Where the payment service is.
    #[arg(long, default_value = "http://127.0.0.1:8081")]
    payments: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    service::run(orders(Args::parse())).await
}

async fn orders(args: Args) -> Result<(), Failure> {
    let shutdown = service::shutdown_on_signal()?;
    let pool = service::database(&args.database, 16, include_str!("schema.sql")).await?;
    let store = PgStore::connect(pool.clone()).await?;
    let sagas = Sagas::builder(store).register(PlaceOrder { payments: Payments::new(&args.payments) }).build()?;

    let routes = http::routes(http::Service { pool, sagas: sagas.clone() });
    // Whichever ends first, by request or by failure, ends the other.
    let _guard = shutdown.clone().drop_guard();
    let worker = async { sagas.run(shutdown.clone()).await.map_err(Failure::from) };
    tokio::try_join!(service::serve(args.listen, routes, shutdown.clone()), worker)?;
    Ok(())
}
