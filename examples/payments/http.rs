//! The HTTP side of the ledger.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use shop::api::{Charge, Charged, IDEMPOTENCY_KEY, Refund, Refused};
use sqlx::PgPool;

use crate::ledger::{self, Verdict};
use crate::trouble::{Fate, Trouble, Troubles};

#[derive(Debug, Clone)]
struct Service {
    pool: PgPool,
    troubles: Arc<Troubles>,
}

pub(crate) fn routes(pool: PgPool, troubles: Troubles) -> Router {
    Router::new()
        .route("/charges", post(charge))
        .route("/refunds", post(refund))
        .with_state(Service { pool, troubles: Arc::new(troubles) })
}

async fn charge(State(service): State<Service>, headers: HeaderMap, Json(charge): Json<Charge>) -> Response {
    let Some(key) = headers.get(IDEMPOTENCY_KEY).and_then(|key| key.to_str().ok()).map(str::to_owned) else {
        return (StatusCode::BAD_REQUEST, format!("the header `{IDEMPOTENCY_KEY}` is missing")).into_response();
    };
    let fate = service.troubles.next();
    answer(fate, async move {
        Ok(match ledger::charge(&service.pool, &key, &charge).await? {
            Verdict::Charged { cents } => Json(Charged { cents }).into_response(),
            Verdict::Refused { code } => (StatusCode::PAYMENT_REQUIRED, Json(Refused { code })).into_response(),
            Verdict::Undone => (StatusCode::GONE, "this charge was undone").into_response(),
        })
    })
    .await
}

async fn refund(State(service): State<Service>, Json(refund): Json<Refund>) -> Response {
    let fate = service.troubles.next();
    answer(fate, async move {
        ledger::refund(&service.pool, &refund.charge).await?;
        Ok(StatusCode::NO_CONTENT.into_response())
    })
    .await
}

/// Works as fate will have it. A task of its own carries on when whoever asked has hung up: so a charge can happen long
/// after everybody has given it up, which is what tombstones are for.
async fn answer(fate: Fate, work: impl Future<Output = sqlx::Result<Response>> + Send + 'static) -> Response {
    let task = tokio::spawn(async move {
        tokio::time::sleep(fate.pause).await;
        if fate.trouble == Trouble::Unavailable {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        match work.await {
            Ok(_) if fate.trouble == Trouble::AnswerLost => StatusCode::BAD_GATEWAY.into_response(),
            Ok(response) => response,
            Err(error) => {
                tracing::warn!(%error, "a request failed");
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
        }
    });
    task.await.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}
