//! Records a life: one writer does everything, on one thread, with all randomness from a seed.

use super::disk::Image;
use super::life::{Life, lay_out, store};
use super::workload::{self, Flavour, Model, Operation};
use crate::vfs::Vfs;
use crate::vfs::record::Recorder;
use crate::{Failure, hold};
use llmspell_state_persistence::{State, harness};
use rusqlite::{Connection, OpenFlags, ffi};
use std::ffi::{c_char, c_int};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, OnceLock};

/// The clock of every writer, in milliseconds since the epoch.
const CLOCK_MS: i64 = 1_700_000_000_000;

fn vfs() -> &'static Vfs {
    static VFS: OnceLock<&'static Vfs> = OnceLock::new();
    VFS.get_or_init(|| Vfs::register("crash-power"))
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

/// Records a life in `dir`, from `base`, which holds `model`.
pub(super) fn record(dir: &Path, flavour: Flavour, base: &Image, model: &Model, seed: u64) -> Result<Life, Failure> {
    let operations = workload::operations(&mut fastrand::Rng::with_seed(seed), model);
    // A killed process leaves its files in the other place.
    let places = [dir.join("one"), dir.join("other")];
    for place in &places {
        std::fs::create_dir_all(place)?;
    }
    lay_out(&places[0], base)?;
    let hooks = Hooks::set(Arc::new(Recorder::new(&store(&places[0]), base.kinds())), seed);
    let mut writer = Writer {
        flavour,
        recorder: &hooks.0,
        places,
        state: None,
        version: 0,
        states: vec![model.clone()],
        acknowledged: Vec::new(),
        killed: None,
    };
    for (number, operation) in operations.iter().enumerate() {
        writer.live(number, operation)?;
    }
    let steps = hooks.0.take();
    let Writer { state, states, acknowledged, .. } = writer;
    if let (Some(open), Some(wanted)) = (&state, states.last()) {
        let found = workload::dump(open)?;
        hold!(found == *wanted, "without any power cut: {}", workload::difference(&found, wanted));
    }
    Ok(Life { flavour, base: base.clone(), operations, states, steps, acknowledged })
}

struct Writer<'r> {
    flavour: Flavour,
    recorder: &'r Recorder,
    /// The first is where the store is now.
    places: [PathBuf; 2],
    state: Option<State>,
    version: u64,
    states: Vec<Model>,
    acknowledged: Vec<(usize, usize)>,
    /// What a process was doing when it was killed, until it is known whether that was done.
    killed: Option<Operation>,
}

impl Writer<'_> {
    fn live(&mut self, number: usize, operation: &Operation) -> Result<(), Failure> {
        if let Operation::Killed(last, after) = operation {
            lay_out(&self.places[1], &Image::default())?;
            self.recorder.kill(*after, &store(&self.places[1]));
            self.perform(last)?;
            // What it does to its files from now on has never happened.
            self.recorder.die();
            self.state = None;
            self.recorder.go_on();
            self.places.swap(0, 1);
            self.killed = Some((**last).clone());
            self.states.push(self.states[number].clone());
            return Ok(());
        }
        self.perform(operation)?;
        let place = self.recorder.acknowledge(number);
        self.acknowledged.push((place, number));
        let before = self.version;
        if let Some(open) = &self.state {
            self.version = open.version()?;
        }
        if let Some(killed) = self.killed.take() {
            self.settle(&killed)?;
        }
        let mut next = self.states[number].clone();
        operation.model(&mut next, self.version);
        let mut has_kept = false;
        if let (true, Some(open)) = (operation.is_watching(), &self.state) {
            next = workload::dump(open)?;
            has_kept = next != self.states[number];
        }
        let is_scope = matches!(operation, Operation::Scope(_));
        if is_scope || has_kept || before != self.version && !matches!(operation, Operation::Open) {
            self.recorder.committed(place);
        }
        self.states.push(next);
        Ok(())
    }

    fn perform(&mut self, operation: &Operation) -> Result<(), Failure> {
        let path = store(&self.places[0]);
        match (operation, &self.state) {
            (Operation::Open, _) => self.state = Some(State::with_config(self.flavour.config(&path))?),
            (Operation::Close, Some(open)) => {
                open.close()?;
                self.state = None;
            }
            (Operation::Checkpoint(mode), _) => checkpoint(self.flavour, &path, *mode)?,
            (_, Some(open)) => operation.run(open)?,
            (_, None) => return Err(Failure::new("a closed store was used")),
        }
        Ok(())
    }

    /// After a kill: the store holds what was under way, or it does not.
    fn settle(&mut self, killed: &Operation) -> Result<(), Failure> {
        let (Some(open), Some(before)) = (&self.state, self.states.last_mut()) else { return Ok(()) };
        let found = workload::dump(open)?;
        let mut after = before.clone();
        killed.model(&mut after, self.version);
        hold!(
            found == *before || found == after,
            "after a kill without any power cut: {}",
            workload::difference(&found, before)
        );
        *before = found;
        Ok(())
    }
}
