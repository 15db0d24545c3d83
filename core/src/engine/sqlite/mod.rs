//! The SQLite engine: one file in write-ahead mode that several processes share, or a connection of its own for a store
//! in memory or in exclusive use.

mod checkpoint;
mod connect;
mod error;
pub(crate) mod file;
mod guard;
mod pool;
mod schema;
mod statements;
mod wal;

use self::checkpoint::Checkpointer;
use self::connect::{Role, connect, set_journal};
use self::error::{from_sqlite, is_busy};
use self::guard::Guard;
use self::pool::Pool;
use self::statements::{Change, View};
use self::wal::{Wal, WalIndex};
use super::{Engine, Head, ReadWork, Reads as _, WriteWork};
use crate::{Error, ErrorKind, Result, StateConfig, SyncMode, fork};
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A store in SQLite.
pub(crate) struct Sqlite {
    shared: Arc<Shared>,
    checkpointer: Mutex<Option<Checkpointer>>,
    store_id: String,
}

/// What the engine and its checkpointer have in common.
struct Shared {
    config: StateConfig,
    path: Option<PathBuf>,
    writer: Mutex<Writer>,
    /// Nothing in a store of one connection: its writer reads as well.
    sharing: Option<Sharing>,
    /// Commits of a store of one connection, whose stamp this is. It moves before anybody can read what was committed.
    commits: AtomicU64,
    guard: Mutex<Option<Guard>>,
}

/// What several connections need.
struct Sharing {
    readers: Pool,
    index: WalIndex,
    wal: Wal,
}

struct Writer {
    /// Nothing once closed, or after a failure until it can be opened again.
    connection: Option<Connection>,
    closed: bool,
    /// The log's end, as long as the stamp is this.
    known: Option<(u64, Head)>,
}

impl Sqlite {
    /// Opens the store at `path`, which is resolved already, or one in memory.
    pub(crate) fn open(path: Option<&Path>, config: &StateConfig) -> Result<Self> {
        let _inside = fork::inside();
        schema::check_library()?;
        let patience = Duration::from_millis(config.busy_timeout_ms);
        let guard = match path {
            None => None,
            Some(path) => {
                let database = file::open(path, config.create)?;
                if !config.exclusive {
                    file::check_file_system(&database, path)?;
                }
                Some(Guard::take(path, database, config.exclusive)?)
            }
        };
        let role = if path.is_none() || config.exclusive { Role::Solo } else { Role::Writer };
        let shown = path.unwrap_or(Path::new(":memory:"));
        let (connection, store_id) =
            retry_busy(patience, || open_writer(path, config, role)).map_err(|e| e.about(shown.display()))?;
        let sharing = match path.filter(|_| role == Role::Writer) {
            None => None,
            Some(path) => {
                guard.as_ref().map_or(Ok(()), |guard| guard.share(patience))?;
                let (reader_path, reader_config) = (path.to_owned(), config.clone());
                let readers = Pool::new(move || {
                    let reader = connect(Some(&reader_path), &reader_config, Role::Reader)?;
                    set_journal(&reader, &reader_config, Role::Reader)?;
                    Ok(reader)
                });
                Some(Sharing { readers, index: WalIndex::map(path)?, wal: Wal::open(path)? })
            }
        };
        let shared = Arc::new(Shared {
            config: config.clone(),
            path: path.map(Path::to_owned),
            writer: Mutex::new(Writer { connection: Some(connection), closed: false, known: None }),
            sharing,
            commits: AtomicU64::new(0),
            guard: Mutex::new(guard),
        });
        let checkpointer = match shared.sharing {
            None => None,
            Some(_) => Some(
                Checkpointer::start(Arc::clone(&shared))
                    .map_err(|e| Error::new(ErrorKind::Io, format!("starting the checkpoint thread failed: {e}")))?,
            ),
        };
        Ok(Self { shared, checkpointer: Mutex::new(checkpointer), store_id })
    }
}

/// A write connection to a store that exists afterwards, and the store's identity.
fn open_writer(path: Option<&Path>, config: &StateConfig, role: Role) -> Result<(Connection, String)> {
    let shown = path.unwrap_or(Path::new(":memory:"));
    // SQLite takes a file that is too short for its header for an empty one.
    if let Some(Ok(metadata)) = path.map(Path::metadata)
        && (1..file::SHORTEST).contains(&metadata.len())
    {
        return Err(schema::not_a_store(shown));
    }
    let connection = connect(path, config, role).map_err(|e| match e.kind() {
        ErrorKind::UnknownFormat => schema::not_a_store(shown),
        _ => e,
    })?;
    if path.is_some() && role == Role::Solo {
        // Before the first read, or SQLite has joined the shared wal-index already.
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE").map_err(|e| from_sqlite("opening the store", e))?;
    }
    let found = schema::identify(&connection, shown)?;
    set_journal(&connection, config, role)?;
    if found == schema::Found::Empty {
        schema::create(&connection, shown)?;
    }
    let store_id = schema::store_id(&connection)?;
    Ok((connection, store_id))
}

