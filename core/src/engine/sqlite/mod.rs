//! The SQLite engine: one file in write-ahead mode that several processes share, or a connection of its own for a store
//! in memory or in exclusive use.

mod ballast;
mod change;
mod checkpoint;
mod connect;
mod error;
pub(crate) mod file;
mod frames;
mod guard;
mod layers;
mod mark;
mod pages;
mod pool;
mod schema;
mod shm;
mod sql;
mod statements;
mod wal;
mod write;

use self::ballast::Ballast;
use self::checkpoint::Checkpointer;
use self::connect::{Role, connect, lay_out_pages, set_journal};
use self::error::from_sqlite;
use self::guard::Guard;
use self::layers::steadily;
use self::mark::Mark;
use self::pool::Pool;
use self::statements::View;
use self::wal::{Wal, WalIndex};
use super::{Engine, Head, ReadWork, Reads as _, WriteWork};
use crate::interrupt::Waiting;
use crate::{Error, ErrorKind, Result, StateConfig, SyncMode, fork, harness};
use parking_lot::MutexGuard;
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLockReadGuard};
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
    /// Fair: whoever reads over and over in a store of one connection would keep a writer out with the lock of std.
    writer: parking_lot::Mutex<Writer>,
    /// Nothing in a store of one connection: its writer reads as well.
    sharing: Option<Sharing>,
    /// Commits of a store of one connection, whose stamp this is. It moves before anybody can read what was committed.
    commits: AtomicU64,
    guard: Mutex<Option<Guard>>,
    /// Nothing for a store in memory.
    ballast: Option<Ballast>,
}

/// What several connections need.
struct Sharing {
    readers: Pool,
    index: WalIndex,
    wal: Wal,
}

/// What a write leaves to the next.
#[derive(Clone, Copy)]
struct Known {
    /// The log's end …
    head: Head,
    /// … and its time.
    last_ms: i64,
    /// As `View::last_forked` says, once that was asked.
    last_forked: Option<i64>,
}

struct Writer {
    /// Nothing once closed, or after a failure until it can be opened again.
    connection: Option<Connection>,
    closed: bool,
    /// What holds as long as the stamp is this.
    known: Option<(u64, Known)>,
    /// Nothing for a store in memory.
    mark: Option<Mark>,
}

impl Sqlite {
    /// Opens the store at `path`, which is resolved already, or one in memory.
    pub(crate) fn open(path: Option<&Path>, config: &StateConfig) -> Result<Self> {
        let mut inside = Some(fork::inside());
        schema::check_library()?;
        let patience = Duration::from_millis(config.busy_timeout_ms);
        let guard = match path {
            None => None,
            Some(path) => {
                let (database, made) = file::open_or_make(path, config.create)?;
                if made {
                    // What is left of a store whose file was removed says nothing about this one.
                    let _ = file::remove(&file::beside(path, "-mark"));
                }
                if !config.exclusive {
                    file::check_file_system(&database, path)?;
                }
                Some(Guard::take(path, database, config.exclusive)?)
            }
        };
        harness::point("open.guarded");
        // Before the store is read: other processes raise the store first, then the mark.
        let mut mark = path.map(|path| Mark::open(path, config.sync_mode)).transpose()?;
        let role = if path.is_none() || config.exclusive { Role::Solo } else { Role::Writer };
        let shown = path.unwrap_or(Path::new(":memory:"));
        let leftovers = match (&guard, path) {
            (Some(guard), Some(path)) => guard.is_alone()? && take_over(path)?,
            _ => false,
        };
        let attempt = || open_writer(path, config, role, mark.as_ref());
        let (connection, store_id) =
            retry_busy(patience, &mut inside, attempt).map_err(|e| e.about(shown.display()))?;
        if let (Some(mark), Some(path)) = (&mut mark, path) {
            let version = View(&connection).head()?.version;
            let compared = mark.compare(&store_id, version, config.accept_rollback, path);
            compared.inspect_err(|_| keep_log(&connection))?;
        }
        let ballast = path.map(Ballast::open).transpose()?;
        // On a full disk what space there is belongs to deletions.
        if leftovers && ballast.as_ref().is_none_or(Ballast::is_held) {
            match checkpoint::empty(&connection) {
                // Somebody has come meanwhile, or the log has to stay where it is.
                Err(e) if !matches!(e.kind(), ErrorKind::Busy | ErrorKind::DiskFull) => return Err(e),
                _ => {}
            }
        }
        let sharing = match path.filter(|_| role == Role::Writer) {
            None => None,
            Some(path) => {
                guard.as_ref().map_or(Ok(()), |guard| guard.share(patience))?;
                let (reader_path, reader_config) = (path.to_owned(), config.clone());
                let readers = Pool::new(move || {
                    let reader = connect(Some(&reader_path), &reader_config, Role::Reader)?;
                    pages::expect_checks(&reader);
                    set_journal(&reader, &reader_config, Role::Reader)?;
                    Ok(reader)
                });
                Some(Sharing { readers, index: WalIndex::map(path)?, wal: Wal::open(path)? })
            }
        };
        let shared = Arc::new(Shared {
            config: config.clone(),
            path: path.map(Path::to_owned),
            writer: parking_lot::Mutex::new(Writer { connection: Some(connection), closed: false, known: None, mark }),
            sharing,
            commits: AtomicU64::new(0),
            guard: Mutex::new(guard),
            ballast,
        });
        let checkpointer = match shared.sharing {
            None => None,
            Some(_) if harness::one_thread() => None,
            Some(_) => Some(
                Checkpointer::start(Arc::clone(&shared))
                    .map_err(|e| Error::new(ErrorKind::Io, format!("starting the checkpoint thread failed: {e}")))?,
            ),
        };
        harness::point("open.ready");
        Ok(Self { shared, checkpointer: Mutex::new(checkpointer), store_id })
    }
}

