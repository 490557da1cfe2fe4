use amends::{Call, StepResult, saga};

struct Trip;

#[saga(name = "trip", version = 1, input = u8)]
impl Trip {
    #[step(call, compensate = none)]
    async fn flight<T>(&self, _call: &Call, input: &T) -> StepResult<u8> {
        let _ = input;
        Ok(1)
    }
}

fn main() {
    let _ = Trip;
}
