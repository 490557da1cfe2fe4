use amends::{Call, StepResult, saga};

struct Trip;

#[saga(name = "trip", version = 1, input = u8)]
impl Trip {
    #[step(call, compensate = none)]
    async fn flight(&self, _call: &Call) -> StepResult<u8> {
        Ok(1)
    }

    #[step(call, compensate = none, after = start)]
    async fn hotel(&self, _call: &Call, flight: &u8) -> StepResult<u8> {
        Ok(*flight)
    }
}

fn main() {
    let _ = Trip;
}
