use amends::{Call, StepResult, saga};

struct Trip;

#[saga(name = "trip", version = 1, input = u8)]
impl Trip {
    #[step(call, compensate = none, probe = find)]
    async fn flight(&self, _call: &Call) -> StepResult<u8> {
        Ok(1)
    }

    #[probe]
    async fn find(&self, _call: &Call) -> StepResult<Option<u16>> {
        Ok(None)
    }
}

fn main() {
    let _ = Trip;
}
