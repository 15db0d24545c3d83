//! Records a life: one writer does everything, on one thread, with all randomness from a seed.

use super::disk::Image;
use super::life::{Life, lay_out, store};
use super::model::{Model, difference, dump};
use super::operation::{Operation, Told};
use super::workload::{self, Flavour};
use crate::vfs::Vfs;
use crate::vfs::record::Recorder;
use crate::{Failure, hold};
use llmspell_state_persistence::{State, harness};
use rusqlite::{Connection, OpenFlags, ffi};
use std::ffi::{c_char, c_int};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, OnceLock};

/// When a store is made, in milliseconds since the epoch.
pub(super) const CLOCK_MS: i64 = 1_700_000_000_000;

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
    fn set(recorder: Arc<Recorder>, seed: u64, clock_ms: i64) -> Self {
        vfs().observe(Some(Arc::clone(&recorder) as _));
        let heard = Arc::clone(&recorder);
        harness::watch(move |event| heard.event(event));
        harness::use_vfs(Some(vfs().name()));
        harness::use_one_thread(true);
        harness::set_own_clock(clock_ms);
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
        harness::set_own_clock(0);
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
    let hooks = Hooks::set(Arc::new(Recorder::new(&store(&places[0]), base.kinds())), seed, model.clock_ms);
    let mut writer = Writer {
        flavour,
        recorder: &hooks.0,
        places,
        operations: &operations,
        state: None,
        states: vec![model.clone()],
        acknowledged: Vec::new(),
        killed: None,
    };
    for (number, operation) in operations.iter().enumerate() {
        writer.live(number, operation)?;
    }
    let steps = hooks.0.take();
    let Writer { states, acknowledged, .. } = writer;
    Ok(Life { flavour, base: base.clone(), operations, states, steps, acknowledged })
}

struct Writer<'r> {
    flavour: Flavour,
    recorder: &'r Recorder,
    /// The first is where the store is now.
    places: [PathBuf; 2],
    operations: &'r [Operation],
    state: Option<State>,
    states: Vec<Model>,
    acknowledged: Vec<(usize, usize)>,
    /// The number of what a process was doing when it was killed, until it is known whether that was done.
    killed: Option<usize>,
}

impl Writer<'_> {
    fn live(&mut self, number: usize, operation: &Operation) -> Result<(), Failure> {
        if let Operation::Killed(last, after) = operation {
            lay_out(&self.places[1], &Image::default())?;
            self.recorder.kill(*after, &store(&self.places[1]));
            self.perform(number, last)?;
            // What it does to its files from now on has never happened.
            self.recorder.die();
            self.state = None;
            self.recorder.go_on();
            self.places.swap(0, 1);
            self.killed = Some(number);
            self.states.push(self.states[number].clone());
            return Ok(());
        }
        let told = self.perform(number, operation)?;
        let place = self.recorder.acknowledge(number);
        self.acknowledged.push((place, number));
        let clock_ms = self.states[number].clock_ms + operation.takes();
        let Some(open) = &self.state else {
            self.states.push(self.states[number].clone());
            return Ok(());
        };
        let found = dump(open, clock_ms)?;
        if let Some(killed) = self.killed.take() {
            self.settle(killed, &found)?;
        }
        let before = &self.states[number];
        before.check_next(&found, operation, Some(told), Some(self.then(number, operation)))?;
        let has_changed = before.version != found.version || !before.is(&found);
        if has_changed && !matches!(operation, Operation::Open) {
            self.recorder.committed(place);
        }
        // Keys whose time has run out are not found, but they are there when the power cut comes before that time.
        self.states.push(found);
        Ok(())
    }

    /// What the store was when an operation goes back to that.
    fn then(&self, number: usize, operation: &Operation) -> &Model {
        &self.states[number.saturating_sub(operation.back())]
    }

    fn perform(&mut self, number: usize, operation: &Operation) -> Result<Told, Failure> {
        let path = store(&self.places[0]);
        match (operation, &self.state) {
            (Operation::Open, _) => self.state = Some(State::with_config(self.flavour.config(&path))?),
            (Operation::Close, Some(open)) => {
                open.close()?;
                self.state = None;
            }
            (Operation::Checkpoint(mode), _) => checkpoint(self.flavour, &path, *mode)?,
            (_, Some(open)) => {
                let then = self.then(number, operation).version;
                let told = operation.run(open, self.states[number].clock_ms, then)?;
                let may_be_trimmed = self.operations[..number].iter().any(Operation::is_cleaning);
                let what = super::tell(operation);
                hold!(told != Told::Trimmed || may_be_trimmed, "{what}: nothing was trimmed, but it is told so");
                return Ok(told);
            }
            (_, None) => return Err(Failure::new("a closed store was used")),
        }
        Ok(Told::Done)
    }

    /// After a kill: the store holds what was under way, or it does not, or it tells of what had expired before.
    fn settle(&mut self, number: usize, found: &Model) -> Result<(), Failure> {
        let (Operation::Killed(last, _), before) = (&self.operations[number], &self.states[number]) else {
            return Ok(());
        };
        let is_between = last.is_in_parts() && before.leads_by(found, before);
        if !before.is(found) && !is_between {
            let wrong = |why: Failure| {
                let what = difference(found, before);
                Failure::new(format!("after a kill without any power cut: {what}; or {why}"))
            };
            before.check_next(found, last, None, Some(self.then(number, last))).map_err(wrong)?;
        }
        self.states[number + 1] = found.clone();
        Ok(())
    }
}
