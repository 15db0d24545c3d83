//! Histories of transactions that are wrong are refused, right ones pass.

use super::clock::Span;
use super::log::Log;
use super::serial::{Act, Listing, Outcome, Run, check};

type Changes<'a> = &'a [(&'a str, Option<i64>)];

fn log(commits: &[Changes<'_>]) -> Log {
    let owned = |commit: &Changes<'_>| commit.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect();
    Log { commits: commits.iter().map(owned).collect() }
}

/// A transaction that begins at one time, commits at another, and takes one nanosecond for either.
fn run(begin: u64, end: u64, outcome: Outcome, acts: &[Act]) -> Run {
    let span = |start| Span { start, end: start + 1 };
    Run { worker: 0, begin: span(begin), acts: acts.to_vec(), end: span(end), outcome }
}

fn made(version: u64) -> Outcome {
    Outcome::Committed(Some(version))
}

fn get(key: &str, found: impl Into<Option<i64>>) -> Act {
    Act::Get(key.into(), found.into())
}

fn set(key: &str, value: i64) -> Act {
    Act::Set(key.into(), value)
}

fn all(pattern: &str) -> Listing {
    Listing { pattern: pattern.into(), ..Listing::default() }
}

fn items(pattern: &str, found: &[(&str, i64)]) -> Act {
    Act::Items(all(pattern), found.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect())
}

#[track_caller]
fn refused(log: &Log, runs: &[Run], why: &str) {
    let told = check(log, runs).expect_err("a wrong history").to_string();
    assert!(told.contains(why), "{told}");
}

#[track_caller]
fn fine(log: &Log, runs: &[Run]) {
    check(log, runs).unwrap_or_else(|failure| panic!("{failure}"));
}

/// x and y are 0.
fn begun() -> Run {
    run(0, 2, made(1), &[set("x", 0), set("y", 0)])
}

const BEGUN: Changes<'static> = &[("x", Some(0)), ("y", Some(0))];

#[test]
fn transactions_one_after_the_other_are_fine() {
    let log = log(&[BEGUN, &[("x", Some(1))], &[("y", None), ("in/z", Some(7))], &[("y", Some(3))]]);
    let inside = Listing { scope: "in/".into(), pattern: "*".into(), ..Listing::default() };
    let runs = [
        begun(),
        run(10, 20, made(2), &[get("x", 0), items("*", &[("x", 0), ("y", 0)]), set("x", 1), get("x", 1)]),
        run(11, 30, made(3), &[Act::Delete("y".into(), true), get("y", None), set("in/z", 7)]),
        run(31, 40, made(3), &[Act::Keys(inside, vec!["z".into()]), items("*", &[("x", 1)]), get("y", None)]),
        run(31, 50, made(4), &[Act::Increment("y".into(), 3, 3), Act::Count(all("?"), 2)]),
        run(31, 60, Outcome::Failed, &[get("y", None), set("y", 9)]),
        run(61, 70, made(4), &[set("q", 1), Act::Delete("q".into(), true)]),
    ];
    fine(&log, &runs);
}

#[test]
fn write_skew_is_refused() {
    let log = log(&[BEGUN, &[("x", Some(1))], &[("y", Some(1))]]);
    let both = |write: Act| [get("x", 0), get("y", 0), write];
    refused(
        &log,
        &[begun(), run(10, 20, made(2), &both(set("x", 1))), run(10, 30, made(3), &both(set("y", 1)))],
        "not serializable",
    );
}

#[test]
fn a_lost_update_is_refused() {
    let log = log(&[BEGUN, &[("x", Some(1))], &[("x", Some(1))]]);
    let add = |version, end| run(10, end, made(version), &[Act::Increment("x".into(), 1, 1)]);
    refused(&log, &[begun(), add(2, 20), add(3, 30)], "not serializable");
}

#[test]
fn phantoms_are_refused() {
    let log = log(&[BEGUN, &[("n1", Some(1))], &[("n2", Some(1))]]);
    for seen in [
        items("n*", &[]),
        Act::Keys(all("n*"), vec![]),
        Act::Count(all("n*"), 0),
        Act::Clear(all("n*"), 0),
        Act::Exists("n1".into(), false),
        get("n1", None),
    ] {
        let runs = [begun(), run(10, 20, made(2), &[set("n1", 1)]), run(10, 30, made(3), &[seen, set("n2", 1)])];
        refused(&log, &runs, "not serializable");
    }
}

#[test]
fn a_fractured_read_is_refused() {
    let log = log(&[BEGUN, &[("x", Some(1)), ("y", Some(1))]]);
    let writer = run(10, 20, made(2), &[set("x", 1), set("y", 1)]);
    for version in [1, 2] {
        let reader = run(12, 30, made(version), &[get("x", 0), get("y", 1)]);
        refused(&log, &[begun(), writer.clone(), reader], "not serializable");
    }
    let found = vec![("x".into(), 0), ("y".into(), 1)];
    let outside = run(15, 15, Outcome::Committed(None), &[Act::GetMany(vec!["x".into(), "y".into()], found)]);
    refused(&log, &[begun(), writer, outside], "not serializable");
}

#[test]
fn half_a_commit_is_refused() {
    let half = log(&[BEGUN, &[("x", Some(1))]]);
    refused(&half, &[begun(), run(10, 20, made(2), &[set("x", 1), set("y", 1)])], "the log has");
    let split = log(&[BEGUN, &[("x", Some(1))], &[("y", Some(1))]]);
    refused(&split, &[begun(), run(10, 20, made(3), &[set("x", 1), set("y", 1)])], "the log has");
}

#[test]
fn what_failed_leaves_nothing() {
    let log = log(&[BEGUN, &[("x", Some(5))]]);
    refused(&log, &[begun(), run(10, 20, Outcome::Failed, &[set("x", 5)])], "nobody has made version 2");
    fine(&log, &[begun(), run(10, 20, Outcome::Unknown, &[set("x", 5)])]);
}

#[test]
fn a_snapshot_of_another_time_is_refused() {
    let log = log(&[BEGUN, &[("x", Some(1))], &[("x", Some(2))]]);
    let writers = [begun(), run(10, 20, made(2), &[set("x", 1)]), run(30, 40, made(3), &[set("x", 2)])];
    let with = |reader: Run| [&writers[..], &[reader]].concat();
    fine(&log, &with(run(25, 60, made(2), &[get("x", 1)])));
    refused(&log, &with(run(50, 60, made(2), &[get("x", 1)])), "no order fits version 3");
    refused(&log, &with(run(12, 60, made(3), &[get("x", 2)])), "no order fits version 2");
    fine(&log, &with(run(25, 60, Outcome::Failed, &[get("x", 1), set("y", 1)])));
    refused(&log, &with(run(50, 60, Outcome::Failed, &[get("x", 1), set("y", 1)])), "not serializable");
}

#[test]
fn commits_against_the_order_of_time_are_refused() {
    let log = log(&[BEGUN, &[("x", Some(1))], &[("y", Some(2))]]);
    refused(
        &log,
        &[begun(), run(30, 40, made(2), &[set("x", 1)]), run(10, 20, made(3), &[set("y", 2)])],
        "no order fits",
    );
}

#[test]
fn a_call_that_is_told_no_version_is_found_by_what_it_did() {
    let log = log(&[BEGUN, &[("x", None), ("y", None)], BEGUN, &[("x", None), ("y", None)]]);
    let clear = |at, count| run(at, at, Outcome::Committed(None), &[Act::Clear(all("*"), count)]);
    let again = run(20, 25, made(3), &[set("x", 0), set("y", 0)]);
    fine(&log, &[begun(), clear(10, 2), clear(15, 0), again.clone(), clear(30, 2)]);
    refused(&log, &[begun(), clear(10, 2), again.clone(), clear(30, 2), clear(40, 2)], "acknowledged and is not");
    refused(&log, &[begun(), clear(10, 2), again.clone(), clear(30, 1)], "nobody has made version 4");
    refused(&log, &[begun(), clear(10, 2), again], "nobody has made version 4");
}

#[test]
fn listings_are_checked_in_their_order_and_bounds() {
    let log = log(&[&[("a", Some(1)), ("b", Some(2)), ("c", Some(3))]]);
    let writer = run(0, 2, made(1), &[set("a", 1), set("b", 2), set("c", 3)]);
    let listed = |after: Option<&str>, limit, reverse, found: &[&str]| {
        let listing =
            Listing { pattern: "*".into(), after: after.map(str::to_owned), limit, reverse, ..Listing::default() };
        let found = found.iter().map(|key| (*key).to_owned()).collect();
        [writer.clone(), run(10, 20, made(1), &[Act::Keys(listing, found)])]
    };
    fine(&log, &listed(Some("a"), None, false, &["b", "c"]));
    fine(&log, &listed(Some("c"), Some(1), true, &["b"]));
    refused(&log, &listed(None, Some(2), false, &["a"]), "not serializable");
    refused(&log, &listed(None, None, true, &["a", "b", "c"]), "not serializable");
}

#[test]
fn a_deletion_of_what_was_there_or_not_may_have_made_its_version_or_follow_it() {
    let log = log(&[BEGUN, &[("x", None)]]);
    let both = run(20, 30, made(2), &[set("x", 1), Act::Delete("x".into(), true)]);
    fine(&log, &[begun(), both.clone()]);
    let delete = run(24, 24, Outcome::Committed(None), &[Act::Delete("x".into(), true)]);
    fine(&log, &[begun(), both.clone(), delete]);
    fine(&log, &[begun(), both.clone(), run(15, 18, made(2), &[Act::Delete("x".into(), true)])]);
    refused(&log, &[begun(), both, run(28, 35, made(2), &[get("x", 0), set("x", 5)])], "the log has");
}
