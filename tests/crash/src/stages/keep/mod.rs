//! Short lives of processes that write under a policy which keeps almost nothing of the past: keys that expire, forks, merges,
//! values that are differences, watches that come late, and trimming, all killed at any moment.

mod check;
mod model;
mod story;
mod stream;
mod work;

use self::model::Model;
use self::story::{Line, now_ms};
use super::storm::{is_of_the_past, keep};
use crate::{Context, Failure, Outcome, Size, Stage, hold};
use fastrand::Rng;
use llmspell_state_persistence::harness::POINTS;
use llmspell_state_persistence::{State, StateConfig};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

pub use work::process;

/// The stage.
pub(super) const KEEP: Stage = Stage {
    name: "keep",
    what: "kill -9 of writers of keys that expire, of forks, merges and growing values, while all but two versions are trimmed: \
           what must be there is there exactly, what is over is nowhere, watches tell everything",
    long: 50_000,
    run,
};

/// Lives after which a store is given up for a new one.
const LIVES: u64 = 14;
/// Stores that are worked on at a time.
const LANES: usize = 2;
/// Threads of all processes of a store.
const SLOTS: usize = 4;
/// A process that does not open the store for this long hangs.
const PATIENCE: Duration = Duration::from_secs(30);

struct Keep<'c> {
    context: &'c Context,
    next_part: AtomicU64,
    kills: AtomicU64,
    failed: AtomicBool,
    outcome: Mutex<Outcome>,
    /// Points of its own at which a process has died, and the next one.
    points: Mutex<BTreeSet<&'static str>>,
    next_point: AtomicUsize,
}

fn run(context: &Context) -> Result<Outcome, Failure> {
    let all = Keep {
        context,
        next_part: AtomicU64::new(0),
        kills: AtomicU64::new(0),
        failed: AtomicBool::new(false),
        outcome: Mutex::default(),
        points: Mutex::default(),
        next_point: AtomicUsize::new(0),
    };
    if let Some(part) = &context.only {
        all.part(part.parse()?)?;
    } else {
        let wanted = context.size.of(44, 900);
        std::thread::scope(|threads| {
            let lanes: Vec<_> = (0..LANES).map(|_| threads.spawn(|| all.lane(wanted))).collect();
            lanes.into_iter().try_for_each(|lane| lane.join().unwrap_or_else(|_| Err(Failure::new("a lane panicked"))))
        })?;
    }
    let points = all.points.into_inner().unwrap_or_else(PoisonError::into_inner);
    // Few kills draw only some of them.
    if matches!(context.size, Size::Middle) && context.only.is_none() {
        let missed: Vec<_> = own_points().filter(|point| !points.contains(point)).collect();
        hold!(missed.is_empty(), "no process has died at {}", missed.join(", "));
    }
    let mut outcome = Outcome::default();
    // The main measure comes first.
    outcome.count("kills", all.kills.into_inner());
    outcome.count("points of sweeping, trimming, forking and merging died at", points.len() as u64);
    outcome.add(all.outcome.into_inner().unwrap_or_else(PoisonError::into_inner));
    Ok(outcome)
}

impl Keep<'_> {
    fn lane(&self, wanted: u64) -> Result<(), Failure> {
        while self.kills.load(Ordering::Relaxed) < wanted && !self.failed.load(Ordering::Relaxed) {
            let part = self.next_part.fetch_add(1, Ordering::Relaxed);
            self.part(part).inspect_err(|_| self.failed.store(true, Ordering::Relaxed))?;
        }
        Ok(())
    }

    fn count(&self, what: &str, more: u64) {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner).count(what, more);
    }

    /// The life of one store.
    fn part(&self, part: u64) -> Result<(), Failure> {
        let above = if part.is_multiple_of(4) { &self.context.dir } else { &self.context.fast_dir };
        let dir = above.join(format!("keep{part}"));
        std::fs::create_dir_all(&dir)?;
        let mut random = self.context.random(part);
        let mut store = Store {
            all: self,
            dir: dir.clone(),
            policy: Policy::random(&mut random),
            model: Model::default(),
            runs: 0,
        };
        for life in 0..LIVES {
            if self.failed.load(Ordering::Relaxed) {
                break;
            }
            store.live(&mut random).map_err(|e| {
                let kept = keep(self.context, &dir, "keep", part);
                let seed = self.context.seed;
                Failure::new(format!("seed {seed}, part {part}, life {life}: {e}\nthe store: {}", kept.display()))
            })?;
        }
        self.count("operations acknowledged", store.model.acknowledged);
        Ok(std::fs::remove_dir_all(&dir)?)
    }
}

