//! kill -9 at any moment and at every named point, on stores that many runs of many languages have written.

pub(crate) mod crew;
pub(crate) mod ledger;
pub(crate) mod operation;

use self::crew::{Crew, End, LANGUAGES, Orders, Worker};
use self::ledger::{Ledger, Run, compare_entries};
use crate::{Context, Failure, Outcome, Stage, hold};
use fastrand::Rng;
use llmspell_state_persistence::harness::POINTS;
use llmspell_state_persistence::{RetentionPolicy, State, StateConfig};
use rusqlite::{Connection, OpenFlags};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The storm.
pub(super) const KILLS: Stage = Stage {
    name: "kills",
    what: "kill -9 of Rust, Python and Lua writers, at random and at every named point, one in five again while the store \
           is opened: what is stored is a prefix of the commits that covers every acknowledgement, every commit whole",
    long: 100_000,
    run,
};

/// Kills after which a store is given up for a new one.
const LIFE: u64 = 18;
/// Stores that are worked on at a time.
const LANES: usize = 2;
/// What is done past SQLite counts as a point, too.
const FILE_POINTS: [&str; 2] = ["file.write", "file.change"];

/// Whether only keys that expire, trimming, forks and merges pass a point. The stage `keep` dies there.
pub(super) fn is_of_the_past(point: &str) -> bool {
    ["fork.", "merge.", "sweep.", "trim."].iter().any(|name| point.starts_with(name))
}

/// What the lanes have in common.
struct Storm<'c> {
    context: &'c Context,
    next_part: AtomicU64,
    kills: AtomicU64,
    failed: AtomicBool,
    outcome: Mutex<Outcome>,
    /// Points at which a worker has died.
    points: Mutex<BTreeSet<&'static str>>,
}

fn run(context: &Context) -> Result<Outcome, Failure> {
    let storm = Storm {
        context,
        next_part: AtomicU64::new(0),
        kills: AtomicU64::new(0),
        failed: AtomicBool::new(false),
        outcome: Mutex::default(),
        points: Mutex::default(),
    };
    if let Some(part) = &context.only {
        storm.part(part.parse()?)?;
    } else {
        let wanted = context.size.of(170, 5_200);
        std::thread::scope(|threads| {
            let lanes: Vec<_> = (0..LANES).map(|_| threads.spawn(|| storm.lane(wanted))).collect();
            lanes.into_iter().try_for_each(|lane| lane.join().unwrap_or_else(|_| Err(Failure::new("a lane panicked"))))
        })?;
    }
    let points = storm.points.into_inner().unwrap_or_else(PoisonError::into_inner).len();
    let mut outcome = storm.outcome.into_inner().unwrap_or_else(PoisonError::into_inner);
    // The main measure comes first.
    let counts = std::mem::take(&mut outcome.counts);
    outcome.count("kills", storm.kills.into_inner());
    outcome.counts.extend(counts);
    outcome.count("different points died at", points as u64);
    Ok(outcome)
}

impl Storm<'_> {
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
        // Most stores are in memory, where more happens in a short life; a disk has moments of its own.
        let above = if part.is_multiple_of(4) { &self.context.dir } else { &self.context.fast_dir };
        let dir = above.join(format!("kills{part}"));
        std::fs::create_dir_all(&dir)?;
        let mut random = self.context.random(part);
        let mut life = Life {
            storm: self,
            crew: Crew { context: self.context, store: dir.join("store.db"), runs: 0 },
            ledger: Ledger::default(),
            runs: Vec::new(),
            kills: 0,
            cycle: 0,
            part,
        };
        while life.kills < LIFE && !self.failed.load(Ordering::Relaxed) {
            life.cycle += 1;
            life.cycle(&mut random).map_err(|e| {
                let kept = keep(self.context, &dir, "kills", part);
                let Context { seed, .. } = self.context;
                Failure::new(format!(
                    "seed {seed}, part {part}, cycle {}: {e}\nthe store: {}",
                    life.cycle,
                    kept.display()
                ))
            })?;
        }
        Ok(std::fs::remove_dir_all(&dir)?)
    }
}

