use amends::Message;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Message)]
#[message(name = "booked", key = trip)]
struct Booked {
    trip: Vec<u8>,
}

fn main() {
    let _ = Booked { trip: Vec::new() }.trip;
}
