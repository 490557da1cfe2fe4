//! The benchmark: ratios within one run, against what the servers can do at all.
//!
//! `cargo xtask bench --quick` prints a table and writes `target/bench/quick.json`, one flat object of numbers.

mod backlog;
mod broker;
mod flow;
mod latency;
mod sagas;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use amends_relay::QueueKind;
use clap::Parser;
use flow::Meanwhile;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, PgPool};

/// What a benchmark can fail with; it only reports.
pub(crate) type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Measures sagas and relay against raw SQL and raw AMQP.
#[derive(Debug, Parser)]
struct Options {
    /// Small numbers, about eight minutes.
    #[arg(long)]
    quick: bool,
    /// Instead of all else, how a backlog of so many messages drains.
    #[arg(long)]
    backlog: Option<i64>,
    /// Only these parts; the file then has only their results.
    #[arg(value_enum)]
    parts: Vec<Part>,
    /// Where the results go.
    #[arg(long, default_value = "target/bench")]
    output: PathBuf,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Sagas a second, against a commit a step.
    Sagas,
    /// The relay against a raw client, on a classic queue.
    Classic,
    /// The same on a quorum queue.
    Quorum,
    /// A minute under an old snapshot, and behind a transaction that has written.
    Flow,
    /// From a commit to the consumer.
    Latency,
}

#[tokio::main]
async fn main() -> Result<(), Fault> {
    let options = Options::parse();
    let scale = if options.quick { 1 } else { 10 };
    let database = Database::create().await?;
    let measured = match options.backlog {
        Some(messages) => backlog(&database.pool, messages).await,
        None => measure(&database.pool, scale, &options.parts).await,
    };
    database.drop().await?;
    let results = measured?;
    print_table(&results);
    std::fs::create_dir_all(&options.output)?;
    let name = match (options.backlog, options.quick) {
        (Some(_), _) => "backlog.json",
        (None, true) => "quick.json",
        (None, false) => "full.json",
    };
    let file = options.output.join(name);
    std::fs::write(&file, serde_json::to_string_pretty(&results)?)?;
    println!("\nwritten to {}", file.display());
    Ok(())
}

type Results = BTreeMap<String, f64>;

fn amqp_url() -> Result<String, Fault> {
    Ok(std::env::var("AMQP_URL").map_err(|_| "AMQP_URL must name a broker; run `cargo xtask bench`")?)
}

async fn backlog(pool: &PgPool, messages: i64) -> Result<Results, Fault> {
    let mut results = Results::new();
    backlog::measure(pool, &amqp_url()?, messages, &mut results).await?;
    Ok(results)
}

async fn measure(pool: &PgPool, scale: usize, wanted: &[Part]) -> Result<Results, Fault> {
    let (mut results, url) = (Results::new(), amqp_url()?);
    let wants = |part| wanted.is_empty() || wanted.contains(&part);
    if wants(Part::Sagas) {
        sagas(pool, scale, &mut results).await?;
    }
    // A classic queue that grows much longer begins to page, whoever publishes, and then takes a third as many.
    if wants(Part::Classic) {
        relay(&broker::Bench::new(pool, &url, QueueKind::Classic, 30_000 * scale)?, "", &mut results).await?;
    }
    if wants(Part::Quorum) {
        relay(&broker::Bench::new(pool, &url, QueueKind::Quorum, 90_000 * scale)?, "_quorum", &mut results).await?;
    }
    if wants(Part::Flow) {
        flow(pool, &url, &mut results).await?;
    }
    if wants(Part::Latency) {
        latency(pool, &url, &mut results).await?;
    }
    Ok(results)
}

async fn sagas(pool: &PgPool, scale: usize, results: &mut Results) -> Result<(), Fault> {
    eprintln!("sagas: 1 024 in flight, three call steps each …");
    let sagas = best_of(3, || sagas::orchestrated(pool, 1024, 30_720 * scale)).await?;
    eprintln!("sagas: the same rows, a commit a step …");
    let raw = best_of(3, || sagas::commit_per_step(pool, 16, 3_200 * scale)).await?;
    results.insert("sagas_per_second".into(), sagas);
    results.insert("commit_per_step_sagas_per_second".into(), raw);
    results.insert("saga_over_commit_per_step".into(), sagas / raw);
    Ok(())
}

