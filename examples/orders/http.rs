//! `POST /orders` writes the order's row, its event and its saga in one plain sqlx transaction; `DELETE` cancels.

use amends::{Error, SagaId, Sagas};
use amends_postgres::{Outbox, PgStore};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use shop::api::{Order, OrderAccepted};
use shop::events::OrderPlaced;
use sqlx::PgPool;
use thiserror::Error;
use uuid::Uuid;

use crate::payments::Payments;
use crate::saga::PlaceOrder;

#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) pool: PgPool,
    pub(crate) sagas: Sagas<PgStore>,
}

pub(crate) fn routes(service: Service) -> Router {
    Router::new().route("/orders", post(place)).route("/orders/{id}", get(status).delete(cancel)).with_state(service)
}

/// Takes an order. Placing it again changes nothing and gives the same answer.
async fn place(State(service): State<Service>, Json(order): Json<Order>) -> Result<Response, Failed> {
    let mut tx = service.pool.begin().await?;
    let saga = service.sagas.start(&mut tx, PlaceOrder::<Payments>::key(order.id), &order).await?.id();
    let inserted = sqlx::query(
        "insert into orders (id, account, sku, qty, cents, saga) values ($1, $2, $3, $4, $5, $6)
         on conflict (id) do nothing",
    )
    .bind(order.id)
    .bind(&order.account)
    .bind(&order.sku)
    .bind(order.qty)
    .bind(order.cents)
    .bind(Uuid::from(saga))
    .execute(&mut *tx)
    .await?;
    if inserted.rows_affected() == 1 {
        Outbox::publish(&mut tx, &OrderPlaced { order: order.id, version: 1 }).await?;
    }
    tx.commit().await?;
    Ok((StatusCode::ACCEPTED, Json(OrderAccepted { saga: saga.into() })).into_response())
}

/// The customer changed their mind: everything is given back, unless the goods are on their way.
async fn cancel(State(service): State<Service>, Path(id): Path<Uuid>) -> Result<StatusCode, Failed> {
    let order: Option<(Uuid, String)> =
        sqlx::query_as("select saga, status from orders where id = $1").bind(id).fetch_optional(&service.pool).await?;
    let saga = match order {
        None => return Ok(StatusCode::NOT_FOUND),
        // A saga that is cancelled before its first step has nothing to undo, and so nobody would mark the order.
        Some((_, status)) if status == "placed" => return Ok(StatusCode::TOO_EARLY),
        Some((saga, _)) => saga,
    };
    service.sagas.cancel(SagaId(saga), "the customer changed their mind").await?;
    Ok(StatusCode::ACCEPTED)
}

/// How an order stands.
async fn status(State(service): State<Service>, Path(id): Path<Uuid>) -> Result<Response, Failed> {
    let status: Option<String> =
        sqlx::query_scalar("select status from orders where id = $1").bind(id).fetch_optional(&service.pool).await?;
    Ok(status.map_or_else(|| StatusCode::NOT_FOUND.into_response(), IntoResponse::into_response))
}

/// Why a request came to nothing: its transaction was rolled back.
#[derive(Debug, Error)]
enum Failed {
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    Saga(#[from] Error),
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let status = match &self {
            // It was placed with other contents, or cannot be cancelled any more.
            Self::Saga(Error::KeyConflict { .. } | Error::Refused { .. }) => {
                return (StatusCode::CONFLICT, self.to_string()).into_response();
            }
            Self::Database(sqlx::Error::Database(error)) if error.is_foreign_key_violation() => {
                return (StatusCode::UNPROCESSABLE_ENTITY, "there are no such goods").into_response();
            }
            Self::Database(sqlx::Error::Database(error)) if error.is_check_violation() => {
                return (StatusCode::UNPROCESSABLE_ENTITY, "quantity and price must be above zero").into_response();
            }
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        tracing::warn!(error = %self, "a request failed");
        (status, self.to_string()).into_response()
    }
}
