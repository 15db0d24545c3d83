//! A store and its judge, side by side.

use super::acts::{Act, Transaction};
use super::reference::{Held, Keys, Life, Reference};
use super::replica::Replica;
use super::verbs::{Said, Verb, apply, said, wrapped, writes};
use llmspell_state_persistence::{Document, Error, ErrorKind, Number, Origin, Scope, Select, State, StateConfig};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) type Outcome = Result<(), TestCaseError>;

/// The run that may be undone.
pub(crate) const RUN: &str = "bad";
/// As long before a key expires nothing is begun: the next call would not know whether it is there.
const QUIET_MS: i64 = 12;
/// By so much the store's clock and this one may differ.
const SLACK_MS: i64 = 3;

fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// A process that is gone when the test has failed, too.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A scope of a store.
pub(crate) fn handle(state: &State, path: &[String]) -> Scope {
    path.iter().fold((**state).clone(), |scope, name| scope.scope(name).unwrap())
}

/// A store and what it must hold.
pub(crate) struct Pair {
    config: StateConfig,
    pub(crate) state: State,
    pub(crate) model: Reference,
    replicas: Vec<Replica>,
    /// What every scope was after commits.
    pub(crate) past: BTreeMap<u64, Vec<Keys>>,
    /// Whether the store forgets its past.
    pub(crate) trims: bool,
}

impl Pair {
    pub(crate) fn new(config: StateConfig) -> Self {
        let state = State::with_config(config.clone()).unwrap();
        let model = Reference::new();
        let past = BTreeMap::from([(0, model.scopes.clone())]);
        let trims = config.retention.max_versions < usize::MAX;
        let mut pair = Self { config, state, model, replicas: Vec::new(), past, trims };
        (0..pair.model.scopes.len()).for_each(|scope| pair.replicate(scope));
        pair
    }

    /// Maps follow a scope from now on. One without a name would miss what is trimmed.
    pub(crate) fn replicate(&mut self, scope: usize) {
        let (path, keys) = (&self.model.paths[scope], &self.model.scopes[scope]);
        for name in [None, Some(format!("replica{scope}"))] {
            if name.is_some() || !self.trims {
                self.replicas.push(Replica::new(&self.state, path, scope, name, keys));
            }
        }
    }

    pub(crate) fn scope(&self, scope: usize) -> Scope {
        let scope = handle(&self.state, &self.model.paths[scope]);
        if !self.model.by_run {
            return scope;
        }
        scope.as_run(Origin { run: Some(RUN.into()), ..Origin::default() }).unwrap()
    }

    /// Waits until no key is about to expire; answers the time.
    pub(crate) fn calm(&mut self) -> i64 {
        loop {
            let now_ms = now_ms();
            let Some(due_ms) = self.model.due().filter(|due_ms| *due_ms < now_ms + QUIET_MS) else { return now_ms };
            self.sleep_until(due_ms);
        }
    }

    fn sleep_until(&mut self, due_ms: i64) {
        let rest = due_ms + SLACK_MS + 1 - now_ms();
        std::thread::sleep(Duration::from_millis(rest.max(0).unsigned_abs()));
        self.model.pass(due_ms);
    }

    /// Waits for the next key that is to expire during the run; says whether there was one.
    fn wait(&mut self) -> bool {
        let due_ms = self.model.due().filter(|due_ms| *due_ms < now_ms() + 1_000);
        due_ms.inspect(|due_ms| self.sleep_until(*due_ms)).is_some()
    }

    /// A call that took so long that a key expired meanwhile says nothing: the case is another one.
    pub(crate) fn surely(model: &Reference) -> Outcome {
        match model.due().filter(|due_ms| *due_ms <= now_ms() + SLACK_MS) {
            Some(_) => Err(TestCaseError::reject("a key expired amid a call")),
            None => Ok(()),
        }
    }

