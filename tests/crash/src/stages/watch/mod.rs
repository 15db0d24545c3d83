//! Watching: processes that watch a store while others write it. Writers and watchers are killed and replaced; in the end
//! what each watcher was told must be exactly what the log says.

mod check;
mod keeper;
mod work;

use self::keeper::{Common, Keeper, Orders, Start, Stream, Worker};
use crate::{Context, Failure, Outcome, Size, Stage, hold};
use llmspell_state_persistence::{State, StateConfig};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

pub use work::process;

/// The stage.
pub(super) const WATCH: Stage = Stage {
    name: "watch",
    what: "watches in Rust, Python and Lua processes on a store that four processes write, writers and watchers killed and \
           replaced: every change once and in order, from a version too; at least once and without gaps where the store keeps \
           how far a named watch has come; every commit whole, every old value right",
    long: 1_000_000,
    run,
};

/// Processes that write at a time.
const WRITERS: usize = 4;
/// Commits before anybody watches.
const BEFORE: u64 = 10;
/// Nobody needs this long to get on.
const PATIENCE: Duration = Duration::from_secs(30);
/// Named points that a watch passes only when it keeps how far it has come.
const POINTS: [&str; 4] = ["write.begun", "write.applied", "write.committed", "write.marked"];

/// Commits of a run, times that a writer is killed, times that each watcher is.
struct Extent {
    commits: u64,
    writers_killed: u64,
    restarts: u64,
}

fn run(context: &Context) -> Result<Outcome, Failure> {
    let rounds = match &context.only {
        Some(part) => part.parse()?..part.parse::<u64>()? + 1,
        None => 0..context.size.of(1, 2),
    };
    let mut outcome = Outcome::default();
    outcome.count("commits", 0);
    for part in rounds {
        let dir = context.fast_dir.join(format!("watch{part}"));
        std::fs::create_dir_all(&dir)?;
        one(context, &dir, part, &mut outcome).map_err(|failure| {
            let kept = super::storm::keep(context, &dir, "watch", part);
            Failure::new(format!("seed {}, part {part}: {failure}\nthe store: {}", context.seed, kept.display()))
        })?;
        std::fs::remove_dir_all(dir)?;
    }
    Ok(outcome)
}

/// Who watches.
fn watchers(context: &Context, random: &mut fastrand::Rng, restarts: u64) -> Vec<Orders> {
    let plain = |language, scope, pattern| Orders {
        language,
        scope,
        pattern,
        start: Start::Now,
        restarts: 0,
        save_every: 0,
        extra: Vec::new(),
        late: false,
    };
    let since = |language| Orders { start: Start::Since, restarts, ..plain(language, "", "*") };
    let named = |language, scope, pattern| Orders {
        start: Start::Named,
        restarts,
        save_every: 37,
        ..plain(language, scope, pattern)
    };
    let point = format!("die={}:{}", POINTS[random.usize(0..POINTS.len())], random.u32(2..5));
    let mut all = vec![
        plain("rust", "", "*"),
        Orders { extra: vec!["ready".into()], ..plain("rust", "", "a*") },
        Orders { extra: vec!["slow".into()], ..since("rust") },
        // Killed just after it has kept how far it has come, with changes fetched that it has not taken.
        Orders { extra: vec!["slow".into(), format!("die=saved:{}", random.u32(1..4))], ..named("rust", "", "*") },
        Orders { extra: vec!["ready".into(), point], ..named("rust", "in", "b*") },
        Orders { late: true, restarts: 0, ..since("rust") },
    ];
    let scripted = match context.size {
        Size::Small => vec![["python", "lua5.4", "lua5.3", "lua5.1", "luajit"][random.usize(0..5)]],
        Size::Middle => vec!["python", "lua5.4", "luajit"],
    };
    for language in scripted {
        all.extend([since(language), named(language, "in", "*")]);
    }
    all
}

