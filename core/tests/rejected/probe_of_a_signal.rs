use amends::{Call, Signal, StepResult, saga};

struct Trip;

#[saga(name = "trip", version = 1, input = u8)]
impl Trip {
    #[step(signal, probe = find)]
    fn wait(&self) -> Signal<u8> {
        Signal::wait()
    }

    #[probe]
    async fn find(&self, _call: &Call) -> StepResult<Option<u8>> {
        Ok(None)
    }
}

fn main() {
    let _ = Trip;
}
