//! JSON needs serde.

use amends::Message;

#[derive(Message)]
#[message(name = "stock.reserved")]
struct StockReserved {
    sku: String,
}

fn main() {}
