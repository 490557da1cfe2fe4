use amends::{Call, StepResult, saga};

struct Trip;

#[saga(name = "trip", version = 1, input = Vec<u8>)]
impl Trip {
    #[step(call, compensate = unpick, for_each = input)]
    async fn pick(&self, _call: &Call, item: &u8) -> StepResult<u8> {
        Ok(*item)
    }

    #[compensate]
    async fn unpick(&self, _call: &Call, item: &u16) -> StepResult<()> {
        let _ = item;
        Ok(())
    }
}

fn main() {
    let _ = Trip;
}
