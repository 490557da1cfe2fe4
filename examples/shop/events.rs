//! The events of the shop.
//!
//! Each carries a `version` that the row of its key counts: 1, 2, 3 … without gaps. A consumer that misses one, or
//! sees one too early, can tell.

use amends::Message;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Somebody ordered something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Message)]
#[message(name = "order.placed", key = order)]
pub struct OrderPlaced {
    /// The order.
    pub order: Uuid,
    /// Counts the order's events.
    pub version: i64,
}

/// It is on its way; there is no way back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Message)]
#[message(name = "order.shipped", key = order)]
pub struct OrderShipped {
    /// The order.
    pub order: Uuid,
    /// Counts the order's events.
    pub version: i64,
    /// What is shipped.
    pub sku: String,
    /// How many.
    pub qty: i32,
}

/// All is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Message)]
#[message(name = "order.completed", key = order)]
pub struct OrderCompleted {
    /// The order.
    pub order: Uuid,
    /// Counts the order's events.
    pub version: i64,
}

/// It comes to nothing, and everything was given back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Message)]
#[message(name = "order.refused", key = order)]
pub struct OrderRefused {
    /// The order.
    pub order: Uuid,
    /// Counts the order's events.
    pub version: i64,
}

/// Goods were set aside for an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Message)]
#[message(name = "stock.reserved", key = sku)]
pub struct StockReserved {
    /// Which goods.
    pub sku: String,
    /// Counts the events of these goods.
    pub version: i64,
    /// How many.
    pub qty: i32,
}

/// Goods that were set aside are for sale again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Message)]
#[message(name = "stock.released", key = sku)]
pub struct StockReleased {
    /// Which goods.
    pub sku: String,
    /// Counts the events of these goods.
    pub version: i64,
    /// How many.
    pub qty: i32,
}