    /// The judge is told when keys expire that were written since `began_ms`; then this is a moment to remember.
    pub(crate) fn settle(&mut self, began_ms: i64, mark: usize) -> Outcome {
        Self::surely(&self.model)?;
        for scope in 0..self.model.scopes.len() {
            let pending = |(key, held): (&String, &Held)| match held.life {
                Life::For(millis) => Some((key.clone(), millis)),
                _ => None,
            };
            let pending: Vec<_> = self.model.scopes[scope].iter().filter_map(pending).collect();
            for (key, millis) in pending {
                let entry = self.scope(scope).entry(&key).unwrap();
                let expires_ms = entry.as_ref().and_then(|entry| entry.expires_ms());
                let earliest = began_ms + millis - SLACK_MS;
                if entry.is_none() && now_ms() >= earliest {
                    return Err(TestCaseError::reject("a key expired amid a call"));
                }
                let fits = |time_ms| (earliest..=now_ms() + millis + SLACK_MS).contains(&time_ms);
                prop_assert!(expires_ms.is_some_and(fits), "{} expires at {:?}, after {}", key, expires_ms, earliest);
                self.model.scopes[scope].get_mut(&key).unwrap().life = Life::At(expires_ms.unwrap());
            }
        }
        Self::surely(&self.model)?;
        if self.model.mark() > mark {
            let version = self.state.version().unwrap();
            self.model.stamp(version);
            self.past.entry(version).or_insert_with(|| self.model.scopes.clone());
        }
        Ok(())
    }

    fn follow(&mut self, save: bool) -> Outcome {
        self.calm();
        let scopes = &self.model.scopes;
        let told = self.replicas.iter_mut().try_for_each(|replica| replica.follow(&scopes[replica.scope], save));
        Self::surely(&self.model)?;
        told
    }

    fn open(&mut self) -> Outcome {
        self.state = State::with_config(self.config.clone()).unwrap();
        self.rejoin()
    }

    /// Those who follow go on.
    fn rejoin(&mut self) -> Outcome {
        let paths = &self.model.paths;
        self.replicas.iter_mut().try_for_each(|replica| replica.open(&self.state, &paths[replica.scope]))
    }

    /// Every call has an answer, also when the store is closed meanwhile; what was acknowledged is there, in the calls' order.
    fn post(&mut self, calls: &[(usize, String, Option<Value>)], close: bool) -> Outcome {
        let (tell, told) = channel();
        for (number, (scope, key, value)) in calls.iter().enumerate() {
            let (tell, scope) = (tell.clone(), self.scope(self.model.scope(*scope)));
            let tell = move |there: Result<bool, Error>| tell.send((number, there)).unwrap();
            match value {
                Some(value) => scope.calls().set(key, value).unwrap().then(move |version| tell(version.map(|_| true))),
                None => scope.calls().delete(key).unwrap().then(tell),
            }
        }
        drop(tell);
        let reopens = close && self.config.persistence_path.is_some();
        if reopens {
            self.state.close().unwrap();
        }
        let answers: Vec<_> = told.iter().collect();
        Self::surely(&self.model)?;
        prop_assert_eq!(answers.len(), calls.len(), "calls without an answer");
        for ((number, there), (place, (scope, key, value))) in answers.into_iter().zip(calls.iter().enumerate()) {
            prop_assert_eq!(number, place, "answers out of order");
            let scope = self.model.scope(*scope);
            let was_there = match value {
                Some(value) => {
                    self.model.expect(scope, &Verb::Set(key.clone(), value.clone())).unwrap();
                    true
                }
                None => self.model.remove(scope, key),
            };
            prop_assert_eq!(there.unwrap(), was_there, "{}", key);
        }
        if reopens { self.open() } else { Ok(()) }
    }

    fn plain(&mut self, scope: usize, verb: &Verb) -> Outcome {
        let (began_ms, mark) = (self.calm(), self.model.mark());
        let scope = self.model.scope(scope);
        let handle = self.scope(scope);
        let said = apply!(&handle, verb);
        Self::surely(&self.model)?;
        prop_assert_eq!(said, self.model.expect(scope, verb), "{:?}", verb);
        self.settle(began_ms, mark)
    }

