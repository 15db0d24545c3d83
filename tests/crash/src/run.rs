//! Runs stages, each in a process of its own: a stage that hangs, dies or leaves hooks behind harms no other.

use crate::stage::{Context, Failure, Outcome, Size, Stage};
use crate::stages;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Before the outcome on the output of a stage's process.
const OUTCOME: &str = "outcome: ";

/// What a stage's process is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// Which stage.
    pub stage: &'static str,
    /// How much.
    pub size: Size,
    /// Where randomness comes from.
    pub seed: u64,
    /// A bug to plant.
    pub sabotage: Option<&'static str>,
    /// After this long it counts as hanging.
    pub patience: Duration,
}

/// How a stage ended.
#[derive(Debug)]
pub enum Ended {
    /// Everything held.
    Held(Outcome),
    /// Something broke; the text says what.
    Broke(String),
    /// It did not end.
    Hung,
}

/// The command that repeats a run.
pub fn replay(request: &Request) -> String {
    let planted = request.sabotage.map(|bug| format!("LLMSPELL_SABOTAGE={bug} ")).unwrap_or_default();
    format!("{planted}scripts/crash.sh stage {} {} {}", request.stage, request.size, request.seed)
}

/// The checkout this was built in.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap_or_else(|_| ".".into())
}

/// Runs a stage in a process of its own.
pub fn apart(request: &Request) -> Result<(Ended, Duration), Failure> {
    let output = tempfile::NamedTempFile::new()?;
    let start = Instant::now();
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["stage", request.stage, &request.size.to_string(), &request.seed.to_string()]);
    command.stdin(Stdio::null()).stdout(output.reopen()?).stderr(output.reopen()?);
    if let Some(bug) = request.sabotage {
        command.env("LLMSPELL_SABOTAGE", bug);
    }
    // A group of its own, so that what it started ends with it.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command.spawn()?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if start.elapsed() > request.patience {
            break None;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    kill_group(child.id());
    child.wait()?;
    let text = std::fs::read_to_string(output.path()).unwrap_or_default();
    let outcome = text.lines().rev().find_map(|line| line.strip_prefix(OUTCOME));
    let ended = match (status, outcome) {
        (None, _) => Ended::Hung,
        (Some(status), Some(outcome)) if status.success() => Ended::Held(serde_json::from_str(outcome)?),
        _ => Ended::Broke(text),
    };
    Ok((ended, start.elapsed()))
}

#[allow(unsafe_code)]
fn kill_group(leader: u32) {
    let Ok(leader) = i32::try_from(leader) else { return };
    // SAFETY: plain system call; the group is one that this process has made.
    unsafe { libc::kill(-leader, libc::SIGKILL) };
}

/// Runs a stage in this process and prints its outcome.
pub fn here(name: &str, size: Size, seed: u64, only: Option<String>) -> Result<(), Failure> {
    let stage = find(name)?;
    let root = root();
    // Not the system's own place for temporary files: that may be memory, and sync there says nothing.
    std::fs::create_dir_all(root.join("build/crash"))?;
    let disk = tempfile::Builder::new().prefix(name).tempdir_in(root.join("build/crash"))?;
    let memory = Path::new("/dev/shm");
    let fast = if memory.is_dir() { tempfile::tempdir_in(memory)? } else { tempfile::tempdir()? };
    let context = Context { size, seed, dir: disk.path().into(), fast_dir: fast.path().into(), root, only };
    let outcome = catch_unwind(AssertUnwindSafe(|| (stage.run)(&context)))
        .unwrap_or_else(|_| Err(Failure::new("it panicked, as told above")))?;
    println!("{OUTCOME}{}", serde_json::to_string(&outcome)?);
    Ok(())
}

/// The stage of a name.
pub fn find(name: &str) -> Result<&'static Stage, Failure> {
    stages::ALL.iter().find(|stage| stage.name == name).ok_or_else(|| {
        let names: Vec<_> = stages::ALL.iter().map(|stage| stage.name).collect();
        Failure::new(format!("no stage {name}; there are {}", names.join(", ")))
    })
}
