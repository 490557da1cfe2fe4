use amends::{Child, saga};

struct Trip;

#[saga(name = "trip", version = 1, input = u8)]
impl Trip {
    #[step(child)]
    fn hotel(&self) -> Child<u8> {
        panic!()
    }
}

fn main() {
    let _ = Trip;
}