/// Tries again while another process is in the way, in steps short enough not to be felt.
fn retry_busy<T>(patience: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let mut pause = Pause::default();
    loop {
        match attempt() {
            Err(e) if e.kind() == ErrorKind::Busy && start.elapsed() < patience => pause.wait(),
            done => return done,
        }
    }
}

/// Waits that start at a turn of the scheduler and grow to two milliseconds, with jitter so that processes fall out of step.
/// A process that wins the lock finds its pages changed by the others, so longer turns make all of them faster.
#[derive(Default)]
struct Pause(u32);

impl Pause {
    fn wait(&mut self) {
        const TURNS: u32 = 3;
        const LONGEST_US: u64 = 2_000;
        self.0 += 1;
        if self.0 <= TURNS {
            std::thread::yield_now();
            return;
        }
        let bound = (50_u64 << (self.0 - TURNS).min(6)).min(LONGEST_US);
        std::thread::sleep(Duration::from_micros(fastrand::u64(bound / 2..=bound)));
    }
}

impl Shared {
    fn lock_writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes sure that the store's files still have their names: what is written to a file without a name is lost.
    fn check_files(&self) -> Result<()> {
        if let Some(guard) = &*self.guard.lock().unwrap_or_else(PoisonError::into_inner) {
            guard.check()?;
        }
        let Some(sharing) = &self.sharing else { return Ok(()) };
        sharing.index.check()?;
        sharing.wal.check().map(drop)
    }

    /// Opens the write connection anew.
    fn reopen(&self, writer: &mut Writer, path: &Path) -> Result<()> {
        let role = if self.sharing.is_some() { Role::Writer } else { Role::Solo };
        writer.connection = Some(open_writer(Some(path), &self.config, role)?.0);
        Ok(())
    }

    /// Starts the write transaction once no other process is in one.
    fn begin(&self, connection: &Connection) -> Result<()> {
        let patience = Duration::from_millis(self.config.busy_timeout_ms);
        let start = Instant::now();
        let mut pause = Pause::default();
        if !connection.is_autocommit() {
            // A panic has left a transaction behind.
            connection.execute_batch("ROLLBACK").map_err(|e| from_sqlite("undoing a write", e))?;
        }
        let mut statement =
            connection.prepare_cached("BEGIN IMMEDIATE").map_err(|e| from_sqlite("starting a write", e))?;
        loop {
            match statement.execute([]) {
                Ok(_) => return Ok(()),
                Err(e) if is_busy(&e) && start.elapsed() < patience => pause.wait(),
                Err(e) => return Err(from_sqlite("starting a write", e)),
            }
        }
    }

    /// After a COMMIT that failed: tells whether the last row of the commit is there after all. Another process may have
    /// written a row of that number meanwhile, so only the row's check proves that it is ours.
    fn settle(&self, writer: &mut Writer, last: Head, last_check: Option<i64>, error: rusqlite::Error) -> Result<()> {
        // A connection that failed to commit is not trusted any more. A store in memory has no other.
        if let Some(path) = &self.path {
            writer.connection = None;
            // If that fails, the next write tries again.
            let _ = self.reopen(writer, path);
        }
        let mut found = None;
        let read = writer.connection.as_ref().map(|connection| {
            View(connection).row(last.seq, &mut |row| {
                found = Some(row.check);
                Ok(())
            })
        });
        let disk_full = error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull);
        match read {
            Some(Ok(_)) if last_check.is_some() && found == last_check => Ok(()),
            // Another commit has taken the place, or the pages were never written.
            Some(Ok(there)) if (there && last_check.is_some()) || disk_full => Err(from_sqlite("committing", error)),
            _ => Err(Error::new(
                ErrorKind::CommitUnknown,
                format!("it is unknown whether the commit is stored ({error}); read the key again to know"),
            )
            .with_source(error)),
        }
    }
}

/// A store whose opening failed half-way is closed like any other. A forked child leaks its parent's stores instead.
impl Drop for Sqlite {
    fn drop(&mut self) {
        // Nobody is left to tell.
        let _ = self.close();
    }
}

impl Engine for Sqlite {
    fn stamp(&self) -> u64 {
        let shared = &*self.shared;
        shared.sharing.as_ref().map_or_else(|| shared.commits.load(Ordering::Acquire), |sharing| sharing.index.stamp())
    }

    fn read(&self, work: ReadWork<'_>) -> Result<()> {
        let _inside = fork::inside();
        match &self.shared.sharing {
            Some(sharing) => sharing.readers.with(|connection| work(&View(connection))),
            None => match &self.shared.lock_writer().connection {
                Some(connection) => work(&View(connection)),
                None => Err(Error::closed("the store")),
            },
        }
    }

