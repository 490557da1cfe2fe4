//! The block may come out of a macro, whose names are of another world than those at its call.

use amends::{Call, StepResult, saga};

macro_rules! trip {
    ($name:ident, $text:literal, $input:ty, $step:ident, $ty:ty) => {
        struct $name;

        #[saga(name = $text, version = 1, input = $input)]
        impl $name {
            #[step(call, compensate = leave)]
            async fn $step(&self, _call: &Call, input: &$input) -> StepResult<$ty> {
                Ok(input.len())
            }

            #[step(call, compensate = none)]
            async fn tell(&self, _call: &Call, input: &str, $step: &$ty) -> StepResult<()> {
                let _ = (input, $step);
                Ok(())
            }

            #[compensate]
            async fn leave(&self, _call: &Call, input: &String, $step: Option<&usize>) -> StepResult<()> {
                let _ = (input, $step);
                Ok(())
            }
        }
    };
}

trip!(Flight, "flight", String, fly, usize);
trip!(Ride, "ride", String, ride, usize);

#[test]
fn a_macro_makes_sagas() {
    assert_eq!((Flight::FLY.name(), Ride::RIDE.name()), ("fly", "ride"));
}
