use amends::{Call, StepResult, saga};

struct Seat;
struct Trip;

#[saga(name = "trip", version = 1, input = u8)]
impl Trip {
    #[step(call, compensate = none)]
    async fn flight(&self, _call: &Call) -> StepResult<Seat> {
        Ok(Seat)
    }

    #[step(call, compensate = none)]
    async fn hotel(&self, _call: &Call) -> StepResult<()> {
        Ok(())
    }
}

fn main() {
    let _ = Trip;
}
