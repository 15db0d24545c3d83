//! Worker processes of every language, and what they have told.

use super::ledger::Run;
use super::operation::{Operation, Source};
use crate::{Context, Failure, hold};
use fastrand::Rng;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// A worker that tells nothing for this long hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a worker is written in.
pub(crate) const LANGUAGES: [&str; 6] = ["rust", "python", "lua5.4", "lua5.3", "lua5.1", "luajit"];

/// What a worker shall do.
#[derive(Debug, Clone)]
pub(crate) struct Orders {
    pub(crate) language: &'static str,
    /// One thread each; only Rust has more than one.
    pub(crate) slots: Vec<usize>,
    pub(crate) operations: usize,
    /// Settings of the store, as `name=value`.
    pub(crate) settings: String,
    /// Values are this much larger than usual.
    pub(crate) growth: usize,
    /// Look at the file by other means before every operation of such a number.
    pub(crate) peek: Option<u32>,
    /// Calls that are made without waiting for them, at most so many at a time; only Rust can.
    pub(crate) posts: usize,
    /// Die at the Nth passing of a point; only Rust can.
    pub(crate) die: Option<(&'static str, u64)>,
}

#[derive(Debug, Default)]
struct Heard {
    lines: u64,
    acknowledged: u64,
    opened: bool,
    /// It came to its script's end and closed the store.
    finished: bool,
    /// Nothing more will come.
    over: bool,
    failed: Option<String>,
    /// By slot: operations begun, and what was told of those that ended.
    slots: Vec<(usize, usize, Vec<String>)>,
}

#[derive(Debug, Default)]
struct Ears {
    heard: Mutex<Heard>,
    changed: Condvar,
}

impl Ears {
    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, line: &str) {
        let mut heard = self.lock();
        heard.lines += 1;
        let mut words = line.splitn(3, ' ');
        let (kind, slot) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let slot = slot.parse::<usize>().ok().and_then(|slot| heard.slots.iter_mut().find(|(own, ..)| *own == slot));
        match (kind, slot) {
            ("o", _) => heard.opened = true,
            ("e", _) => heard.finished = true,
            ("a", Some((_, begun, _))) => *begun += 1,
            ("k", Some((.., told))) => {
                told.push(words.next().unwrap_or_default().to_owned());
                heard.acknowledged += 1;
            }
            _ => heard.failed = Some(line.to_owned()),
        }
        drop(heard);
        self.changed.notify_all();
    }
}

/// A worker process.
pub(crate) struct Worker {
    pub(crate) name: String,
    child: Child,
    ears: Arc<Ears>,
    listener: Option<JoinHandle<()>>,
    runs: Vec<Run>,
}

/// Starts workers on one store.
pub(crate) struct Crew<'c> {
    pub(crate) context: &'c Context,
    pub(crate) store: PathBuf,
    /// Numbers each run.
    pub(crate) runs: u64,
}

fn command(context: &Context, language: &str) -> Result<Command, Failure> {
    let workers = context.root.join("tests/crash/workers");
    let mut command;
    match language {
        "rust" => {
            let program = std::env::current_exe()?.with_file_name("storm");
            hold!(program.exists(), "{} is missing: cargo build -p llmspell-state-crash", program.display());
            command = Command::new(program);
        }
        "python" => {
            command = Command::new(context.root.join(".venv/bin/python"));
            command.arg(workers.join("storm.py"));
        }
        lua => {
            command = Command::new(lua);
            command.arg(workers.join("storm.lua"));
        }
    }
    Ok(command)
}

