//! Link settings of the loadable module.

fn main() {
    // Thread-local destructors of Rust may run after a host closed its Lua state: the code must stay mapped.
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    }
    println!("cargo:rerun-if-changed=build.rs");
}
