use amends::Message;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Message)]
#[message(name = "booked", topic = "trips")]
struct Booked {
    trip: u8,
}

fn main() {
    let _ = Booked { trip: 1 }.trip;
}
