use amends::{Signal, saga};

struct Trip;

#[saga(name = "trip", version = 1, input = u8)]
impl Trip {
    #[step(child)]
    fn hotel(&self) -> Signal<u8> {
        Signal::wait()
    }
}

fn main() {
    let _ = Trip;
}
