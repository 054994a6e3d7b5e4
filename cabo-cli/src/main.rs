//! The program `cabo`.

fn main() {}
