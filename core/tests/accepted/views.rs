//! What was recorded as a `String` or a `Vec` may be received as `&str` or as a slice.

use amends::{Call, StepResult, saga};

struct Trip;

#[saga(name = "trip", version = 1, input = Box<str>)]
impl Trip {
    #[step(call, compensate = leave)]
    async fn flight(&self, _call: &Call, input: &str) -> StepResult<String> {
        Ok(input.to_owned())
    }

    #[step(call, compensate = none)]
    async fn seats(&self, _call: &Call, flight: &str) -> StepResult<Vec<usize>> {
        Ok(vec![flight.len()])
    }

    #[step(call, pivot)]
    async fn pay(&self, _call: &Call, seats: &[usize]) -> StepResult<()> {
        let _ = seats.len();
        Ok(())
    }

    #[compensate]
    async fn leave(&self, _call: &Call, flight: Option<&str>) -> StepResult<()> {
        let _ = flight;
        Ok(())
    }
}

#[test]
fn owned_results_are_received_as_views() {
    let _ = Trip::DEFINITION;
    let _ = amends::Sagas::builder(amends::MemoryStore::new()).register(Trip).build().unwrap();
}
