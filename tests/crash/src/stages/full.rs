//! A full disk: a small file system in memory, filled through the store, given room, and filled again.

use crate::{Context, Failure, Outcome, Stage, hold};
use llmspell_state_persistence::harness::{self, Event};
use llmspell_state_persistence::{ErrorKind, Result as StoreResult, State, StateConfig, SyncMode, limits};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Rounds of filling and freeing.
pub(super) const FULL: Stage = Stage {
    name: "full",
    what: "A small disk is filled through the store: nothing acknowledged is lost, and reading, deleting, clearing, opening and \
           closing work on it; with room again, so do writes",
    long: 1_000,
    run,
};

/// The size of the file system, in bytes.
const SIZE: u64 = 8 << 20;
/// More refused writes than this in a row, and the disk counts as full.
const REFUSED: u32 = 3;
/// Threads that write to a full disk at once.
const THREADS: usize = 8;
/// Transactions, and as many deletions, of each of them.
const TURNS: usize = 3;
/// A commit takes this much longer then, so that others come to wait for it and are committed together.
const SLOW: Duration = Duration::from_millis(1);

fn run(context: &Context) -> Result<Outcome, Failure> {
    let mut outcome = Outcome::default();
    for round in 0..context.size.of(3, 120) {
        if context.only.as_ref().is_some_and(|only| *only != round.to_string()) {
            continue;
        }
        let dir = context.fast_dir.join(format!("disk{round}"));
        let Some(_mounted) = Mounted::new(&dir)? else {
            outcome.skipped.push("a file system of its own: only root may mount one".into());
            return Ok(outcome);
        };
        let told = |why: Failure| Failure::new(format!("part {round} of seed {}: {why}", context.seed));
        Round::new(&dir, round, context.random(round)).and_then(|mut round| round.run(&mut outcome)).map_err(told)?;
    }
    Ok(outcome)
}

/// A file system in memory, gone with the value.
struct Mounted<'d>(&'d Path);

