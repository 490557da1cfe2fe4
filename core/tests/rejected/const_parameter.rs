use amends::{Call, StepResult, saga};

struct Trip<const N: usize>;

#[saga(name = "trip", version = 1, input = u8)]
impl<const N: usize> Trip<N> {
    #[step(call, compensate = none)]
    async fn flight(&self, _call: &Call) -> StepResult<u8> {
        Ok(1)
    }
}

fn main() {
    let _ = Trip::<1>;
}