    fn transaction(&mut self, act: &Transaction) -> Outcome {
        let Transaction { by_run, early, others, linger, late, commit } = act;
        self.calm();
        self.model.by_run = *by_run;
        let transaction = self.scope(0).transaction().unwrap();
        let mut snapshot = self.model.clone();
        snapshot.inside = true;
        self.model.by_run = false;
        let inside = |snapshot: &mut Reference, verbs: &[(usize, Verb)]| -> Result<Vec<Said>, TestCaseError> {
            let mut answers = Vec::new();
            for (scope, verb) in verbs {
                let scope = snapshot.scope(*scope);
                let path = &snapshot.paths[scope];
                let handle = path.iter().fold(transaction.clone(), |handle, name| handle.scope(name).unwrap());
                let answer = apply!(&handle, verb);
                Self::surely(snapshot)?;
                prop_assert_eq!(&answer, &snapshot.expect(scope, verb), "inside: {:?}", verb);
                answers.push(answer);
            }
            Ok(answers)
        };
        let mut answers = inside(&mut snapshot, early)?;
        for (scope, verb) in others {
            self.plain(*scope, verb)?;
        }
        if *linger {
            self.wait();
        }
        // Others may have given a key another time, which the snapshot does not know.
        while let Some(due_ms) = snapshot.due().filter(|due_ms| *due_ms < now_ms() + QUIET_MS) {
            self.sleep_until(due_ms);
            snapshot.pass(due_ms);
        }
        answers.extend(inside(&mut snapshot, late)?);
        if !commit {
            transaction.rollback().unwrap();
            return Ok(());
        }
        let (began_ms, mark) = (self.calm(), self.model.mark());
        let wrote = early.iter().chain(late).zip(&answers).any(|((_, verb), answer)| writes(verb, answer));
        let committed = transaction.commit();
        Self::surely(&self.model)?;
        match committed {
            Ok(_) if wrote => {
                // Serializable: had it run at this moment, it would have been told the same.
                self.model.by_run = *by_run;
                for ((scope, verb), answer) in early.iter().chain(late).zip(answers) {
                    let scope = self.model.scope(*scope);
                    prop_assert_eq!(self.model.expect(scope, verb), answer, "at the commit: {:?}", verb);
                }
                self.model.commit(mark);
                self.settle(began_ms, mark)
            }
            Ok(_) => Ok(()),
            Err(error) => {
                prop_assert_eq!(error.kind(), ErrorKind::Conflict, "{}", error);
                prop_assert!(!others.is_empty() || self.model.mortal, "a conflict with nobody: {}", error);
                prop_assert!(wrote, "a conflict of a reader: {}", error);
                Ok(())
            }
        }
    }

