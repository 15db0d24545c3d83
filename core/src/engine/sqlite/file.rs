//! The file that a path names: whether it may be a store at all, decided before SQLite sees it.

use crate::harness::{self, Event};
use crate::{Error, ErrorKind, Result, StateConfig};
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// The smallest page of an SQLite file, and so the shortest file, in bytes.
pub(super) const SHORTEST: u64 = 512;

/// Identifies a file whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// The path with its directory resolved; the directory is made if the settings say so.
pub(crate) fn resolve(path: &Path, config: &StateConfig) -> Result<PathBuf> {
    let Some(name) = path.file_name() else {
        return Err(Error::invalid(format!("persistence_path '{}' names no file", path.display())));
    };
    // Opening and closing a file of an open store would drop the locks that this process holds on it.
    let beside = ["-wal", "-shm", "-journal", "-mark", "-ballast"];
    if let Some(suffix) = beside.iter().find(|suffix| name.as_encoded_bytes().ends_with(suffix.as_bytes())) {
        return Err(Error::invalid(format!(
            "persistence_path {} ends in '{suffix}', which names a file beside a store; name the store itself",
            path.display()
        )));
    }
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if config.create_dirs {
        std::fs::create_dir_all(directory).map_err(|e| from_io("making the directory", directory, e))?;
    }
    match directory.canonicalize() {
        Ok(directory) => Ok(directory.join(name)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Error::invalid(format!(
            "the directory {} does not exist; make it, or set create_dirs = true",
            directory.display()
        ))),
        Err(e) => Err(from_io("finding the directory", directory, e)),
    }
}

/// The identity of the file at `path`, if there is one, without opening it: closing a file again would drop the locks that
/// other connections of this process hold on it.
pub(crate) fn identify(path: &Path) -> Result<Option<FileId>> {
    let metadata = match path.symlink_metadata() {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(from_io("looking at", path, e)),
    };
    let refused = |why: &str| Err(Error::invalid(format!("persistence_path {} {why}", path.display())));
    let kind = metadata.file_type();
    if kind.is_symlink() {
        return refused("is a symbolic link, which is not followed; name the file that it points to");
    }
    if kind.is_dir() {
        return refused("is a directory; name a file in it");
    }
    if !kind.is_file() {
        return refused("is not a regular file");
    }
    if metadata.nlink() > 1 {
        return refused("has several names (hard links): the log beside it would be found under only one of them");
    }
    Ok(Some(FileId::of(&metadata)))
}

/// Opens a file, making it first if need be, readable by its owner only.
pub(super) fn open(path: &Path, create: bool) -> Result<File> {
    open_or_make(path, create).map(|(file, _)| file)
}

/// The same, telling also whether this call has made it.
pub(super) fn open_or_make(path: &Path, create: bool) -> Result<(File, bool)> {
    let mut options = OpenOptions::new();
    // NONBLOCK: should a FIFO have taken the name meanwhile, opening must not wait for its other end.
    options.read(true).write(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let mut made = false;
    let file = match options.open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound && create => {
            match options.clone().create_new(true).mode(0o600).open(path) {
                // Another process made it in this instant.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => options.open(path),
                opened => {
                    made = opened.is_ok();
                    opened
                }
            }
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("{} does not exist, and the setting 'create' is false", path.display()),
            ));
        }
        opened => opened,
    };
    file.map(|file| (file, made)).map_err(|e| from_io("opening", path, e))
}