/// Keeps the files of a store that broke, since no run is like another.
pub(crate) fn keep(context: &Context, dir: &Path, stage: &str, part: u64) -> PathBuf {
    let kept = context.root.join(format!("build/crash/kept/{stage}-{}-{part}", context.seed));
    let copied = std::fs::create_dir_all(&kept).and_then(|()| {
        std::fs::read_dir(dir)?.try_for_each(|file| {
            let file = file?;
            std::fs::copy(file.path(), kept.join(file.file_name())).map(drop)
        })
    });
    if copied.is_ok() { kept } else { dir.to_owned() }
}

/// One store and what is known of it.
struct Life<'s> {
    storm: &'s Storm<'s>,
    crew: Crew<'s>,
    ledger: Ledger,
    /// Runs since the store was last looked at.
    runs: Vec<Run>,
    kills: u64,
    cycle: u64,
    part: u64,
}

/// Settings that workers at the same time may have.
fn shared_settings(random: &mut Rng) -> String {
    let sync = if random.bool() { "FULL" } else { "NORMAL" };
    let cache = if random.bool() { 0 } else { 4 };
    format!("sync_mode={sync} cache_size_mb={cache} enable_compression={}", random.bool())
}

fn lone_settings(random: &mut Rng) -> String {
    let shared = shared_settings(random);
    match random.u32(0..10) {
        0..6 => shared,
        6..8 => format!("{shared} exclusive=true"),
        _ => format!("{shared} exclusive=true enable_wal=false"),
    }
}

fn moment(random: &mut Rng, longest_us: u64) -> Duration {
    Duration::from_micros(random.u64(0..longest_us))
}

/// Rust most often, since it starts fastest; Python least.
fn language(random: &mut Rng) -> &'static str {
    match random.u32(0..20) {
        0..9 => LANGUAGES[0],
        9..12 => LANGUAGES[1],
        other => LANGUAGES[2 + other as usize % 4],
    }
}

fn orders(language: &'static str, slots: Vec<usize>, settings: String, random: &mut Rng) -> Orders {
    let operations = if random.u32(0..5) == 0 { random.usize(5..60) } else { 600 / slots.len() };
    let growth = if random.u32(0..12) == 0 { 8 } else { 1 };
    let posts = if language == "rust" && random.bool() { random.usize(1..17) } else { 0 };
    Orders { language, slots, operations, settings, growth, peek: None, posts, die: None }
}

