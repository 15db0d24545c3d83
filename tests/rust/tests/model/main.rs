//! Random verbs against a plain map: the same answers with and without a cache, with and without compression, in memory
//! and across reopening and kill -9, while keys expire, scopes are forked and merged, and changes are taken back. What was
//! is what was remembered, or not known any more. Maps that follow a scope by what a watch tells are the same, too.

mod acts;
mod pair;
mod past;
mod reference;
mod replica;
mod verbs;

use acts::{Act, act};
use llmspell_state_persistence::{RetentionPolicy, StateConfig, SyncMode};
use pair::Pair;
use proptest::prelude::*;

fn run(acts: &[Act], on_file: bool, settings: impl FnOnce(&mut StateConfig)) -> Result<(), TestCaseError> {
    let directory = tempfile::tempdir().unwrap();
    let retention = RetentionPolicy::keep_all();
    let mut config = StateConfig { sync_mode: SyncMode::Off, retention, ..StateConfig::default() };
    config.persistence_path = on_file.then(|| directory.path().join("store.db"));
    settings(&mut config);
    Pair::new(config).run(acts)
}

/// As many cases as `PROPTEST_CASES` says, or 160.
fn cases() -> ProptestConfig {
    let told = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig { cases: told.unwrap_or(160), failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_store_in_memory_answers_like_a_map(acts in prop::collection::vec(act(), 1..50)) {
        run(&acts, false, |_| {})?;
    }

    #[test]
    fn a_store_on_a_file_answers_like_a_map(acts in prop::collection::vec(act(), 1..50)) {
        run(&acts, true, |_| {})?;
    }

    #[test]
    fn a_store_without_cache_and_compression_answers_like_a_map(acts in prop::collection::vec(act(), 1..50)) {
        run(&acts, true, |config| {
            config.cache_size_mb = 0;
            config.enable_compression = false;
        })?;
    }

    #[test]
    fn an_exclusive_store_answers_like_a_map(acts in prop::collection::vec(act(), 1..50)) {
        run(&acts, true, |config| config.exclusive = true)?;
    }

    #[test]
    fn a_store_that_forgets_its_past_never_tells_a_wrong_one(acts in prop::collection::vec(act(), 1..50)) {
        run(&acts, true, |config| config.retention.max_versions = 2)?;
    }
}
