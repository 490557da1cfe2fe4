use amends::{Call, StepResult, saga};
use std::rc::Rc;

struct Trip;

#[saga(name = "trip", version = 1, input = u8)]
impl Trip {
    #[step(call, compensate = none)]
    async fn flight(&self, _call: &Call) -> StepResult<u8> {
        let seat = Rc::new(1);
        std::future::ready(()).await;
        Ok(*seat)
    }
}

fn main() {
    let _ = Trip;
}