fn one(context: &Context, dir: &Path, part: u64, outcome: &mut Outcome) -> Result<(), Failure> {
    let mut random = context.random(part);
    let extent = match context.size {
        Size::Small => Extent { commits: 3_000, writers_killed: 2, restarts: 3 },
        Size::Middle => Extent { commits: 100_000, writers_killed: 12, restarts: random.u64(3..8) },
    };
    let store = dir.join("store.db");
    let state = State::with_config(StateConfig { enable_compression: false, ..work::keeping(&store) })?;
    for number in 0..i64::try_from(BEFORE)? {
        state.set(&format!("a{number}"), number)?;
    }
    state.scope("in")?;
    let common = Common::default();
    let all = watchers(context, &mut random, extent.restarts);
    let early = all.iter().filter(|orders| !orders.late).count();
    let mut writers_killed = 0;
    let streams: Result<Vec<Stream>, Failure> = std::thread::scope(|threads| {
        let keepers: Vec<_> = all
            .iter()
            .enumerate()
            .map(|(number, orders)| {
                let mut keeper = Keeper {
                    context,
                    store: &store,
                    orders,
                    number,
                    until: BEFORE + extent.commits,
                    common: &common,
                    random: context.random((part << 8) + number as u64 + 1),
                };
                threads.spawn(move || keeper.keep())
            })
            .collect();
        let mut write = || -> Result<u64, Failure> {
            let start = Instant::now();
            while common.opened.load(Ordering::Acquire) < early && !common.has_failed() {
                let opened = common.opened.load(Ordering::Relaxed);
                hold!(start.elapsed() < PATIENCE, "{opened} of {early} watchers opened");
                std::thread::sleep(Duration::from_millis(2));
            }
            write(&state, &store, &extent, &mut random, &common)
        };
        writers_killed = write().inspect_err(|failure| common.fail(failure)).unwrap_or(0);
        common.written.store(true, Ordering::Release);
        let join = |keeper: std::thread::ScopedJoinHandle<'_, Result<Stream, Failure>>| {
            keeper.join().unwrap_or_else(|_| Err(Failure::new("a keeper panicked")))
        };
        keepers.into_iter().map(join).collect()
    });
    common.outcome()?;
    let streams = streams?;
    state.close()?;
    let log = check::Log::read(&store)?;
    for (orders, stream) in all.iter().zip(&streams) {
        let told = log.compare(orders, stream, BEFORE);
        let changes = told.map_err(|failure| Failure::new(format!("{orders}: {failure}")))?;
        outcome.count("changes told", changes);
        outcome.count("watchers", 1);
        outcome.count("times a watcher was killed", stream.restarts);
    }
    outcome.count("commits", log.version());
    outcome.count("writers killed", writers_killed);
    Ok(())
}

/// Has the store written until there are so many commits; writers are killed and replaced. Answers how many were.
fn write(
    state: &State,
    store: &Path,
    extent: &Extent,
    random: &mut fastrand::Rng,
    common: &Common,
) -> Result<u64, Failure> {
    let until = BEFORE + extent.commits;
    let (mut next, mut killed) = (0, 0);
    let mut start = |random: &mut fastrand::Rng| {
        next += 1;
        Worker::writer(store, next, random.u64(..), until)
    };
    let mut writers = (0..WRITERS).map(|_| start(random)).collect::<Result<Vec<_>, _>>()?;
    let mut kills: Vec<u64> = (0..extent.writers_killed).map(|_| random.u64(BEFORE..until)).collect();
    kills.sort_unstable();
    let (mut kills, mut last) = (kills.into_iter().peekable(), (0, Instant::now()));
    loop {
        let version = state.version()?;
        if version > last.0 {
            last = (version, Instant::now());
        }
        hold!(last.1.elapsed() < PATIENCE, "the writers hang at version {version}");
        if common.has_failed() {
            return Ok(killed);
        }
        if kills.next_if(|at| *at <= version).is_some() {
            let place = random.usize(0..writers.len());
            writers.swap_remove(place).kill()?;
            writers.push(start(random)?);
            killed += 1;
            continue;
        }
        let mut busy = false;
        for writer in &mut writers {
            busy |= writer.is_busy()?;
        }
        if !busy {
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    // What tells the watchers that they have seen everything.
    state.transact(|root| {
        let inner = root.scope("in")?;
        for handle in [root, &inner] {
            handle.set("a.end", work::END)?;
            handle.set("b.end", work::END)?;
        }
        Ok(())
    })?;
    Ok(killed)
}
