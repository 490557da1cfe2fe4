use amends::Message;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Message)]
#[message(name = "booked")]
enum Booked {
    Trip,
}

fn main() {
    let _ = Booked::Trip;
}
