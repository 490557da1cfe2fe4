//! The payment service: charges a card once per idempotency key, with a database of its own.

mod http;
mod ledger;
mod trouble;

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser;
use shop::service::{self, Failure};

use crate::trouble::Troubles;

/// Charges cards, once per idempotency key.
#[derive(Debug, Parser)]
struct Args {
    /// Where to serve HTTP.
    #[arg(long, default_value = "127.0.0.1:8081")]
    listen: SocketAddr,
    /// Its own database.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database: String,
    /// How many requests in a hundred meet with trouble.
    #[arg(long, default_value_t = 10)]
    trouble: u8,
    /// Chooses which.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    service::run(payments(Args::parse())).await
}

async fn payments(args: Args) -> Result<(), Failure> {
    let shutdown = service::shutdown_on_signal()?;
    let pool = service::database(&args.database, 8, include_str!("schema.sql")).await?;
    service::serve(args.listen, http::routes(pool, Troubles::new(args.seed, args.trouble)), shutdown).await
}
