//! Opening and closing: one shared store per file and process, one session per opening.

use crate::calls::guarded;
use crate::engine::sqlite::{Sqlite, file};
use crate::store::{Store, lane};
use crate::sync::AtomicBool;
use crate::{Error, Origin, Result, StateConfig, fork};
use std::fmt;
use std::path::Path;
#[cfg(feature = "tokio")]
use std::path::PathBuf;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// One opening of a store, shared by every handle that comes from it.
pub(crate) struct Session {
    store: Arc<Store>,
    /// Who makes the changes of this opening.
    origin: Option<Arc<Origin>>,
    closed: AtomicBool,
}

/// A store that is open in this process.
struct Open {
    file: file::FileId,
    store: Arc<Store>,
    /// 0 while it is being closed.
    sessions: usize,
}

/// The stores that are open in this process: SQLite's locks belong to the process, so a file must not be opened twice.
struct Registry {
    generation: u64,
    stores: Mutex<Vec<Open>>,
    /// A store was closed.
    closed: Condvar,
}

/// The registry of this process. After a fork the child makes its own and leaks the parent's, whose lock may be held.
#[allow(unsafe_code)]
fn registry() -> &'static Registry {
    static CURRENT: AtomicPtr<Registry> = AtomicPtr::new(std::ptr::null_mut());
    let generation = fork::generation();
    loop {
        let current = CURRENT.load(Ordering::Acquire);
        // SAFETY: the pointer is null or was leaked below, so what it points at lives and is shared for ever.
        if let Some(registry) = unsafe { current.as_ref() }
            && registry.generation == generation
        {
            return registry;
        }
        let new = Box::into_raw(Box::new(Registry { generation, stores: Mutex::default(), closed: Condvar::new() }));
        if CURRENT.compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire).is_err() {
            // SAFETY: made just above and shared with nobody.
            drop(unsafe { Box::from_raw(new) });
        }
    }
}

/// Lets go of a session where threads of the store wait for the caller: were it the last one, closing would wait for those.
pub(crate) fn let_go(session: Arc<Session>) {
    if let Some(last) = Arc::into_inner(session) {
        lane::elsewhere("llmspell-close", move || drop(last));
    }
}

impl Session {
    /// Opens a store as the settings say, or joins the opening that this process has already.
    pub(crate) fn open(mut config: StateConfig) -> Result<Self> {
        let origin = prepare(&mut config)?;
        let Some(path) = &config.persistence_path else {
            return Ok(Self::new(Store::new(Box::new(Sqlite::open(None, &config)?), config)?, origin));
        };
        let path = file::resolve(path, &config)?;
        config.persistence_path = Some(path.clone());
        let registry = registry();
        // Held while opening, so that nobody else opens the same file.
        let mut stores = registry.stores.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let found = file::identify(&path)?;
            // What is being closed still has files beside its own, by their names.
            let is_closing = |open: &Open| {
                open.sessions == 0
                    && (Some(&open.file) == found.as_ref()
                        || open.store.config().persistence_path == config.persistence_path)
            };
            if stores.iter().any(is_closing) {
                stores = registry.closed.wait(stores).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            if let Some(open) = stores.iter_mut().find(|open| Some(&open.file) == found.as_ref()) {
                check_same(open.store.config(), &config)?;
                open.sessions += 1;
                return Ok(Self::new(Arc::clone(&open.store), origin));
            }
            break;
        }
        let engine = Sqlite::open(Some(&path), &config)?;
        let file = file::identify(&path)?
            .ok_or_else(|| Error::closed("the store, whose file was removed while it was opened,"))?;
        let store = Store::new(Box::new(engine), config)?;
        stores.push(Open { file, store: Arc::clone(&store), sessions: 1 });
        Ok(Self::new(store, origin))
    }

    /// Refuses settings other than those with which it was opened.
    #[cfg(feature = "tokio")]
    pub(crate) fn check_config(&self, mut config: StateConfig) -> Result<()> {
        self.store()?;
        let origin = prepare(&mut config)?;
        if let Some(path) = &config.persistence_path {
            config.persistence_path = Some(file::resolve(path, &config)?);
        }
        let open = self.config();
        let shown =
            |path: &Option<PathBuf>| path.as_ref().map_or_else(|| "memory".into(), |path| path.display().to_string());
        if config.persistence_path != open.persistence_path {
            return Err(Error::invalid(format!(
                "this state is open in {}, not in {}; open another one",
                shown(&open.persistence_path),
                shown(&config.persistence_path)
            )));
        }
        if origin != self.origin {
            return Err(Error::invalid("this state is open for another actor; open another one"));
        }
        check_same(open, &config)
    }

