//! The stores that operations start from, made once per setting, as the bytes of their files.

use super::content::Content;
use super::operations::{Past, fill};
use crate::Failure;
use crate::vfs::fault::{Disk, Fault, Kind, Times};
use llmspell_state_persistence::{RetentionPolicy, State, StateConfig, SyncMode, harness};
use std::collections::BTreeMap;
use std::path::Path;

/// Files by name.
pub(super) type Files = BTreeMap<String, Vec<u8>>;

/// How stores are opened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setting {
    pub(super) name: &'static str,
    sync_mode: SyncMode,
    exclusive: bool,
    enable_wal: bool,
}

impl Setting {
    pub(super) const ALL: [Self; 4] = [
        Self { name: "shared", sync_mode: SyncMode::Full, exclusive: false, enable_wal: true },
        Self { name: "exclusive", sync_mode: SyncMode::Full, exclusive: true, enable_wal: true },
        Self { name: "journal", sync_mode: SyncMode::Full, exclusive: true, enable_wal: false },
        Self { name: "normal", sync_mode: SyncMode::Normal, exclusive: false, enable_wal: true },
    ];

    /// The settings for the store below `dir`.
    pub(super) fn at(self, dir: &Path) -> StateConfig {
        StateConfig {
            sync_mode: self.sync_mode,
            exclusive: self.exclusive,
            enable_wal: self.enable_wal,
            // Long values fill the log with as many pages as they have.
            enable_compression: false,
            cache_size_mb: 1,
            busy_timeout_ms: 10,
            // Trimming is an operation of its own.
            retention: RetentionPolicy::keep_all(),
            ..StateConfig::at(dir.join(NAME))
        }
    }

    /// Whether an acknowledged write must survive a power cut.
    pub(super) fn is_durable(self) -> bool {
        self.sync_mode == SyncMode::Full
    }
}

/// The time at which all operations are made, in milliseconds since the epoch.
pub(super) const CLOCK_MS: i64 = 1_700_000_000_000;

/// The name of the store's file.
pub(super) const NAME: &str = "store.db";

/// A store before an operation.
#[derive(Debug, Default)]
pub(super) struct Template {
    pub(super) files: Files,
    /// Nothing where there is no store yet.
    pub(super) content: Content,
}

/// Times that one key is set to make the log long: a few frames each.
const SETS: usize = 280;

impl Template {
    /// Makes one in an empty directory.
    pub(super) fn make(setting: Setting, past: Past, dir: &Path) -> Result<Self, Failure> {
        let config = setting.at(dir);
        if past == Past::Nothing {
            return Ok(Self::default());
        }
        let (disk, state) = build(setting, past, dir)?;
        if past == Past::Closed {
            state.close()?;
            let files = files_of(dir)?;
            let state = State::with_config(config)?;
            let template = Self { files, content: Content::of(&state)? };
            state.close()?;
            return Ok(template);
        }
        let content = Content::of(&state)?;
        if setting.enable_wal {
            return Ok(Self { files: files_of(dir)?, content });
        }
        // Killed in the middle of writing pages that the journal can undo: the same commit tells where that is.
        disk.arm(None);
        state.clear("k*")?;
        let writes = disk.disarm().seen.get(&Kind::Write).copied().unwrap_or(0);
        drop((disk, state));
        std::fs::remove_dir_all(dir)?;
        std::fs::create_dir_all(dir)?;
        let (disk, state) = build(setting, past, dir)?;
        disk.arm(Some(Fault { kind: Kind::Write, nth: writes - PAGES_OUT, times: Times::Dead }));
        crate::hold!(state.clear("k*").is_err(), "a commit on a dead disk was acknowledged");
        let files = files_of(dir)?;
        let hit = disk.disarm();
        crate::hold!(hit.first.ends_with(NAME), "the journal was not complete: {}", hit.first);
        Ok(Self { files, content })
    }
}

fn build(setting: Setting, past: Past, dir: &Path) -> Result<(Disk, State), Failure> {
    let disk = Disk::new(dir, &Files::new())?;
    // What lives for a second only is over afterwards, and nobody has told of it.
    harness::set_clock(CLOCK_MS - 60_000);
    let state = State::with_config(setting.at(dir))?;
    fill(&state)?;
    harness::set_clock(CLOCK_MS);
    if past == Past::Long {
        for _ in 0..SETS {
            state.set("k269", 1)?;
        }
    }
    Ok((disk, state))
}

/// Writes of a commit with a journal that do not happen any more.
const PAGES_OUT: u32 = 3;

/// Whether a file means nothing after a crash of the system: the wal-index and the ballast.
pub(super) fn is_volatile(name: &str) -> bool {
    name.ends_with("-shm") || name.ends_with("-ballast")
}

/// The files of a store that mean something after a crash.
pub(super) fn files_of(dir: &Path) -> Result<Files, Failure> {
    let mut files = Files::new();
    for found in std::fs::read_dir(dir)? {
        let path = found?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !is_volatile(&name) {
            files.insert(name, std::fs::read(&path)?);
        }
    }
    Ok(files)
}
