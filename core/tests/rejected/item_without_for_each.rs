use amends::{Call, StepResult, saga};

struct Trip;

#[saga(name = "trip", version = 1, input = u8)]
impl Trip {
    #[step(call, compensate = none)]
    async fn flight(&self, _call: &Call, item: &u8) -> StepResult<u8> {
        let _ = item;
        Ok(1)
    }
}

fn main() {
    let _ = Trip;
}