    fn snapshot(&self, work: ReadWork<'_>) -> Result<()> {
        let Some(sharing) = &self.shared.sharing else { return self.read(work) };
        let _inside = fork::inside();
        sharing.readers.with(|connection| {
            let run = |sql| {
                let mut statement = connection.prepare_cached(sql)?;
                statement.execute([])
            };
            run("BEGIN").map_err(|e| from_sqlite("starting a read", e))?;
            let done = work(&View(connection));
            run("COMMIT").map_err(|e| from_sqlite("ending a read", e))?;
            done
        })
    }

    fn write(&self, work: WriteWork<'_>) -> Result<Option<u64>> {
        let _inside = fork::inside();
        let shared = &*self.shared;
        let mut writer = shared.lock_writer();
        let writer = &mut *writer;
        if let (None, false, Some(path)) = (&writer.connection, writer.closed, &shared.path) {
            shared.reopen(writer, path)?;
        }
        let connection = writer.connection.as_ref().ok_or_else(|| Error::closed("the store"))?;
        shared.begin(connection)?;
        let undo = |error: Error| {
            // SQLite may have rolled back by itself already.
            let _ = connection.execute_batch("ROLLBACK");
            Err(error)
        };
        let index = shared.sharing.as_ref().map(|sharing| &sharing.index);
        let before = index.map(WalIndex::header);
        let view = View(connection);
        let stamp_before = before
            .map_or_else(|| Some(shared.commits.load(Ordering::Acquire)), |header| header.map(|header| header.stamp));
        let head = match writer.known {
            Some((stamp, head)) if stamp_before == Some(stamp) => head,
            _ => match view.head() {
                Ok(head) => head,
                Err(e) => return undo(e),
            },
        };
        let frames = before.flatten().map_or(0, |header| header.last_frame);
        if let Err(e) = shared.check_files() {
            return undo(e);
        }
        if let Some(sharing) = &shared.sharing {
            let ready = match shared.config.sync_mode {
                SyncMode::Full => sharing.wal.make_room(frames),
                SyncMode::Normal | SyncMode::Off => Ok(()),
            };
            if let Err(e) = ready {
                return undo(e);
            }
        }
        let mut change = Change { view, head, last_check: None, wrote: false };
        if let Err(e) = work(&mut change) {
            return undo(e);
        }
        let Change { head, last_check, wrote, .. } = change;
        if !wrote {
            connection.execute_batch("ROLLBACK").map_err(|e| from_sqlite("ending a write", e))?;
            return Ok(stamp_before);
        }
        let committed = connection.prepare_cached("COMMIT").and_then(|mut commit| commit.execute([]));
        let commits = shared.commits.fetch_add(1, Ordering::AcqRel) + 1;
        if let Err(error) = committed {
            let _ = connection.execute_batch("ROLLBACK");
            writer.known = None;
            return shared.settle(writer, head, last_check, error).map(|()| None);
        }
        let after = index.map(WalIndex::header);
        let stamp = match (before, after) {
            (None, _) => Some(commits),
            // Exactly one commit since ours began: our own.
            (Some(Some(before)), Some(Some(after))) if after.change == before.change.wrapping_add(1) => {
                Some(after.stamp)
            }
            _ => None,
        };
        writer.known = stamp.map(|stamp| (stamp, head));
        if frames >= checkpoint::TOO_MANY_FRAMES {
            // The commit stands whatever comes of this.
            let _ = checkpoint::restart(connection);
        }
        if let Some(checkpointer) = &*self.checkpointer.lock().unwrap_or_else(PoisonError::into_inner) {
            checkpointer.note(frames);
        }
        Ok(stamp)
    }

    fn store_id(&self) -> &str {
        &self.store_id
    }

    fn close(&self) -> Result<()> {
        // Let go of the lock before waiting for the thread: it may wait for a writer that waits for the lock.
        let checkpointer = self.checkpointer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut checkpointer) = checkpointer {
            checkpointer.stop();
        }
        // Only now: the thread needs it, too.
        let _inside = fork::inside();
        if let Some(sharing) = &self.shared.sharing {
            sharing.readers.close();
        }
        let connection = {
            let mut writer = self.shared.lock_writer();
            writer.closed = true;
            writer.connection.take()
        };
        let closed = match connection {
            None => Ok(()),
            Some(connection) => {
                if self.shared.sharing.is_some() && self.shared.check_files().is_ok() {
                    // An empty log cannot be mistaken for the log of a file that is copied here later. Readers in other
                    // processes may prevent it; then the last one to close does it.
                    let _ = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
                }
                connection.close().map_err(|(_, e)| from_sqlite("closing the store", e))
            }
        };
        if let Some(sharing) = &self.shared.sharing {
            sharing.index.release();
        }
        if let Some(guard) = self.shared.guard.lock().unwrap_or_else(PoisonError::into_inner).take() {
            guard.leave();
        }
        closed
    }
}
