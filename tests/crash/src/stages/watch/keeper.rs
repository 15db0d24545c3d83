//! Starts a watcher, kills and restarts it, and collects what it has told.

use super::PATIENCE;
use crate::{Context, Failure, hold};
use std::fmt;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// From where a watcher watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// From when it was opened on.
    Now,
    /// From the beginning; after a kill from the last commit that it has told whole.
    Since,
    /// From the beginning; after a kill from where the store says.
    Named,
}

/// What a watcher shall do.
#[derive(Debug, Clone)]
pub(super) struct Orders {
    pub(super) language: &'static str,
    /// Nothing is the root.
    pub(super) scope: &'static str,
    pub(super) pattern: &'static str,
    pub(super) start: Start,
    /// How often it is killed.
    pub(super) restarts: u64,
    /// Changes between two calls of `save`.
    pub(super) save_every: u64,
    pub(super) extra: Vec<String>,
    /// It begins when everything is written.
    pub(super) late: bool,
}

impl fmt::Display for Orders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { language, scope, pattern, start, extra, .. } = self;
        write!(f, "the watch of {language} of {pattern} in '{scope}', {start:?} {}", extra.join(" "))
    }
}

/// What a watcher has told: the lines of each of its lives.
pub(super) struct Stream {
    pub(super) lives: Vec<String>,
    pub(super) restarts: u64,
}

/// The script of a language's watcher.
fn script(context: &Context, language: &str) -> PathBuf {
    let ending = if language == "python" { "py" } else { "lua" };
    context.root.join("tests/crash/workers").join(format!("watch.{ending}"))
}

/// A process that is gone when its keeper is.
pub(super) struct Worker {
    child: Child,
    errors: tempfile::NamedTempFile,
    name: String,
}

impl Worker {
    fn start(mut command: Command, name: String) -> Result<Self, Failure> {
        let errors = tempfile::NamedTempFile::new()?;
        let child = command.stdin(Stdio::null()).stdout(errors.reopen()?).stderr(errors.reopen()?).spawn()?;
        Ok(Self { child, errors, name })
    }

    fn program() -> Result<Command, Failure> {
        let program = std::env::current_exe()?.with_file_name("watch");
        hold!(program.exists(), "{} is missing: cargo build -p llmspell-state-crash", program.display());
        Ok(Command::new(program))
    }

    /// A process that writes.
    pub(super) fn writer(store: &Path, number: u32, seed: u64, until: u64) -> Result<Self, Failure> {
        let mut command = Self::program()?;
        command.arg("write").arg(store).args([number.to_string(), seed.to_string(), until.to_string()]);
        Self::start(command, format!("writer {number}"))
    }

    fn watcher(context: &Context, orders: &Orders) -> Result<Command, Failure> {
        if orders.language == "rust" {
            return Self::program();
        }
        // The paths under which the languages find what was built come from the project's own script.
        let run = format!("eval \"$(scripts/env.sh)\" && exec {} \"$0\" \"$@\"", orders.language);
        let mut command = Command::new("bash");
        command.args(["-c", &run]).arg(script(context, orders.language)).current_dir(&context.root);
        Ok(command)
    }

    /// Whether it goes on. One that has ended has done everything, or was killed.
    pub(super) fn is_busy(&mut self) -> Result<bool, Failure> {
        let Some(status) = self.child.try_wait()? else { return Ok(true) };
        let killed = std::os::unix::process::ExitStatusExt::signal(&status) == Some(libc::SIGKILL);
        if status.success() || killed {
            return Ok(false);
        }
        let errors = std::fs::read_to_string(self.errors.path()).unwrap_or_default();
        Err(Failure::new(format!("{}, {status}: {errors}", self.name)))
    }

