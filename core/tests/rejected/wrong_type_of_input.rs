use amends::{Call, StepResult, saga};

struct Trip;

#[saga(name = "trip", version = 1, input = u8)]
impl Trip {
    #[step(call, compensate = none)]
    async fn flight(&self, _call: &Call, input: &u16) -> StepResult<u16> {
        Ok(*input)
    }
}

fn main() {
    let _ = Trip;
}
