//! The `kelvin` binary.
fn main() {}
