//! tcmu-rbd
fn main() {}
