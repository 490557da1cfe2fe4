use amends::{Call, StepResult, saga};

struct Trip;

#[saga(name = "trip", version = 1, input = u8)]
impl Trip {
    #[step(call, pivot)]
    async fn flight(&self, _call: &Call) -> StepResult<u8> {
        Ok(1)
    }

    #[step(call, compensate = leave)]
    async fn hotel(&self, _call: &Call) -> StepResult<u8> {
        Ok(1)
    }

    #[compensate]
    async fn leave(&self, _call: &Call) -> StepResult<()> {
        Ok(())
    }
}

fn main() {
    let _ = Trip;
}
