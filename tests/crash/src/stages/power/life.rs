//! One life of a store: what was done, what it did to its files, and what it held after each step.

use super::disk::{Disk, Image, Survival};
use super::workload::{self, Flavour, Model, Operation};
use crate::vfs::Vfs;
use crate::vfs::record::{Kind, Recorder, Step, fingerprint};
use crate::{Failure, hold};
use llmspell_state_persistence::{State, harness};
use rusqlite::{Connection, OpenFlags, ffi};
use std::ffi::{c_char, c_int};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, OnceLock};

/// A recorded life.
pub(super) struct Life {
    pub(super) flavour: Flavour,
    /// What the disk held when it began.
    pub(super) base: Image,
    pub(super) operations: Vec<Operation>,
    /// What the store held before the operation of that number.
    pub(super) states: Vec<Model>,
    pub(super) steps: Vec<Step>,
    /// Where in `steps` callers were answered.
    acknowledged: Vec<usize>,
}

/// One power cut.
pub(super) struct Cut {
    pub(super) image: Image,
    /// Operations whose callers were answered before.
    pub(super) acknowledged: usize,
    /// Steps before it.
    pub(super) after: usize,
    pub(super) survival: Survival,
}

/// The clock of every writer, in milliseconds since the epoch.
const CLOCK_MS: i64 = 1_700_000_000_000;

fn vfs() -> &'static Vfs {
    static VFS: OnceLock<&'static Vfs> = OnceLock::new();
    VFS.get_or_init(|| Vfs::register("crash-power"))
}

/// The path of the store in a directory.
pub(super) fn store(dir: &Path) -> PathBuf {
    dir.join("store")
}

/// Makes a directory hold an image, and nothing else but a ballast that is there already: it has nothing to lose.
pub(super) fn lay_out(dir: &Path, image: &Image) -> Result<(), Failure> {
    let mut path = store(dir).into_os_string();
    path.push("-shm");
    let _ = std::fs::remove_file(path);
    for kind in Kind::ALL {
        let mut path = store(dir).into_os_string();
        path.push(kind.suffix());
        match image.file(kind) {
            Some(bytes) => std::fs::write(path, bytes)?,
            None => drop(std::fs::remove_file(path)),
        }
    }
    Ok(())
}

/// The newest connection of SQLite: the only one of an exclusive store, through which alone its log can be moved.
static NEWEST: AtomicPtr<ffi::sqlite3> = AtomicPtr::new(std::ptr::null_mut());

#[allow(unsafe_code)]
unsafe extern "C" fn note_connection(
    connection: *mut ffi::sqlite3,
    _: *mut *mut c_char,
    _: *const ffi::sqlite3_api_routines,
) -> c_int {
    NEWEST.store(connection, Ordering::SeqCst);
    ffi::SQLITE_OK
}

/// Hooks that last as long as a recording.
struct Hooks(Arc<Recorder>);

impl Hooks {
    #[allow(unsafe_code)]
    fn set(recorder: Arc<Recorder>, seed: u64) -> Self {
        vfs().observe(Some(Arc::clone(&recorder) as _));
        let heard = Arc::clone(&recorder);
        harness::watch(move |event| heard.event(event));
        harness::use_vfs(Some(vfs().name()));
        harness::use_one_thread(true);
        harness::set_clock(CLOCK_MS);
        harness::set_boot(Some(&format!("boot {seed}")));
        fastrand::seed(seed);
        #[allow(clippy::cast_possible_truncation)] // any number will do but 0
        let seed = seed as c_int | 1;
        // SAFETY: the control takes an int and a connection or null; asking for no randomness starts it anew from that.
        unsafe {
            ffi::sqlite3_test_control(ffi::SQLITE_TESTCTRL_PRNG_SEED, seed, std::ptr::null_mut::<ffi::sqlite3>());
            ffi::sqlite3_randomness(0, std::ptr::null_mut());
            ffi::sqlite3_auto_extension(Some(note_connection));
        }
        Self(recorder)
    }
}

impl Drop for Hooks {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        vfs().observe(None);
        harness::unwatch();
        harness::use_vfs(None);
        harness::set_boot(Some("the boot after the power cut"));
        // SAFETY: takes back what `set` has given.
        unsafe { ffi::sqlite3_cancel_auto_extension(Some(note_connection)) };
    }
}

