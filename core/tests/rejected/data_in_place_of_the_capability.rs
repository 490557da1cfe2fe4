use amends::{StepResult, saga};

struct Trip;

#[saga(name = "trip", version = 1, input = u8)]
impl Trip {
    #[step(call, compensate = none)]
    async fn flight(&self, input: &u8) -> StepResult<u8> {
        Ok(*input)
    }
}

fn main() {
    let _ = Trip;
}
