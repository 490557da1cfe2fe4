//! `/healthz`, `/readyz` and `/metrics`, on the loopback unless it is told otherwise.

use std::net::SocketAddr;
use std::sync::Arc;

use amends_postgres::status;
use amends_relay::{RelayState, telemetry};
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use sqlx::PgPool;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[derive(Clone)]
struct Served {
    pool: PgPool,
    relay: Arc<RelayState>,
    metrics: PrometheusHandle,
}

/// Serves in the background; the answer is the address that it really listens on.
pub(crate) async fn serve(
    listen: &str,
    pool: PgPool,
    relay: Arc<RelayState>,
    shutdown: CancellationToken,
) -> Result<SocketAddr, String> {
    let cannot = |error: &dyn std::fmt::Display| {
        format!("cannot listen on {listen}: {error}; choose another address with --listen")
    };
    let metrics =
        PrometheusBuilder::new().install_recorder().map_err(|error| format!("cannot collect metrics: {error}"))?;
    let listener = TcpListener::bind(listen).await.map_err(|error| cannot(&error))?;
    let address = listener.local_addr().map_err(|error| cannot(&error))?;
    let router = Router::new()
        .route("/healthz", get(healthy))
        .route("/readyz", get(ready))
        .route("/metrics", get(render))
        .with_state(Served { pool, relay, metrics });
    tokio::spawn(async move {
        let served = axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned());
        if let Err(error) = served.await {
            tracing::error!(%error, "the HTTP server has stopped");
        }
    });
    Ok(address)
}

/// Healthy is: running. Trouble with the broker is told, but a restart would not end it.
async fn healthy(State(served): State<Served>) -> String {
    served.relay.trouble().map_or_else(|| "ok\n".to_owned(), |trouble| format!("ok, but {trouble}\n"))
}

/// Ready is: it could publish now. A relay without a lane is, as it stands by for the others.
async fn ready(State(served): State<Served>) -> (StatusCode, String) {
    match served.relay.trouble() {
        Some(trouble) => (StatusCode::SERVICE_UNAVAILABLE, format!("{trouble}\n")),
        None if served.relay.is_active() => (StatusCode::OK, "publishing\n".to_owned()),
        None => (StatusCode::OK, "standing by\n".to_owned()),
    }
}

async fn render(State(served): State<Served>) -> Result<String, (StatusCode, String)> {
    let lanes =
        status::lanes(&served.pool).await.map_err(|error| (StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
    for lane in lanes {
        let label = lane.lane.to_string();
        metrics::gauge!(telemetry::LAG_ROWS, "lane" => label.clone()).set(lane.lag_rows as f64);
        metrics::gauge!(telemetry::LAG_SECONDS, "lane" => label.clone()).set(lane.lag_seconds);
        metrics::gauge!(telemetry::HELD, "lane" => label.clone()).set(lane.held as f64);
        metrics::gauge!(telemetry::PARKED, "lane" => label).set(lane.parked as f64);
    }
    Ok(served.metrics.render())
}
