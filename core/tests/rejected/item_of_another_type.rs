use amends::{Call, StepResult, saga};

#[derive(serde::Serialize, serde::Deserialize)]
struct Order {
    lines: Vec<u8>,
}

struct Trip;

#[saga(name = "trip", version = 1, input = Order)]
impl Trip {
    #[step(call, compensate = unpick, for_each = input.lines)]
    async fn pick(&self, _call: &Call, item: &u16) -> StepResult<u8> {
        Ok(*item as u8)
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
