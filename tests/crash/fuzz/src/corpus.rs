//! Corpora as text: one input a line, bytes that are not printable ASCII escaped as in Rust.

use std::path::{Path, PathBuf};

/// The corpus of a target.
pub fn path(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(format!("{target}.txt"))
}

/// The inputs of a target, the empty one first.
pub fn load(target: &str) -> Vec<Vec<u8>> {
    let text = std::fs::read_to_string(path(target)).unwrap_or_else(|e| panic!("{}: {e}", path(target).display()));
    let mut inputs = vec![Vec::new()];
    inputs.extend(text.lines().map(|line| unescape(line).unwrap_or_else(|| panic!("not a line of a corpus: {line}"))));
    inputs
}

/// Bytes as a line.
pub fn escape(input: &[u8]) -> String {
    input.escape_ascii().to_string()
}

/// The bytes of a line; nothing if it is none.
pub fn unescape(line: &str) -> Option<Vec<u8>> {
    let mut bytes = line.bytes();
    let mut input = Vec::new();
    while let Some(byte) = bytes.next() {
        input.push(match byte {
            b'\\' => match bytes.next()? {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'x' => {
                    let digits = [bytes.next()?, bytes.next()?];
                    u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
                }
                same @ (b'\\' | b'\'' | b'"') => same,
                _ => return None,
            },
            byte => byte,
        });
    }
    Some(input)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_input_is_one_line() {
        let all: Vec<u8> = (0..=u8::MAX).collect();
        assert!(!escape(&all).contains('\n'));
        assert_eq!(unescape(&escape(&all)), Some(all));
        assert_eq!(unescape("\\q"), None);
    }
}
