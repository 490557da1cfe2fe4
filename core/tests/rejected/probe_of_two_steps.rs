use amends::{Call, StepResult, saga};

struct Trip;

#[saga(name = "trip", version = 1, input = u8)]
impl Trip {
    #[step(call, compensate = none, probe = find)]
    async fn flight(&self, _call: &Call) -> StepResult<u8> {
        Ok(1)
    }

    #[step(call, compensate = none, probe = find)]
    async fn hotel(&self, _call: &Call) -> StepResult<u8> {
        Ok(1)
    }

    #[probe]
    async fn find(&self, _call: &Call) -> StepResult<Option<u8>> {
        Ok(None)
    }
}

fn main() {
    let _ = Trip;
}
