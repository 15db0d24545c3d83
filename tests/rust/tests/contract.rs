//! Every case of `tests/spec`, in memory and on a file.

use llmspell_state_tests::contract::{read, run_file};
use std::collections::HashSet;

macro_rules! files {
    ($($name:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                run_file(concat!(stringify!($name), ".json"));
            }
        )*
        const FILES: &[&str] = &[$(concat!(stringify!($name), ".json")),*];
    };
}

files!(
    append,
    clear,
    compare_and_set,
    config,
    count,
    delete,
    entry,
    errors,
    expiry,
    fork,
    get,
    get_many,
    history,
    increment,
    isolation,
    keys,
    keys_and_items,
    large,
    merge,
    modify,
    patterns,
    reopen,
    retention,
    scopes,
    set,
    set_many,
    transaction,
    values,
    verify,
    watch,
);

#[test]
fn every_file_of_the_contract_is_run() {
    let spec = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../spec");
    for file in std::fs::read_dir(spec).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        let others = ["README.md", "vocabulary.json"];
        assert!(others.contains(&name.as_str()) || FILES.contains(&name.as_str()), "{name} is not run");
    }
}

#[test]
fn a_name_stands_for_one_case() {
    let mut names = HashSet::new();
    for file in FILES {
        for case in read(file).as_array().unwrap() {
            assert!(names.insert(case["name"].as_str().unwrap().to_owned()), "{file}: {} is there twice", case["name"]);
        }
    }
    println!("contract: {} cases in all", names.len());
}
