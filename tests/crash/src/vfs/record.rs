//! Records what a store does to its files, in order, with the acknowledgements in between.

use super::{Observer, Op};
use llmspell_state_persistence::harness::Event;
use rusqlite::ffi;
use std::collections::HashSet;
use std::ffi::c_int;
use std::hash::Hasher as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A file of a store whose bytes matter after a power cut. The wal-index is memory, and the ballast holds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The database.
    Database,
    /// The write-ahead log.
    Log,
    /// The rollback journal.
    Journal,
    /// The high-water mark.
    Mark,
}

impl Kind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Database, Self::Log, Self::Journal, Self::Mark];

    /// What a file's name has behind that of its store.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Database => "",
            Self::Log => "-wal",
            Self::Journal => "-journal",
            Self::Mark => "-mark",
        }
    }

    /// The path of this file of the store at `path`.
    pub fn beside(self, path: &Path) -> PathBuf {
        let mut path = path.as_os_str().to_owned();
        path.push(self.suffix());
        path.into()
    }
}

/// A step of the record.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Step {
    /// The name comes to be, for a new and empty file.
    Make(Kind),
    Write {
        kind: Kind,
        offset: u64,
        bytes: Vec<u8>,
    },
    Size {
        kind: Kind,
        size: u64,
    },
    /// With `directory`, names reach the disk, too.
    Sync {
        kind: Kind,
        directory: bool,
    },
    Delete {
        kind: Kind,
        sync_directory: bool,
    },
    /// The caller has been told that its operation of this number is done; `committed` says that it changed something.
    Acknowledged {
        operation: usize,
        committed: bool,
    },
}

/// A number that tells one record from another.
pub fn fingerprint(steps: &[Step]) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    for step in steps {
        std::hash::Hash::hash(step, &mut hasher);
    }
    hasher.finish()
}

/// Records one store, past SQLite and through it.
pub struct Recorder(Mutex<Inner>);

struct Inner {
    store: PathBuf,
    steps: Vec<Step>,
    there: HashSet<Kind>,
    /// Openings whose next sync is one of the directory as well: `os_unix.c` does that once for a new journal or log.
    fresh: HashSet<u64>,
    death: Option<Death>,
}

/// When the process counts as killed, and where its files are left.
struct Death {
    operations_left: u32,
    leave_at: PathBuf,
    is_dead: bool,
}

impl Inner {
    fn make(&mut self, kind: Kind) {
        if self.there.insert(kind) {
            self.steps.push(Step::Make(kind));
        }
    }

    fn delete(&mut self, kind: Kind, sync_directory: bool) {
        if self.there.remove(&kind) {
            self.steps.push(Step::Delete { kind, sync_directory });
        }
    }

    fn kind(&self, path: &Path) -> Option<Kind> {
        let rest = path.as_os_str().as_encoded_bytes().strip_prefix(self.store.as_os_str().as_encoded_bytes())?;
        Kind::ALL.into_iter().find(|kind| kind.suffix().as_bytes() == rest)
    }

    /// Whether the process lives to do one more operation.
    fn lives(&mut self) -> bool {
        match &mut self.death {
            None => true,
            Some(Death { is_dead: true, .. }) => false,
            Some(Death { operations_left: 0, .. }) => {
                self.die();
                false
            }
            Some(death) => {
                death.operations_left -= 1;
                true
            }
        }
    }

    /// A process that is killed leaves its files as the system has them, synced or not.
    fn die(&mut self) {
        let Some(death) = &mut self.death else { return };
        death.is_dead = true;
        for kind in &self.there {
            let bytes = std::fs::read(kind.beside(&self.store)).unwrap_or_default();
            std::fs::write(kind.beside(&death.leave_at), bytes).expect("room for the files of a killed process");
        }
    }
}

impl Recorder {
    /// For the store at `path`, beside which some of its files are already.
    pub fn new(path: &Path, there: impl IntoIterator<Item = Kind>) -> Self {
        Self(Mutex::new(Inner {
            store: path.to_owned(),
            steps: Vec::new(),
            there: there.into_iter().collect(),
            fresh: HashSet::new(),
            death: None,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was recorded so far, taken out.
    pub fn take(&self) -> Vec<Step> {
        std::mem::take(&mut self.lock().steps)
    }

    /// Notes that an operation's caller was answered; gives the place of that in the record.
    pub fn acknowledge(&self, operation: usize) -> usize {
        let mut inner = self.lock();
        inner.steps.push(Step::Acknowledged { operation, committed: false });
        inner.steps.len() - 1
    }

    /// Notes afterwards that an acknowledged operation has changed something.
    pub fn committed(&self, place: usize) {
        if let Some(Step::Acknowledged { committed, .. }) = self.lock().steps.get_mut(place) {
            *committed = true;
        }
    }

    /// The process counts as killed after so many more operations: its files, as they are then, are left for a store at
    /// `leave_at`, and what it does afterwards to its own has never happened.
    pub fn kill(&self, operations_left: u32, leave_at: &Path) {
        self.lock().death = Some(Death { operations_left, leave_at: leave_at.to_owned(), is_dead: false });
    }

    /// The process is killed now, if it was not before.
    pub fn die(&self) {
        let mut inner = self.lock();
        if inner.death.as_ref().is_some_and(|death| !death.is_dead) {
            inner.die();
        }
    }

    /// Goes on with what the killed process has left.
    pub fn go_on(&self) {
        let mut inner = self.lock();
        inner.fresh.clear();
        if let Some(death) = inner.death.take() {
            inner.store = death.leave_at;
        }
    }

    fn note(&self, path: &Path, note: impl FnOnce(&mut Inner, Kind)) {
        let mut inner = self.lock();
        if let Some(kind) = inner.kind(path)
            && inner.lives()
        {
            note(&mut inner, kind);
        }
    }

    /// Records what the core does past SQLite; for `harness::watch`.
    ///
    /// # Errors
    /// None: everything passes.
    pub fn event(&self, event: &Event<'_>) -> io::Result<()> {
        match *event {
            Event::Write { path, offset, bytes } => self.note(path, |inner, kind| {
                inner.make(kind);
                inner.steps.push(Step::Write { kind, offset, bytes: bytes.to_vec() });
            }),
            Event::Sync(path) => self.note(path, |inner, kind| inner.steps.push(Step::Sync { kind, directory: false })),
            Event::Remove(path) => self.note(path, |inner, kind| inner.delete(kind, false)),
            _ => {}
        }
        Ok(())
    }
}

impl Observer for Recorder {
    fn before(&self, op: &Op<'_>) -> Result<(), c_int> {
        match *op {
            Op::Open(file) => self.note(&file.path, |inner, kind| {
                inner.make(kind);
                if file.flags & ffi::SQLITE_OPEN_CREATE != 0 && matches!(kind, Kind::Log | Kind::Journal) {
                    inner.fresh.insert(file.handle);
                }
            }),
            Op::Write { file, offset, bytes } => self.note(&file.path, |inner, kind| {
                inner.steps.push(Step::Write { kind, offset, bytes: bytes.to_vec() });
            }),
            Op::Truncate { file, size } => {
                self.note(&file.path, |inner, kind| inner.steps.push(Step::Size { kind, size }));
            }
            Op::Sync { file, .. } => self.note(&file.path, |inner, kind| {
                let directory = inner.fresh.remove(&file.handle);
                inner.steps.push(Step::Sync { kind, directory });
            }),
            Op::Delete { path, sync_directory } => {
                self.note(path, |inner, kind| inner.delete(kind, sync_directory));
            }
            _ => {}
        }
        Ok(())
    }
}
