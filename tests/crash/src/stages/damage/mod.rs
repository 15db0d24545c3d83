//! Damage to every file of a store: bits, bytes, blocks, pages, lengths. Each damaged store is used in a process that may
//! die, hang or ask for too much memory without harm to the others.

mod bases;
mod check;
mod harm;

use self::check::Verdict;
use crate::{Context, Failure, Outcome, Stage, hold};
use llmspell_state_persistence::StateConfig;
use serde::{Deserialize, Serialize};
use std::io::{BufRead as _, BufReader, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// Damage.
pub(super) const DAMAGE: Stage = Stage {
    name: "damage",
    what: "bits, bytes, blocks, pages and lengths of every file changed: the same data or an error that says so, never a \
           wrong or missing value, never a panic, a hang or a huge allocation",
    long: 1_000_000,
    run,
};

/// Processes that use damaged stores.
const LANES: usize = 2;
/// One damaged store takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(30);
/// Memory that such a process may map, in bytes.
const MEMORY: u64 = 2 << 30;

/// What came of one damaged store.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Held(Verdict),
    Broke(String),
}

fn run(context: &Context) -> Result<Outcome, Failure> {
    let (from, to) = match &context.only {
        Some(part) => (part.parse()?, part.parse::<u64>()? + 1),
        None => (0, context.size.of(500, 12_000)),
    };
    let (next, failed) = (AtomicU64::new(from), AtomicBool::new(false));
    let lane = |number: usize| -> Result<Outcome, Failure> {
        let mut outcome = Outcome::default();
        outcome.count("damaged stores", 0);
        let mut lane = Lane::start(context, number)?;
        while !failed.load(Ordering::Relaxed) {
            let part = next.fetch_add(1, Ordering::Relaxed);
            if part >= to {
                break;
            }
            let told = lane.ask(part).and_then(|answer| tell(&answer, &mut outcome));
            told.map_err(|e| {
                failed.store(true, Ordering::Relaxed);
                Failure::new(format!("seed {}, part {part}: {e}", context.seed))
            })?;
        }
        Ok(outcome)
    };
    let lanes: Vec<_> = std::thread::scope(|threads| {
        let running: Vec<_> = (0..LANES).map(|number| threads.spawn(move || lane(number))).collect();
        running.into_iter().map(|lane| lane.join().unwrap_or_else(|_| Err(Failure::new("a lane panicked")))).collect()
    });
    let mut outcome = Outcome::default();
    for lane in lanes {
        outcome.add(lane?);
    }
    Ok(outcome)
}

fn tell(answer: &Answer, outcome: &mut Outcome) -> Result<(), Failure> {
    let verdict = match answer {
        Answer::Held(verdict) => verdict,
        Answer::Broke(text) => return Err(Failure::new(text)),
    };
    outcome.count("damaged stores", 1);
    let what = match verdict {
        Verdict::Same => "held the same",
        Verdict::Refused => "were not opened",
        Verdict::Lost => "told that commits are gone",
        Verdict::Told => "told of damage when read",
    };
    outcome.count(what, 1);
    Ok(())
}

/// A process that uses damaged stores.
struct Lane {
    child: Child,
    asked: ChildStdin,
    answers: Receiver<String>,
}

impl Lane {
    fn start(context: &Context, number: usize) -> Result<Self, Failure> {
        let program = std::env::current_exe()?.with_file_name("damage");
        hold!(program.exists(), "{} is missing: cargo build -p llmspell-state-crash", program.display());
        let dir = context.fast_dir.join(format!("damage{number}"));
        let mut child = Command::new(program)
            .args([dir.as_os_str(), context.seed.to_string().as_ref()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let none = || Failure::new("a process without pipes");
        let asked = child.stdin.take().ok_or_else(none)?;
        let output = child.stdout.take().ok_or_else(none)?;
        let (tell, answers) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, asked, answers })
    }

    fn ask(&mut self, part: u64) -> Result<Answer, Failure> {
        writeln!(self.asked, "{part}")?;
        match self.answers.recv_timeout(PATIENCE) {
            Ok(line) => Ok(serde_json::from_str(&line)?),
            Err(RecvTimeoutError::Timeout) => Err(Failure::new("it hangs")),
            Err(RecvTimeoutError::Disconnected) => {
                Err(Failure::new(format!("the process that used it died: {}", self.child.wait()?)))
            }
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The process that uses damaged stores: a directory and a seed as arguments, then one part a line.
pub fn serve() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, dir, seed] = &arguments[..] else { return Err(Failure::new("usage: damage DIRECTORY SEED")) };
    let (dir, seed) = (Path::new(dir), seed.parse()?);
    bound_memory()?;
    let random = |part: u64| fastrand::Rng::with_seed(fastrand::Rng::with_seed(seed).u64(..) ^ part);
    let bases = bases::make(dir, &mut random(u64::MAX))?;
    for line in std::io::stdin().lines() {
        let part: u64 = line?.parse()?;
        let answer = one(&bases, &dir.join("copy"), &mut random(part))?;
        println!("{}", serde_json::to_string(&answer)?);
    }
    Ok(())
}

fn one(bases: &[bases::Base], dir: &Path, random: &mut fastrand::Rng) -> Result<Answer, Failure> {
    let base = &bases[random.usize(0..bases.len())];
    if dir.exists() {
        std::fs::remove_dir_all(dir)?;
    }
    bases::copy(&base.dir, dir)?;
    let harm = harm::harm(dir, random)?;
    let config = StateConfig { persistence_path: Some(dir.join("store.db")), ..base.config.clone() };
    let examined = catch_unwind(AssertUnwindSafe(|| check::examine(&config, base)));
    Ok(match examined {
        Ok(Ok(verdict)) => Answer::Held(verdict),
        Ok(Err(wrong)) => Answer::Broke(format!("{} ({harm}): {wrong}", base.name)),
        Err(_) => Answer::Broke(format!("{} ({harm}): a panic", base.name)),
    })
}

#[allow(unsafe_code)]
fn bound_memory() -> Result<(), Failure> {
    let bound = libc::rlimit { rlim_cur: MEMORY, rlim_max: MEMORY };
    // SAFETY: plain system call with a pointer to a value that lives.
    hold!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const bound) } == 0, "no bound on memory");
    Ok(())
}
