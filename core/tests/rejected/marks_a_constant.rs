use amends::{Call, StepResult, saga};

struct Trip;

#[saga(name = "trip", version = 1, input = u8)]
impl Trip {
    #[step(call)]
    const SEATS: u8 = 1;

    #[step(call, compensate = none)]
    async fn flight(&self, _call: &Call) -> StepResult<u8> {
        Ok(1)
    }
}

fn main() {
    let _ = Trip;
}
