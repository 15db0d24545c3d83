//! Something that a host's event loop can wait for: a file descriptor that is readable while the bell rings.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, RawFd};

/// An eventfd on Linux, a pipe elsewhere. Rings once, however often it is rung.
pub(crate) struct Bell {
    /// What is waited for.
    ear: File,
    /// What rings; the same where there is an eventfd.
    hammer: Option<File>,
}

impl Bell {
    #[cfg(target_os = "linux")]
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: takes no memory of ours; a descriptor that it answers is nobody else's.
        let ear = unsafe {
            let fd = libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            File::from_raw_fd(fd)
        };
        Ok(Self { ear, hammer: None })
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn new() -> io::Result<Self> {
        let mut ends = [0; 2];
        // SAFETY: `ends` has room for two descriptors, which are nobody else's.
        unsafe {
            if libc::pipe(ends.as_mut_ptr()) < 0 {
                return Err(io::Error::last_os_error());
            }
            for end in ends {
                libc::fcntl(end, libc::F_SETFD, libc::FD_CLOEXEC);
                libc::fcntl(end, libc::F_SETFL, libc::O_NONBLOCK);
            }
            Ok(Self { ear: File::from_raw_fd(ends[0]), hammer: Some(File::from_raw_fd(ends[1])) })
        }
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.ear.as_raw_fd()
    }

    pub(crate) fn ring(&self) {
        // A full counter or pipe rings already.
        let _ = self.hammer.as_ref().unwrap_or(&self.ear).write(&1_u64.to_ne_bytes());
    }

    /// Has it ring no more.
    pub(crate) fn silence(&self) {
        let _ = (&self.ear).read(&mut [0; 64]);
    }

    /// Waits until it rings, at most so many milliseconds, or for ever when that is negative; ends early when a signal comes.
    pub(crate) fn wait(&self, most_ms: i32) {
        let mut ear = libc::pollfd { fd: self.fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry, which lives as long as the call.
        unsafe {
            libc::poll(&raw mut ear, 1, most_ms);
        }
    }
}
