//! Turns the core into the modelled core.

fn main() {
    println!("cargo::rustc-cfg=models");
}