impl Life<'_> {
    fn cycle(&mut self, random: &mut Rng) -> Result<(), Failure> {
        match random.u32(0..10) {
            // Several processes at once make the store.
            _ if self.cycle == 1 => self.together(random)?,
            0..4 => self.alone(random)?,
            4..7 => self.at_point(random)?,
            _ => self.together(random)?,
        }
        if random.u32(0..4) == 0 {
            self.again(random)?;
        }
        let commits = look(&self.crew.store, &mut self.ledger, &mut self.runs, random)?;
        self.runs.clear();
        self.storm.count("commits", commits);
        self.storm.count("times looked at", 1);
        Ok(())
    }

    fn end(&mut self, worker: Worker) -> Result<End, Failure> {
        let (runs, end) = worker.kill()?;
        self.runs.extend(runs);
        match end {
            End::Killed => {
                self.kills += 1;
                self.storm.kills.fetch_add(1, Ordering::Relaxed);
            }
            End::Finished => self.storm.count("runs that ended before they were killed", 1),
        }
        Ok(end)
    }

    /// One process, of one thread or several.
    fn alone(&mut self, random: &mut Rng) -> Result<(), Failure> {
        let language = language(random);
        let slots = if language == "rust" && random.bool() { vec![0, 1, 2, 3] } else { vec![0] };
        let settings = lone_settings(random);
        let orders = orders(language, slots, settings, random);
        let worker = self.crew.start(&orders, random)?;
        worker.progress(1)?;
        std::thread::sleep(moment(random, 12_000));
        self.end(worker).map(drop)
    }

    /// One process that kills itself at a named point.
    fn at_point(&mut self, random: &mut Rng) -> Result<(), Failure> {
        let points = POINTS.iter().copied().filter(|point| !is_of_the_past(point)).chain(FILE_POINTS);
        let points: Vec<&'static str> = points.collect();
        let point = points[usize::try_from(self.part * 5 + self.cycle)? % points.len()];
        let passings = if random.bool() { random.u64(1..4) } else { random.u64(1..60) };
        let slots = if random.u32(0..4) == 0 { vec![0, 1, 2] } else { vec![0] };
        let settings = if point.starts_with("checkpoint") { shared_settings(random) } else { lone_settings(random) };
        let orders = Orders { die: Some((point, passings)), ..orders("rust", slots, settings, random) };
        let worker = self.crew.start(&orders, random)?;
        let by_itself = !worker.lives(Duration::from_millis(150));
        if self.end(worker)? == End::Killed && by_itself {
            self.storm.count("of them at a named point", 1);
            self.storm.points.lock().unwrap_or_else(PoisonError::into_inner).insert(point);
        }
        Ok(())
    }

    /// Several processes at once, killed one after the other: those that are left go on.
    fn together(&mut self, random: &mut Rng) -> Result<(), Failure> {
        let mut workers = Vec::new();
        let first = random.usize(0..3);
        for slot in 0..random.usize(2..4) {
            // Languages that differ: one process each of Rust, Python, Lua.
            let language = match (first + slot) % 3 {
                0 => "rust",
                1 if random.bool() => "python",
                _ => LANGUAGES[random.usize(2..6)],
            };
            let slots = if language == "rust" && random.bool() { vec![slot, slot + 3] } else { vec![slot] };
            let settings = shared_settings(random);
            let orders = Orders { operations: 600, ..orders(language, slots, settings, random) };
            workers.push(self.crew.start(&orders, random)?);
        }
        for worker in &workers {
            worker.progress(1)?;
        }
        random.shuffle(&mut workers);
        while let Some(worker) = workers.pop() {
            std::thread::sleep(moment(random, 8_000));
            self.end(worker)?;
            for left in &workers {
                left.progress(1)?;
            }
        }
        Ok(())
    }

    /// Kills a process that opens the store which a killed one has left.
    fn again(&mut self, random: &mut Rng) -> Result<(), Failure> {
        let settings = lone_settings(random);
        let mut orders = orders("rust", vec![0], settings, random);
        let opening: Vec<&'static str> = POINTS.iter().copied().filter(|point| point.starts_with("open")).collect();
        if random.bool() {
            orders.die = random.choice(opening).map(|point| (point, 1));
        }
        let worker = self.crew.start(&orders, random)?;
        worker.lives(moment(random, 8_000));
        if self.end(worker)? == End::Killed {
            self.storm.count("of them during opening", 1);
        }
        Ok(())
    }
}

/// A look into the store's file beside the store; the same SQLite, so that both know of each other's locks.
pub(crate) fn raw(store: &Path) -> Result<Connection, Failure> {
    Ok(Connection::open_with_flags(store, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?)
}

/// Opens the store and compares everything in it with what the runs have told; answers how many commits were new.
pub(crate) fn look(store: &Path, ledger: &mut Ledger, runs: &mut [Run], random: &mut Rng) -> Result<u64, Failure> {
    let config = StateConfig {
        cache_size_mb: if random.bool() { 0 } else { 64 },
        exclusive: random.u32(0..6) == 0,
        retention: RetentionPolicy::keep_all(),
        ..StateConfig::at(store)
    };
    let open = |config: &StateConfig| {
        State::with_config(config.clone()).map_err(|e| Failure::new(format!("opening: {}: {e}", e.kind())))
    };
    let mut state = open(&config)?;
    let version = state.version()?;
    if config.exclusive {
        // Nobody else may look into the file meanwhile.
        state.close()?;
        state = open(&StateConfig { exclusive: false, ..config })?;
        hold!(state.version()? == version, "version {version} became {}", state.version()?);
    }
    let connection = raw(store)?;
    let commits = ledger.replay(&connection, runs)?;
    ledger.compare(&state)?;
    compare_entries(&connection, ledger)?;
    drop(connection);
    let found = state.verify()?;
    hold!(found.is_ok(), "verify: {}", found.problems.join("; "));
    state.close()?;
    Ok(commits)
}
