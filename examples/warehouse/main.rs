//! The warehouse.
fn main() {}
