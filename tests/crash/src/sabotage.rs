//! Plants each bug in turn and looks for the stage that catches it.

use crate::run::{Ended, Request, apart};
use crate::stage::{Failure, Size};
use crate::stages;
use llmspell_state_persistence::harness::SABOTAGES;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A planted bug and the stage that has caught it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Caught {
    /// The bug's name.
    pub bug: String,
    /// What it does.
    pub what: String,
    /// Where it was tried.
    #[serde(default)]
    pub commit: String,
    /// The stage; nothing where no stage has.
    pub by: Option<String>,
    /// The first line of what it said.
    pub said: String,
    /// How long that took, in seconds.
    pub seconds: f64,
}

/// The stages that are most likely to catch a bug; all others follow.
const LIKELY: &[(&str, &str)] = &[
    ("ack-before-commit", "faults"),
    ("unknown-is-done", "faults"),
    ("unknown-is-failed", "faults"),
    ("half-group", "full"),
    ("group-goes-on", "faults"),
    ("keep-ballast", "full"),
    ("no-check", "damage"),
    ("no-page-check", "damage"),
    ("no-mark", "damage"),
    ("no-guard", "processes"),
    ("posix-locks", "processes"),
    ("log-removed-anyway", "removal"),
    ("no-sync", "power"),
    ("mark-early", "power"),
    ("stale-cache", "linear"),
    ("fill-anyway", "models"),
    ("lost-increment", "linear"),
    ("unpublished", "linear"),
    ("read-two-snapshots", "linear"),
    ("forget-to-wake", "models"),
    ("forget-to-lead", "models"),
    ("forget-at-closing", "watch"),
    ("watch-skips-a-row", "watch"),
    ("commit-told-in-parts", "watch"),
    ("save-early", "watch"),
    ("save-nothing", "watch"),
    ("no-foreign-wake", "watch"),
    ("wrong-old", "watch"),
    ("wrong-difference", "kills"),
    ("no-reliance", "serial"),
    ("no-range-reliance", "serial"),
    ("read-expired", "keep"),
    ("expire-untold", "keep"),
    ("touch-loses", "keep"),
    ("commit-expired", "power"),
    ("believe-the-cache", "linear"),
    ("trim-watched", "keep"),
    ("trim-bases", "keep"),
    ("trim-forked", "keep"),
    ("fork-follows", "keep"),
    ("merge-over", "keep"),
    ("split-commit", "serial"),
];

/// How often the likely stage is tried before all others.
const DRAWS: u64 = 6;

/// Longer than any stage takes in its small size.
const PATIENCE: Duration = Duration::from_secs(120);

/// Plants every bug, or the one of that name.
pub fn run(only: Option<&str>, seed: u64) -> Result<Vec<Caught>, Failure> {
    let mut all = Vec::new();
    for (bug, what) in SABOTAGES.iter().filter(|(bug, _)| only.is_none_or(|only| only == *bug)) {
        let caught = hunt(bug, what, seed)?;
        println!("{bug}: {} ({:.0} s): {}", caught.by.as_deref().unwrap_or("NOT CAUGHT"), caught.seconds, caught.said);
        all.push(caught);
    }
    Ok(all)
}

fn hunt(bug: &'static str, what: &str, seed: u64) -> Result<Caught, Failure> {
    let mut caught = Caught {
        bug: bug.into(),
        what: what.into(),
        by: None,
        commit: String::new(),
        said: String::new(),
        seconds: 0.0,
    };
    let likely = LIKELY.iter().filter(|(planted, _)| *planted == bug).map(|(_, stage)| *stage);
    // A small stage draws a part of what it could do, so that one more draw may hit.
    let mut order: Vec<(&'static str, u64)> =
        likely.flat_map(|stage| (0..DRAWS).map(move |draw| (stage, seed.wrapping_add(draw)))).collect();
    // The host languages' modules are built without the bugs.
    let others = stages::ALL.iter().map(|stage| stage.name).filter(|name| !["python", "lua"].contains(name));
    order.extend(others.map(|stage| (stage, seed.wrapping_add(DRAWS))));
    for (stage, seed) in order {
        let request = Request { stage, size: Size::Small, seed, sabotage: Some(bug), patience: PATIENCE };
        let (ended, took) = apart(&request)?;
        caught.seconds += took.as_secs_f64();
        caught.said = match ended {
            Ended::Held(_) => continue,
            Ended::Hung => "it hung".into(),
            Ended::Broke(text) => {
                without_folders(text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default())
            }
        };
        caught.by = Some(stage.into());
        break;
    }
    Ok(caught)
}

/// Files by their names alone: where they lay says nothing to anybody.
fn without_folders(text: &str) -> String {
    let name = |word: &str| match word.rsplit_once('/') {
        Some((folders, name)) if folders.starts_with('/') => name.to_owned(),
        _ => word.to_owned(),
    };
    text.split(' ').map(name).collect::<Vec<_>>().join(" ")
}
