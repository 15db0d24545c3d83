//! `RELIABILITY.md`, made from what the runs have counted; nothing in it is written by hand but the findings.

use crate::sabotage::Caught;
use crate::stage::{Failure, Outcome};
use crate::stages;
use llmspell_state_persistence::harness::SABOTAGES;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// What runs of one size have counted.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Results {
    size: String,
    machine: String,
    /// Where is counted now.
    #[serde(skip)]
    commit: String,
    stages: BTreeMap<String, Held>,
    #[serde(default)]
    caught: BTreeMap<String, Caught>,
}

/// One stage that held.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Held {
    /// Where it was counted.
    #[serde(default)]
    commit: String,
    outcome: Outcome,
    seeds: Vec<u64>,
    seconds: f64,
}

/// Seeds that the report names; a long run has thousands.
const SEEDS: usize = 3;

impl Results {
    fn path(root: &Path, size: &str) -> PathBuf {
        root.join(format!("build/crash/{size}.json"))
    }

    /// What earlier runs of this size have left, each stage with its commit.
    pub fn load(root: &Path, size: &str) -> Result<Self, Failure> {
        let results = Self::read(root, size)?;
        Ok(Self { size: size.into(), machine: machine(), commit: commit(root), ..results })
    }

    /// Keeps what was counted, whole or not at all.
    pub fn save(&self, root: &Path) -> Result<(), Failure> {
        let path = Self::path(root, &self.size);
        std::fs::create_dir_all(path.parent().unwrap_or(root))?;
        let new = path.with_extension("new");
        std::fs::write(&new, serde_json::to_vec_pretty(self)?)?;
        Ok(std::fs::rename(new, path)?)
    }

    /// Replaces what a stage has counted.
    pub fn keep(&mut self, stage: &str, seed: u64, outcome: Outcome, took: Duration) {
        self.stages.remove(stage);
        self.add(stage, seed, outcome, took);
    }

    /// Adds to what a stage has counted on this commit.
    pub fn add(&mut self, stage: &str, seed: u64, outcome: Outcome, took: Duration) {
        let held = self.stages.entry(stage.into()).or_default();
        if held.commit != self.commit {
            *held = Held { commit: self.commit.clone(), ..Held::default() };
        }
        held.outcome.add(outcome);
        held.seeds.push(seed);
        held.seconds += took.as_secs_f64();
    }

    /// How far a stage has got on this commit.
    pub fn progress(&self, stage: &str) -> u64 {
        let held = self.stages.get(stage).filter(|held| held.commit == self.commit);
        held.and_then(|held| held.outcome.counts.first()).map_or(0, |(_, count)| *count)
    }

    /// Keeps which planted bugs were caught, and forgets those that are planted no more.
    pub fn keep_caught(&mut self, caught: &[Caught]) {
        self.caught.retain(|bug, _| SABOTAGES.iter().any(|(known, _)| known == bug));
        for caught in caught {
            self.caught.insert(caught.bug.clone(), Caught { commit: self.commit.clone(), ..caught.clone() });
        }
    }
}

fn output(root: &Path, command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).current_dir(root).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

fn commit(root: &Path) -> String {
    output(root, "git describe --always --dirty --abbrev=12")
}

fn machine() -> String {
    let here = Path::new("/");
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{processors} processors, {}", output(here, "uname -srm"))
}

/// Writes the report.
pub fn write(root: &Path) -> Result<(), Failure> {
    let mut text = String::from(
        "# Reliability\n\n\
         Made by `make reliability` from what the harness in `tests/crash` has counted: do not edit. Every stage fails when one \
         acknowledged write is missing, one commit is torn, one value is wrong, or one call hangs; so a stage that is listed \
         here lost nothing, and one that is not listed under a size has not been counted there. What each promise rests on is told in the README.\n",
    );
    for size in ["small", "middle", "long"] {
        let results = Results::read(root, size)?;
        if !results.stages.is_empty() {
            results.tell(&mut text)?;
        }
    }
    let planted = Results::read(root, "sabotage")?;
    if !planted.caught.is_empty() {
        planted.tell_caught(&mut text)?;
    }
    if let Ok(findings) = std::fs::read_to_string(root.join("tests/crash/findings.md")) {
        write!(text, "\n{}", findings.replace("\n# ", "\n## ").replace("\n## ", "\n### ").replacen("# ", "## ", 1))?;
    }
    Ok(std::fs::write(root.join("RELIABILITY.md"), text)?)
}

impl Results {
    /// What was kept, of whatever commit.
    fn read(root: &Path, size: &str) -> Result<Self, Failure> {
        match std::fs::read(Self::path(root, size)) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
            Err(_) => Ok(Self::default()),
        }
    }

    fn tell(&self, text: &mut String) -> Result<(), Failure> {
        write!(
            text,
            "\n## The {} size\n\nOn {}, each stage on the commit that is named beside it.\n\n",
            self.size, self.machine
        )?;
        text.push_str("| stage | what it does | counted | seeds | commit | seconds |\n|---|---|---|---|---|---|\n");
        for stage in stages::ALL {
            let Some(held) = self.stages.get(stage.name) else { continue };
            let counts: Vec<String> =
                held.outcome.counts.iter().map(|(what, count)| format!("{} {what}", grouped(*count))).collect();
            let mut seeds: Vec<String> = held.seeds.iter().take(SEEDS).map(u64::to_string).collect();
            if held.seeds.len() > SEEDS {
                seeds.push(format!("and {} more", held.seeds.len() - SEEDS));
            }
            writeln!(
                text,
                "| {} | {} | {} | {} | `{}` | {:.0} |",
                stage.name,
                stage.what,
                counts.join("; "),
                seeds.join(", "),
                held.commit,
                held.seconds
            )?;
        }
        for stage in stages::ALL {
            for why in self.stages.get(stage.name).iter().flat_map(|held| &held.outcome.skipped) {
                writeln!(text, "\nSkipped in {}: {why}.", stage.name)?;
            }
        }
        Ok(())
    }

    fn tell_caught(&self, text: &mut String) -> Result<(), Failure> {
        let caught = self.caught.values().filter(|caught| caught.by.is_some()).count();
        write!(
            text,
            "\n## Planted bugs\n\n{caught} of {} were caught, by stages in their small size.\n\n\
             | bug | what it does | caught by | which said | commit | seconds |\n|---|---|---|---|---|---|\n",
            self.caught.len()
        )?;
        for caught in self.caught.values() {
            let by = caught.by.as_deref().unwrap_or("**nothing**");
            let said = caught.said.replace('|', "\\|");
            let said: String = said.chars().take(160).collect();
            let Caught { bug, what, commit, seconds, .. } = caught;
            writeln!(text, "| {bug} | {what} | {by} | {said} | `{commit}` | {seconds:.0} |")?;
        }
        Ok(())
    }
}

/// A number with a comma after each thousand.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