async fn relay(bench: &broker::Bench, suffix: &str, results: &mut Results) -> Result<(), Fault> {
    let rates = bench.rounds(7).await?;
    for (name, rate) in [
        ("raw_messages_per_second", rates.raw),
        (STRICT, rates.strict),
        ("relay_pipelined_messages_per_second", rates.pipelined),
        ("relay_strict_over_raw", rates.strict_over_raw),
        ("relay_pipelined_over_raw", rates.pipelined_over_raw),
    ] {
        results.insert(format!("{name}{suffix}"), rate);
    }
    Ok(())
}

const STRICT: &str = "relay_strict_messages_per_second";

async fn flow(pool: &PgPool, url: &str, results: &mut Results) -> Result<(), Fault> {
    eprintln!("flow: as it is, under an old snapshot, as it is, behind a transaction that has written, as it is …");
    let flow = flow::Flow::start(pool, url).await?;
    let (short, minute) = (Duration::from_secs(20), Duration::from_mins(1));
    // To warm up.
    flow.rate(Meanwhile::Nothing, short / 4).await?;
    let mut normal = flow.rate(Meanwhile::Nothing, short).await?;
    for (name, meanwhile) in
        [("relay_under_old_snapshot", Meanwhile::OldSnapshot), ("relay_behind_long_transaction", Meanwhile::HasWritten)]
    {
        let rate = flow.rate(meanwhile, minute).await?;
        let after = flow.rate(Meanwhile::Nothing, short).await?;
        results.insert(name.into(), rate / f64::midpoint(normal, after));
        normal = after;
    }
    flow.finish().await
}

/// Half of the load is half of what the relay makes of a queue of the same kind; 6 000 messages a second, if that was not measured.
async fn latency(pool: &PgPool, url: &str, results: &mut Results) -> Result<(), Fault> {
    eprintln!("latency: idle, then under half of the relay's load …");
    let half = results.get(STRICT).copied().unwrap_or(12_000.0) / 2.0;
    let mut latency = latency::Bench::start(pool, url).await?;
    results.insert("commit_to_consumer_p50_ms".into(), latency.p50_ms(100, 0.0).await?);
    results.insert("commit_to_consumer_p50_ms_half_load".into(), latency.p50_ms(100, half).await?);
    latency.finish().await
}

/// The best of a few: the noise of a machine only ever slows.
async fn best_of<F: Future<Output = Result<f64, Fault>>>(
    times: usize,
    mut run: impl FnMut() -> F,
) -> Result<f64, Fault> {
    let mut best: f64 = 0.0;
    for _ in 0..times {
        best = best.max(run().await?);
    }
    Ok(best)
}

fn print_table(results: &Results) {
    println!("\n{:<36} {:>12}", "MEASURED", "VALUE");
    for (name, value) in results {
        println!("{name:<36} {value:>12.2}");
    }
}

/// A database of its own, dropped at the end.
struct Database {
    admin: PgConnectOptions,
    name: String,
    pool: PgPool,
}

impl Database {
    async fn create() -> Result<Self, Fault> {
        let url =
            std::env::var("DATABASE_URL").map_err(|_| "DATABASE_URL must name a server; run `cargo xtask bench`")?;
        let admin: PgConnectOptions = url.parse()?;
        let name = format!("amends_bench_{}", std::process::id());
        let mut conn = PgConnection::connect_with(&admin).await?;
        conn.execute(AssertSqlSafe(format!("drop database if exists {name} with (force)"))).await?;
        conn.execute(AssertSqlSafe(format!("create database {name}"))).await?;
        let pool = PgPoolOptions::new().max_connections(20).connect_with(admin.clone().database(&name)).await?;
        amends_migrations::migrator().run(&pool).await?;
        Ok(Self { admin, name, pool })
    }

    async fn drop(self) -> Result<(), Fault> {
        self.pool.close().await;
        let mut conn = PgConnection::connect_with(&self.admin).await?;
        conn.execute(AssertSqlSafe(format!("drop database if exists {} with (force)", self.name))).await?;
        Ok(())
    }
}
