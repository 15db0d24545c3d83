//! Fuzz targets: each is a plain function of bytes that panics when something is wrong.
//!
//! `make test` runs every target over its corpus and some thousand mutations of it (`tests/replay.rs`); the program `fuzz`
//! goes on for as long as wanted, and `libfuzzer/` does so guided by coverage.

pub mod config;
pub mod corpus;
pub mod delta;
pub mod mutate;
pub mod pattern;
pub mod row;
pub mod update;
pub mod value;

/// One way of using the library with arbitrary bytes.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// Does it.
    pub run: fn(&[u8]),
    /// Pieces worth inserting.
    pub words: &'static [&'static str],
}

/// Every target.
pub const TARGETS: &[Target] =
    &[pattern::TARGET, value::TARGET, update::TARGET, row::TARGET, delta::TARGET, config::TARGET];

/// The target of that name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// The first byte as a choice, and the rest.
fn choice(data: &[u8]) -> (u8, &[u8]) {
    data.split_first().map_or((0, data), |(first, rest)| (*first, rest))
}

/// Two texts: the bytes up to the first NUL, and those after it.
fn two_texts(data: &[u8]) -> (String, String) {
    let middle = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&data[..middle]), text(data.get(middle + 1..).unwrap_or_default()))
}