impl Crew<'_> {
    pub(crate) fn start(&mut self, orders: &Orders, random: &mut Rng) -> Result<Worker, Failure> {
        self.runs += 1;
        let name = format!("run {} ({})", self.runs, orders.language);
        let mut script = format!("open {} {}\n", self.store.display(), orders.settings).replace(" \n", "\n");
        if let Some(every) = orders.peek {
            writeln!(script, "peek {every}")?;
        }
        if orders.posts > 0 {
            writeln!(script, "posts {}", orders.posts)?;
        }
        if let Some((point, times)) = orders.die {
            writeln!(script, "die {point} {times}")?;
        }
        let mut runs = Vec::new();
        let alone = orders.slots.len() == 1;
        let source = |slot, random: &mut Rng| -> Vec<Operation> {
            let source = Source { random, run: self.runs * 8 + slot as u64, slot, alone, growth: orders.growth };
            source.operations(orders.operations)
        };
        for slot in &orders.slots {
            let mut run = Run::new(*slot, format!("{name} slot {slot}"), source(*slot, random));
            run.posts = orders.posts;
            runs.push(run);
        }
        for number in 0..orders.operations {
            for run in &runs {
                writeln!(script, "{} {}", run.slot, run.operations[number])?;
            }
        }
        let path = self.store.with_file_name(format!("script{}", self.runs));
        std::fs::write(&path, script)?;
        let mut child =
            command(self.context, orders.language)?.arg(&path).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().ok_or_else(|| Failure::new("a worker without output"))?;
        let ears = Arc::new(Ears::default());
        ears.lock().slots = orders.slots.iter().map(|slot| (*slot, 0, Vec::new())).collect();
        let listener = std::thread::spawn({
            let ears = Arc::clone(&ears);
            move || {
                for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                    ears.hear(&String::from_utf8_lossy(&line));
                }
                ears.lock().over = true;
                ears.changed.notify_all();
                // A script that is not there any more tells that its worker was heard to its end.
                let _ = std::fs::remove_file(path);
            }
        });
        Ok(Worker { name, child, ears, listener: Some(listener), runs })
    }
}

/// How a worker came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Killed,
    /// It had done everything, and closed the store.
    Finished,
}

impl Worker {
    /// Waits until it has told `more` acknowledgements from now on, or has ended.
    pub(crate) fn progress(&self, more: u64) -> Result<(), Failure> {
        let heard = self.ears.lock();
        let wanted = heard.acknowledged + more;
        self.wait(heard, |heard| heard.acknowledged >= wanted)
    }

    /// Waits for its end, at most for `life`; says whether it ended.
    pub(crate) fn lives(&self, life: Duration) -> bool {
        let heard = self.ears.lock();
        let waited = self.ears.changed.wait_timeout_while(heard, life, |heard| !heard.over);
        !waited.unwrap_or_else(PoisonError::into_inner).0.over
    }

    /// Waits until it has come to its script's end.
    pub(crate) fn finish(&self) -> Result<(), Failure> {
        self.wait(self.ears.lock(), |_| false)
    }

    fn wait(&self, mut heard: MutexGuard<'_, Heard>, enough: impl Fn(&Heard) -> bool) -> Result<(), Failure> {
        while !heard.over && !enough(&heard) {
            let lines = heard.lines;
            let silent = |heard: &mut Heard| heard.lines == lines && !heard.over;
            let waited = self.ears.changed.wait_timeout_while(heard, PATIENCE, silent);
            heard = waited.unwrap_or_else(PoisonError::into_inner).0;
            hold!(heard.lines > lines || heard.over, "{} hangs: {lines} lines, then nothing", self.name);
        }
        Ok(())
    }

    /// Kills it, if it is still there, and collects what it has told.
    pub(crate) fn kill(mut self) -> Result<(Vec<Run>, End), Failure> {
        // It may be gone already.
        let _ = self.child.kill();
        let status = self.child.wait()?;
        if let Some(listener) = self.listener.take() {
            listener.join().map_err(|_| Failure::new("the listener panicked"))?;
        }
        let mut heard = self.ears.lock();
        if let Some(failed) = &heard.failed {
            return Err(Failure::new(format!("{} failed: {failed}", self.name)));
        }
        let killed = std::os::unix::process::ExitStatusExt::signal(&status) == Some(libc::SIGKILL);
        hold!(killed || (heard.finished && status.success()), "{} ended by itself: {status}", self.name);
        for (run, (_, begun, told)) in self.runs.iter_mut().zip(heard.slots.drain(..)) {
            (run.begun, run.told) = (begun, told);
        }
        drop(heard);
        Ok((std::mem::take(&mut self.runs), if killed { End::Killed } else { End::Finished }))
    }
}

/// A failure must not leave workers behind.
impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
