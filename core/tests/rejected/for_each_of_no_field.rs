use amends::{Call, StepResult, saga};

#[derive(serde::Serialize, serde::Deserialize)]
struct Order {
    lines: Vec<u8>,
}

struct Trip;

#[saga(name = "trip", version = 1, input = Order)]
impl Trip {
    #[step(call, compensate = none, for_each = input.liens)]
    async fn pick(&self, _call: &Call, item: &u8) -> StepResult<u8> {
        Ok(*item)
    }
}

fn main() {
    let _ = Trip;
}
