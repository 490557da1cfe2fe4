use amends::{StepResult, saga};

struct Trip;

#[saga(name = "trip", version = 1, input = u8)]
impl Trip {
    #[step(request, compensate = none)]
    fn ask(&self) -> StepResult<u8> {
        Ok(1)
    }
}

fn main() {
    let _ = Trip;
}
