use amends::{Call, StepResult, saga};

struct Trip<'a>(&'a str);

#[saga(name = "trip", version = 1, input = u8)]
impl<'a> Trip<'a> {
    #[step(call, compensate = none)]
    async fn flight(&self, _call: &Call) -> StepResult<u8> {
        Ok(1)
    }
}

fn main() {
    let _ = Trip("").0;
}
