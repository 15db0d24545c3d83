//! Random changes of known inputs, for where libFuzzer is not at hand.

use crate::{Target, corpus};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Instant;

/// Longest input.
const LONGEST: usize = 4 << 10;

/// One input made of others.
pub fn mutate(random: &mut fastrand::Rng, inputs: &[Vec<u8>], words: &[&str]) -> Vec<u8> {
    let pick = |random: &mut fastrand::Rng| random.choice(inputs).cloned().unwrap_or_default();
    let mut input = pick(random);
    for _ in 0..random.usize(1..=6) {
        let at = random.usize(0..=input.len());
        match random.u8(0..7) {
            0 if at < input.len() => input[at] ^= 1 << random.u8(0..8),
            1 if at < input.len() => input[at] = random.u8(..),
            2 => input.insert(at, random.u8(..)),
            3 => input.truncate(at),
            4 => {
                let to = random.usize(at..=input.len());
                input.drain(at..to);
            }
            5 => {
                let other = pick(random);
                let from = random.usize(0..=other.len());
                input.splice(at..at, other[from..].iter().copied());
            }
            _ => {
                let word = random.choice(words).copied().unwrap_or_default();
                input.splice(at..at, word.bytes());
            }
        }
    }
    input.truncate(LONGEST);
    input
}

/// Runs a target over its corpus and over changes of it, `count` of them or until a time; answers how many ran.
///
/// # Panics
/// As the target does, after the input was printed as a line of its corpus.
pub fn run(target: &Target, seed: u64, count: u64, until: Option<Instant>) -> u64 {
    let inputs = corpus::load(target.name);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut executions = 0;
    let mut execute = |input: &[u8]| {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.run)(input))) {
            println!("{} fails on: {}", target.name, corpus::escape(input));
            resume_unwind(panic);
        }
        executions += 1;
    };
    for input in &inputs {
        execute(input);
    }
    for _ in 0..count {
        if until.is_some_and(|until| Instant::now() >= until) {
            break;
        }
        execute(&mutate(&mut random, &inputs, target.words));
    }
    executions
}
