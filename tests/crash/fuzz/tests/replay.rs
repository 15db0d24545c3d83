//! Every corpus, and some thousand changes of it.

/// Changes of a corpus that are tried on each run.
const CHANGES: u64 = 50_000;

fn replay(name: &str) {
    let target = fuzz::target(name).expect("the target exists");
    // Another seed on every run would find more, but not the same again; the long runs do that.
    let executions = fuzz::mutate::run(target, 1, CHANGES, None);
    assert!(executions > CHANGES, "there is a corpus");
}

#[test]
fn patterns_match_what_their_description_says() {
    replay("pattern");
}

#[test]
fn values_come_back_as_they_were() {
    replay("value");
}

#[test]
fn updates_do_what_they_are_defined_to_do() {
    replay("update");
}

#[test]
fn damaged_and_forged_rows_are_answered() {
    replay("row");
}

#[test]
fn differences_come_back_as_the_values_they_were_made_of() {
    replay("delta");
}

#[test]
fn settings_are_taken_or_refused_in_few_words() {
    replay("config");
}
