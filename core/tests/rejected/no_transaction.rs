use amends::{StepResult, saga};

struct Trip;

#[saga(name = "trip", version = 1, input = u8)]
impl Trip {
    #[step(tx, compensate = none)]
    async fn flight(&self, _tx: &mut u8) -> StepResult<u8> {
        Ok(1)
    }
}

fn main() {
    let _ = Trip;
}
