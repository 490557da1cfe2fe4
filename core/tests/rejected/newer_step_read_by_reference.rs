use amends::{Call, StepResult, saga};

struct Trip;

#[saga(name = "trip", version = 2, since = 1, input = u8)]
impl Trip {
    #[step(call, compensate = none, since = 2)]
    async fn flight(&self, _call: &Call) -> StepResult<u8> {
        Ok(1)
    }

    #[step(call, compensate = none)]
    async fn hotel(&self, _call: &Call, flight: &u8) -> StepResult<u8> {
        let _ = flight;
        Ok(1)
    }
}

fn main() {
    let _ = Trip;
}
