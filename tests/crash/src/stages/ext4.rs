//! Power loss on a real file system: ext4 on a loop device, shut down in the middle of everything.
//!
//! The shutdown drops what the file system has not written, as a power cut does; mounting again replays its journal.
//! The writer is stopped before: nothing that it says later can be meant.

use crate::hold;
use crate::stage::{Context, Failure, Outcome, Size, Stage};
use llmspell_state_persistence::{State, StateConfig, SyncMode, harness};
use std::ffi::CString;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// Power cuts on a real file system.
pub(super) const EXT4: Stage = Stage {
    name: "ext4",
    what: "power loss on ext4: several threads write, the file system is shut down under them and mounted again",
    long: 10_000,
    run,
};

/// Threads of a writer.
pub const THREADS: usize = 3;

/// The two keys that a thread changes together.
pub fn pair(thread: usize) -> [String; 2] {
    [format!("thread{thread}/a"), format!("thread{thread}/b")]
}

/// What a value carries besides its number: from nothing to several pages.
pub fn fill(thread: usize, n: u64) -> String {
    let mut random = fastrand::Rng::with_seed(n * THREADS as u64 + thread as u64);
    let longest = if random.u8(..8) == 0 { 20_000 } else { 500 };
    let len = random.usize(..longest);
    std::iter::repeat_with(|| random.alphanumeric()).take(len).collect()
}

/// Cuts after which a store is left and a new one made: the making is cut, too.
const CUTS_OF_A_STORE: u64 = 10;
/// How stores are opened, one after the other. The one with `NORMAL` must lose something.
fn config(path: &Path, round: u64) -> StateConfig {
    let config = StateConfig::at(path);
    match round % 5 {
        1 => StateConfig { exclusive: true, ..config },
        2 => StateConfig { exclusive: true, enable_wal: false, ..config },
        4 => StateConfig { sync_mode: SyncMode::Normal, ..config },
        _ => config,
    }
}

/// How the file system is mounted: as usual, or in ways that write less, or in another order.
const MOUNTS: [&str; 4] = ["loop", "loop", "loop,data=writeback", "loop,nodelalloc"];
/// Patience with the writer, by far longer than it needs.
const PATIENCE: Duration = Duration::from_secs(60);

fn run(context: &Context) -> Result<Outcome, Failure> {
    let mut outcome = Outcome::default();
    let disk = match Disk::make(&context.fast_dir) {
        Ok(disk) => disk,
        Err(why) => {
            outcome.count("power cuts on ext4", 0);
            outcome.skipped.push(format!("all of it, which needs to mount a file system: {why}"));
            return Ok(outcome);
        }
    };
    let cuts = match context.size {
        Size::Small => 4,
        Size::Middle => 150,
    };
    let mut found = Found::default();
    for number in 0..cuts {
        Cut { disk: &disk, number, random: context.random(number) }.run(&mut found).map_err(|failure| {
            let Context { size, seed, .. } = context;
            Failure::new(format!(
                "cut {number}: {failure}\nagain, though never quite the same: scripts/crash.sh stage ext4 {size} {seed}"
            ))
        })?;
    }
    hold!(
        context.size == Size::Small || found.lost > 0,
        "with NORMAL no cut has lost a commit: this test does not bite"
    );
    outcome.count("power cuts on ext4", cuts);
    outcome.count("acknowledged commits that were all there, with FULL", found.acknowledged);
    outcome.count("acknowledged commits that were lost, with NORMAL only", found.lost);
    Ok(outcome)
}

#[derive(Default)]
struct Found {
    acknowledged: u64,
    lost: u64,
}

/// An ext4 file system in a file. Mounts of this process are its own: when it ends, however it does, they are gone, and
/// the loop device with them.
struct Disk {
    image: PathBuf,
    mount: PathBuf,
}

impl Disk {
    /// Makes one, or tells why that cannot be.
    fn make(dir: &Path) -> Result<Self, String> {
        let disk = Self { image: dir.join("disk"), mount: dir.join("mount") };
        let make = || {
            std::fs::create_dir(&disk.mount)?;
            File::create(&disk.image)?.set_len(64 << 20)?;
            own_mounts()?;
            command("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), &disk.image])?;
            disk.mount(MOUNTS[0])
        };
        make().map_err(|error: io::Error| error.to_string())?;
        Ok(disk)
    }

    fn mount(&self, options: &str) -> io::Result<()> {
        command("mount", &["-t".as_ref(), "ext4".as_ref(), "-o".as_ref(), options.as_ref(), &self.image, &self.mount])
    }

    fn unmount(&self) -> io::Result<()> {
        command("umount", &[&self.mount])
    }

    /// Cuts the power: what is not on the disk is lost.
    #[allow(unsafe_code)]
    fn shut_down(&self, how: u32) -> io::Result<()> {
        /// `EXT4_IOC_SHUTDOWN` (fs/ext4/ext4.h).
        const SHUTDOWN: libc::Ioctl = 0x8004_587D_u32 as libc::Ioctl;
        let root = File::open(&self.mount)?;
        // SAFETY: the request reads one number.
        match unsafe { libc::ioctl(root.as_raw_fd(), SHUTDOWN, &raw const how) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // So that the directory can be removed; otherwise the end of the process does it.
        let _ = self.unmount();
    }
}

/// Gives this process, and what it starts from now on, mounts of their own.
#[allow(unsafe_code)]
fn own_mounts() -> io::Result<()> {
    let root = CString::new(Path::new("/").as_os_str().as_bytes())?;
    // SAFETY: plain system calls; the names end with a zero.
    let done = unsafe {
        libc::unshare(libc::CLONE_NEWNS) == 0
            && libc::mount(
                std::ptr::null(),
                root.as_ptr(),
                std::ptr::null(),
                libc::MS_REC | libc::MS_PRIVATE,
                std::ptr::null(),
            ) == 0
    };
    if done { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn command(program: &str, arguments: &[&Path]) -> io::Result<()> {
    let failed = |error: io::Error| io::Error::other(format!("{program}: {error}"));
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())))
}

/// One power cut.
struct Cut<'c> {
    disk: &'c Disk,
    number: u64,
    random: fastrand::Rng,
}

