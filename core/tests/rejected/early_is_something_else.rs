use amends::{Signal, saga};

struct Trip;

#[saga(name = "trip", version = 1, input = u8)]
impl Trip {
    #[step(signal, early = accept)]
    fn wait(&self) -> Signal<u8> {
        Signal::wait()
    }
}

fn main() {
    let _ = Trip;
}