/// Refuses network file systems, where neither the shared memory beside the file nor its locks reach other hosts.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
pub(super) fn check_file_system(file: &File, path: &Path) -> Result<()> {
    use std::os::fd::AsRawFd as _;
    // linux/magic.h and the file systems' own headers.
    const REMOTE: [(i64, &str); 6] = [
        (0x6969, "NFS"),
        (0xFF53_4D42, "CIFS"),
        (0xFE53_4D42, "SMB"),
        (0x517B, "SMB"),
        (0x0102_1997, "9P"),
        (0x00C3_6400, "Ceph"),
    ];
    // SAFETY: statfs is plain data for which all zeroes is a value; the descriptor is open and the pointer is valid.
    let magic = unsafe {
        let mut found: libc::statfs = std::mem::zeroed();
        if libc::fstatfs(file.as_raw_fd(), &raw mut found) != 0 {
            return Err(from_io("looking at the file system of", path, io::Error::last_os_error()));
        }
        #[allow(clippy::unnecessary_cast, clippy::cast_lossless)] // its type differs between platforms
        {
            found.f_type as i64
        }
    };
    match REMOTE.iter().find(|(known, _)| *known == magic) {
        Some((_, name)) => Err(Error::invalid(format!(
            "{} is on {name}, a network file system: processes on two hosts would damage the store; use a local disk, or exclusive = true",
            path.display()
        ))),
        None => Ok(()),
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn check_file_system(_: &File, _: &Path) -> Result<()> {
    Ok(())
}

/// Makes sure that an open file still has its name. A file that was removed, or replaced by another of its name, has no link
/// left; that costs less to ask than to look the name up.
///
/// # Errors
/// `DataLoss`: what is written there would be gone with the last descriptor.
pub(super) fn check_named(file: &File, path: &Path) -> Result<Metadata> {
    match file.metadata() {
        Ok(metadata) if metadata.nlink() > 0 || harness::sabotaged("log-removed-anyway") => Ok(metadata),
        _ => Err(replaced(path)),
    }
}

/// Tells that a file of an open store is not there any more, or another one.
pub(super) fn replaced(path: &Path) -> Error {
    Error::new(
        ErrorKind::DataLoss,
        format!("{} was removed or replaced while the store was open; nothing more is written", path.display()),
    )
}

/// Writes bytes past SQLite.
pub(super) fn write_at(file: &File, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
    harness::event(&Event::Write { path, offset, bytes })?;
    file.write_all_at(bytes, offset)
}

/// Syncs a file past SQLite.
pub(super) fn sync(file: &File, path: &Path) -> io::Result<()> {
    harness::event(&Event::Sync(path))?;
    file.sync_all()
}

/// Writes the beginning of a file anew and syncs it: what another process has left there may be in memory only, and after a
/// failed sync a further one alone would not bring it to the disk. A file that is missing stays so.
pub(super) fn settle_head(path: &Path) -> Result<()> {
    let file = match open(path, false) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    let mut head = [0; 512];
    let mut settle = || {
        let len = file.read_at(&mut head, 0)?;
        write_at(&file, path, 0, &head[..len])?;
        sync(&file, path)
    };
    settle().map_err(|e| from_io("syncing", path, e))
}

/// Removes a file past SQLite.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    harness::event(&Event::Remove(path))?;
    std::fs::remove_file(path)
}

/// Whether a change of the file at `path` was cut off, which SQLite undoes from the rollback journal: the very first one may
/// have left less than a header.
pub(super) fn was_cut_off(path: &Path) -> bool {
    /// The beginning of every journal (<https://sqlite.org/fileformat.html#the_rollback_journal>).
    const MAGIC: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
    let mut found = [0; 8];
    let read = File::open(beside(path, "-journal")).and_then(|journal| journal.read_exact_at(&mut found, 0));
    read.is_ok() && found == MAGIC
}

/// The path of a file that is kept beside the database.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// An error of the operating system about `path`.
pub(super) fn from_io(what: &str, path: &Path, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::PermissionDenied,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::DiskFull,
        io::ErrorKind::InvalidInput
        | io::ErrorKind::InvalidFilename
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::IsADirectory => ErrorKind::Invalid,
        _ => ErrorKind::Io,
    };
    Error::new(kind, format!("{what} {} failed: {error}", path.display())).with_source(error)
}
