use amends::{Call, StepResult, saga};

struct Trip;

#[saga(name = "trip", version = 1, input = u8)]
impl Trip {
    #[step(call, compensate = none, after = nowhere)]
    async fn flight(&self, _call: &Call) -> StepResult<u8> {
        Ok(1)
    }

    #[step(call, pivto, compensate = leave)]
    async fn hotel(&self, _call: &Call, flight: &u8) -> StepResult<u8> {
        Ok(*flight)
    }

    #[step(call, timeout = "soon")]
    async fn dinner(&self, _call: &Call, hotel: &u8, flight: &u8) -> StepResult<u8> {
        Ok(hotel + flight)
    }

    #[step(tx)]
    async fn tell(&self, _call: &Call, dinner: &u8) -> StepResult<u8> {
        Ok(*dinner)
    }

    #[compensate]
    async fn leave(&self, _call: &Call, hotel: &u8) {
        let _ = hotel;
    }
}

fn main() {
    let _ = Trip;
}
