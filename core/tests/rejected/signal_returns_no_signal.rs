use amends::saga;

struct Trip;

#[saga(name = "trip", version = 1, input = u8)]
impl Trip {
    #[step(signal)]
    fn wait(&self) -> u8 {
        1
    }
}

fn main() {
    let _ = Trip;
}
