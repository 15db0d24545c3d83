//! What keys were, and taking changes back.

use llmspell_state_persistence::{Document, ErrorKind, Moment, Operation, Origin, State, Undo};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

fn by(actor: &str, run: &str) -> Origin {
    Origin { actor: Some(actor.into()), run: Some(run.into()), reason: None }
}

fn all(state: &State) -> BTreeMap<String, String> {
    state
        .items("*")
        .unwrap()
        .map(Result::unwrap)
        .map(|(key, entry)| (key, entry.document().text().to_owned()))
        .collect()
}

#[test]
fn history_tells_what_happened_to_a_key_the_newest_first() {
    let state = State::in_memory().unwrap();
    let origin = Origin { reason: Some("as asked".into()), ..by("planner", "r1") };
    state.set("other", 1).unwrap();
    let first = state.set("k", 1).unwrap();
    state.as_run(origin.clone()).unwrap().set("k", 2).unwrap();
    state.delete("k").unwrap();
    state.set("k", 4).unwrap();
    let told = state.history("k", None).unwrap();
    let seen: Vec<_> = told.iter().map(|r| (r.operation, r.value.as_ref().map(Document::to_value))).collect();
    assert_eq!(
        seen,
        [
            (Operation::Set, Some(json!(4))),
            (Operation::Delete, None),
            (Operation::Set, Some(json!(2))),
            (Operation::Set, Some(json!(1))),
        ]
    );
    assert_eq!(told[2].origin, origin);
    assert_eq!((told[3].version, told[3].origin.clone()), (first, Origin::default()));
    assert!(told.windows(2).all(|pair| pair[0].version > pair[1].version && pair[0].time_ms >= pair[1].time_ms));
    assert_eq!(state.history("k", Some(2)).unwrap().len(), 2);
    assert!(state.history("nobody", None).unwrap().is_empty());
}

