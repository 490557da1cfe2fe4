use amends::saga;

struct Trip;

#[saga(name = "trip", version = 1, input = u8)]
impl Clone for Trip {
    fn clone(&self) -> Self {
        Self
    }
}

fn main() {
    let _ = Trip;
}