/// How much of the past a store keeps, in the words of settings.
struct Policy {
    max_age: Option<f64>,
    max_bytes: Option<u64>,
}

impl Policy {
    fn random(random: &mut Rng) -> Self {
        let max_age = random.choice([None, None, Some(3_600.0), Some(0.4), Some(0.05)]).flatten();
        Self { max_age, max_bytes: (random.u8(..5) == 0).then_some(20_000) }
    }

    /// How many versions of a key are there whatever their age.
    fn depth(&self) -> usize {
        let is_short = self.max_age.is_some_and(|age| age < 60.0) || self.max_bytes.is_some();
        if is_short { 0 } else { 2 }
    }

    fn settings(&self, random: &mut Rng, is_alone: bool) -> Map<String, Value> {
        let retention = json!({
            "max_versions": 2, "max_age": self.max_age, "max_bytes": self.max_bytes, "cleanup_interval": 0.1
        });
        let is_exclusive = is_alone && random.u8(..5) == 0;
        Map::from_iter([
            ("retention".to_owned(), retention),
            ("sync_mode".to_owned(), if random.bool() { "FULL" } else { "NORMAL" }.into()),
            ("cache_size_mb".to_owned(), [0, 1, 8][random.usize(..3)].into()),
            ("enable_compression".to_owned(), (random.u8(..6) > 0).into()),
            ("exclusive".to_owned(), is_exclusive.into()),
        ])
    }
}

