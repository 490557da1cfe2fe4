use amends::{Message, Request, saga};

#[derive(serde::Serialize, serde::Deserialize, Message)]
#[message(name = "ask")]
struct Ask;

struct Trip;

#[saga(name = "trip", version = 1, input = u8)]
impl Trip {
    #[step(request, compensate = none)]
    fn ask() -> Request<Ask, u8> {
        Request::new(Ask)
    }
}

fn main() {
    let _ = Trip;
}
