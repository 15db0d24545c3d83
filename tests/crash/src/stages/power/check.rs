//! What a store must be after a power cut.

use super::disk::Image;
use super::life::{Cut, Life, lay_out, store};
use super::model::{KEYS, Model, Stored, difference, dump, scope, watch_on};
use super::operation::Operation;
use super::workload::Flavour;
use crate::{Failure, hold};
use llmspell_state_persistence::{ErrorKind, State, harness};
use serde_json::json;
use std::path::Path;

/// What an image that held has shown.
#[derive(Debug)]
pub(super) struct Verdict {
    /// The operation that nobody had been told about was there.
    pub(super) in_flight: bool,
    /// Acknowledged commits were missing, as `NORMAL` allows.
    pub(super) lost: bool,
}

fn failed(what: &str) -> impl Fn(llmspell_state_persistence::Error) -> Failure + '_ {
    move |error| Failure::new(format!("{what}: {error}"))
}

/// The clock of this thread, until it is dropped.
struct Clock;

impl Clock {
    fn stop(clock_ms: i64) -> Self {
        harness::set_own_clock(clock_ms);
        Self
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        harness::set_own_clock(0);
    }
}

/// What an image holds at a time.
pub(super) fn held(dir: &Path, flavour: Flavour, image: &Image, clock_ms: i64) -> Result<Model, Failure> {
    lay_out(dir, image)?;
    let _clock = Clock::stop(clock_ms);
    let state = State::with_config(flavour.config(&store(dir))).map_err(failed("opening the base"))?;
    dump(&state, clock_ms).map_err(failed("reading the base"))
}

fn sound(state: &State) -> Result<(), Failure> {
    let found = state.verify().map_err(failed("verifying"))?;
    hold!(found.is_ok(), "it is damaged: {}", found.problems.join("; "));
    Ok(())
}

/// Opens an image in `dir` and looks at everything.
pub(super) fn check(dir: &Path, life: &Life, cut: &Cut, random: &mut fastrand::Rng) -> Result<Verdict, Failure> {
    lay_out(dir, &cut.image)?;
    let mut flavour = life.flavour;
    if flavour.wal && random.u8(..5) == 0 {
        // The next one to open a store need not be like the last.
        flavour.exclusive = !flavour.exclusive;
    }
    // Nobody knows how long it lay there.
    let clock_ms = life.clock_ms(cut) + random.choice([0, 0, 25, 3_600_000]).unwrap_or(0);
    let _clock = Clock::stop(clock_ms);
    let path = store(dir);
    let state = State::with_config(flavour.config(&path)).map_err(failed("opening"))?;
    let mut model = dump(&state, clock_ms).map_err(failed("reading"))?;
    let (verdict, number) = judge(&model, life, cut)?;
    sound(&state)?;
    if random.u8(..3) == 0 {
        look_back(&state, life, cut, random.usize(..=number))?;
    }
    if random.u8(..4) == 0 {
        let wrong = watch_on(&state, &model).map_err(failed("watching"))?;
        hold!(wrong.is_none(), "{}", wrong.unwrap_or_default());
        // Watches have kept how far they have come.
        model = dump(&state, clock_ms).map_err(failed("reading"))?;
    }
    if random.u8(..4) == 0 {
        state.cleanup().map_err(failed("cleaning up"))?;
        let found = dump(&state, clock_ms).map_err(failed("reading"))?;
        model.check_next(&found, &Operation::Cleanup, None, None)?;
        sound(&state)?;
        model = found;
    }
    let version = state.set("after", json!([1, 2])).map_err(failed("the next write"))?;
    let after = Stored { text: "[1,2]".into(), version, expires_ms: None };
    model.content.entry(String::new()).or_default().insert("after".into(), after);
    if random.u8(..4) == 0 {
        state.close().map_err(failed("closing"))?;
        let state = State::with_config(flavour.config(&path)).map_err(failed("opening again"))?;
        let found = dump(&state, clock_ms).map_err(failed("reading again"))?;
        hold!(model.is(&found), "after the next write: {}", difference(&found, &model));
        sound(&state)?;
    }
    Ok(verdict)
}

/// The past reads as it was, or is told as trimmed where it may have been: a state of this number.
fn look_back(state: &State, life: &Life, cut: &Cut, number: usize) -> Result<(), Failure> {
    let then = &life.states[number];
    let last = (cut.over + 2).min(life.operations.len());
    let may_be_trimmed = life.operations[..last].iter().any(Operation::is_cleaning);
    for (path, keys) in &then.content {
        let view = scope(state, path).and_then(|scope| scope.at(then.version));
        for key in KEYS {
            let found = view.as_ref().map_err(Clone::clone).and_then(|view| view.entry(key));
            let (was, version) = (keys.get(key), then.version);
            let fits = match &found {
                Ok(Some(entry)) => {
                    was.map_or(entry.expires_ms().is_some(), |was| *was.text == *entry.document().text())
                }
                // It may have come to its end by now.
                Ok(None) => was.is_none_or(|was| was.expires_ms.is_some()),
                Err(error) => error.kind() == ErrorKind::NotFound && may_be_trimmed,
            };
            let told = found.map(|entry| entry.map(|entry| entry.version()));
            hold!(
                fits,
                "'{path}' {key} at version {version} is told as {told:?}, and was {:?}",
                was.map(|was| was.version)
            );
        }
    }
    Ok(())
}

/// The store must be as it was after one of the operations that may have been the last; which, is told.
fn judge(found: &Model, life: &Life, cut: &Cut) -> Result<(Verdict, usize), Failure> {
    let known = &life.states[cut.over];
    if known.is(found) {
        return Ok((Verdict { in_flight: false, lost: false }, cut.over));
    }
    let allowed = life.allowed(cut);
    if let Some(number) = life.find(found, allowed.clone()) {
        return Ok((Verdict { in_flight: true, lost: false }, number));
    }
    let earlier = life.find(found, 0..=*allowed.start());
    if let Some(number) = earlier.filter(|_| !life.flavour.keeps_all()) {
        return Ok((Verdict { in_flight: false, lost: true }, number));
    }
    let what =
        if earlier.is_some() { "acknowledged commits are missing" } else { "this was never the state of the store" };
    Err(Failure::new(format!("{what}: {}", difference(found, known))))
}
