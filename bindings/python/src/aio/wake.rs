//! What wakes an event loop: a file descriptor that it waits for.

#[cfg(target_os = "linux")]
pub(super) use event::Wake;
#[cfg(not(target_os = "linux"))]
pub(super) use pair::Wake;

#[cfg(target_os = "linux")]
mod event {
    #![allow(unsafe_code)]

    use std::fs::File;
    use std::io::{self, Read, Write};
    use std::os::fd::{AsRawFd, FromRawFd, RawFd};

    /// An eventfd.
    pub(in crate::aio) struct Wake(File);

    impl Wake {
        pub(in crate::aio) fn new() -> io::Result<Self> {
            // SAFETY: the call makes a new descriptor or fails, and nobody else knows the new one.
            unsafe {
                match libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) {
                    -1 => Err(io::Error::last_os_error()),
                    new => Ok(Self(File::from_raw_fd(new))),
                }
            }
        }

        pub(in crate::aio) fn fd(&self) -> RawFd {
            self.0.as_raw_fd()
        }

        /// Makes the descriptor readable. It can fail only when it is readable already.
        pub(in crate::aio) fn set(&self) {
            let _ = (&self.0).write(&1u64.to_ne_bytes());
        }

        /// Makes it unreadable. It can fail only when it is that already.
        pub(in crate::aio) fn clear(&self) {
            let _ = (&self.0).read(&mut [0; 8]);
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod pair {
    use std::io::{self, Read, Write};
    use std::os::fd::{AsRawFd, RawFd};
    use std::os::unix::net::UnixStream;

    /// Two connected sockets, where there is no eventfd.
    pub(in crate::aio) struct Wake {
        near: UnixStream,
        far: UnixStream,
    }

    impl Wake {
        pub(in crate::aio) fn new() -> io::Result<Self> {
            let (near, far) = UnixStream::pair()?;
            near.set_nonblocking(true)?;
            far.set_nonblocking(true)?;
            Ok(Self { near, far })
        }

        pub(in crate::aio) fn fd(&self) -> RawFd {
            self.near.as_raw_fd()
        }

        /// Makes the descriptor readable. It can fail only when it is readable already.
        pub(in crate::aio) fn set(&self) {
            let _ = (&self.far).write(&[1]);
        }

        /// Makes it unreadable. It can fail only when it is that already.
        pub(in crate::aio) fn clear(&self) {
            let _ = (&self.near).read(&mut [0; 64]);
        }
    }
}
