use amends::{Call, StepResult, saga};

struct Trip;

#[saga(name = "trip", version = 1, input = u8)]
impl Trip {
    #[step(call, compensate = none, skippable)]
    async fn flight(&self, _call: &Call) -> StepResult<Vec<u8>> {
        Ok(Vec::new())
    }

    #[step(call, compensate = none, for_each = flight)]
    async fn hotel(&self, _call: &Call) -> StepResult<u8> {
        Ok(1)
    }
}

fn main() {
    let _ = Trip;
}
