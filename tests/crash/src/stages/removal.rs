//! Files of an open store that are removed, or replaced by a copy of themselves: what is written to a file without a name is lost,
//! so nothing may be acknowledged any more.

use crate::hold;
use crate::stage::{Context, Failure, Outcome, Stage};
use llmspell_state_persistence::{ErrorKind, State, StateConfig, SyncMode};
use std::fs;

/// Removed and replaced files.
pub(super) const REMOVAL: Stage = Stage {
    name: "removal",
    what: "the database, its log or its index removed or replaced under an open store",
    long: 10_000,
    run,
};

fn run(context: &Context) -> Result<Outcome, Failure> {
    let mut outcome = Outcome::default();
    let rounds = context.size.of(24, 600);
    for part in 0..rounds {
        if context.only.as_ref().is_none_or(|only| *only == part.to_string()) {
            one(context, part).map_err(|failure| {
                Failure::new(format!("{failure}\nagain: crash stage removal {} {} {part}", context.size, context.seed))
            })?;
            outcome.count("files removed or replaced", 1);
        }
    }
    Ok(outcome)
}

fn one(context: &Context, part: u64) -> Result<(), Failure> {
    let mut random = context.random(part);
    let dir = context.fast_dir.join(part.to_string());
    fs::create_dir_all(&dir)?;
    let store = dir.join("store.db");
    let sync_mode = if random.bool() { SyncMode::Full } else { SyncMode::Normal };
    let state = State::with_config(StateConfig { sync_mode, ..StateConfig::at(&store) })?;
    for n in 0..random.u32(1..50) {
        state.set(&format!("k{n}"), n)?;
    }
    let suffix = ["", "-wal", "-shm"][random.usize(..3)];
    let file = dir.join(format!("store.db{suffix}"));
    let replaced = random.bool();
    if replaced {
        let copy = dir.join("copy");
        fs::copy(&file, &copy)?;
        fs::rename(copy, &file)?;
    } else {
        fs::remove_file(&file)?;
    }
    let what = if replaced { "replaced" } else { "removed" };
    for call in ["set", "increment", "transaction"] {
        let told = match call {
            "set" => state.set("late", 1).map(drop),
            "increment" => state.increment("late", 1).map(drop),
            _ => state.transact(|tx| tx.set("late", 1)),
        };
        let kind = told.err().map(|error| error.kind());
        hold!(kind == Some(ErrorKind::DataLoss), "store.db{suffix} was {what}, and {call} answered {kind:?}");
    }
    state.close()?;
    Ok(fs::remove_dir_all(dir)?)
}
