//! The demo: runs the shop as separate processes, kills some of them, and audits every ledger.
//!
//! `cargo xtask demo` provides the servers, builds everything and runs it. It makes databases, a queue and an
//! exchange of its own and removes them at the end, also after Ctrl-C; what a killed run left is removed by the next.

mod audit;
mod chaos;
mod child;
mod customers;
mod fleet;
mod ledgers;
mod progress;
mod summary;
mod world;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use shop::service::{self, Failure, with_causes};

use crate::chaos::Chaos;
use crate::customers::Placing;
use crate::fleet::Fleet;
use crate::ledgers::Ledgers;
use crate::progress::Progress;
use crate::world::World;

/// Places orders at a small shop, kills some of its processes, and audits the ledgers.
#[derive(Debug, Parser)]
struct Args {
    /// How many orders to place.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    orders: u32,
    /// Chooses the orders and the troubles of the payment service.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Kill nobody.
    #[arg(long)]
    no_chaos: bool,
    /// Leave the databases and say how to look at them.
    #[arg(long)]
    keep: bool,
    /// A `PostgreSQL` on which databases may be created; `cargo xtask demo` provides one.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: String,
    /// A `RabbitMQ`; `cargo xtask demo` provides one.
    #[arg(long, env = "AMQP_URL", hide_env_values = true)]
    amqp_url: String,
}

/// What a shell reports for a process that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    match demo(&args).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", with_causes(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn demo(args: &Args) -> Result<ExitCode, Failure> {
    let interrupted = service::shutdown_on_signal()?;
    let started = Instant::now();
    let world = World::create(&args.database_url, &args.amqp_url).await?;
    let mut fleet = Fleet::new(&world, args.seed)?;
    let ran = interrupted.run_until_cancelled(run(args, &world, &mut fleet, started)).await;
    match ran {
        Some(_) => fleet.stop().await,
        None => fleet.kill().await,
    }
    let is_kept = args.keep && ran.is_some();
    let logs = world.logs().display().to_string();
    if is_kept {
        world.keep().await?;
    } else {
        world.remove().await?;
    }
    match ran {
        None => {
            eprintln!("interrupted; everything is removed");
            Ok(ExitCode::from(INTERRUPTED))
        }
        Some(Ok(true)) => Ok(ExitCode::SUCCESS),
        Some(Ok(false)) => {
            eprintln!("logs: {logs}");
            Ok(ExitCode::FAILURE)
        }
        Some(Err(error)) => {
            eprintln!("logs: {logs}");
            Err(error)
        }
    }
}

/// The whole show; tells whether every invariant holds.
async fn run(args: &Args, world: &World, fleet: &mut Fleet, started: Instant) -> Result<bool, Failure> {
    fleet.start().await?;
    customers::endow(world).await?;

    let progress = Progress::new(args.orders, std::io::stderr().is_terminal());
    let placing = Placing::new(args.orders, args.seed, fleet.order_urls());
    let chaos = async {
        if args.no_chaos { Ok(Chaos::default()) } else { chaos::run(world, fleet, &placing, &progress).await }
    };
    let (placed, chaos, ()) = tokio::try_join!(placing.run(), chaos, progress.follow(world, &placing))?;
    fleet.check()?;

    let duplicates = fleet.duplicates().await?;
    let ledgers = Ledgers::read(world).await?;
    let recovery = chaos.recovery(world).await?;
    let mut findings = audit::audit(&placed, &ledgers);
    findings.push(chaos::audit(&recovery));
    summary::print(&ledgers, &findings, duplicates, &recovery);
    println!("  seed {}, {:.1} s in all", args.seed, started.elapsed().as_secs_f64());
    Ok(findings.iter().all(audit::Finding::holds))
}
