//! Threads and processes, in several languages, that work on one store while their calls are recorded.

use super::journal::{self, Call, Journal, Record};
use super::log::Log;
use crate::{Context, Failure};
use llmspell_state_persistence::{Error, RetentionPolicy, State, StateConfig, SyncMode};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

/// One worker.
#[derive(Debug)]
pub struct Worker {
    /// Its number; no two of a round have the same, so that each value tells who wrote it.
    pub id: u32,
    /// Where its choices come from.
    pub random: fastrand::Rng,
    /// How many calls it makes.
    pub calls: usize,
    /// Whether it may be killed: then it makes no change whose answer must be known to know the change.
    pub mortal: bool,
    /// Bytes that are written beside each value.
    pub padding: usize,
    written: i64,
}

impl Worker {
    /// A worker that has done nothing yet.
    pub fn new(id: u32, seed: u64, calls: usize, mortal: bool) -> Self {
        let seed = seed.wrapping_add(u64::from(id).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        Self { id, random: fastrand::Rng::with_seed(seed), calls, mortal, padding: 0, written: 0 }
    }

    /// A value that nobody else writes.
    pub fn value(&mut self) -> i64 {
        self.written += 1;
        (i64::from(self.id) << 24) + self.written
    }

    /// Makes a call, waiting in it or, half of the time, told by whoever made it.
    pub fn make<T: Send + 'static>(&mut self, call: llmspell_state_persistence::Call<T>) -> Result<T, Error> {
        if self.random.bool() {
            return call.wait();
        }
        let (tell, told) = channel();
        call.then(move |answer| drop(tell.send(answer)));
        told.recv().map_err(|_| Error::invalid("a call that was not waited for has no answer"))?
    }

    /// One of several.
    pub fn pick<'a, T>(&mut self, among: &'a [T]) -> &'a T {
        &among[self.random.usize(0..among.len())]
    }
}

/// What a worker does with a store.
pub type Work<T> = fn(&State, &mut Worker, &mut dyn Record<T>) -> Result<(), Failure>;

/// Who works on a store, and how it is opened.
#[derive(Debug, Clone)]
pub struct Round {
    /// When a commit counts as done.
    pub sync_mode: SyncMode,
    /// Memory for values.
    pub cache_size_mb: usize,
    /// One process alone.
    pub exclusive: bool,
    /// Threads of this process.
    pub threads: u32,
    /// Programs that run beside: `rust`, or the interpreter of a script in `tests/crash/workers`.
    pub programs: Vec<&'static str>,
    /// How often one of them is killed and replaced.
    pub kills: u32,
    /// Calls of each worker.
    pub calls: usize,
    /// Bytes that threads write beside each value, uncompressed: reading and keeping them takes time.
    pub padding: usize,
}

/// How often the rounds of the middle size are repeated.
const REPEATS: u64 = 3;

/// Makes every round, some times over, or only the part that was asked for.
pub fn each(
    context: &Context,
    rounds: &[Round],
    mut make: impl FnMut(&Round, u64) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let only = context.only.as_deref().map(str::parse::<u64>).transpose()?;
    for part in 0..rounds.len() as u64 * context.size.of(1, REPEATS) {
        if only.is_some_and(|only| only != part) {
            continue;
        }
        let round = &rounds[usize::try_from(part)? % rounds.len()];
        make(round, part)
            .map_err(|failure| Failure::new(format!("seed {}, part {part}, {round:?}: {failure}", context.seed)))?;
    }
    Ok(())
}

impl Round {
    /// Threads, and two processes beside, none of which is killed.
    pub fn shared(threads: u32, calls: usize) -> Self {
        Self {
            sync_mode: SyncMode::Full,
            cache_size_mb: 64,
            exclusive: false,
            threads,
            programs: vec!["rust"; 2],
            kills: 0,
            calls,
            padding: 0,
        }
    }

    /// The settings that a worker opens the store with.
    fn options(&self) -> serde_json::Map<String, serde_json::Value> {
        let mut options = serde_json::Map::new();
        options.insert("sync_mode".into(), json!(self.sync_mode));
        options.insert("cache_size_mb".into(), json!(self.cache_size_mb));
        options.insert("exclusive".into(), json!(self.exclusive));
        options.insert("enable_compression".into(), json!(self.padding == 0));
        options
    }

    /// Works on a new store; answers its log and what everybody was told.
    pub fn run<T: Call + Send>(
        &self,
        context: &Context,
        part: u64,
        stage: &str,
        prepare: fn(&State) -> Result<(), Failure>,
        work: Work<T>,
    ) -> Result<(Log, Vec<T>), Failure> {
        let dir = context.fast_dir.join(part.to_string());
        std::fs::create_dir(&dir)?;
        let path = dir.join("store.db");
        let mut options = self.options();
        options.insert("persistence_path".into(), json!(path));
        let state = open(options)?;
        prepare(&state)?;
        let mut random = context.random(part);
        let seed = random.u64(..);
        let mut calls = Vec::new();
        std::thread::scope(|scope| -> Result<(), Failure> {
            let work_here = |id| {
                let (state, calls, padding) = (&state, self.calls, self.padding);
                scope.spawn(move || -> Result<Vec<T>, Failure> {
                    let mut told = Vec::new();
                    let mut worker = Worker { padding, ..Worker::new(id, seed, calls, false) };
                    work(state, &mut worker, &mut told)?;
                    for call in &mut told {
                        *call.worker() = id;
                    }
                    Ok(told)
                })
            };
            let threads: Vec<_> = (0..self.threads).map(work_here).collect();
            let beside = Beside { context, stage, round: self, dir: &dir, path: &path, seed };
            let told = beside.run(&mut random);
            for thread in threads {
                calls.extend(thread.join().map_err(|_| Failure::new("a worker panicked, as told above"))??);
            }
            calls.extend(told?);
            Ok(())
        })?;
        state.close()?;
        let log = Log::read(&path)?;
        std::fs::remove_dir_all(&dir)?;
        Ok((log, calls))
    }
}