/// A write connection to a store that exists afterwards, and the store's identity.
fn open_writer(
    path: Option<&Path>,
    config: &StateConfig,
    role: Role,
    mark: Option<&Mark>,
) -> Result<(Connection, String)> {
    let shown = path.unwrap_or(Path::new(":memory:"));
    let may_be_made = || match mark {
        Some(mark) if !config.accept_rollback => mark.owes_nothing(shown),
        _ => Ok(()),
    };
    let metadata = path.map(Path::metadata);
    let had_bytes = metadata.as_ref().is_some_and(|metadata| metadata.as_ref().is_ok_and(|found| found.len() > 0));
    match metadata {
        // Before SQLite sees it: it would remove the log beside an empty file.
        Some(Ok(metadata)) if metadata.len() == 0 => may_be_made()?,
        // SQLite takes a file that is too short for its header for an empty one.
        Some(Ok(metadata)) if metadata.len() < file::SHORTEST && !file::was_cut_off(shown) => {
            return Err(schema::not_a_store(shown));
        }
        _ => {}
    }
    let look = || {
        let connection = connect(path, config, role).map_err(|e| match e.kind() {
            ErrorKind::UnknownFormat => schema::not_a_store(shown),
            _ => e,
        })?;
        let found = schema::identify(&connection, shown)?;
        Ok::<_, Error>((connection, found))
    };
    let (mut connection, mut found) = look()?;
    if found == schema::Found::Empty {
        may_be_made().inspect_err(|_| keep_log(&connection))?;
        if had_bytes {
            // The making of it was cut off, and is undone by now. But how large its pages were, and how much of them is free, this
            // connection has read before, and would make it again like that.
            keep_log(&connection);
            drop(connection);
            (connection, found) = look()?;
        }
    }
    match found {
        schema::Found::Store => pages::expect_checks(&connection),
        schema::Found::Empty if path.is_some() => lay_out_pages(&connection)?,
        schema::Found::Empty => {}
    }
    set_journal(&connection, config, role)?;
    if found == schema::Found::Empty {
        schema::create(&connection, shown)?;
        pages::expect_checks(&connection);
        harness::point("open.created");
    }
    let store_id = schema::store_id(&connection)?;
    Ok((connection, store_id))
}

/// What a process that died, or a sync that failed, has left may be in memory only. Before anything is built upon it, it has to be
/// on the disk: whether a journal still counts, and a log, which is then moved into the database. Answers whether there is one.
fn take_over(path: &Path) -> Result<bool> {
    file::settle_head(&file::beside(path, "-journal"))?;
    Ok(file::beside(path, "-wal").metadata().is_ok_and(|log| log.len() > 0))
}

/// Closing the connection shall not remove the log: what is missing from the store may be in it.
fn keep_log(connection: &Connection) {
    // The error that is about to be told matters more.
    let _ = connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
}

