//! How each service is run: log, database, HTTP, an end on request.

use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;

use axum::Router;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// What the `main` of an example fails with.
pub type Failure = Box<dyn Error + Send + Sync>;

/// Runs a service with a log on standard error, and says in one line why it failed.
pub async fn run(service: impl Future<Output = Result<(), Failure>>) -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,sqlx=warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match service.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", with_causes(&*error));
            ExitCode::FAILURE
        }
    }
}

/// An error and all its causes, in one line.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        // Many errors already quote their cause.
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Is cancelled by the first SIGTERM or Ctrl-C.
///
/// # Errors
/// When the process may not listen for signals.
pub fn shutdown_on_signal() -> Result<CancellationToken, Failure> {
    let shutdown = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let token = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        token.cancel();
    });
    Ok(shutdown)
}

/// Connects to a service's own database and makes its tables.
///
/// # Errors
/// When the database does not answer or `schema` is wrong.
///
/// # Idempotency
/// Two instances may start at once, as long as the schema says `if not exists`.
pub async fn database(url: &str, connections: u32, schema: &'static str) -> Result<PgPool, Failure> {
    let pool = PgPoolOptions::new().max_connections(connections).connect(url).await?;
    let mut tx = pool.begin().await?;
    // Two sessions that create the same table at once would collide, `if not exists` or not.
    sqlx::query("select pg_advisory_xact_lock(hashtext('the tables of the example shop'))").execute(&mut *tx).await?;
    sqlx::raw_sql(schema).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(pool)
}

/// Serves HTTP until `shutdown`, then finishes the requests under way.
///
/// # Errors
/// When the address is taken.
pub async fn serve(listen: SocketAddr, routes: Router, shutdown: CancellationToken) -> Result<(), Failure> {
    let listener = TcpListener::bind(listen).await.map_err(|error| format!("cannot listen on {listen}: {error}"))?;
    tracing::info!(%listen, "ready");
    let routes = routes.route("/health", axum::routing::get(|| async { "ok" }));
    axum::serve(listener, routes).with_graceful_shutdown(async move { shutdown.cancelled().await }).await?;
    Ok(())
}
