//! Several processes on one file: one in each language, one that looks at the file by other means, one that is replaced
//! again and again, all of them killed in the end.

use super::storm::crew::{Crew, End, Orders, Worker};
use super::storm::ledger::Ledger;
use super::storm::{keep, look};
use crate::{Context, Failure, Outcome, Stage};
use std::time::Duration;

/// Several processes.
pub(super) const PROCESSES: Stage = Stage {
    name: "processes",
    what: "Python, Lua and Rust on one file: two look at it with another SQLite or with plain reads while they have it open, \
           one is replaced again and again, and all are killed; the log is exactly what they were told",
    long: 1_000,
    run,
};

/// Operations between two looks at the file by other means.
const PEEK: u32 = 7;

fn run(context: &Context) -> Result<Outcome, Failure> {
    let parts = match &context.only {
        Some(part) => part.parse()?..part.parse::<u64>()? + 1,
        None => 0..context.size.of(5, 60),
    };
    let mut outcome = Outcome::default();
    outcome.count("runs", 0);
    for part in parts {
        let dir = context.fast_dir.join(format!("processes{part}"));
        std::fs::create_dir_all(&dir)?;
        let told = one(context, &dir, part, &mut outcome);
        told.map_err(|e| {
            let kept = keep(context, &dir, "processes", part);
            Failure::new(format!("seed {}, part {part}: {e}\nthe store: {}", context.seed, kept.display()))
        })?;
        std::fs::remove_dir_all(dir)?;
        outcome.count("runs", 1);
    }
    Ok(outcome)
}

fn one(context: &Context, dir: &std::path::Path, part: u64, outcome: &mut Outcome) -> Result<(), Failure> {
    let mut random = context.random(part);
    let mut crew = Crew { context, store: dir.join("store.db"), runs: 0 };
    let sync = random.choice(["FULL", "NORMAL"]).unwrap_or("FULL");
    let orders = |language, slot, operations, peek| Orders {
        language,
        slots: vec![slot],
        operations,
        settings: format!("sync_mode={sync}"),
        growth: 1,
        peek,
        posts: if language == "rust" { 8 } else { 0 },
        die: None,
    };
    let lua = random.choice(["lua5.4", "lua5.3", "lua5.1", "luajit"]).unwrap_or("lua5.4");
    let mut lasting: Vec<Worker> = Vec::new();
    for (slot, (language, peek)) in [("python", Some(PEEK)), ("rust", Some(PEEK)), (lua, None)].into_iter().enumerate()
    {
        lasting.push(crew.start(&orders(language, slot, 4_000, peek), &mut random)?);
    }
    for worker in &lasting {
        worker.progress(1)?;
    }
    let mut runs = Vec::new();
    for _ in 0..random.u32(4..8) {
        // One that leaves by itself closes the store: as the last to leave, if nobody else's lock is seen.
        let (operations, leaves) = if random.bool() { (20, true) } else { (2_000, false) };
        let language = random.choice(["rust", lua]).unwrap_or("rust");
        let replaced = crew.start(&orders(language, 3, operations, None), &mut random)?;
        if leaves {
            replaced.finish()?;
        } else {
            replaced.progress(random.u64(1..20))?;
        }
        outcome.count("processes replaced", 1);
        let (told, end) = replaced.kill()?;
        outcome.count("kills", u64::from(end == End::Killed));
        runs.extend(told);
        for worker in &lasting {
            worker.progress(1)?;
        }
    }
    std::thread::sleep(Duration::from_millis(random.u64(0..30)));
    random.shuffle(&mut lasting);
    for worker in lasting {
        let (told, end) = worker.kill()?;
        outcome.count("kills", u64::from(end == End::Killed));
        runs.extend(told);
    }
    let commits = look(&crew.store, &mut Ledger::default(), &mut runs, &mut random)?;
    outcome.count("commits", commits);
    Ok(())
}
