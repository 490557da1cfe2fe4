use amends::{Call, StepResult, saga};

struct Trip;

#[saga(name = "trip", version = 1, input = u8)]
impl Trip {
    #[step(call, compensate = none, retires = 3)]
    async fn flight(&self, _call: &Call) -> StepResult<u8> {
        Ok(1)
    }

    #[step(call)]
    async fn hotel(&self, _call: &Call, flight: &u8, car: &u8) -> StepResult<u8> {
        Ok(flight + car)
    }

    #[step(call, compensate = none)]
    async fn dinner(&self, _call: &Call, input: u8) -> StepResult<u8> {
        Ok(input)
    }
}

fn main() {
    let _ = Trip;
}