    /// Kills it, if it is still there.
    pub(super) fn kill(mut self) -> Result<(), Failure> {
        if self.is_busy()? {
            self.child.kill()?;
            self.child.wait()?;
        }
        Ok(())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a watcher writes, read while it writes.
struct Journal {
    path: PathBuf,
    file: File,
    /// What comes after the last whole line.
    rest: Vec<u8>,
    version: u64,
    opened: bool,
}

impl Journal {
    fn open(path: PathBuf) -> Result<Self, Failure> {
        let mut file = File::options().read(true).append(true).create(true).open(&path)?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self { path, file, rest: Vec::new(), version: 0, opened: false })
    }

    /// Reads what is new; says whether there was anything.
    fn read(&mut self) -> Result<bool, Failure> {
        let more = self.file.read_to_end(&mut self.rest)?;
        let whole = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        for line in self.rest.drain(..whole).collect::<Vec<_>>().split(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(line);
            let mut words = line.split(' ');
            match words.next() {
                Some("o") => self.opened = true,
                Some("c") => self.version = words.next().unwrap_or_default().parse()?,
                _ => {}
            }
        }
        Ok(more > 0)
    }

    /// Cuts it after the last commit that was told whole, and answers that commit's version.
    fn cut(path: &Path) -> Result<u64, Failure> {
        let text = std::fs::read_to_string(path)?;
        let (mut version, mut end, mut place) = (0, 0, 0);
        for line in text.split_inclusive('\n') {
            place += line.len();
            if line.starts_with("c ") && line.ends_with(" 1\n") {
                version = line.split(' ').nth(1).unwrap_or_default().parse()?;
                end = place;
            }
        }
        File::options().write(true).open(path)?.set_len(end as u64)?;
        Ok(version)
    }
}

/// What everybody of a round has in common.
#[derive(Default)]
pub(super) struct Common {
    /// Who has failed first; then everybody ends.
    failure: Mutex<Option<Failure>>,
    failed: AtomicBool,
    /// All writers have ended.
    pub(super) written: AtomicBool,
    /// Watchers that watch.
    pub(super) opened: AtomicUsize,
}

impl Common {
    pub(super) fn fail(&self, failure: &Failure) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| failure.clone());
        self.failed.store(true, Ordering::Release);
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    pub(super) fn outcome(self) -> Result<(), Failure> {
        self.failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }
}

/// Keeps one watcher going.
pub(super) struct Keeper<'r> {
    pub(super) context: &'r Context,
    pub(super) store: &'r Path,
    pub(super) orders: &'r Orders,
    pub(super) number: usize,
    /// The last version, about.
    pub(super) until: u64,
    pub(super) common: &'r Common,
    pub(super) random: fastrand::Rng,
}

impl Keeper<'_> {
    /// Runs it to its end.
    pub(super) fn keep(&mut self) -> Result<Stream, Failure> {
        self.lives().inspect_err(|failure| self.common.fail(failure))
    }

    fn lives(&mut self) -> Result<Stream, Failure> {
        while self.orders.late && !self.common.written.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(2));
        }
        let mut stream = Stream { lives: Vec::new(), restarts: 0 };
        let mut journals = Vec::new();
        let (mut life, mut since) = (0, 0);
        loop {
            // The journal of one that goes on from a version goes on, too.
            let of = if self.orders.start == Start::Named { life } else { 0 };
            let path = self.store.with_file_name(format!("watcher{}.{of}", self.number));
            let last = stream.restarts >= self.orders.restarts;
            let share = (stream.restarts + 1) * self.until / (self.orders.restarts + 1);
            let doomed = (!last).then(|| self.random.u64(share / 2..share.max(1)));
            journals.push(path.clone());
            if self.live(path.clone(), since, life, doomed)? {
                break;
            }
            stream.restarts += 1;
            life += 1;
            if self.orders.start == Start::Since {
                since = Journal::cut(&path)?;
            }
        }
        journals.dedup();
        for path in journals {
            stream.lives.push(std::fs::read_to_string(path)?);
        }
        Ok(stream)
    }

    /// One life; answers whether it was its last, which ends by itself. It is killed once it has told the version `doomed`.
    fn live(&self, path: PathBuf, since: u64, life: u64, doomed: Option<u64>) -> Result<bool, Failure> {
        let Orders { scope, pattern, start, save_every, extra, .. } = self.orders;
        let mut journal = Journal::open(path)?;
        let mut command = Worker::watcher(self.context, self.orders)?;
        let (since, name) = match start {
            Start::Now => ("-".into(), "-".into()),
            Start::Since => (since.to_string(), "-".into()),
            Start::Named => ("0".into(), format!("watcher{}", self.number)),
        };
        let scope = if scope.is_empty() { "-" } else { scope };
        command.arg("tell").args([self.store, &journal.path]).args([scope, pattern, &since, &name]);
        command.arg(save_every.to_string());
        // The last life is a quiet one.
        command.args(extra.iter().filter(|word| doomed.is_some() || !word.starts_with("die=")));
        let mut worker = Worker::start(command, format!("{}, life {life}", self.orders))?;
        let mut last = Instant::now();
        loop {
            let ended = !worker.is_busy()?;
            if journal.read()? {
                last = Instant::now();
                if journal.opened && life == 0 {
                    journal.opened = false;
                    self.common.opened.fetch_add(1, Ordering::Release);
                }
            }
            if ended {
                let over = std::fs::read_to_string(&journal.path)?.ends_with("\ne\n");
                hold!(over || doomed.is_some(), "{}: it died", worker.name);
                return Ok(over);
            }
            if doomed.is_some_and(|version| journal.version >= version) {
                worker.kill()?;
                return Ok(std::fs::read_to_string(&journal.path)?.ends_with("\ne\n"));
            }
            hold!(!self.common.has_failed(), "others have failed");
            hold!(last.elapsed() < PATIENCE, "{} stands still after version {}", worker.name, journal.version);
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