impl Cut<'_> {
    fn run(mut self, found: &mut Found) -> Result<(), Failure> {
        let round = self.number / CUTS_OF_A_STORE;
        let path = self.disk.mount.join(format!("store{round}"));
        let config = config(&path, round);
        if self.number.is_multiple_of(CUTS_OF_A_STORE) {
            self.clear()?;
        }
        let before = if path.exists() { numbers(&State::with_config(config.clone())?)? } else { [0; THREADS] };
        let acknowledged = self.write_and_cut(&config, before)?;
        // The mark must take it for what it is.
        harness::set_boot(Some(&format!("after cut {}", self.number)));
        let state = State::with_config(config.clone())?;
        let after = numbers(&state)?;
        let verified = state.verify()?;
        hold!(verified.is_ok(), "it is damaged: {}", verified.problems.join("; "));
        for thread in 0..THREADS {
            let (known, there) = (acknowledged[thread], after[thread]);
            hold!(there <= known + 1, "thread {thread}: {there} is there, but it had got to {known}");
            match config.sync_mode {
                SyncMode::Full => {
                    hold!(there >= known, "thread {thread}: {known} was acknowledged, {there} is there");
                    found.acknowledged += known - before[thread];
                }
                _ => found.lost += known.saturating_sub(there),
            }
        }
        state.set("after", serde_json::json!(self.number))?;
        state.close()?;
        Ok(())
    }

    /// Makes room for a new store.
    fn clear(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.disk.mount)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Lets a writer work for a while, stops it, and cuts the power; tells what it was told last.
    fn write_and_cut(&mut self, config: &StateConfig, before: [u64; THREADS]) -> Result<[u64; THREADS], Failure> {
        let boot = format!("before cut {}", self.number);
        let mut writer = Writer(
            Command::new(std::env::current_exe()?.with_file_name("ext4"))
                .args([serde_json::to_string(config)?, boot])
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()?,
        );
        let output = writer.0.stdout.take().ok_or_else(|| Failure::new("a writer without output"))?;
        let (tell, told) = mpsc::channel();
        let reader = std::thread::spawn(move || {
            // A line that has no end was not told.
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                if tell.send(line).is_err() {
                    break;
                }
            }
        });
        let mut acknowledged = before;
        if self.random.u8(..5) == 0 {
            // While it opens the store, perhaps.
            std::thread::sleep(Duration::from_micros(self.random.u64(..15_000)));
        } else {
            for _ in 0..self.random.u32(1..400) {
                note(&mut acknowledged, &told.recv_timeout(PATIENCE)?)?;
            }
        }
        writer.stop()?;
        // Mostly at once; else what is in the journal is written first, or everything (`EXT4_GOING_FLAGS_…`).
        let how = [2, 2, 2, 2, 2, 2, 1, 1, 0][self.random.usize(..9)];
        self.disk.shut_down(how)?;
        drop(writer);
        reader.join().map_err(|_| Failure::new("reading what the writer says failed"))?;
        for line in told {
            note(&mut acknowledged, &line)?;
        }
        self.disk.unmount()?;
        self.disk.mount(MOUNTS[self.random.usize(..MOUNTS.len())])?;
        Ok(acknowledged)
    }
}

/// Takes a line of the writer: a thread and its number.
fn note(acknowledged: &mut [u64; THREADS], line: &[u8]) -> Result<(), Failure> {
    let line = std::str::from_utf8(line)?;
    let (thread, n) = line.split_once(' ').ok_or_else(|| Failure::new(format!("the writer said {line}")))?;
    acknowledged[thread.parse::<usize>()?] = n.parse()?;
    Ok(())
}

/// What each thread has got to, after checking that its two keys agree.
fn numbers(state: &State) -> Result<[u64; THREADS], Failure> {
    let mut numbers = [0; THREADS];
    for (thread, number) in numbers.iter_mut().enumerate() {
        let [first, second] = pair(thread);
        let values = [state.get(&first)?, state.get(&second)?];
        hold!(values[0] == values[1], "thread {thread}: a commit is torn");
        if let Some(value) = &values[0] {
            *number = value["n"].as_u64().unwrap_or(0);
            hold!(
                value["fill"] == fill(thread, *number),
                "thread {thread}: {number} has another value than was written"
            );
        }
    }
    Ok(numbers)
}

/// The process that writes. It dies with this.
struct Writer(Child);

impl Writer {
    /// Stops it and waits until all of its threads stand still.
    #[allow(unsafe_code)]
    fn stop(&mut self) -> Result<(), Failure> {
        let pid = i32::try_from(self.0.id())?;
        let mut status = 0;
        // SAFETY: plain system calls on a child that nobody else waits for.
        let waited = unsafe {
            libc::kill(pid, libc::SIGSTOP);
            libc::waitpid(pid, &raw mut status, libc::WUNTRACED)
        };
        hold!(waited == pid && libc::WIFSTOPPED(status), "the writer has ended by itself, as it told above");
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
