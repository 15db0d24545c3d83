//! One operation with one fault, and everything that must hold afterwards.

use super::content::Content;
use super::operations::{Bench, Operation, Run};
use super::template::{Files, Setting, Template, files_of, is_volatile};
use crate::vfs::fault::{Disk, Fault, Hit, Kind, Times};
use crate::{Failure, hold};
use llmspell_state_persistence::{Error, ErrorKind, Result, State};
use serde_json::Value;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Operations of several commits, of which the last ones may be missing.
const IN_PARTS: [&str; 1] = ["sweep"];

/// What an operation answers and leaves when nothing fails.
#[derive(Debug)]
pub(super) struct Expected {
    pub(super) answer: Value,
    pub(super) before: Content,
    pub(super) after: Content,
    /// What a watch tells, that has been opened before, if one was.
    stream: Vec<Value>,
    pub(super) hit: Hit,
}

/// An operation under a setting.
#[derive(Clone, Copy)]
pub(super) struct Case<'a> {
    pub(super) setting: Setting,
    pub(super) operation: &'a Operation,
    pub(super) template: &'a Template,
}

/// A store whose disk may fail, in a directory of its own that is emptied first and afterwards.
struct Ground<'d> {
    dir: &'d Path,
    disk: Disk,
}

impl<'d> Ground<'d> {
    fn new(dir: &'d Path, files: &Files, keep_ballast: bool) -> Result<Self, Failure> {
        vacate(dir, keep_ballast)?;
        Ok(Self { dir, disk: Disk::new(dir, files)? })
    }
}

