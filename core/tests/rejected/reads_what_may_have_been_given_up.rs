use amends::{Call, StepResult, saga};

struct Trip;

#[saga(name = "trip", version = 1, input = u8)]
impl Trip {
    #[step(call, compensate = none, savepoint)]
    async fn book(&self, _call: &Call) -> StepResult<u8> {
        Ok(1)
    }

    #[step(call, compensate = none)]
    async fn flight(&self, _call: &Call) -> StepResult<u8> {
        Ok(1)
    }

    #[step(call, compensate = none, alternate = train)]
    async fn hotel(&self, _call: &Call) -> StepResult<u8> {
        Ok(1)
    }

    #[step(call, compensate = none, after = book)]
    async fn train(&self, _call: &Call) -> StepResult<u8> {
        Ok(1)
    }

    #[step(call, compensate = none, after = hotel)]
    async fn pay(&self, _call: &Call, flight: &u8) -> StepResult<u8> {
        let _ = flight;
        Ok(1)
    }
}

fn main() {
    let _ = Trip;
}
