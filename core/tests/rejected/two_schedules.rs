use amends::{Call, StepResult, saga};

struct Report;

#[saga(name = "report", version = 1, input = amends::Tick, every = "5m", cron = "0 3 * * *")]
impl Report {
    #[step(call, compensate = none)]
    async fn send(&self, _call: &Call) -> StepResult<()> {
        Ok(())
    }
}

fn main() {}
