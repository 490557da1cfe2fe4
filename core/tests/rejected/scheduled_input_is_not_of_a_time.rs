use amends::{Call, StepResult, saga};

struct Report;

#[saga(name = "report", version = 1, input = u64, every = "5m")]
impl Report {
    #[step(call, compensate = none)]
    async fn send(&self, _call: &Call, input: &u64) -> StepResult<u64> {
        Ok(*input)
    }
}

fn main() {}
