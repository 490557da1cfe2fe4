use amends::{Call, StepResult, saga};

#[derive(serde::Serialize, serde::Deserialize)]
struct Found {
    lines: String,
}

struct Trip;

#[saga(name = "trip", version = 1, input = u8)]
impl Trip {
    #[step(call, compensate = none)]
    async fn find(&self, _call: &Call) -> StepResult<Found> {
        Ok(Found { lines: String::new() })
    }

    #[step(call, compensate = unpick, for_each = find.lines)]
    async fn pick(&self, _call: &Call, item: &str) -> StepResult<u8> {
        Ok(item.len() as u8)
    }

    #[compensate]
    async fn unpick(&self, _call: &Call, item: &String) -> StepResult<()> {
        let _ = item;
        Ok(())
    }
}

fn main() {
    let _ = Trip;
}
