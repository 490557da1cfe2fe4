pub mod travel {
    use amends::{Call, StepResult, saga};

    pub struct Trip;

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Order;

    #[saga(name = "trip", version = 1, input = Order)]
    impl Trip {
        #[step(call, compensate = none)]
        async fn flight(&self, _call: &Call) -> StepResult<u8> {
            Ok(1)
        }
    }
}

fn main() {
    let _ = travel::Trip;
}
