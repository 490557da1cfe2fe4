use amends::{Call, StepResult, saga};

struct Trip;

#[saga(name = "trip", version = 1, input = u8)]
impl Trip {
    #[step(call, compensate = none, retry(backoff = "1m..200ms"))]
    async fn flight(&self, _call: &Call) -> StepResult<u8> {
        Ok(1)
    }
}

fn main() {
    let _ = Trip;
}
