//! Histories that are wrong are refused, right ones pass.

use super::clock::Span;
use super::log::Log;
use super::single::{Found, Op, What, check};

const NAMES: &[&str] = &["x", "y"];
const X: usize = 0;
const Y: usize = 1;

fn log(commits: &[(&str, Option<i64>)]) -> Log {
    Log { commits: commits.iter().map(|(key, value)| vec![((*key).to_owned(), *value)]).collect() }
}

fn op(start: u64, end: u64, what: What) -> Op {
    Op { worker: 0, span: Span { start, end }, what }
}

fn write(start: u64, end: u64, key: usize, value: i64, version: u64) -> Op {
    op(start, end, What::Write { key, value, version: Some(version), expected: None })
}

fn read(start: u64, end: u64, key: usize, found: Option<Found>) -> Op {
    op(start, end, What::Read(key, found))
}

#[track_caller]
fn refused(log: &Log, ops: &[Op], why: &str) {
    let told = check(log, NAMES, ops).expect_err("a wrong history").to_string();
    assert!(told.contains(why), "{told}");
}

#[track_caller]
fn fine(log: &Log, ops: &[Op]) {
    check(log, NAMES, ops).unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn calls_that_overlap_may_see_either_state() {
    let log = log(&[("x", Some(1)), ("x", Some(2)), ("x", None)]);
    for found in [Some((1, Some(1))), Some((2, Some(2))), None] {
        fine(
            &log,
            &[
                write(0, 10, X, 1, 1),
                write(20, 40, X, 2, 2),
                op(30, 50, What::Delete(X, Some(true))),
                read(25, 45, X, found),
                op(25, 45, What::Exists(X, found.is_some())),
            ],
        );
    }
}

#[test]
fn a_stale_read_is_refused() {
    let log = log(&[("x", Some(1)), ("x", Some(2))]);
    let ops = [write(0, 10, X, 1, 1), write(20, 30, X, 2, 2), read(31, 32, X, Some((1, None)))];
    refused(&log, &ops, "no order fits version 2");
}

#[test]
fn a_read_that_goes_back_behind_another_is_refused() {
    let log = log(&[("x", Some(1)), ("x", Some(2))]);
    let ops = [
        write(0, 10, X, 1, 1),
        write(20, 90, X, 2, 2),
        read(30, 40, X, Some((2, Some(2)))),
        read(50, 60, X, Some((1, Some(1)))),
    ];
    refused(&log, &ops, "no order fits version 2");
}

#[test]
fn a_read_of_another_key_that_goes_back_behind_a_newer_commit_is_refused() {
    let log = log(&[("x", Some(1)), ("y", Some(2))]);
    let ops = [write(0, 90, X, 1, 1), write(0, 90, Y, 2, 2), read(30, 40, Y, Some((2, None))), read(50, 60, X, None)];
    refused(&log, &ops, "at no moment");
}

#[test]
fn a_read_of_the_future_is_refused() {
    let log = log(&[("x", Some(1))]);
    refused(&log, &[read(1, 2, X, Some((1, None))), write(5, 10, X, 1, 1)], "no order fits version 1");
}

#[test]
fn versions_against_the_order_of_time_are_refused() {
    let log = log(&[("x", Some(1)), ("x", Some(2))]);
    refused(&log, &[write(0, 10, X, 2, 2), write(20, 30, X, 1, 1)], "no order fits");
}

#[test]
fn a_value_that_was_never_committed_is_refused() {
    let log = log(&[("x", Some(1))]);
    refused(&log, &[write(0, 10, X, 1, 1), read(20, 30, X, Some((9, None)))], "never committed");
}

#[test]
fn a_wrong_version_is_refused() {
    let log = log(&[("x", Some(1))]);
    refused(&log, &[write(0, 10, X, 1, 2)], "another version");
    refused(&log, &[write(0, 10, X, 1, 1), read(20, 30, X, Some((1, Some(7))))], "version Some(7)");
}

#[test]
fn lost_writes_are_refused() {
    refused(&log(&[]), &[write(0, 10, X, 1, 1)], "acknowledged");
    refused(&log(&[("x", Some(1))]), &[write(0, 5, X, 1, 1), op(6, 9, What::Delete(X, Some(true)))], "acknowledged");
    refused(&log(&[]), &[op(0, 5, What::Add(X, Some(1)))], "acknowledged");
    refused(&log(&[("x", Some(1))]), &[], "nobody asked for version 1");
}

#[test]
fn what_a_kill_has_cut_short_may_or_may_not_have_happened() {
    let cut = |what: What| op(20, Span::OPEN, what);
    let tries = [
        cut(What::Write { key: X, value: 2, version: None, expected: None }),
        cut(What::Delete(X, None)),
        cut(What::Add(Y, None)),
    ];
    let ops = |tries: &[Op]| [&[write(0, 10, X, 1, 1)], tries].concat();
    fine(&log(&[("x", Some(1))]), &ops(&tries));
    fine(&log(&[("x", Some(1)), ("x", Some(2)), ("y", Some(1)), ("x", None)]), &ops(&tries));
    let early = log(&[("x", Some(2)), ("x", Some(1))]);
    refused(&early, &[&[write(0, 10, X, 1, 2)], &tries[..]].concat(), "no order fits");
}

#[test]
fn lost_updates_are_refused() {
    let twice = log(&[("x", Some(1)), ("x", Some(1))]);
    refused(&twice, &[op(0, 9, What::Add(X, Some(1))), op(0, 9, What::Add(X, Some(1)))], "lost update");
    let skipped = log(&[("x", Some(1)), ("x", Some(3))]);
    refused(&skipped, &[op(0, 9, What::Add(X, Some(1))), op(0, 9, What::Add(X, Some(3)))], "lost update");
    let log = log(&[("x", Some(1)), ("x", Some(2)), ("x", Some(3))]);
    let swap = |value, version, expected| {
        op(20, 30, What::Write { key: X, value, version: Some(version), expected: Some(expected) })
    };
    fine(&log, &[write(0, 9, X, 1, 1), swap(2, 2, 1), swap(3, 3, 2)]);
    refused(&log, &[write(0, 9, X, 1, 1), swap(2, 2, 1), swap(3, 3, 1)], "lost update");
}

#[test]
fn a_compare_and_set_that_fails_for_no_reason_is_refused() {
    let log = log(&[("x", Some(1)), ("x", Some(2))]);
    let writes = [write(0, 10, X, 1, 1), write(40, 50, X, 2, 2)];
    let with = |refused: Op| [&writes[..], &[refused]].concat();
    fine(&log, &with(op(45, 60, What::Refused(X, 1))));
    fine(&log, &with(op(20, 30, What::Refused(X, 0))));
    refused(&log, &with(op(20, 30, What::Refused(X, 1))), "at no moment");
    refused(&log, &with(op(60, 70, What::Refused(X, 2))), "at no moment");
}

#[test]
fn absence_has_its_times() {
    let log = log(&[("x", Some(1)), ("x", None), ("x", Some(2))]);
    let writes = [write(10, 20, X, 1, 1), op(30, 40, What::Delete(X, Some(true))), write(50, 60, X, 2, 3)];
    let with = |op: Op| [&writes[..], &[op]].concat();
    for (start, end) in [(1, 2), (15, 16), (44, 46), (25, 46)] {
        fine(&log, &with(read(start, end, X, None)));
        fine(&log, &with(op(start, end, What::Delete(X, Some(false)))));
    }
    for (start, end) in [(22, 28), (61, 62)] {
        refused(&log, &with(read(start, end, X, None)), "at no moment");
        refused(&log, &with(op(start, end, What::Delete(X, Some(false)))), "at no moment");
    }
    for (start, end) in [(1, 2), (42, 48)] {
        refused(&log, &with(op(start, end, What::Exists(X, true))), "at no moment");
    }
    refused(&log, &with(read(42, 48, X, Some((1, Some(1))))), "fits no commit");
}

#[test]
fn a_deletion_of_a_version_is_the_change_that_follows_it() {
    let log = log(&[("y", Some(1)), ("y", None), ("y", Some(2)), ("y", None)]);
    let delete = |start, end, expected, done| op(start, end, What::DeleteIf(Y, expected, done));
    let writes = [write(0, 10, Y, 1, 1), write(30, 40, Y, 2, 3), delete(20, 25, 1, Some(true))];
    let with = |op: Op| [&writes[..], &[op]].concat();
    fine(&log, &with(delete(45, 50, 3, Some(true))));
    fine(&log, &with(delete(45, Span::OPEN, 3, None)));
    refused(&log, &with(delete(45, 50, 1, Some(true))), "version 2 is that of");
    refused(&log, &with(delete(45, 50, 2, Some(true))), "acknowledged");
    refused(&log, &with(delete(45, Span::OPEN, 1, None)), "nobody asked for version 4");
    refused(&log, &with(delete(15, 18, 3, Some(true))), "no order fits");
}

#[test]
fn a_deletion_belongs_to_the_call_whose_time_it_fits() {
    let log = log(&[("x", Some(1)), ("x", None), ("x", Some(2)), ("x", None)]);
    let ops = [
        write(0, 10, X, 1, 1),
        op(12, 90, What::Delete(X, Some(true))),
        op(12, 20, What::Delete(X, Some(true))),
        write(40, 50, X, 2, 3),
    ];
    fine(&log, &ops);
    let late = [&ops[..2], &[op(60, 70, What::Delete(X, Some(true)))], &ops[3..]].concat();
    fine(&log, &late);
    refused(&log, &[&late[..], &[read(71, 72, X, Some((2, None)))]].concat(), "fits no commit");
}

#[test]
fn reading_several_keys_at_two_moments_is_refused() {
    let log = log(&[("x", Some(1)), ("y", Some(2)), ("x", Some(3)), ("y", None)]);
    let writes =
        [write(0, 90, X, 1, 1), write(0, 90, Y, 2, 2), write(0, 90, X, 3, 3), op(0, 90, What::Delete(Y, Some(true)))];
    let with = |found: [Option<Found>; 2]| {
        let found = [X, Y].into_iter().zip(found).collect();
        [&writes[..], &[op(0, 90, What::Many(found))]].concat()
    };
    for found in [[None, None], [Some((1, None)), None], [Some((3, None)), Some((2, None))], [Some((3, None)), None]] {
        fine(&log, &with(found));
    }
    refused(&log, &with([None, Some((2, None))]), "at no moment");
    let fractured = Log { commits: [&log.commits[..], &[vec![("x".into(), Some(5))]]].concat() };
    let ops = with([Some((5, None)), Some((2, None))]);
    refused(&fractured, &[&ops[..], &[write(0, 90, X, 5, 5)]].concat(), "mixes several moments");
}