impl Case<'_> {
    /// Runs it without a fault.
    pub(super) fn expect(self, dir: &Path) -> Result<Expected, Failure> {
        let ground = Ground::new(dir, &self.template.files, !matches!(self.operation.run, Run::Open))?;
        let mut bench = self.prepare(&ground)?;
        let before = match &bench {
            Some(bench) => Content::of(&self.state_after(&ground, Some(bench.state.clone()))?)?,
            None => self.template.content.clone(),
        };
        // What was read for the comparison must not be in the way of the operation.
        drop(bench.take());
        drop(ground);
        let ground = Ground::new(dir, &self.template.files, !matches!(self.operation.run, Run::Open))?;
        let bench = self.prepare(&ground)?;
        ground.disk.arm(None);
        let (answer, state) = self.run(&ground, bench.as_ref());
        let hit = ground.disk.disarm();
        let answer = answer?;
        let after = Content::of(&self.state_after(&ground, state)?)?;
        let stream = bench.as_ref().map_or(Ok(Vec::new()), Bench::stream)?;
        Ok(Expected { answer, before, after, stream, hit })
    }

    fn prepare(self, ground: &Ground<'_>) -> Result<Option<Bench>, Failure> {
        let Run::Call { prepare, .. } = self.operation.run else {
            return match self.operation.run {
                Run::Open => Ok(None),
                _ => Ok(Some(self.bench(ground)?)),
            };
        };
        let mut bench = self.bench(ground)?;
        prepare(&mut bench)?;
        Ok(Some(bench))
    }

    fn bench(self, ground: &Ground<'_>) -> Result<Bench> {
        let state = State::with_config(self.setting.at(ground.dir))?;
        Bench::new(state)
    }

    /// The operation's answer, and the store object with which to go on.
    fn run(self, ground: &Ground<'_>, bench: Option<&Bench>) -> (Result<Value>, Option<State>) {
        match (self.operation.run, bench) {
            (Run::Call { call, .. }, Some(bench)) => (call(bench), Some(bench.state.clone())),
            (Run::Close, Some(bench)) => (bench.state.close().map(|()| Value::Null), None),
            _ => match State::with_config(self.setting.at(ground.dir)) {
                Ok(state) => (Ok(Value::Null), Some(state)),
                Err(error) => (Err(error), None),
            },
        }
    }

    fn state_after(self, ground: &Ground<'_>, state: Option<State>) -> Result<State> {
        match state.filter(|state| !state.is_closed()) {
            Some(state) => Ok(state),
            None => State::with_config(self.setting.at(ground.dir)),
        }
    }

    /// Runs it with a fault; answers false when it ended before the fault.
    pub(super) fn check(self, expected: &Expected, fault: Fault, dir: &Path) -> Result<bool, Failure> {
        let ground = Ground::new(dir, &self.template.files, !matches!(self.operation.run, Run::Open))?;
        let bench = self.prepare(&ground)?;
        ground.disk.arm(Some(fault));
        let ran = catch_unwind(AssertUnwindSafe(|| self.run(&ground, bench.as_ref())));
        let hit = ground.disk.disarm();
        let Ok((answer, state)) = ran else { return Err(Failure::new("it panicked, as told above")) };
        if hit.failed == 0 {
            return Ok(false);
        }
        let first = &hit.first;
        let told = |step: &str, text: String| Failure::new(format!("after the {first} failed, {step}: {text}"));
        let allowed =
            self.allowed(expected, fault, &hit, &answer).map_err(|why| told("it answered", why.to_string()))?;
        let verdict = match &answer {
            Ok(_) => "done",
            Err(error) => error.kind().name(),
        };
        let among = |found: &Content, step: &str| {
            if allowed.contains(&found) {
                return Ok(());
            }
            let by = allowed.first().map_or_else(String::new, |allowed| allowed.against(found).to_string());
            Err(told(step, format!("told {verdict}, but there is {by}")))
        };
        // As a kill would leave the files, and as a power cut would.
        let image = dir.with_extension("image");
        let left = files_of(dir)?;
        let killed = self.image(&image, &left).map_err(|why| told("a kill", why.to_string()))?;
        among(&killed, "a kill")?;
        if self.setting.is_durable() {
            let cut = surviving(&ground);
            if cut != left {
                let cut = self.image(&image, &cut).map_err(|why| told("a power cut", why.to_string()))?;
                among(&cut, "a power cut")?;
            }
        }
        // The disk works again, and so must the store.
        let again = |error: Error| told("the disk worked again", format!("{}: {error}", error.kind()));
        let state = self.state_after(&ground, state).map_err(again)?;
        let live = Content::of(&state).map_err(again)?;
        among(&live, "reading")?;
        // As long as the disk fails, nobody can take a commit back of which only a recovery would know.
        hold!(
            answer.is_ok() || fault.times != Times::Once || live == killed,
            "after the {first} failed, it was told {verdict}; reading and a kill differ: {}",
            live.against(&killed)
        );
        let version = state.set("further", "commit").map_err(again)?;
        let further = live.clone().and("further", "\"commit\"");
        hold!(
            version == further.version(),
            "after the {first} failed, the next version was {version}, not {}",
            further.version()
        );
        let same = |found: &Content, further: &Content, step: &str| {
            if found == further { Ok(()) } else { Err(told(step, further.against(found).to_string())) }
        };
        same(&Content::of(&state).map_err(again)?, &further, "a further write")?;
        if self.setting.is_durable() {
            // What a failed sync has lost must not be in the way of what is synced later.
            let cut =
                self.image(&image, &surviving(&ground)).map_err(|why| told("a later power cut", why.to_string()))?;
            same(&cut, &further, "a later power cut")?;
        }
        let mut further = further;
        if let Some(bench) = bench.filter(|bench| bench.watch.is_some()) {
            let stream = bench.stream().map_err(again)?;
            hold!(
                stream == expected.stream,
                "after the {first} failed, the watch told {} changes, which are not those {} that there are",
                stream.len(),
                expected.stream.len()
            );
            // It has kept how far it has come meanwhile.
            let watched = Content::of(&state).map_err(again)?;
            hold!(
                watched.clone().without_watches() == further.clone().without_watches(),
                "after the {first} failed, a watch has changed more than how far it has come: {}",
                further.against(&watched)
            );
            further = watched;
        }
        state.close().map_err(again)?;
        let state = State::with_config(self.setting.at(dir)).map_err(again)?;
        same(&Content::of(&state).map_err(again)?, &further, "opening again")?;
        state.close().map_err(again)?;
        Ok(true)
    }

    /// What the store may hold after an answer.
    fn allowed<'e>(
        self,
        expected: &'e Expected,
        fault: Fault,
        hit: &Hit,
        answer: &Result<Value>,
    ) -> Result<Vec<&'e Content>, Failure> {
        let error = match answer {
            Ok(answer) => {
                hold!(*answer == expected.answer, "{answer} instead of {}", expected.answer);
                return Ok(vec![&expected.after]);
            }
            Err(error) => error,
        };
        let kind = error.kind();
        let told = format!("{kind}: {error}");
        if kind == ErrorKind::CommitUnknown {
            hold!(hit.in_commit, "{told}, although no commit was under way");
            return Ok(vec![&expected.before, &expected.after]);
        }
        let fits = match fault.kind {
            Kind::Full | Kind::Short => kind == ErrorKind::DiskFull || hit.failed > 1 && kind == ErrorKind::Io,
            Kind::Busy => matches!(kind, ErrorKind::Busy | ErrorKind::Io),
            _ => kind == ErrorKind::Io,
        };
        hold!(fits, "{told}");
        if IN_PARTS.contains(&self.operation.name) {
            return Ok(vec![&expected.before, &expected.after]);
        }
        // A store is made in several steps; what a step has left is an empty store.
        Ok(vec![&expected.before])
    }

    /// What a copy of files holds when it is opened.
    fn image(self, dir: &Path, files: &Files) -> Result<Content, Failure> {
        if *files == self.template.files {
            // Every run opens these.
            return Ok(self.template.content.clone());
        }
        vacate(dir, true)?;
        for (name, bytes) in files {
            std::fs::write(dir.join(name), bytes)?;
        }
        let state = State::with_config(self.setting.at(dir))?;
        let content = Content::of(&state)?;
        state.close()?;
        Ok(content)
    }
}

/// Makes a directory empty but, if that may stay, for a ballast: making one costs more than all else of an opening.
fn vacate(dir: &Path, keep_ballast: bool) -> Result<(), Failure> {
    std::fs::create_dir_all(dir)?;
    for found in std::fs::read_dir(dir)? {
        let path = found?.path();
        if !keep_ballast || path.extension().is_none_or(|extension| extension != "db-ballast") {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// The files that a power cut would leave.
fn surviving(ground: &Ground<'_>) -> Files {
    let mut left = ground.disk.durable();
    left.retain(|name, _| !is_volatile(name));
    left
}
