//! `fuzz mutate TARGET SECONDS SEED` runs random changes of the corpus; `fuzz unpack TARGET DIR` writes the corpus as one file an
//! input, as libFuzzer wants it, and `fuzz pack TARGET DIR` adds such files to the corpus as far as there is room.

use fuzz::{corpus, mutate, target};
use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Most inputs in a corpus, and most bytes of them.
const MOST_INPUTS: usize = 190;
const MOST_BYTES: usize = 100 << 10;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Result<(), Box<dyn Error>> {
    let (Some(command), Some(name)) = (arguments.first(), arguments.get(1)) else {
        let names: Vec<_> = fuzz::TARGETS.iter().map(|target| target.name).collect();
        return Err(format!("fuzz mutate|unpack|pack TARGET …, with TARGET one of {}", names.join(", ")).into());
    };
    let target = target(name).ok_or_else(|| format!("there is no target {name}"))?;
    match (*command, &arguments[2..]) {
        ("mutate", [seconds, seed]) => {
            let until = Instant::now() + Duration::from_secs(seconds.parse()?);
            println!("{name}: {} executions", mutate::run(target, seed.parse()?, u64::MAX, Some(until)));
            Ok(())
        }
        ("unpack", [dir]) => unpack(name, Path::new(dir)),
        ("pack", [dir]) => pack(name, Path::new(dir)),
        _ => Err("fuzz mutate TARGET SECONDS SEED, fuzz unpack TARGET DIR, fuzz pack TARGET DIR".into()),
    }
}

fn unpack(name: &str, dir: &Path) -> Result<(), Box<dyn Error>> {
    std::fs::create_dir_all(dir)?;
    for (number, input) in corpus::load(name).iter().enumerate() {
        std::fs::write(dir.join(format!("kept-{number}")), input)?;
    }
    Ok(())
}

/// Adds to what the corpus has already: its first lines were written with a reason.
fn pack(name: &str, dir: &Path) -> Result<(), Box<dyn Error>> {
    let mut found = Vec::new();
    for file in std::fs::read_dir(dir)? {
        found.push(std::fs::read(file?.path())?);
    }
    found.sort_by(|a, b| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
    let mut inputs = corpus::load(name);
    let mut bytes: usize = inputs.iter().map(Vec::len).sum();
    // Short ones and long ones: all that are short are alike.
    let step = found.len().div_ceil(MOST_INPUTS.saturating_sub(inputs.len()).max(1)).max(1);
    for input in found.into_iter().step_by(step) {
        if inputs.len() <= MOST_INPUTS && bytes + input.len() <= MOST_BYTES && !inputs.contains(&input) {
            bytes += input.len();
            inputs.push(input);
        }
    }
    // The empty one is in every corpus.
    let lines: String = inputs.iter().skip(1).map(|input| corpus::escape(input) + "\n").collect();
    std::fs::write(corpus::path(name), lines)?;
    Ok(())
}