#[test]
fn a_view_of_the_past_stays_as_it_was() {
    let state = State::in_memory().unwrap();
    state.set_many((0..600).map(|n| (format!("k{n:03}"), n))).unwrap();
    let inner = state.scope("inner").unwrap();
    let version = inner.set("x", 1).unwrap();
    state.set("k000", "new").unwrap();
    state.delete("k001").unwrap();
    state.set("k999", 1).unwrap();
    inner.set("x", 2).unwrap();
    let view = state.at(version).unwrap();
    assert_eq!(view.get("k000").unwrap(), Some(json!(0)));
    assert_eq!(view.get("k001").unwrap(), Some(json!(1)));
    assert!(!view.exists("k999").unwrap());
    assert_eq!(view.count("*").unwrap(), 600);
    assert_eq!(view.keys("k00*").unwrap().count(), 10);
    let items: Vec<Value> = view.items("k*").unwrap().map(|item| item.unwrap().1.value()).collect();
    assert_eq!(items, (0..600).map(|n| json!(n)).collect::<Vec<_>>());
    assert_eq!(view.scope("inner").unwrap().get("x").unwrap(), Some(json!(1)));
    assert_eq!(view.scope("nobody").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(state.at(version + 99).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(state.at(0).unwrap().count("*").unwrap(), 0);
    assert_eq!(view.version(), version);
}

#[test]
fn a_moment_may_be_told_by_time() {
    let state = State::in_memory().unwrap();
    let times: Vec<i64> = (0..5)
        .map(|n| {
            std::thread::sleep(std::time::Duration::from_millis(3));
            state.set("k", n).unwrap();
            state.entry("k").unwrap().unwrap().updated_ms()
        })
        .collect();
    for (n, time_ms) in times.iter().enumerate() {
        assert_eq!(state.at(Moment::TimeMs(*time_ms)).unwrap().get("k").unwrap(), Some(json!(n)));
    }
    assert_eq!(state.at(Moment::TimeMs(times[0] - 1)).unwrap().get("k").unwrap(), None);
    assert_eq!(state.at(Moment::TimeMs(i64::MAX)).unwrap().get("k").unwrap(), Some(json!(4)));
}

#[test]
fn differences_are_those_of_values_not_of_changes() {
    let state = State::in_memory().unwrap();
    let from = state.set_many([("same", 1), ("gone", 1), ("new value", 1), ("to and fro", 1)]).unwrap();
    state.delete("gone").unwrap();
    state.set("new value", 2).unwrap();
    state.set("to and fro", 2).unwrap();
    state.set("to and fro", 1).unwrap();
    let to = state.set("came", 1).unwrap();
    state.set("later", 1).unwrap();
    let told = |from: u64, to: Option<Moment>| -> Vec<_> {
        state
            .diff(from, to, "*")
            .unwrap()
            .map(Result::unwrap)
            .map(|d| (d.key, d.from.map(|v| v.to_value()), d.to.map(|v| v.to_value())))
            .collect()
    };
    let forwards = [
        ("came".to_owned(), None, Some(json!(1))),
        ("gone".to_owned(), Some(json!(1)), None),
        ("new value".to_owned(), Some(json!(1)), Some(json!(2))),
    ];
    assert_eq!(told(from, Some(to.into())), forwards);
    let backwards = forwards.clone().map(|(key, from, to)| (key, to, from));
    assert_eq!(told(to, Some(from.into())), backwards);
    assert_eq!(told(from, None).len(), 4);
}

#[test]
fn reverting_is_a_commit_that_can_be_reverted() {
    let state = State::in_memory().unwrap();
    let before = state.set_many([("a", 1), ("b", 2), ("other", 3)]).unwrap();
    let was = all(&state);
    state.set("a", 10).unwrap();
    state.delete("b").unwrap();
    state.set("c", 30).unwrap();
    let after = state.set("other", 40).unwrap();
    let is = all(&state);
    assert_eq!(state.revert_to(before, "[abc]").unwrap(), 3);
    assert_eq!(state.version().unwrap(), after + 1);
    assert_eq!((state.get("a").unwrap(), state.get("b").unwrap()), (Some(json!(1)), Some(json!(2))));
    assert_eq!((state.get("c").unwrap(), state.get("other").unwrap()), (None, Some(json!(40))));
    assert_eq!(state.revert_to(after, "*").unwrap(), 3);
    assert_eq!(all(&state), is);
    assert_eq!(state.revert_to(before, "*").unwrap(), 4);
    assert_eq!(all(&state), was);
    assert_eq!(state.revert_to(before, "*").unwrap(), 0);
    state.revert("a", after).unwrap();
    assert_eq!(state.get("a").unwrap(), Some(json!(10)));
    state.revert("a", 0).unwrap();
    assert_eq!(state.get("a").unwrap(), None);
    assert!(state.verify().unwrap().problems.is_empty());
}

#[test]
fn a_bad_run_is_undone_but_for_keys_that_others_have_changed() {
    let state = State::in_memory().unwrap();
    let deep = state.scope("notes").unwrap().scope("deep").unwrap();
    state.set_many((0..200).map(|n| (format!("k{n:03}"), json!({"n": n})))).unwrap();
    deep.set("x", "before").unwrap();
    let was = all(&state);
    let bad = state.as_run(by("planner", "bad")).unwrap();
    let version = state.version().unwrap();
    for n in 0..1_000 {
        let key = format!("k{:03}", (n * 7) % 300);
        if n >= 300 && n % 11 == 0 {
            assert!(bad.delete(&key).unwrap());
        } else {
            bad.set(&key, json!({"bad": n})).unwrap();
        }
    }
    assert_eq!(state.version().unwrap(), version + 1_000, "every one of them is a change");
    bad.transact(|tx| tx.scope("notes")?.scope("deep")?.set("x", "bad")).unwrap();
    state.as_run(by("planner", "good")).unwrap().set("k005", "good").unwrap();
    deep.set("y", 1).unwrap();
    state.set("k006", "somebody").unwrap();
    let done = state.undo(Undo { run: Some("bad".into()), ..Undo::default() }).unwrap();
    assert_eq!(done.refused, [(vec![], "k005".to_owned()), (vec![], "k006".to_owned())]);
    let mut expected = was.clone();
    expected.insert("k005".into(), "\"good\"".into());
    expected.insert("k006".into(), "\"somebody\"".into());
    assert_eq!(all(&state), expected);
    assert_eq!((deep.get("x").unwrap(), deep.get("y").unwrap()), (Some(json!("before")), Some(json!(1))));
    assert!(state.verify().unwrap().problems.is_empty());
    // Doing it again finds only what the first time has changed.
    let again = state.undo(Undo { run: Some("bad".into()), ..Undo::default() }).unwrap();
    assert_eq!((again.keys, again.version), (0, done.version));
    let nobody = state.undo(Undo::default());
    assert_eq!(nobody.unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn a_run_that_went_on_after_others_is_undone_to_what_the_others_left() {
    let state = State::in_memory().unwrap();
    let bad = state.as_run(by("planner", "bad")).unwrap();
    let undo = || state.undo(Undo { run: Some("bad".into()), ..Undo::default() }).unwrap();
    for turn in 0..3 {
        bad.set("k", turn).unwrap();
        let done = undo();
        assert_eq!((done.keys, done.refused), (1, vec![]));
        assert_eq!(state.get("k").unwrap(), None);
    }
    bad.set("k", "bad").unwrap();
    state.set("k", "somebody's").unwrap();
    bad.set("k", "worse").unwrap();
    bad.delete("k").unwrap();
    assert_eq!(undo().keys, 1);
    assert_eq!(state.get("k").unwrap(), Some(json!("somebody's")));
}

#[test]
fn that_a_time_has_run_out_is_no_change_of_somebody_else() {
    let state = State::in_memory().unwrap();
    let bad = state.as_run(by("planner", "bad")).unwrap();
    for again in [false, true] {
        state.set_many([("k", "before"), ("touched", "before")]).unwrap();
        bad.set_with("k", "bad", Duration::from_millis(20)).unwrap();
        bad.set("touched", "bad").unwrap();
        state.touch("touched", Duration::from_millis(20)).unwrap();
        std::thread::sleep(Duration::from_millis(25));
        state.cleanup().unwrap();
        assert_eq!(state.history("k", Some(1)).unwrap()[0].operation, Operation::Expire);
        if again {
            bad.set("k", "worse").unwrap();
        }
        let done = state.undo(Undo { run: Some("bad".into()), ..Undo::default() }).unwrap();
        assert_eq!(done.refused, [(vec![], "touched".to_owned())]);
        assert_eq!(state.get("k").unwrap(), Some(json!("before")), "{again}");
    }
}

#[test]
fn parts_of_an_origin_have_bounds_and_handles_inherit_them() {
    let state = State::in_memory().unwrap();
    for bad in [
        Origin { actor: Some(String::new()), ..Origin::default() },
        Origin { run: Some("r".repeat(257)), ..Origin::default() },
        Origin { reason: Some("r".repeat(5_000)), ..Origin::default() },
    ] {
        assert_eq!(state.as_run(bad).unwrap_err().kind(), ErrorKind::Invalid);
    }
    let outer = state.as_run(by("a", "r")).unwrap();
    let inner = outer.scope("s").unwrap().as_run(Origin { reason: Some("why".into()), ..Origin::default() }).unwrap();
    inner.set("k", 1).unwrap();
    let told = &state.scope("s").unwrap().history("k", None).unwrap()[0].origin;
    assert_eq!(*told, Origin { reason: Some("why".into()), ..by("a", "r") });
}

#[test]
fn a_view_is_asked_without_waiting_as_a_scope_is() {
    let state = State::in_memory().unwrap();
    let version = state.set("k", 1).unwrap();
    state.set("k", 2).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    state.at(version).unwrap().call(|view| view.get("k")).then(move |value| tell.send(value).unwrap());
    assert_eq!(told.recv().unwrap().unwrap(), Some(json!(1)));
    let view = state.at(version).unwrap();
    state.close().unwrap();
    assert_eq!(view.call(|view| view.get("k")).wait().unwrap_err().kind(), ErrorKind::Closed);
}
