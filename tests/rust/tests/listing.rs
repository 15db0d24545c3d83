//! Listings longer than a page, at a snapshot, with own writes over it and others' writes behind it, against a plain map.

use llmspell_state_persistence::{Result, Select, State, StateConfig, SyncMode};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const KEYS: u32 = 900;

fn name(number: u32) -> String {
    format!("k{number:04}")
}

/// Keys that lie anywhere or crowd around the ends of pages.
fn numbers(most: usize) -> impl Strategy<Value = BTreeSet<u32>> {
    let near = |edge: u32| edge.saturating_sub(4)..(edge + 4).min(KEYS);
    prop::collection::btree_set(prop_oneof![4 => 0..KEYS, 1 => near(256), 1 => near(512), 1 => near(768)], 0..most)
}

fn select() -> impl Strategy<Value = Select> {
    let pattern = prop_oneof![3 => Just("*"), 1 => Just("k0*"), 1 => Just("*7"), 1 => Just("k0[2-5]?5")];
    let limit = prop::option::of(prop_oneof![0_u64..10, 250_u64..260, 500_u64..520, Just(10_000)]);
    (pattern, prop::option::of(0..KEYS), limit, any::<bool>()).prop_map(|(pattern, after, limit, reverse)| Select {
        pattern: Some(pattern.to_owned()),
        after: after.map(name),
        limit,
        reverse,
    })
}

fn fits(select: &Select, key: &str) -> bool {
    let digits = key.as_bytes();
    let matches = match select.pattern.as_deref() {
        Some("k0*") => digits[1] == b'0',
        Some("*7") => digits[4] == b'7',
        Some("k0[2-5]?5") => digits[1] == b'0' && (b'2'..=b'5').contains(&digits[2]) && digits[4] == b'5',
        _ => true,
    };
    let beyond = |after: &String| if select.reverse { key < after.as_str() } else { key > after.as_str() };
    matches && select.after.as_ref().is_none_or(beyond)
}

fn expected(map: &BTreeMap<String, Value>, select: &Select) -> Vec<(String, Value)> {
    let mut found: Vec<_> =
        map.iter().filter(|(key, _)| fits(select, key)).map(|(k, v)| (k.clone(), v.clone())).collect();
    if select.reverse {
        found.reverse();
    }
    found.truncate(select.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX)));
    found
}

/// The same listing of items and of keys.
macro_rules! check {
    ($handle:expr, $map:expr, $select:expr) => {
        let items = $handle.items($select.clone()).unwrap().map(|item| item.map(|(key, entry)| (key, entry.value())));
        let items = items.collect::<Result<Vec<_>>>().unwrap();
        let keys = $handle.keys($select.clone()).unwrap().collect::<Result<Vec<_>>>().unwrap();
        let wanted = expected($map, $select);
        prop_assert_eq!(&keys, &wanted.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>());
        prop_assert_eq!(&items, &wanted);
    };
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_long_listing_is_that_of_its_moment(
        base in numbers(800),
        dropped in numbers(200),
        (own_set, own_deleted) in (numbers(200), numbers(300)),
        (others_set, others_deleted) in (numbers(200), numbers(300)),
        selects in prop::collection::vec(select(), 1..5),
        on_file in any::<bool>(),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let persistence_path = on_file.then(|| directory.path().join("store.db"));
        let config = StateConfig { persistence_path, sync_mode: SyncMode::Off, cache_size_mb: 1, ..StateConfig::default() };
        let state = State::with_config(config).unwrap();
        let mut map = BTreeMap::new();
        for number in &base {
            map.insert(name(*number), json!(number));
        }
        state.set_many(&map).unwrap();
        for number in &dropped {
            prop_assert_eq!(state.delete(&name(*number)).unwrap(), map.remove(&name(*number)).is_some());
        }

        let transaction = state.transaction().unwrap();
        let mut iterator = state.items("*").unwrap();
        let first = iterator.next().transpose().unwrap();
        let mut own = map.clone();
        for number in &own_set {
            transaction.set(&name(*number), json!("own")).unwrap();
            own.insert(name(*number), json!("own"));
        }
        for number in &own_deleted {
            prop_assert_eq!(transaction.delete(&name(*number)).unwrap(), own.remove(&name(*number)).is_some());
        }
        let mut others = map.clone();
        for number in &others_set {
            state.set(&name(*number), json!("others")).unwrap();
            others.insert(name(*number), json!("others"));
        }
        for number in &others_deleted {
            prop_assert_eq!(state.delete(&name(*number)).unwrap(), others.remove(&name(*number)).is_some());
        }

        for select in &selects {
            check!(state, &others, select);
            check!(transaction, &own, select);
            let count = transaction.count(select.pattern.as_deref().unwrap_or("*")).unwrap();
            let all = Select { pattern: select.pattern.clone(), ..Select::default() };
            prop_assert_eq!(count, expected(&own, &all).len() as u64);
        }
        let rest = iterator.map(|item| item.map(|(key, entry)| (key, entry.value()))).collect::<Result<Vec<_>>>().unwrap();
        let begun: Vec<_> = first.map(|(key, entry)| (key, entry.value())).into_iter().chain(rest).collect();
        prop_assert_eq!(begun, expected(&map, &Select::default()));
    }
}
