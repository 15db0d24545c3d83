//! A worker process of the stages that record histories; see `check/crew.rs`.

use crash::Failure;
use crash::check::crew;
use crash::stages::{linear, serial};

fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.first().map(String::as_str) {
        Some("linear") => crew::process(&arguments, linear::work),
        Some("serial") => crew::process(&arguments, serial::work),
        _ => Err(Failure::new("linear or serial")),
    };
    match done {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            std::process::ExitCode::FAILURE
        }
    }
}
