use amends::{Call, saga};

struct Trip;

#[saga(name = "trip", version = 1, input = u8)]
impl Trip {
    #[step(call, compensate = none)]
    async fn flight(&self, _call: &Call) {}
}

fn main() {
    let _ = Trip;
}
