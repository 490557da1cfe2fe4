use amends::{Call, StepResult, saga};

struct Trip;

#[derive(serde::Serialize)]
struct Seat;

#[saga(name = "trip", version = 1, input = u8)]
impl Trip {
    #[step(call, compensate = none)]
    async fn flight(&self, _call: &Call) -> StepResult<Seat> {
        Ok(Seat)
    }

    #[step(call, compensate = none)]
    async fn hotel(&self, _call: &Call, flight: &Seat) -> StepResult<()> {
        let _ = flight;
        Ok(())
    }
}

fn main() {
    let _ = Trip;
}
