//! Moves committed pages from the log to the database in the background, so that no write pays for it.

use super::error::from_sqlite;
use super::{Pause, Shared};
use crate::{Result, fork, harness};
use rusqlite::Connection;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Frames that have come to the log since the last checkpoint and make another one worth while.
const FRAMES: u32 = 2_000;
/// Frames in the log from which on writers have to wait for the end of a checkpoint.
const MANY_FRAMES: i64 = 4_000;
/// Frames in the log from which on a writer moves them itself: commits must not outrun a slow disk for ever.
pub(super) const TOO_MANY_FRAMES: u32 = 8_000;

/// How long a checkpoint that keeps others out waits for them.
const PATIENCE: Duration = Duration::from_millis(20);

/// How far the log is moved, and how long it is, in frames.
#[derive(Debug, Clone, Copy)]
pub(super) struct Progress {
    log: i64,
    moved: i64,
}

/// How far a checkpoint goes.
#[derive(Debug, Clone, Copy)]
enum Mode {
    /// Moves what it can without anybody waiting.
    Passive,
    /// Keeps all writers of all processes out until everything is moved, so that the next commit starts the log over.
    Restart,
    /// The same, and leaves the log without a byte.
    Truncate,
}

impl Progress {
    /// Somebody else is moving the log.
    fn is_unknown(self) -> bool {
        self.log < 0
    }
}

/// Answers also whether nobody was in the way.
fn move_log(connection: &Connection, mode: Mode) -> Result<(Progress, bool)> {
    let sql = match mode {
        Mode::Passive => "PRAGMA wal_checkpoint(PASSIVE)",
        Mode::Restart => "PRAGMA wal_checkpoint(RESTART)",
        Mode::Truncate => "PRAGMA wal_checkpoint(TRUNCATE)",
    };
    connection
        .query_row(sql, [], |row| Ok((Progress { log: row.get(1)?, moved: row.get(2)? }, row.get::<_, i64>(0)? == 0)))
        .map_err(|e| from_sqlite("moving the log into the database", e))
}

/// [`move_log`] where other processes have to let go of the log, with a moment of patience for them. SQLite waits for those who read
/// or write, but not for one who moves the log.
fn move_soon(connection: &Connection, mode: Mode) -> Result<(Progress, bool)> {
    let patience = |wait| connection.busy_timeout(wait).map_err(|e| from_sqlite("moving the log into the database", e));
    patience(PATIENCE)?;
    let (start, mut pause) = (Instant::now(), Pause::default());
    let done = loop {
        match move_log(connection, mode) {
            Ok((progress, _)) if progress.is_unknown() && start.elapsed() < PATIENCE => pause.wait(),
            done => break done,
        }
    };
    patience(Duration::ZERO)?;
    done
}

/// Starts the log over through the write connection, if other processes let it.
pub(super) fn restart(connection: &Connection) -> Result<Progress> {
    move_soon(connection, Mode::Restart).map(|(progress, _)| progress)
}

/// Moves everything and leaves the log without a byte, synced; says whether other processes let that happen.
pub(super) fn empty(connection: &Connection) -> Result<bool> {
    move_log(connection, Mode::Truncate).map(|(_, done)| done)
}

/// Whether the only connection to a store moves the log by itself. Not on a full disk, where that could take all the space
/// that is left for deleting.
#[allow(unsafe_code)]
pub(super) fn automatic(connection: &Connection, on: bool) {
    let frames = if on { FRAMES.cast_signed() } else { 0 };
    // SAFETY: a plain call on an open connection. It only notes the number.
    unsafe { rusqlite::ffi::sqlite3_wal_autocheckpoint(connection.handle(), frames) };
}

impl Shared {
    /// [`empty`], by whoever holds the write connection.
    pub(super) fn empty(&self, connection: &Connection) -> Result<bool> {
        if self.sharing.is_none() {
            return empty(connection);
        }
        move_soon(connection, Mode::Truncate).map(|(_, done)| done)
    }

    /// Moves the log into the database beside the writer. As long as commits keep coming there is always a rest, and the log
    /// grows; when it has become long the rest is moved while nobody writes. A log that is not the store's any more is left
    /// alone.
    fn checkpoint(&self) -> Result<Progress> {
        let Some(sharing) = &self.sharing else { return Ok(Progress { log: 0, moved: 0 }) };
        let _inside = fork::inside();
        if self.ballast.as_ref().is_some_and(|ballast| !ballast.is_held()) {
            // On a full disk what space there is belongs to deletions: moving the log could take all of it.
            return Ok(Progress { log: 0, moved: 0 });
        }
        harness::point("checkpoint.begin");
        self.check_files()?;
        let (progress, _) = sharing.readers.with(|connection| move_log(connection, Mode::Passive))?;
        if progress.log < MANY_FRAMES {
            return Ok(progress);
        }
        let writer = self.lock_writer();
        let restarted = writer.connection.as_ref().map_or(Ok(progress), restart)?;
        harness::point("checkpoint.done");
        Ok(if restarted.is_unknown() { progress } else { restarted })
    }
}

/// The background thread and the bell that wakes it.
pub(super) struct Checkpointer {
    bell: Arc<Bell>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Bell {
    rung: Mutex<Call>,
    heard: Condvar,
    /// Frames of the log that the last checkpoint has moved.
    moved: AtomicU32,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Call {
    #[default]
    Rest,
    Work,
    Stop,
}

impl Checkpointer {
    /// Starts the thread; it works for `shared` until stopped.
    pub(super) fn start(shared: Arc<Shared>) -> std::io::Result<Self> {
        let bell = Arc::new(Bell::default());
        let heard = Arc::clone(&bell);
        let thread = std::thread::Builder::new().name("llmspell-checkpoint".into()).spawn(move || {
            while heard.wait() == Call::Work {
                // What fails now (a full disk, a busy file) is tried again after a later commit.
                if let Ok(progress) = shared.checkpoint() {
                    heard.moved.store(u32::try_from(progress.moved).unwrap_or(0), Ordering::Relaxed);
                }
            }
        })?;
        Ok(Self { bell, thread: Some(thread) })
    }

    /// Tells how long the log is after a commit; once enough has come, a checkpoint follows soon.
    pub(super) fn note(&self, frames: u32) {
        // A log that was started over is shorter than what was moved before.
        let moved = Some(self.bell.moved.load(Ordering::Relaxed)).filter(|moved| *moved <= frames).unwrap_or(0);
        if frames - moved >= FRAMES {
            self.bell.ring(Call::Work);
        }
    }

    /// Ends the thread and waits for it.
    pub(super) fn stop(&mut self) {
        self.bell.ring(Call::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by the panic hook; nothing more can be done about it here.
            let _ = thread.join();
        }
    }
}

impl Bell {
    fn ring(&self, call: Call) {
        let mut rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        if *rung != Call::Stop && *rung != call {
            *rung = call;
            self.heard.notify_one();
        }
    }

    /// The next call; `Stop` stays.
    fn wait(&self) -> Call {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rung = self.heard.wait_while(rung, |call| *call == Call::Rest).unwrap_or_else(PoisonError::into_inner);
        let call = *rung;
        if call == Call::Work {
            *rung = Call::Rest;
        }
        call
    }
}