impl<'d> Mounted<'d> {
    /// Nothing where that is not allowed.
    fn new(dir: &'d Path) -> Result<Option<Self>, Failure> {
        std::fs::create_dir_all(dir)?;
        let size = format!("size={SIZE}");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(dir).output();
        Ok(done.is_ok_and(|done| done.status.success()).then_some(Self(dir)))
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        // Lazily: a store that is still open after a failure must not keep the mount.
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

/// One store on one disk, and what was acknowledged.
struct Round {
    config: StateConfig,
    filler: PathBuf,
    random: fastrand::Rng,
    model: BTreeMap<String, String>,
    next: u32,
}

impl Round {
    fn new(dir: &Path, round: u64, random: fastrand::Rng) -> Result<Self, Failure> {
        let sync_mode = if round.is_multiple_of(2) { SyncMode::Full } else { SyncMode::Normal };
        let exclusive = round % 3 == 2;
        let config =
            StateConfig { sync_mode, exclusive, enable_compression: false, ..StateConfig::at(dir.join("store.db")) };
        let filler = dir.join("filler");
        // Something else that takes a part of the disk, so that rounds differ.
        let len = usize::try_from(SIZE / 8 * 3)? + usize::from(u16::MAX) * usize::from(random.clone().u8(0..8));
        std::fs::write(&filler, vec![1; len])?;
        Ok(Self { config, filler, random, model: BTreeMap::new(), next: 0 })
    }

    fn run(&mut self, outcome: &mut Outcome) -> Result<(), Failure> {
        let state = State::with_config(self.config.clone())?;
        self.fill(&state)?;
        self.check(&state, "on a full disk")?;
        let ballast = self.config.persistence_path.as_ref().map(|path| path.with_extension("db-ballast"));
        let held = || ballast.as_ref().and_then(|path| path.metadata().ok()).map_or(0, |found| found.len());
        hold!(held() == 0, "the disk is full, and {} bytes are kept back", held());
        // The space that was kept back lets it be made smaller.
        for key in self.some_keys(5) {
            let deleted =
                state.delete(&key).map_err(|e| Failure::new(format!("deleting {key} on a full disk: {e}")))?;
            hold!(deleted, "{key} was not there to be deleted");
            self.model.remove(&key);
        }
        self.check(&state, "after deleting on a full disk")?;
        let refused = self.crowd(&state)?;
        self.check(&state, "after many threads at once on a full disk")?;
        state.close()?;
        let state = State::with_config(self.config.clone())?;
        self.check(&state, "opened on a full disk")?;
        let cleared = state.clear("k1*").map_err(|e| Failure::new(format!("clearing on a full disk: {e}")))?;
        let before = self.model.len();
        self.model.retain(|key, _| !key.starts_with("k1"));
        hold!(cleared == (before - self.model.len()) as u64, "{cleared} keys were cleared");
        self.check(&state, "after clearing on a full disk")?;
        std::fs::remove_file(&self.filler)?;
        for _ in 0..10 {
            self.set(&state, 2_000)?.map_err(|kind| Failure::new(format!("{kind} although there is room")))?;
        }
        hold!(held() == limits::BALLAST_BYTES, "there is room, but {} bytes are kept back", held());
        self.check(&state, "with room")?;
        state.close()?;
        let state = State::with_config(self.config.clone())?;
        self.check(&state, "opened again")?;
        let report = state.verify()?;
        hold!(report.problems.is_empty(), "verify: {:?}", report.problems);
        state.close()?;
        outcome.count("rounds", 1);
        outcome.count("writes", u64::from(self.next));
        outcome.count("refused among others", refused);
        Ok(())
    }

    /// Sets new keys until nothing fits any more.
    fn fill(&mut self, state: &State) -> Result<(), Failure> {
        let mut refused = 0;
        while refused < REFUSED {
            let most = if refused == 0 { 40_000 } else { 100 };
            let len = self.random.usize(1..most);
            match self.set(state, len)? {
                Ok(()) => {}
                Err(ErrorKind::DiskFull) => refused += 1,
                Err(kind) => return Err(Failure::new(format!("a write on a full disk is {kind}"))),
            }
        }
        Ok(())
    }

    /// Sets a new key, and notes what is known of it.
    fn set(&mut self, state: &State, len: usize) -> Result<Result<(), ErrorKind>, Failure> {
        self.next += 1;
        let key = format!("k{}", self.next);
        let value: String = std::iter::repeat_with(|| self.random.alphanumeric()).take(len).collect();
        match state.set(&key, value.as_str()) {
            Ok(_) => {
                self.model.insert(key, value);
                Ok(Ok(()))
            }
            Err(error) if error.kind() == ErrorKind::CommitUnknown => {
                let found = state.get(&key)?.and_then(|found| found.as_str().map(str::to_owned));
                hold!(found.as_ref().is_none_or(|found| *found == value), "{key} is half there");
                self.model.extend(found.map(|found| (key, found)));
                Ok(Err(ErrorKind::DiskFull))
            }
            Err(error) => Ok(Err(error.kind())),
        }
    }

    /// Many threads at once delete, and run transactions that delete a key before a write is refused. Answers how many were.
    fn crowd(&mut self, state: &State) -> Result<u64, Failure> {
        let keys = self.some_keys(2 * TURNS * THREADS);
        hold!(keys.len() == 2 * TURNS * THREADS, "only {} keys fit on the disk", keys.len());
        let begun = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&begun);
        harness::watch(move |event| {
            if matches!(event, Event::Point("write.begun")) {
                counted.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(SLOW);
            }
            Ok(())
        });
        let answers = std::thread::scope(|scope| {
            let workers: Vec<_> = keys
                .chunks(2 * TURNS)
                .map(|own| {
                    scope.spawn(|| own.chunks(2).map(|pair| turn(state, &pair[0], &pair[1])).collect::<Vec<_>>())
                })
                .collect();
            workers.into_iter().map(std::thread::ScopedJoinHandle::join).collect::<Vec<_>>()
        });
        harness::unwatch();
        let answers =
            answers.into_iter().flat_map(|answers| answers.unwrap_or_else(|why| std::panic::resume_unwind(why)));
        let mut refused = 0;
        for (pair, (both, deleted)) in keys.chunks(2).zip(answers) {
            let made = format!("{}-made", pair[0]);
            // Which of the two it is, reading tells, when the commit itself does not.
            let done = match both.map_err(|error| error.kind()) {
                Ok(()) => true,
                Err(ErrorKind::DiskFull) => false,
                Err(ErrorKind::CommitUnknown) => state.exists(&made)?,
                Err(kind) => return Err(Failure::new(format!("a transaction on a full disk is {kind}"))),
            };
            if done {
                self.model.remove(&pair[0]);
                self.model.insert(made, MADE.into());
            }
            refused += u64::from(!done);
            let deleted = deleted.map_err(|e| Failure::new(format!("deleting among others on a full disk: {e}")))?;
            hold!(deleted, "{} was not there to be deleted", pair[1]);
            self.model.remove(&pair[1]);
        }
        hold!(refused > 0, "there was room for every transaction");
        let (begun, all) = (begun.load(Ordering::Relaxed), keys.len() as u64);
        hold!(begun < all, "no two of {all} requests were committed together, but in {begun} transactions");
        Ok(refused)
    }

    fn some_keys(&mut self, count: usize) -> Vec<String> {
        let keys: Vec<String> = self.model.keys().cloned().collect();
        self.random.choose_multiple(keys, count)
    }

    fn check(&self, state: &State, when: &str) -> Result<(), Failure> {
        let mut found = BTreeMap::new();
        for item in state.items("*")? {
            let (key, entry) = item?;
            found.insert(key, entry.value().as_str().unwrap_or_default().to_owned());
        }
        let missing = self.model.iter().find(|(key, value)| found.get(*key) != Some(value)).map(|(key, _)| key);
        let extra = found.keys().find(|key| !self.model.contains_key(*key));
        hold!(missing.is_none() && extra.is_none(), "{when}: missing or wrong {missing:?}, not acknowledged {extra:?}");
        Ok(())
    }
}

/// What the transactions of a crowd would write.
const MADE: &str = "made";

/// One turn of one thread of a crowd: a transaction of two changes, and a deletion.
fn turn(state: &State, replaced: &str, deleted: &str) -> (StoreResult<()>, StoreResult<bool>) {
    let both = state.transaction().and_then(|tx| {
        tx.delete(replaced)?;
        tx.set(&format!("{replaced}-made"), MADE)?;
        tx.commit().map(drop)
    });
    (both, state.delete(deleted))
}
