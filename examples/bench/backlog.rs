//! A long backlog, drained by the relay's own binary: at which rate, and with how much memory.

use std::path::Path;
use std::time::{Duration, Instant};

use amends_relay::{Broker, QueueTopology, Topology};
use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, ExchangeDeleteOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use sqlx::PgPool;
use tokio::process::{Child, Command};

use crate::{Fault, Results, broker};

const NAME: &str = "amends-bench-backlog";
/// The relay's full rate is what it makes of so many.
const SHORT: i64 = 100_000;
const BATCH: i64 = 100_000;

/// Drains a short backlog and then a long one.
pub(crate) async fn measure(pool: &PgPool, url: &str, messages: i64, results: &mut Results) -> Result<(), Fault> {
    eprintln!("backlog: {SHORT} messages, for the full rate …");
    let (short, _) = drain(pool, url, SHORT).await?;
    eprintln!("backlog: {messages} messages …");
    let (long, memory) = drain(pool, url, messages).await?;
    results.insert("backlog_messages".into(), messages as f64);
    results.insert("backlog_messages_per_second".into(), long);
    results.insert("backlog_over_full_rate".into(), long / short);
    results.insert("backlog_relay_peak_mb".into(), memory);
    Ok(())
}

/// Messages a second, and the most memory that the relay took, in MB.
async fn drain(pool: &PgPool, url: &str, messages: i64) -> Result<(f64, f64), Fault> {
    broker::forget(pool).await?;
    let mut written = 0;
    while written < messages {
        let batch = BATCH.min(messages - written);
        broker::write(&mut *pool.acquire().await?, batch).await?;
        written += batch;
        sqlx::query("select amends.make_outbox_partitions(3000000)").execute(pool).await?;
    }
    sqlx::query("analyze amends.outbox").execute(pool).await?;
    let topology = Topology { queues: vec![QueueTopology::new(NAME, NAME, ["#"])], ..Topology::default() };
    topology.ensure(&url.parse::<Broker>()?).await?;
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let no_ack = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let mut deliveries = channel.basic_consume(NAME.into(), "".into(), no_ack, FieldTable::default()).await?;

    let began = Instant::now();
    let mut relay = start(pool, url)?;
    let (mut received, mut reported) = (0, Instant::now());
    while received < messages {
        deliveries.next().await.ok_or("the queue is gone")??;
        received += 1;
        if reported.elapsed() > Duration::from_secs(10) {
            reported = Instant::now();
            eprintln!("  {received} in {:.0?}, the relay has {:.0} MB", began.elapsed(), memory(&relay, "VmRSS:")?);
        }
    }
    let rate = messages as f64 / began.elapsed().as_secs_f64();
    let peak = memory(&relay, "VmHWM:")?;
    relay.kill().await?;
    channel.queue_delete(NAME.into(), QueueDeleteOptions::default()).await?;
    channel.exchange_delete(NAME.into(), ExchangeDeleteOptions::default()).await?;
    connection.close(200, "bye".into()).await?;
    Ok((rate, peak))
}

/// The binary beside this one.
fn start(pool: &PgPool, url: &str) -> Result<Child, Fault> {
    let binary = std::env::current_exe()?.parent().map(|folder| folder.join("amends-relay")).ok_or("no folder")?;
    if !binary.is_file() {
        return Err(format!("{} is missing; `cargo xtask bench` builds it", binary.display()).into());
    }
    let database = sqlx::ConnectOptions::to_url_lossy(&*pool.connect_options());
    let arguments = ["run", "--exchange", NAME, "--reply-queue", "", "--listen", "127.0.0.1:0"];
    Ok(Command::new(binary)
        .args(arguments)
        .env("DATABASE_URL", database.as_str())
        .env("AMQP_URL", url)
        .env("RUST_LOG", "warn,lapin=off")
        .kill_on_drop(true)
        .spawn()?)
}

/// In MB, as Linux says.
fn memory(child: &Child, which: &str) -> Result<f64, Fault> {
    let status = Path::new("/proc").join(child.id().ok_or("the relay has ended")?.to_string()).join("status");
    let status = std::fs::read_to_string(status)?;
    let line = status.lines().find_map(|line| line.strip_prefix(which)).ok_or("no such line")?;
    let kilobytes: f64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kilobytes / 1000.0)
}