/// Moves the log into the database, as another process would or as the only connection does.
#[allow(unsafe_code)]
fn checkpoint(flavour: Flavour, path: &Path, mode: i32) -> Result<(), Failure> {
    let run = |connection: *mut ffi::sqlite3| {
        // SAFETY: the connection is open, and nobody else uses it meanwhile: all is done on one thread.
        let done = unsafe {
            let none = std::ptr::null_mut();
            ffi::sqlite3_wal_checkpoint_v2(connection, std::ptr::null(), mode, none, none)
        };
        hold!(done == ffi::SQLITE_OK, "moving the log in mode {mode} answered {done}");
        Ok(())
    };
    if flavour.exclusive {
        return run(NEWEST.load(Ordering::SeqCst));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags_and_vfs(path, flags, vfs().name())?;
    // SAFETY: the handle is used while the connection is open.
    run(unsafe { connection.handle() })
}

impl Life {
    /// Lives it in `dir`, from `base`, which holds `model`.
    pub(super) fn record(
        dir: &Path,
        flavour: Flavour,
        base: &Image,
        model: &Model,
        seed: u64,
    ) -> Result<Self, Failure> {
        let mut random = fastrand::Rng::with_seed(seed);
        let operations = workload::operations(&mut random, model);
        lay_out(dir, base)?;
        let path = store(dir);
        let recorder = Arc::new(Recorder::new(&path, base.kinds()));
        let hooks = Hooks::set(recorder, seed);
        let recorder = &hooks.0;
        let (mut states, mut acknowledged) = (vec![model.clone()], Vec::new());
        let (mut state, mut version) = (None, 0);
        for (number, operation) in operations.iter().enumerate() {
            match (operation, &state) {
                (Operation::Open, _) => state = Some(State::with_config(flavour.config(&path))?),
                (Operation::Close, Some(open)) => {
                    open.close()?;
                    state = None;
                }
                (Operation::Checkpoint(mode), _) => checkpoint(flavour, &path, *mode)?,
                (_, Some(open)) => operation.run(open)?,
                (_, None) => return Err(Failure::new("a closed store was used")),
            }
            let place = recorder.acknowledge(number);
            acknowledged.push(place);
            let before = version;
            if let Some(open) = &state {
                version = open.version()?;
            }
            if matches!(operation, Operation::Scope(_)) || before != version && !matches!(operation, Operation::Open) {
                recorder.committed(place);
            }
            let mut next = states.last().cloned().unwrap_or_default();
            operation.model(&mut next, version);
            states.push(next);
        }
        let steps = recorder.take();
        if let (Some(open), Some(wanted)) = (&state, states.last()) {
            let found = workload::dump(open)?;
            hold!(found == *wanted, "without any power cut: {}", workload::difference(&found, wanted));
        }
        Ok(Self { flavour, base: base.clone(), operations, states, steps, acknowledged })
    }

    pub(super) fn fingerprint(&self) -> u64 {
        fingerprint(&self.steps)
    }

    /// No caller is told that its commit is done while a power cut could take it back.
    pub(super) fn check_order(&self) -> Result<(), Failure> {
        let kinds: &[Kind] = if self.flavour.wal { &[Kind::Log] } else { &[Kind::Database, Kind::Journal] };
        let mut disk = Disk::of(&self.base);
        for step in &self.steps {
            disk.step(step);
            if let Step::Acknowledged { operation, committed: true } = step
                && let Some(why) = disk.unsynced(kinds)
            {
                let what = super::tell(&self.operations[*operation]);
                return Err(Failure::new(format!("{}: {what} was acknowledged, but {why}", self.flavour.name)));
            }
        }
        Ok(())
    }

    /// Cuts the power somewhere.
    pub(super) fn cut(&self, random: &mut fastrand::Rng) -> Cut {
        let after = if random.bool() {
            random.usize(..=self.steps.len())
        } else {
            let place = self.acknowledged[random.usize(..self.acknowledged.len())];
            (place + 1 + random.usize(..3)).min(self.steps.len())
        };
        let mut disk = Disk::of(&self.base);
        for step in &self.steps[..after] {
            disk.step(step);
        }
        let survival = Survival::random(random);
        let acknowledged = self.acknowledged.iter().take_while(|place| **place < after).count();
        Cut { image: disk.cut(survival, random), acknowledged, after, survival }
    }

    /// How many acknowledged operations have changed something.
    pub(super) fn committed(&self) -> u64 {
        let is_commit = |step: &&Step| matches!(step, Step::Acknowledged { committed: true, .. });
        self.steps.iter().filter(is_commit).count() as u64
    }

    /// What has led to a cut, for people.
    pub(super) fn story(&self, cut: &Cut) -> String {
        const LAST: usize = 8;
        let mut text = format!(
            "{}: the power was cut after step {} of {}; {:?} of what was not synced survived",
            self.flavour.name,
            cut.after,
            self.steps.len(),
            cut.survival
        );
        for step in &self.steps[cut.after.saturating_sub(LAST)..cut.after] {
            text.push_str("\n  ");
            text.push_str(&match step {
                Step::Write { kind, offset, bytes } => {
                    format!("write {kind:?} {offset}..{}", offset + bytes.len() as u64)
                }
                Step::Acknowledged { operation, .. } => {
                    format!("acknowledged {}", super::tell(&self.operations[*operation]))
                }
                step => format!("{step:?}"),
            });
        }
        let next = self.operations.get(cut.acknowledged).map_or("the end".into(), super::tell);
        text.push_str("\nunder way: ");
        text.push_str(&next);
        text
    }
}