/// Tries again while another process is in the way, in steps short enough not to be felt, and outside meanwhile: a fork waits for
/// who is inside, and whoever is asked whether to go on may wait for the one that forks.
fn retry_busy<T>(
    patience: Duration,
    inside: &mut Option<RwLockReadGuard<'static, ()>>,
    mut attempt: impl FnMut() -> Result<T>,
) -> Result<T> {
    let start = Instant::now();
    let (mut pause, mut waiting) = (Pause::default(), Waiting::new());
    loop {
        match attempt() {
            Err(e) if e.kind() == ErrorKind::Busy && start.elapsed() < patience => {
                *inside = None;
                let checked = waiting.check();
                pause.wait();
                // Also who gives up is inside while all that was opened is closed.
                *inside = Some(fork::inside());
                checked?;
            }
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
        self.writer.lock()
    }

    /// Whether the disk has space beside what is needed to delete.
    fn has_room(&self) -> bool {
        self.ballast.as_ref().is_none_or(Ballast::is_held)
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

    /// Opens the write connection anew after a failure, and empties the log: it may hold commits that nobody sees but a
    /// recovery, or that a failed sync has kept from the disk, and what is moved is synced. Tells whether it was emptied; other
    /// processes may prevent that, and there is no log without `enable_wal`.
    fn reopen(&self, writer: &mut Writer, path: &Path) -> Result<bool> {
        let role = if self.sharing.is_some() { Role::Writer } else { Role::Solo };
        let (connection, store_id) = open_writer(Some(path), &self.config, role, writer.mark.as_ref())?;
        if let Some(mark) = &mut writer.mark {
            mark.compare(&store_id, View(&connection).head()?.version, false, path)?;
        }
        // A log that is not the store's any more is left alone; and on a full disk that of an exclusive store, of which opening
        // has recovered everything: the space is for deleting.
        let leave = self.sharing.is_none() && !self.has_room();
        let empty = || if leave { Ok(false) } else { self.empty(&connection) };
        let emptied = match self.check_files().and_then(|()| empty()) {
            Ok(emptied) => emptied && self.config.enable_wal,
            Err(_) if self.sharing.is_some() => false,
            Err(e) if e.kind() == ErrorKind::DiskFull => false,
            Err(e) => return Err(e),
        };
        writer.connection = Some(connection);
        Ok(emptied)
    }

    /// The write connection, which is opened anew after a failure that has closed it.
    fn connected<'w>(&self, writer: &'w mut Writer) -> Result<&'w Connection> {
        if let (None, false, Some(path)) = (&writer.connection, writer.closed, &self.path) {
            self.reopen(writer, path)?;
        }
        writer.connection.as_ref().ok_or_else(|| Error::closed("the store"))
    }
}

impl Sqlite {
    /// Runs `work` with a connection for reading.
    fn on_connection<T>(&self, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let _inside = fork::inside();
        match &self.shared.sharing {
            Some(sharing) => sharing.readers.with(work),
            None => work(self.shared.connected(&mut self.shared.lock_writer())?),
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
        self.on_connection(|connection| work(&View(connection)))
    }

    fn snapshot(&self, work: ReadWork<'_>) -> Result<()> {
        let Some(sharing) = &self.shared.sharing else { return self.read(work) };
        let _inside = fork::inside();
        sharing.readers.with(|connection| steadily(connection, || work(&View(connection))))
    }

    fn write(&self, work: WriteWork<'_>) -> Result<Option<u64>> {
        let patience = Duration::from_millis(self.shared.config.busy_timeout_ms);
        let start = Instant::now();
        let (mut pause, mut waiting) = (Pause::default(), Waiting::new());
        let (_inside, (stamp, frames)) = loop {
            let inside = fork::inside();
            match self.shared.write(&mut *work)? {
                Ok(done) => break (inside, done),
                Err(busy) if start.elapsed() >= patience => return Err(busy.into()),
                Err(_) => {}
            }
            // A fork waits for who is inside, and whoever is asked may wait for the one that forks.
            drop(inside);
            waiting.check()?;
            pause.wait();
        };
        if let Some(checkpointer) = &*self.checkpointer.lock().unwrap_or_else(PoisonError::into_inner) {
            checkpointer.note(frames);
        }
        Ok(stamp)
    }

    fn check_structure(&self, most: usize) -> Result<Vec<String>> {
        self.on_connection(|connection| schema::check_structure(connection, most))
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
        harness::point("close.stopped");
        let (connection, mark) = {
            let mut writer = self.shared.lock_writer();
            writer.closed = true;
            (writer.connection.take(), writer.mark.take())
        };
        let closed = match connection {
            None => Ok(()),
            Some(connection) => {
                // On a full disk what space there is belongs to deletions.
                let room = self.shared.has_room();
                if !room {
                    keep_log(&connection);
                }
                if room && self.shared.sharing.is_some() && self.shared.check_files().is_ok() {
                    // An empty log cannot be mistaken for the log of a file that is copied here later. Readers in other
                    // processes may prevent it; then the last one to close does it.
                    let emptied = self.shared.empty(&connection).unwrap_or(false);
                    if let Some(mut mark) = mark.filter(|_| emptied && self.shared.config.sync_mode != SyncMode::Off) {
                        mark.all_safe();
                    }
                }
                connection.close().map_err(|(_, e)| from_sqlite("closing the store", e))
            }
        };
        harness::point("close.emptied");
        if let Some(sharing) = &self.shared.sharing {
            sharing.index.release();
        }
        if let Some(guard) = self.shared.guard.lock().unwrap_or_else(PoisonError::into_inner).take() {
            guard.leave();
        }
        harness::point("close.left");
        closed
    }
}
