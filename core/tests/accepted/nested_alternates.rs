use amends::{Call, StepResult, saga};

struct Trip;

#[saga(name = "trip", version = 1, input = u8)]
impl Trip {
    #[step(call, compensate = none, savepoint)]
    async fn hold(&self, _call: &Call) -> StepResult<u8> {
        Ok(1)
    }

    #[step(call, compensate = none, alternate = stay)]
    async fn fly(&self, _call: &Call) -> StepResult<u8> {
        Ok(2)
    }

    #[step(call, compensate = none, after = hold, savepoint)]
    async fn walk(&self, _call: &Call) -> StepResult<u8> {
        Ok(3)
    }

    #[step(call, compensate = none, alternate = bus)]
    async fn train(&self, _call: &Call) -> StepResult<u8> {
        Ok(4)
    }

    #[step(call, compensate = none, after = walk)]
    async fn bus(&self, _call: &Call, walk: &u8) -> StepResult<u8> {
        Ok(*walk)
    }

    #[step(call, compensate = none, after = train)]
    async fn stay(&self, _call: &Call, train: &u8) -> StepResult<u8> {
        Ok(*train)
    }

    #[step(call, compensate = none, after = fly)]
    async fn pay(&self, _call: &Call, fly: &u8) -> StepResult<u8> {
        Ok(*fly)
    }
}

#[test]
fn alternates_nest() {
    let _ = Trip;
}