/// Opens a store whose whole log is looked at afterwards.
fn open(options: serde_json::Map<String, serde_json::Value>) -> Result<State, Error> {
    State::with_config(StateConfig { retention: RetentionPolicy::keep_all(), ..StateConfig::from_options(options)? })
}

/// The processes of a round.
struct Beside<'r> {
    context: &'r Context,
    stage: &'r str,
    round: &'r Round,
    dir: &'r Path,
    path: &'r Path,
    seed: u64,
}

/// One of them.
struct Process {
    id: u32,
    program: &'static str,
    child: Child,
}

impl Drop for Process {
    fn drop(&mut self) {
        // Gone already, unless something has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Beside<'_> {
    /// Starts all, kills some, waits for the rest; answers what they were told.
    fn run<T: Call>(&self, random: &mut fastrand::Rng) -> Result<Vec<T>, Failure> {
        let mut next = self.round.threads;
        let mut start = |program| {
            next += 1;
            self.start(program, next - 1)
        };
        let mut processes =
            self.round.programs.iter().map(|program| start(program)).collect::<Result<Vec<Process>, _>>()?;
        let mut calls = Vec::new();
        for _ in 0..self.round.kills {
            // Some die while they open the store, most while they work.
            std::thread::sleep(Duration::from_millis(random.u64(2..80)));
            let place = random.usize(0..processes.len());
            let mut dead = processes.swap_remove(place);
            processes.push(start(dead.program)?);
            if dead.child.try_wait()?.is_none() {
                dead.child.kill()?;
                dead.child.wait()?;
                calls.extend(self.told(dead.id)?);
            } else {
                calls.extend(self.ended(dead)?);
            }
        }
        for process in processes {
            calls.extend(self.ended(process)?);
        }
        Ok(calls)
    }

    fn file(&self, id: u32, kind: &str) -> PathBuf {
        self.dir.join(format!("{id}.{kind}"))
    }

    fn start(&self, program: &'static str, id: u32) -> Result<Process, Failure> {
        let mut command = if program == "rust" {
            Command::new(std::env::current_exe()?.with_file_name("consistency"))
        } else {
            let ending = if program == "python" { "py" } else { "lua" };
            let script =
                format!("eval \"$(scripts/env.sh)\" && exec {program} tests/crash/workers/consistency.{ending} \"$@\"");
            let mut command = Command::new("bash");
            command.args(["-c", &script, program]).current_dir(&self.context.root);
            command
        };
        let options = serde_json::to_string(&self.round.options())?;
        let (seed, calls) = (self.seed.to_string(), self.round.calls.to_string());
        command.arg(self.stage).arg(self.path).args([&options, &id.to_string(), &seed, &calls]);
        command.arg(self.file(id, "journal"));
        let errors = std::fs::File::create(self.file(id, "errors"))?;
        let child = command.stdin(Stdio::null()).stdout(errors.try_clone()?).stderr(errors).spawn()?;
        Ok(Process { id, program, child })
    }

    /// What a process that ends by itself was told.
    fn ended<T: Call>(&self, mut process: Process) -> Result<Vec<T>, Failure> {
        let status = process.child.wait()?;
        if !status.success() {
            let errors = std::fs::read_to_string(self.file(process.id, "errors"))?;
            return Err(Failure::new(format!("worker {} ({}), {status}: {errors}", process.id, process.program)));
        }
        self.told(process.id)
    }

    fn told<T: Call>(&self, id: u32) -> Result<Vec<T>, Failure> {
        let journal = self.file(id, "journal");
        if journal.exists() { journal::read(&journal, id) } else { Ok(Vec::new()) }
    }
}

/// A worker process: `STAGE STORE OPTIONS ID SEED CALLS JOURNAL`, the stage being looked at already.
pub fn process<T: Call>(arguments: &[String], work: Work<T>) -> Result<(), Failure> {
    let [_, path, options, id, seed, calls, journal] = arguments else {
        return Err(Failure::new("arguments: STAGE STORE OPTIONS ID SEED CALLS JOURNAL"));
    };
    let mut options: serde_json::Map<String, serde_json::Value> = serde_json::from_str(options)?;
    options.insert("persistence_path".into(), json!(path));
    let mut journal = Journal::create(Path::new(journal))?;
    let state = open(options)?;
    work(&state, &mut Worker::new(id.parse()?, seed.parse()?, calls.parse()?, true), &mut journal)?;
    state.close()?;
    journal.flush()
}
