use amends::{Call, StepResult, saga};

struct Trip;

#[saga(name = "trip", version = 1, input = u8)]
impl Trip {
    #[step(call, pivot)]
    async fn pay(&self, _call: &Call) -> StepResult<u8> {
        Ok(1)
    }

    #[step(call, alternate = train)]
    async fn flight(&self, _call: &Call) -> StepResult<u8> {
        Ok(1)
    }

    #[step(call, after = pay)]
    async fn train(&self, _call: &Call) -> StepResult<u8> {
        Ok(1)
    }
}

fn main() {
    let _ = Trip;
}
