//! The only place that asks for the time.

use crate::harness;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch, UTC; 0 when the clock stands before it.
pub(crate) fn now_ms() -> i64 {
    if let Some(now_ms) = harness::now_ms() {
        return now_ms;
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Names this boot of the machine; nothing where the system does not tell.
pub(crate) fn boot() -> Option<String> {
    static BOOT: OnceLock<Option<String>> = OnceLock::new();
    harness::boot().or_else(|| {
        let read = || std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
        BOOT.get_or_init(|| read().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())).clone()
    })
}

/// Milliseconds since the machine booted, its sleep included: nobody can set this clock.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn since_boot_ms() -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure is ours. This clock is there on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    time.tv_sec * 1_000 + time.tv_nsec / 1_000_000
}

/// What keys expire by: milliseconds since the Unix epoch, as the machine's clock stood when somebody first opened the store in
/// this boot. Setting the clock does not move it, so it makes no key expire early.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Steady {
    /// What is added to the time since the boot; nothing where only the machine's clock is there.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    offset_ms: Option<i64>,
}

impl Steady {
    /// As a note of this boot tells, or as the machine's clock stands.
    pub(crate) fn new(note: Option<&str>) -> Self {
        #[cfg(target_os = "linux")]
        if let (Some(boot), None) = (boot(), harness::now_ms()) {
            let noted = note.and_then(|note| note.strip_prefix(&*boot)?.trim_start().parse().ok());
            return Self { offset_ms: Some(noted.unwrap_or_else(|| now_ms() - since_boot_ms())) };
        }
        let _ = note;
        Self { offset_ms: None }
    }

    /// The note from which every process of this boot makes the same clock.
    pub(crate) fn note(self) -> Option<String> {
        Some(format!("{} {}", boot()?, self.offset_ms?))
    }

    pub(crate) fn now_ms(self) -> i64 {
        #[cfg(target_os = "linux")]
        if let (Some(offset_ms), None) = (self.offset_ms, harness::now_ms()) {
            return since_boot_ms() + offset_ms;
        }
        now_ms()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_processes_of_a_boot_have_one_clock_whatever_the_machine_s_says() {
        let first = Steady::new(None);
        let Some(note) = first.note() else { return };
        assert!((Steady::new(Some(&note)).now_ms() - first.now_ms()).abs() < 1_000);
        let (boot, offset) = note.split_once(' ').unwrap();
        let an_hour_ahead = format!("{boot} {}", offset.parse::<i64>().unwrap() + 3_600_000);
        assert!(Steady::new(Some(&an_hour_ahead)).now_ms() - now_ms() > 3_500_000);
    }

    #[test]
    fn another_boot_takes_the_machine_s_clock() {
        let steady = Steady::new(Some("before-the-power-cut 12345"));
        assert!((steady.now_ms() - now_ms()).abs() < 1_000);
    }
}

/// Tells for how long this thread has waited for others, such as a disk.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    start: Instant,
    worked: Duration,
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self { start: Instant::now(), worked: worked() }
    }

    /// The time since the start but for that in which this thread was at work.
    pub(crate) fn waited(&self) -> Duration {
        self.start.elapsed().saturating_sub(worked().saturating_sub(self.worked))
    }
}

/// The processor's time of this thread.
#[allow(unsafe_code)]
fn worked() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure is ours, and stays as it is where there is no such clock.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.unwrap_or(0), nanos.unwrap_or(0))
}