    /// Whatever the killed process was answered is there afterwards; what it was not yet may be.
    fn kill(&mut self, writes: &[(String, Option<i64>)]) -> Outcome {
        while self.wait() {}
        // Afterwards every version is one of the killed process.
        self.state.cleanup().unwrap();
        let version = self.state.version().unwrap();
        self.state.close().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_peer"));
        let mut peer = Peer(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
        let process = &mut peer.0;
        let mut input = process.stdin.take().unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut answer = String::new();
        let path = self.config.persistence_path.clone().unwrap();
        let settings = serde_json::to_string(&self.config).unwrap();
        let (began_ms, mark) = (now_ms(), self.model.mark());
        writeln!(input, "open\t{}\t{settings}", path.display()).unwrap();
        output.read_line(&mut answer).unwrap();
        prop_assert_eq!(answer.trim_end(), "\"ok\"");
        let (mut before, mut commits) = (self.model.clone(), 0);
        for (done, (key, number)) in writes.iter().enumerate() {
            before.clone_from(&self.model);
            let (line, verb) = number.map_or_else(
                || (format!("delete\t{key}"), Verb::Delete(key.clone())),
                |number| (format!("set\t{key}\t{number}"), Verb::Set(key.clone(), json!(number))),
            );
            writeln!(input, "{line}").unwrap();
            commits += u64::from(self.model.expect(0, &verb) != Ok(json!(false)));
            if done + 1 < writes.len() {
                answer.clear();
                output.read_line(&mut answer).unwrap();
                prop_assert!(!answer.contains("error"), "{}", answer);
            }
        }
        process.kill().unwrap();
        process.wait().unwrap();
        self.open()?;
        if self.state.version().unwrap() < version + commits {
            self.model = before;
        }
        self.settle(began_ms, mark)
    }

    pub(crate) fn everything(&mut self) -> Outcome {
        for scope in 0..self.model.scopes.len() {
            self.calm();
            let found: BTreeMap<_, _> = self.scope(scope).items("*").unwrap().map(Result::unwrap).collect();
            Self::surely(&self.model)?;
            let found: Keys = found.into_iter().map(|(key, entry)| (key, Held::of(&entry))).collect();
            prop_assert_eq!(&found, &self.model.scopes[scope], "scope {:?}", self.model.paths[scope]);
        }
        Ok(())
    }

    fn act(&mut self, act: &Act) -> Outcome {
        let on_file = self.config.persistence_path.is_some();
        match act {
            Act::Plain { scope, verb, by_run } => {
                self.model.by_run = *by_run;
                self.plain(*scope, verb)?;
                self.model.by_run = false;
            }
            Act::Transaction(transaction) => {
                self.transaction(transaction)?;
                self.model.by_run = false;
            }
            Act::Post { calls, close } => {
                let (began_ms, mark) = (self.calm(), self.model.mark());
                // What is replaced at once is never asked when it would have expired.
                if (0..self.model.scopes.len()).all(|scope| self.model.lives_for_ever(scope)) {
                    self.post(calls, *close)?;
                    self.settle(began_ms, mark)?;
                }
            }
            Act::Follow { save } => self.follow(*save)?,
            Act::Wait => {
                self.wait();
            }
            Act::DefaultTime(scope, time) => {
                let scope = self.model.scope(*scope);
                self.scope(scope).set_default_ttl(time.ttl()).unwrap();
                self.model.set_time(scope, *time);
            }
            Act::Look(past) => self.look(*past)?,
            Act::Revert(past, key) => self.revert(*past, key)?,
            Act::RevertTo(past, pattern) => self.revert_to(*past, pattern)?,
            Act::Undo(since) => self.undo(*since)?,
            Act::Fork { again } => self.fork(*again)?,
            Act::Merge(number) => self.merge(*number)?,
            Act::Cleanup => drop(self.state.cleanup().unwrap()),
            Act::Reopen { wait } if on_file => {
                self.state.close().unwrap();
                let has_expired = *wait && self.wait();
                self.state = State::with_config(self.config.clone()).unwrap();
                if has_expired {
                    self.everything()?;
                }
                self.rejoin()?;
            }
            Act::Kill(writes) if on_file => self.kill(writes)?,
            Act::Reopen { .. } | Act::Kill(_) => {}
        }
        Ok(())
    }

    pub(crate) fn run(mut self, acts: &[Act]) -> Outcome {
        for (number, act) in acts.iter().enumerate() {
            self.act(act).map_err(|error| match error {
                TestCaseError::Fail(reason) => {
                    TestCaseError::fail(format!("act {number} of {}, {act:?}: {reason}", acts.len()))
                }
                reject @ TestCaseError::Reject(_) => reject,
            })?;
        }
        self.everything()?;
        self.follow(true)?;
        let problems = self.state.verify().unwrap().problems;
        prop_assert!(problems.is_empty(), "{:?}", problems);
        Ok(())
    }
}
