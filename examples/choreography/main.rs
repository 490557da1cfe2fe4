//! A choreography: four services with a database each, that only publish and hear events. Nobody directs them.
//!
//! ```text
//! order ──placed──▶ payment ──taken──▶ inventory ──reserved──▶ shipping ──shipped──▶ order
//!   ▲ ▲─────refused────┤ ▲──────out───────┤ ▲────undeliverable────┘
//!   └──────refunded────┘ └────released────┘
//! ```
//!
//! The upper line is the way there, the lower ones are the ways back. Each service takes its step, and publishes what it did, in one
//! transaction; each event takes effect once. So no order ends halfway, whatever crashes.
//!
//! `cargo run -p amends-examples --example choreography -- --orders 50`, with `DATABASE_URL` and `AMQP_URL` as of
//! `eval "$(cargo xtask services up)"`. With `--asyncapi` it prints the interfaces of the services.

mod audit;
mod events;
mod inventory;
mod order;
mod payment;
mod service;
mod shipping;
#[cfg(test)]
mod tests;
mod world;

use std::process::ExitCode;

use amends::asyncapi::Document;
use clap::Parser;
use shop::service::Failure;
use tracing_subscriber::EnvFilter;

use crate::inventory::Inventory;
use crate::order::Orders;
use crate::payment::Payments;
use crate::service::Service;
use crate::shipping::Shipping;
use crate::world::World;

#[derive(Debug, Parser)]
struct Args {
    /// How many orders are placed.
    #[arg(long, default_value_t = 50)]
    orders: i64,
    /// Print the `AsyncAPI` documents of the services, and do nothing else.
    #[arg(long)]
    asyncapi: bool,
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, default_value = "postgres://localhost/postgres")]
    database_url: String,
    #[arg(long, env = "AMQP_URL", hide_env_values = true, default_value = "amqp://guest:guest@localhost:5672/%2f")]
    amqp_url: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    if args.asyncapi {
        println!(
            "[{},\n{},\n{},\n{}]",
            describe::<Orders>(),
            describe::<Payments>(),
            describe::<Inventory>(),
            describe::<Shipping>()
        );
        return ExitCode::SUCCESS;
    }
    // What the clients of the broker say while it is left is no news.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn,lapin=off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match choreograph(&args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", shop::service::with_causes(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn choreograph(args: &Args) -> Result<(), Failure> {
    let world = World::create(&args.database_url, &args.amqp_url).await?;
    let outcome = tokio::select! {
        outcome = world.run(args.orders) => outcome,
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
    };
    world.remove().await?;
    let outcome = outcome?;
    println!("{} orders: {outcome}", args.orders);
    if outcome.broken.is_empty() { Ok(()) } else { Err("the audit found something broken".into()) }
}

fn describe<S: Service>() -> Document {
    S::describe(Document::new(S::NAME, "1.0.0"))
}
