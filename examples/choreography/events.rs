//! What the services say to each other. Each event carries what the next service needs, so that nobody asks back.

use amends::Message;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Order → payment.
#[derive(Serialize, Deserialize, JsonSchema, Message)]
#[message(name = "order.placed", key = order)]
pub(crate) struct OrderPlaced {
    pub(crate) order: i64,
    pub(crate) customer: String,
    pub(crate) cents: i64,
    pub(crate) sku: String,
    pub(crate) qty: i32,
    pub(crate) to: String,
}

/// Payment → inventory.
#[derive(Serialize, Deserialize, JsonSchema, Message)]
#[message(name = "payment.taken", key = order)]
pub(crate) struct PaymentTaken {
    pub(crate) order: i64,
    pub(crate) sku: String,
    pub(crate) qty: i32,
    pub(crate) to: String,
}

/// Payment → order: the customer cannot pay.
#[derive(Serialize, Deserialize, JsonSchema, Message)]
#[message(name = "payment.refused", key = order)]
pub(crate) struct PaymentRefused {
    pub(crate) order: i64,
}

/// Inventory → shipping.
#[derive(Serialize, Deserialize, JsonSchema, Message)]
#[message(name = "stock.reserved", key = order)]
pub(crate) struct StockReserved {
    pub(crate) order: i64,
    pub(crate) to: String,
}

/// Inventory → payment: the way back begins.
#[derive(Serialize, Deserialize, JsonSchema, Message)]
#[message(name = "stock.out", key = order)]
pub(crate) struct OutOfStock {
    pub(crate) order: i64,
}

/// Shipping → order: all is done.
#[derive(Serialize, Deserialize, JsonSchema, Message)]
#[message(name = "parcel.shipped", key = order)]
pub(crate) struct ParcelShipped {
    pub(crate) order: i64,
}

/// Shipping → inventory: the way back begins.
#[derive(Serialize, Deserialize, JsonSchema, Message)]
#[message(name = "parcel.undeliverable", key = order)]
pub(crate) struct Undeliverable {
    pub(crate) order: i64,
}

/// Inventory → payment, on the way back.
#[derive(Serialize, Deserialize, JsonSchema, Message)]
#[message(name = "stock.released", key = order)]
pub(crate) struct StockReleased {
    pub(crate) order: i64,
}

/// Payment → order, the end of the way back.
#[derive(Serialize, Deserialize, JsonSchema, Message)]
#[message(name = "payment.refunded", key = order)]
pub(crate) struct PaymentRefunded {
    pub(crate) order: i64,
}