/// A process; a failure must not leave it behind.
struct Worker {
    child: Child,
    journal: PathBuf,
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Worker {
    /// What it has told so far: a kill may have cut the last line.
    fn lines(&self) -> Result<Vec<Line>, Failure> {
        let text = std::fs::read(&self.journal).unwrap_or_default();
        let whole = text.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
        whole.map(|line| Ok(serde_json::from_slice(line)?)).collect()
    }

    /// Waits until it has opened the store, or has ended.
    fn opens(&mut self) -> Result<(), Failure> {
        let start = Instant::now();
        while self.journal.metadata().map_or(0, |found| found.len()) == 0 && self.child.try_wait()?.is_none() {
            hold!(start.elapsed() < PATIENCE, "a process does not open the store");
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

/// One store and what is known of it.
struct Store<'k> {
    all: &'k Keep<'k>,
    dir: PathBuf,
    policy: Policy,
    model: Model,
    runs: u64,
}

impl Store<'_> {
    fn path(&self) -> PathBuf {
        self.dir.join("store.db")
    }

    /// Processes write and are killed; then somebody looks.
    fn live(&mut self, random: &mut Rng) -> Result<(), Failure> {
        let slots = [&["0"][..], &["0,1,2"], &["0,1", "2,3"], &["0", "2,3"]][random.usize(..4)];
        let mut workers = Vec::new();
        for own in slots {
            let die = if random.bool() { self.point(random) } else { None };
            let name = die.map(|(name, _)| name);
            let die = die.map_or("-".into(), |(name, passings)| format!("{name}:{passings}"));
            workers.push((self.start(own, &die, slots.len() == 1, random)?, name));
        }
        for (worker, _) in &mut workers {
            if random.u8(..10) > 0 {
                worker.opens()?;
            }
        }
        random.shuffle(&mut workers);
        for (mut worker, point) in workers {
            std::thread::sleep(Duration::from_millis(random.u64(..180)));
            let own = point.filter(|point| own_points().any(|own| own == *point));
            if let (Some(own), Some(_)) = (own, worker.child.try_wait()?) {
                self.all.points.lock().unwrap_or_else(PoisonError::into_inner).insert(own);
            }
            worker.child.kill()?;
            let status = worker.child.wait()?;
            let gone_ms = now_ms();
            let lines = worker.lines()?;
            let is_killed = std::os::unix::process::ExitStatusExt::signal(&status) == Some(libc::SIGKILL);
            self.model.replay(&lines, gone_ms)?;
            hold!(is_killed || status.success(), "a process ended by itself: {status}");
            self.all.kills.fetch_add(u64::from(is_killed), Ordering::Relaxed);
            self.all.count("processes that ended before they were killed", u64::from(!is_killed));
        }
        self.look(random)
    }

    fn start(&mut self, slots: &str, die: &str, is_alone: bool, random: &mut Rng) -> Result<Worker, Failure> {
        self.runs += 1;
        let program = std::env::current_exe()?.with_file_name("keep");
        hold!(program.exists(), "{} is missing: cargo build -p llmspell-state-crash", program.display());
        let journal = self.dir.join(format!("journal{}", self.runs));
        let settings = serde_json::to_string(&self.policy.settings(random, is_alone))?;
        let (seed, run) = (random.u64(..).to_string(), self.runs.to_string());
        let mut command = Command::new(program);
        command.arg(self.path()).arg(&journal).args([&settings, &seed, &run, slots, die]);
        let child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn()?;
        Ok(Worker { child, journal })
    }

    fn look(&mut self, random: &mut Rng) -> Result<(), Failure> {
        if !self.path().exists() {
            return Ok(());
        }
        let state = self.open(random)?;
        let told = self.look_into(&state, random);
        // Also before a store that broke is kept.
        state.close()?;
        told?;
        self.all.count("times looked at", 1);
        Ok(())
    }

    fn look_into(&mut self, state: &State, random: &mut Rng) -> Result<(), Failure> {
        check::look(state, &mut self.model, self.policy.depth())?;
        if random.bool() {
            let told = check::watches(state, &mut self.model, SLOTS)?;
            self.all.count("changes told by watches", told);
        }
        if random.bool() {
            let done = state.cleanup()?;
            self.all.count("changes trimmed at once", done.trimmed);
            check::look(state, &mut self.model, self.policy.depth())
                .map_err(|failure| Failure::new(format!("after cleaning up: {failure}")))?;
        }
        Ok(())
    }

    /// Where a process kills itself, and when it passes that for which time.
    fn point(&self, random: &mut Rng) -> Option<(&'static str, u64)> {
        if random.bool() {
            let own: Vec<_> = own_points().collect();
            let next = self.all.next_point.fetch_add(1, Ordering::Relaxed);
            return Some((own[next % own.len()], random.u64(1..4)));
        }
        let passings = if random.bool() { random.u64(1..4) } else { random.u64(1..120) };
        random
            .choice(POINTS.iter().copied().chain(["file.write", "file.change"]).collect::<Vec<_>>())
            .map(|point| (point, passings))
    }

    fn open(&self, random: &mut Rng) -> Result<State, Failure> {
        let mut settings = self.policy.settings(random, true);
        settings.insert("persistence_path".into(), self.path().to_string_lossy().into());
        State::with_config(StateConfig::from_options(settings)?)
            .map_err(|error| Failure::new(format!("opening: {}: {error}", error.kind())))
    }
}

/// Points that only keys that expire, trimming, forks and merges pass.
fn own_points() -> impl Iterator<Item = &'static str> {
    POINTS.iter().copied().filter(|point| is_of_the_past(point))
}
