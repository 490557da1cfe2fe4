//! `POST /orders`: the order's row, its event and its saga, in one plain sqlx transaction.

use amends::{Error, Sagas};
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

use crate::saga::PlaceOrder;

#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) pool: PgPool,
    pub(crate) sagas: Sagas<PgStore>,
}

pub(crate) fn routes(service: Service) -> Router {
    Router::new().route("/orders", post(place)).route("/orders/{id}", get(status)).with_state(service)
}

/// Takes an order. Placing it again changes nothing and gives the same answer.
async fn place(State(service): State<Service>, Json(order): Json<Order>) -> Result<Response, Failed> {
    let mut tx = service.pool.begin().await?;
    let inserted = sqlx::query(
        "insert into orders (id, account, sku, qty, cents) values ($1, $2, $3, $4, $5) on conflict (id) do nothing",
    )
    .bind(order.id)
    .bind(&order.account)
    .bind(&order.sku)
    .bind(order.qty)
    .bind(order.cents)
    .execute(&mut *tx)
    .await?;
    if inserted.rows_affected() == 1 {
        Outbox::publish(&mut tx, &OrderPlaced { order: order.id, version: 1 }).await?;
    }
    let saga = service.sagas.start(&mut tx, PlaceOrder::key(order.id), &order).await?;
    tx.commit().await?;
    Ok((StatusCode::ACCEPTED, Json(OrderAccepted { saga: saga.id().into() })).into_response())
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
            Self::Saga(Error::KeyConflict { .. }) => StatusCode::CONFLICT,
            Self::Database(sqlx::Error::Database(error)) if error.is_foreign_key_violation() => {
                return (StatusCode::UNPROCESSABLE_ENTITY, "there are no such goods").into_response();
            }
            Self::Database(sqlx::Error::Database(error)) if error.is_check_violation() => {
                return (StatusCode::UNPROCESSABLE_ENTITY, "quantity and price must be above zero").into_response();
            }
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        tracing::warn!(error = %self, "an order was not taken");
        (status, self.to_string()).into_response()
    }
}
