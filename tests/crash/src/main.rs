//! The driver: `crash run small`, `crash run middle`, `crash run middle SEED STAGE`, `crash long HOURS`, `crash sabotage`, `crash stage NAME SIZE SEED [PART]`.

use crash::report::{self, Results};
use crash::run::{self, Ended, Request, apart};
use crash::{Failure, Outcome, Size, Stage, sabotage, stages};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const USAGE: &str =
    "usage: crash run small|middle [SEED [STAGE]] | long HOURS | sabotage [BUG] | stage NAME SIZE SEED [PART] | report";

/// Patience with a stage, by far longer than it takes.
fn patience(size: Size) -> Duration {
    Duration::from_secs(size.of(300, 3 * 3600))
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["stage", name, size, seed] => stage(name, size, seed, None),
        ["stage", name, size, seed, part] => stage(name, size, seed, Some(part)),
        ["run", size] => several(stages::ALL, size, None),
        ["run", size, seed] => several(stages::ALL, size, Some(seed)),
        ["run", size, seed, name] => run::find(name).and_then(|stage| several(&[*stage], size, Some(seed))),
        ["long", hours] => long(hours),
        ["sabotage"] => plant(None),
        ["sabotage", bug] => plant(Some(bug)),
        ["report"] => report::write(&run::root()),
        _ => Err(Failure::new(USAGE)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn stage(name: &str, size: &str, seed: &str, part: Option<&str>) -> Result<(), Failure> {
    run::here(name, size.parse()?, seed.parse()?, part.map(str::to_owned))
}

/// Stages that run side by side: most of them wait for disks and other processes half of their time.
const AT_ONCE: usize = 2;

/// Runs every stage once, also after one has failed.
fn several(stages: &[Stage], size: &str, seed: Option<&str>) -> Result<(), Failure> {
    let size: Size = size.parse()?;
    let seed = seed.map_or_else(|| Ok(fastrand::u64(..)), str::parse)?;
    let results = Mutex::new(Results::load(&run::root(), &size.to_string())?);
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || -> Result<(), Failure> {
        while let Some(stage) = stages.get(next.fetch_add(1, Ordering::Relaxed)) {
            let request = Request { stage: stage.name, size, seed, sabotage: None, patience: patience(size) };
            match once(&request)? {
                Some((outcome, took)) => {
                    let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                    results.keep(stage.name, seed, outcome, took);
                    results.save(&run::root())?;
                }
                None => failed.lock().unwrap_or_else(PoisonError::into_inner).push(stage.name),
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|_| Err(Failure::new("a panic"))))
    })?;
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("{} passed, {} failed", stages.len() - failed.len(), failed.len());
    if failed.is_empty() { Ok(()) } else { Err(Failure::new(format!("failed: {}", failed.join(", ")))) }
}

/// What is told of one stage stays together.
static TELLING: Mutex<()> = Mutex::new(());

/// Runs a stage and tells how it went; nothing when it did not hold.
fn once(request: &Request) -> Result<Option<(Outcome, Duration)>, Failure> {
    let (ended, took) = apart(request)?;
    let seconds = took.as_secs_f64();
    let _telling = TELLING.lock().unwrap_or_else(PoisonError::into_inner);
    match ended {
        Ended::Held(outcome) => {
            let counts: Vec<_> = outcome.counts.iter().map(|(what, count)| format!("{count} {what}")).collect();
            println!("{}: {} ({seconds:.0} s)", request.stage, counts.join(", "));
            for why in &outcome.skipped {
                println!("{}: skipped {why}", request.stage);
            }
            return Ok(Some((outcome, took)));
        }
        Ended::Broke(text) => println!("{}: BROKE\n{text}", request.stage),
        Ended::Hung => println!("{}: HUNG", request.stage),
    }
    println!("again: {}", run::replay(request));
    Ok(None)
}

/// Repeats stages with new seeds until each has collected what a long run wants. What was counted is kept after every
/// repetition, so that the next call goes on.
fn long(hours: &str) -> Result<(), Failure> {
    let hours: f64 = hours.parse()?;
    let until = Instant::now() + Duration::from_secs_f64(hours * 3600.0);
    let mut results = Results::load(&run::root(), "long")?;
    loop {
        let mut wanting = false;
        for stage in stages::ALL {
            if results.progress(stage.name) >= stage.long {
                continue;
            }
            if Instant::now() >= until {
                println!("time is up; the same command goes on");
                return Ok(());
            }
            wanting = true;
            let seed = fastrand::u64(..);
            let request = Request {
                stage: stage.name,
                size: Size::Middle,
                seed,
                sabotage: None,
                patience: patience(Size::Middle),
            };
            let Some((outcome, took)) = once(&request)? else {
                return Err(Failure::new(format!("{} did not hold", stage.name)));
            };
            results.add(stage.name, seed, outcome, took);
            results.save(&run::root())?;
        }
        if !wanting {
            return Ok(());
        }
    }
}

fn plant(only: Option<&str>) -> Result<(), Failure> {
    let caught = sabotage::run(only, fastrand::u64(..))?;
    let missed: Vec<&str> = caught.iter().filter(|caught| caught.by.is_none()).map(|caught| &*caught.bug).collect();
    println!("{} of {} caught", caught.len() - missed.len(), caught.len());
    let mut results = Results::load(&run::root(), "sabotage")?;
    results.keep_caught(&caught);
    results.save(&run::root())?;
    if missed.is_empty() { Ok(()) } else { Err(Failure::new(format!("not caught: {}", missed.join(", ")))) }
}
