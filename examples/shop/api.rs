//! The bodies of HTTP requests and replies.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The header that makes a request to `payments` repeatable.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// `POST /orders`: what somebody wants to buy. It is also the input of the saga.
///
/// The customer's side chooses the id, so that it can repeat a request whose answer was lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Identifies the order.
    pub id: Uuid,
    /// Whose money it is.
    pub account: String,
    /// What is bought.
    pub sku: String,
    /// How many.
    pub qty: i32,
    /// What it costs, in all.
    pub cents: i64,
    /// A token that stands for the card; never its number, since it ends up in journals and logs.
    pub card: String,
}

/// The reply to `POST /orders`: it will be carried out, or undone.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OrderAccepted {
    /// The saga that works on it.
    pub saga: Uuid,
}

/// `POST /charges` at `payments`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charge {
    /// What it is for: the order.
    pub reference: Uuid,
    /// Whose money it is.
    pub account: String,
    /// How much.
    pub cents: i64,
    /// The card's token.
    pub card: String,
}

/// The reply to a charge that was taken (`200`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charged {
    /// How much was taken.
    pub cents: i64,
}

/// The reply to a charge that never will be (`402`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Why: `card_declined` or `insufficient_funds`.
    pub code: String,
}

/// `POST /refunds` at `payments`: undo the charge of this key, whether it was ever heard of or not.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Refund {
    /// The idempotency key of the charge.
    pub charge: String,
}