    /// One more session of a store.
    pub(crate) fn new(store: Arc<Store>, origin: Option<Arc<Origin>>) -> Self {
        Self { store, origin, closed: AtomicBool::new(false) }
    }

    /// The store, as long as this session is open and in the process that opened it.
    pub(crate) fn store(&self) -> Result<&Arc<Store>> {
        self.store.check_fork()?;
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::closed("this state"));
        }
        Ok(&self.store)
    }

    /// Refuses a fork of the process that opened the store, whether it is still open or not.
    pub(crate) fn check_fork(&self) -> Result<()> {
        self.store.check_fork()
    }

    pub(crate) fn config(&self) -> &StateConfig {
        self.store.config()
    }

    pub(crate) fn origin(&self) -> Option<&Arc<Origin>> {
        self.origin.as_ref()
    }

    pub(crate) fn store_id(&self) -> &str {
        self.store.store_id()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Lets nobody use the session any more, and wakes its watches, which wait for commits of a store that may stay open. Says whether
    /// it was open.
    pub(crate) fn end(&self) -> bool {
        let was_open = !self.closed.swap(true, Ordering::AcqRel);
        if was_open {
            self.store.pulse.beat(None);
        }
        was_open
    }

    /// Ends the session; the last one of a store closes it. Doing so again does nothing.
    pub(crate) fn close(&self) -> Result<()> {
        self.store.check_fork()?;
        if !self.end() {
            return Ok(());
        }
        let registry = registry();
        let stores = || registry.stores.lock().unwrap_or_else(PoisonError::into_inner);
        let place = |stores: &[Open]| stores.iter().position(|open| Arc::ptr_eq(&open.store, &self.store));
        // A store in memory is nobody else's.
        let is_shared = {
            let mut stores = stores();
            let place = place(&stores);
            if let Some(place) = place {
                stores[place].sessions -= 1;
                if stores[place].sessions > 0 {
                    return Ok(());
                }
            }
            place.is_some()
        };
        // Without the lock: the store's threads may be in callbacks that open or close others.
        let outcome = guarded(|| self.store.close());
        if is_shared {
            let mut stores = stores();
            let closed = place(&stores).map(|place| stores.swap_remove(place));
            registry.closed.notify_all();
            drop(stores);
            drop(closed);
        }
        outcome
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("closed", &self.is_closed()).finish_non_exhaustive()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.store.is_forked() {
            // The parent's threads and locks are not here: letting go would close what is not ours.
            std::mem::forget(Arc::clone(&self.store));
            return;
        }
        // Nobody is left to tell.
        let _ = self.close();
    }
}

/// Checks settings and brings them into the form in which they are compared; takes out the actor, since a store is shared with
/// openings of others.
fn prepare(config: &mut StateConfig) -> Result<Option<Arc<Origin>>> {
    config.check()?;
    // The name that SQLite gives a database in memory.
    if config.persistence_path.as_deref() == Some(Path::new(":memory:")) {
        config.persistence_path = None;
    }
    let actor = config.actor.take();
    Ok(actor.map(|actor| Arc::new(Origin { actor: Some(actor), ..Origin::default() })))
}

/// Two openings of one file must want the same.
fn check_same(open: &StateConfig, wanted: &StateConfig) -> Result<()> {
    // How the file came to be does not matter once it is open.
    let comparable = |config: &StateConfig| StateConfig {
        create: true,
        create_dirs: false,
        accept_rollback: false,
        persistence_path: None,
        ..config.clone()
    };
    let (open_settings, wanted_settings) = (comparable(open), comparable(wanted));
    if open_settings == wanted_settings {
        return Ok(());
    }
    let as_map =
        |config| serde_json::to_value(config).ok().and_then(|value| value.as_object().cloned()).unwrap_or_default();
    let (open_map, wanted_map) = (as_map(open_settings), as_map(wanted_settings));
    let differing = open_map.iter().find(|(name, value)| wanted_map.get(*name) != Some(value));
    let (name, value) = differing.map_or_else(Default::default, |(name, value)| (name.as_str(), value.to_string()));
    Err(Error::invalid(format!(
        "{} is open in this process with {name} = {value}; open it with the same settings, or close it first",
        open.persistence_path.as_deref().unwrap_or(Path::new("the store")).display()
    )))
}
