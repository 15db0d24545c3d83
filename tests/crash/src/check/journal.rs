//! Where a worker keeps its history: in memory for a thread, in a file for a process that may be killed.

use super::clock::Span;
use crate::Failure;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

/// One recorded call.
pub trait Call: Serialize + DeserializeOwned {
    /// When it was under way.
    fn span(&self) -> Span;
    /// The worker that made it.
    fn worker(&mut self) -> &mut u32;
}

/// Takes in calls.
pub trait Record<T> {
    /// A call that may change something is about to be made.
    fn trying(&mut self, call: &T) -> Result<(), Failure>;
    /// A call has returned.
    fn done(&mut self, call: T) -> Result<(), Failure>;
}

impl<T> Record<T> for Vec<T> {
    fn trying(&mut self, _: &T) -> Result<(), Failure> {
        Ok(())
    }

    fn done(&mut self, call: T) -> Result<(), Failure> {
        self.push(call);
        Ok(())
    }
}

/// A file with one call a line. What was tried is there before it is tried, so that a kill loses no write.
#[derive(Debug)]
pub struct Journal {
    file: File,
    lines: Vec<u8>,
    tried: bool,
}

/// Bytes of calls that only read which may be lost with a process.
const BUFFER: usize = 1 << 16;

impl Journal {
    /// A new journal.
    pub fn create(path: &Path) -> Result<Self, Failure> {
        Ok(Self { file: File::create(path)?, lines: Vec::new(), tried: false })
    }

    /// Hands what is kept to the system, where it outlives this process.
    pub fn flush(&mut self) -> Result<(), Failure> {
        self.file.write_all(&self.lines)?;
        self.lines.clear();
        Ok(())
    }

    fn line(&mut self, call: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.lines, call)?;
        self.lines.push(b'\n');
        Ok(())
    }
}

impl<T: Call> Record<T> for Journal {
    fn trying(&mut self, call: &T) -> Result<(), Failure> {
        self.line(call)?;
        self.tried = true;
        self.flush()
    }

    fn done(&mut self, call: T) -> Result<(), Failure> {
        self.line(&call)?;
        if std::mem::take(&mut self.tried) || self.lines.len() > BUFFER {
            self.flush()?;
        }
        Ok(())
    }
}

/// The calls in a journal, as those of `worker`. A call that never returned is the last one.
pub fn read<T: Call>(path: &Path, worker: u32) -> Result<Vec<T>, Failure> {
    let bytes = std::fs::read(path)?;
    let mut calls: Vec<T> = Vec::new();
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        // A kill may cut the last line: then what it tells is not known.
        let Some(line) = line.strip_suffix(b"\n") else { break };
        let mut call: T = serde_json::from_slice(line)
            .map_err(|error| Failure::new(format!("{}: {error}: {}", path.display(), String::from_utf8_lossy(line))))?;
        *call.worker() = worker;
        // The line after a try tells what came of it.
        if calls.last().is_some_and(|last| !last.span().is_closed()) {
            calls.pop();
        }
        calls.push(call);
    }
    Ok(calls)
}

#[cfg(test)]
mod tests {
    use super::super::single::{Op, What};
    use super::*;

    fn set(value: i64, end: u64) -> Op {
        let what = What::Write { key: 0, value, version: None, expected: None };
        Op { worker: 0, span: Span { start: 1, end }, what }
    }

    #[test]
    fn a_try_is_replaced_by_what_came_of_it_and_stays_when_nothing_did() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let mut journal = Journal::create(&path).unwrap();
        journal.trying(&set(1, Span::OPEN)).unwrap();
        journal.done(set(1, 5)).unwrap();
        journal.trying(&set(2, Span::OPEN)).unwrap();
        std::fs::write(&path, [&*std::fs::read(&path).unwrap(), b"{\"span\":[1"].concat()).unwrap();
        let calls: Vec<Op> = read(&path, 7).unwrap();
        let told: Vec<_> = calls.iter().map(|call| (call.worker, call.span.is_closed())).collect();
        assert_eq!(told, [(7, true), (7, false)]);
    }
}
