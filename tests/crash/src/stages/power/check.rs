//! What a store must be after a power cut.

use super::disk::Image;
use super::life::{Cut, Life, lay_out, store};
use super::workload::{Flavour, Model, difference, dump, watch_on};
use crate::{Failure, hold};
use llmspell_state_persistence::State;
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

/// What an image holds.
pub(super) fn held(dir: &Path, flavour: Flavour, image: &Image) -> Result<Model, Failure> {
    lay_out(dir, image)?;
    let state = State::with_config(flavour.config(&store(dir))).map_err(failed("opening the base"))?;
    dump(&state).map_err(failed("reading the base"))
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
    let path = store(dir);
    let state = State::with_config(flavour.config(&path)).map_err(failed("opening"))?;
    let mut model = dump(&state).map_err(failed("reading"))?;
    let verdict = judge(&model, life, cut)?;
    sound(&state)?;
    if random.u8(..4) == 0 {
        let wrong = watch_on(&state, &model).map_err(failed("watching"))?;
        hold!(wrong.is_none(), "{}", wrong.unwrap_or_default());
        // Watches have kept how far they have come.
        model = dump(&state).map_err(failed("reading"))?;
    }
    let version = state.set("after", json!([1, 2])).map_err(failed("the next write"))?;
    model.entry(String::new()).or_default().insert("after".into(), ("[1,2]".into(), version));
    if random.u8(..4) == 0 {
        state.close().map_err(failed("closing"))?;
        let state = State::with_config(flavour.config(&path)).map_err(failed("opening again"))?;
        let found = dump(&state).map_err(failed("reading again"))?;
        hold!(found == model, "after the next write: {}", difference(&found, &model));
        sound(&state)?;
    }
    Ok(verdict)
}

/// The store must be as it was after one of the operations that may have been the last.
fn judge(found: &Model, life: &Life, cut: &Cut) -> Result<Verdict, Failure> {
    let known = &life.states[cut.over];
    if found == known {
        return Ok(Verdict { in_flight: false, lost: false });
    }
    let allowed = life.allowed(cut);
    if life.states[allowed.clone()].contains(found) {
        return Ok(Verdict { in_flight: true, lost: false });
    }
    let is_prefix = life.states[..*allowed.start()].contains(found);
    if is_prefix && !life.flavour.keeps_all() {
        return Ok(Verdict { in_flight: false, lost: true });
    }
    let what = if is_prefix { "acknowledged commits are missing" } else { "this was never the state of the store" };
    Err(Failure::new(format!("{what}: {}", difference(found, known))))
}
