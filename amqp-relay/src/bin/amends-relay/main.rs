//! `amends-relay`: publishes the outbox, delivers replies, applies the migrations, says how things stand.

mod http;
mod operate;
mod settings;
mod status;
mod topology;

use std::process::ExitCode;
use std::time::Duration;

use amends_postgres::{Hints, operator};
use amends_relay::{Relay, RelayOptions};
use clap::{Parser, Subcommand};
use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection, PgConnection, PgPool};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use settings::{Flags, Settings};

/// The outbox relay of amends.
#[derive(Debug, Parser)]
#[command(name = "amends-relay", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Publishes the outbox to RabbitMQ and takes replies home. Several share the lanes; those that have none stand by.
    Run,
    /// Applies the SQL migrations; changes nothing where they are applied.
    Migrate,
    /// Shows sagas, workers, lag, held and parked messages.
    Status,
    /// Looks whether the exchanges and queues of the settings are there, and says so of each; exits with 1 if one is not.
    Topology {
        /// Declare them, with their bindings, instead of looking.
        #[arg(long)]
        declare: bool,
    },
    /// Messages that the broker would not take, and those behind them.
    Held {
        #[command(subcommand)]
        action: operate::Held,
    },
    /// Stops all relays of the database within a few seconds; messages wait in the outbox.
    Pause,
    /// All relays go on.
    Resume,
    /// Spreads the keys over so many lanes, so that as many relays publish at once; no order is lost.
    Lanes {
        /// From 1 to 64.
        count: i32,
    },
    /// Publishes retained messages once more, while relays go on.
    Replay(operate::ReplayArgs),
}

/// The AMQP client logs every returned message with its payload, and errors that are none; what matters is said by us.
const QUIET: &str = "info,lapin=off,sqlx=warn";

/// How soon a changed file with the database's URL counts.
const LOOK_EVERY: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(QUIET));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match start(cli).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("amends-relay: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// Every problem is one line that names the thing and the mend; none of them holds a password.
async fn start(cli: Cli) -> Result<(), String> {
    let settings = Settings::load(&cli.flags)?;
    match cli.command {
        Command::Run => run(settings).await,
        Command::Migrate => migrate(&settings).await,
        Command::Topology { declare } => topology::report(&settings, declare).await,
        Command::Status => {
            let pool = checked_pool(&settings).await?;
            let overview = amends_postgres::status::overview(&pool).await.map_err(|error| error.to_string())?;
            print!("{}", status::table(&overview));
            Ok(())
        }
        Command::Held { action } => operate::held(&checked_pool(&settings).await?, action).await,
        Command::Pause => operator::pause(&checked_pool(&settings).await?).await.map_err(|error| error.to_string()),
        Command::Resume => operator::resume(&checked_pool(&settings).await?).await.map_err(|error| error.to_string()),
        Command::Lanes { count } => {
            let pool = checked_pool(&settings).await?;
            operator::set_lanes(&pool, count).await.map_err(|error| error.to_string())?;
            println!("there will be {count} lanes, once running relays have published what is there now");
            Ok(())
        }
        Command::Replay(args) => operate::replay(&settings, checked_pool(&settings).await?, args).await,
    }
}

async fn run(settings: Settings) -> Result<(), String> {
    let broker = settings.broker()?;
    let pool = checked_pool(&settings).await?;
    let options: RelayOptions = settings.relay_options();
    topology::must_be_there(&options.topology, &broker).await?;
    let relay = Relay::new(pool.clone(), broker.clone(), options);
    let shutdown = CancellationToken::new();
    stop_on_signal(&shutdown)?;
    follow_database_file(settings.clone(), pool.clone(), shutdown.clone());
    let served = http::serve(&settings.listen, pool, relay.state(), shutdown.clone()).await?;
    tracing::info!(http = %served, %broker, "the relay starts");
    relay.run(shutdown).await;
    tracing::info!("the relay has stopped");
    Ok(())
}

async fn migrate(settings: &Settings) -> Result<(), String> {
    let pool = pool(settings).await?;
    amends_migrations::migrator().run(&pool).await.map_err(|error| match error {
        sqlx::migrate::MigrateError::VersionMissing(version) => format!(
            "the database has migration {version}, which this program does not know; it belongs to a newer amends: update the program"
        ),
        error => format!("cannot apply the migrations: {error}; the role needs CREATE on the database, or owns the schema amends"),
    })?;
    println!("the schema amends is of version {}", amends_migrations::LATEST);
    Ok(())
}

async fn pool(settings: &Settings) -> Result<PgPool, String> {
    let options = settings.database()?;
    let place = format!(
        "{}:{}, database {}",
        options.get_host(),
        options.get_port(),
        options.get_database().unwrap_or("(default)")
    );
    let cannot = |error: sqlx::Error| {
        format!("cannot connect to PostgreSQL at {place}: {error}; check DATABASE_URL or --database-url")
    };
    // A pool would try again and again and then only say that it took too long.
    PgConnection::connect_with(&options).await.map_err(cannot)?.close().await.map_err(cannot)?;
    let pool = PgPoolOptions::new().max_connections(8).acquire_timeout(Duration::from_secs(10));
    Ok(pool.connect_lazy_with(options))
}

/// Credentials that were changed in the file count for the connections that are made from then on.
fn follow_database_file(settings: Settings, pool: PgPool, shutdown: CancellationToken) {
    if !settings.has_database_file() {
        return;
    }
    let hints = Hints::of(&pool);
    tokio::spawn(async move {
        while shutdown.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
            match settings.database() {
                Ok(options) => {
                    hints.set_connect_options(options.clone());
                    pool.set_connect_options(options);
                }
                Err(problem) => tracing::warn!(problem, "the database is reached as before"),
            }
        }
    });
}

async fn checked_pool(settings: &Settings) -> Result<PgPool, String> {
    let pool = pool(settings).await?;
    amends_postgres::schema::check(&pool).await.map_err(|error| error.to_string())?;
    Ok(pool)
}

/// Ctrl-C and SIGTERM finish what is under way; the lane is given back.
fn stop_on_signal(shutdown: &CancellationToken) -> Result<(), String> {
    for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
        let mut stream = signal(kind).map_err(|error| format!("cannot listen for signals: {error}"))?;
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            stream.recv().await;
            shutdown.cancel();
        });
    }
    Ok(())
}
