use amends::{Call, saga};

struct Trip;

#[saga(name = "trip", version = 1, input = u8)]
impl Trip {
    #[step(call, compensate = none)]
    async fn flight(&self, _call: &Call) -> Result<u8, String> {
        Ok(1)
    }
}

fn main() {
    let _ = Trip;
}
