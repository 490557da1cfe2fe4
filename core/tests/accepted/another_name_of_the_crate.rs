//! `crate = "…"` says where `amends` is; nothing else is looked for at `::amends`.

mod sagas {
    pub mod engine {
        pub use amends::*;
    }
}

use sagas::engine::{Call, Message, StepResult, saga};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Message)]
#[message(name = "trip.booked", crate = "crate::another_name_of_the_crate::sagas::engine")]
struct Booked;

struct Trip;

#[saga(name = "trip", version = 1, input = u8, crate = "crate::another_name_of_the_crate::sagas::engine")]
impl Trip {
    #[step(call, compensate = leave, retry(attempts = 2, backoff = "1s..1m"), timeout = "1m")]
    async fn flight(&self, call: &Call, input: &u8) -> StepResult<u8> {
        call.publish(&Booked)?;
        Ok(*input)
    }

    #[compensate]
    async fn leave(&self, _call: &Call, flight: Option<&u8>) -> StepResult<()> {
        let _ = flight;
        Ok(())
    }
}

#[test]
fn another_path_is_used_for_everything() {
    assert_eq!(Trip::DEFINITION.steps.len(), 1);
    assert_eq!(Booked::NAME, "trip.booked");
}
