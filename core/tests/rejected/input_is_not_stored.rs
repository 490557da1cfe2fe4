use amends::{Call, StepResult, saga};

#[derive(serde::Deserialize)]
struct Seat;
struct Trip;

#[saga(name = "trip", version = 1, input = Seat)]
impl Trip {
    #[step(call, compensate = none)]
    async fn flight(&self, _call: &Call) -> StepResult<u8> {
        Ok(1)
    }
}

fn main() {
    let _ = Trip;
}
