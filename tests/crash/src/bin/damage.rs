//! Uses damaged stores for the stage of that name.

use std::process::ExitCode;

fn main() -> ExitCode {
    match crash::stages::damage::serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}
