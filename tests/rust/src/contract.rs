//! Runs the cases of `tests/spec`.

use crate::forms::{Known, same};
use crate::surface::Target;
use llmspell_state_persistence::{Error, ErrorKind, Items, Keys, Scope, State, StateConfig, Transaction, View, Watch};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::path::Path;
use tokio::runtime::{Builder, Runtime};

/// How this runner is called in `skip_in`.
const RUNNER: &str = "rust";

/// Why a step did not end in a result.
#[derive(Debug)]
pub enum Failure {
    /// An error of the store.
    Store(Error),
    /// The error of a callback's own.
    Own,
    /// The case itself failed.
    Wrong(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

/// A step's result.
pub type Answer = Result<Value, Failure>;

pub(crate) fn wrong<T>(why: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::Wrong(why.into()))
}

/// What `as` names.
pub(crate) enum Handle {
    State(State),
    Scope(Scope),
    Transaction(Transaction),
    Keys(Keys),
    Items(Items),
    Watch(Watch),
    View(View),
}

/// One run of one case.
pub(crate) struct Run<'v> {
    vocabulary: &'v Value,
    pub(crate) known: Known,
    pub(crate) settings: Map<String, Value>,
    pub(crate) handles: HashMap<String, Handle>,
    /// Which time round the innermost `transact` is.
    pub(crate) round: u32,
    /// Where calls are awaited; without it they are waited for.
    pub(crate) runtime: Option<Runtime>,
}

/// A step, taken apart and checked against the vocabulary.
pub(crate) struct Step<'s> {
    pub(crate) verb: &'s str,
    pub(crate) arguments: Vec<&'s Value>,
    pub(crate) members: &'s Map<String, Value>,
}

impl<'s> Step<'s> {
    fn parse(vocabulary: &Value, step: &'s Value) -> Result<Self, Failure> {
        let Some(members) = step.as_object() else { return wrong(format!("{step} is no step")) };
        let verbs = &vocabulary["verbs"];
        let mut known = members.keys().filter(|name| verbs.get(name.as_str()).is_some());
        let (Some(verb), None) = (known.next(), known.next()) else { return wrong(format!("{step} has not one verb")) };
        let has = |list: &Value, name: &str| list.as_array().is_some_and(|list| list.iter().any(|item| item == name));
        for name in members.keys() {
            if name != verb && !has(&vocabulary["fields"], name) && !has(&verbs[verb]["options"], name) {
                return wrong(format!("'{verb}' has no field '{name}'"));
            }
        }
        let Some(arguments) = members[verb].as_array() else { return wrong(format!("{step}: arguments are an array")) };
        let (least, most) = (&verbs[verb]["takes"][0], &verbs[verb]["takes"][1]);
        let count = arguments.len() as u64;
        if !(least.as_u64() <= Some(count) && Some(count) <= most.as_u64()) {
            return wrong(format!("'{verb}' does not take {count} arguments"));
        }
        Ok(Self { verb, arguments: arguments.iter().collect(), members })
    }

    pub(crate) fn text(&self, name: &str) -> Option<&'s str> {
        self.members.get(name)?.as_str()
    }
}

impl Run<'_> {
    /// Runs steps until one fails; the answer is that of the last.
    pub(crate) fn steps(&mut self, steps: &Value) -> Answer {
        let mut answer = Value::Null;
        for step in steps.as_array().into_iter().flatten() {
            if step["once"] == true && self.round > 1 {
                continue;
            }
            answer = self.step(step)?;
        }
        Ok(answer)
    }

    fn step(&mut self, written: &Value) -> Answer {
        let step = Step::parse(self.vocabulary, written)?;
        let shown = || written.to_string().chars().take(200).collect::<String>();
        let outcome = self.call(&step);
        if let Some(kind) = step.text("raises") {
            let (got, message) = match outcome {
                Err(Failure::Store(error)) => (error.kind().name().to_owned(), error.to_string()),
                Err(Failure::Own) => ("own".to_owned(), String::new()),
                Err(failure) => return Err(failure),
                Ok(answer) => return wrong(format!("{}: gave {answer:.200}, not {kind}", shown())),
            };
            let parts = match &written["message_has"] {
                Value::Array(parts) => parts.clone(),
                Value::Null => vec![],
                part => vec![part.clone()],
            };
            if got != kind || !parts.iter().all(|part| message.contains(part.as_str().unwrap_or("not a text"))) {
                return wrong(format!("{}: raised {got} with {message:?}", shown()));
            }
            return Ok(Value::Null);
        }
        let answer = outcome?;
        for (field, wanted) in [("returns", true), ("differs", false)] {
            let Some(expected) = step.members.get(field) else { continue };
            let expected = self.known.expand(expected).map_err(Failure::Wrong)?;
            if fits(step.verb, &expected, &answer) != wanted {
                return wrong(format!("{}: gave {answer:.300}", shown()));
            }
        }
        match step.members.get("save") {
            None => {}
            Some(Value::String(name)) => {
                self.known.saved.insert(name.clone(), answer.clone());
            }
            Some(Value::Object(fields)) => {
                for (field, name) in fields {
                    let Some(name) = name.as_str() else { return wrong("save takes names") };
                    self.known.saved.insert(name.to_owned(), answer[field].clone());
                }
            }
            Some(_) => return wrong("save takes a name or an object of names"),
        }
        Ok(answer)
    }

    /// The handle that a step is about, gone down into the scopes it names.
    pub(crate) fn target(&self, step: &Step<'_>) -> Result<Target, Failure> {
        let name = step.text("on").unwrap_or("state");
        let mut target = match self.handles.get(name) {
            Some(Handle::State(state)) => Target::Scope((**state).clone()),
            Some(Handle::Scope(scope)) => Target::Scope(scope.clone()),
            Some(Handle::Transaction(transaction)) => Target::Transaction(transaction.clone()),
            _ => return wrong(format!("no handle '{name}' for '{}'", step.verb)),
        };
        for scope in step.members.get("in").and_then(Value::as_array).into_iter().flatten() {
            target = self.down(target, scope.as_str().unwrap_or_default())?;
        }
        Ok(target)
    }

    /// The case's store, opened with its settings and others.
    pub(crate) fn open(&self, more: &Value) -> Result<State, Failure> {
        let mut settings = self.settings.clone();
        settings.extend(self.known.expand(more).map_err(Failure::Wrong)?.as_object().cloned().unwrap_or_default());
        Ok(State::with_config(StateConfig::from_options(settings)?)?)
    }
}

/// Of an entry, a verification or a change, only the fields that are named count.
fn fits(verb: &str, expected: &Value, answer: &Value) -> bool {
    match (verb, expected, answer) {
        (
            "entry" | "verify" | "next_change" | "revision" | "undo" | "cleanup" | "retention" | "merge_from",
            Value::Object(fields),
            Value::Object(_),
        ) => fields.iter().all(|(name, field)| answer.get(name).is_some_and(|got| same(field, got))),
        _ => same(expected, answer),
    }
}

/// Runs a case once, in memory or on a file in a fresh directory, with calls that wait or that are awaited.
fn run(vocabulary: &Value, case: &Value, on_file: bool, awaited: bool) -> Result<(), String> {
    let directory = tempfile::tempdir().map_err(|e| e.to_string())?;
    let mut settings = case["config"].as_object().cloned().unwrap_or_default();
    if on_file {
        settings.insert("persistence_path".into(), directory.path().join("store.db").to_string_lossy().into());
    }
    let known = Known { directory: directory.path().to_owned(), ..Known::default() };
    let runtime =
        awaited.then(|| Builder::new_current_thread().enable_time().build()).transpose().map_err(|e| e.to_string())?;
    let mut run = Run { vocabulary, known, settings, handles: HashMap::new(), round: 1, runtime };
    let outcome = run.open(&Value::Null).and_then(|state| {
        run.handles.insert("state".into(), Handle::State(state));
        run.steps(&case["steps"])
    });
    match outcome {
        Ok(_) => Ok(()),
        Err(Failure::Wrong(why)) => Err(why),
        Err(Failure::Own) => Err("an error of the case's own came out".into()),
        Err(Failure::Store(error)) => Err(format!("{}: {error}", error.kind())),
    }
}

/// A file of `tests/spec`.
pub fn read(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../spec").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Runs every case of a file and prints how many passed.
///
/// # Panics
/// With the names of the cases that failed.
pub fn run_file(name: &str) {
    let vocabulary = read("vocabulary.json");
    let (mut passed, mut skipped, mut failed) = (0, 0, Vec::new());
    for case in read(name).as_array().expect("a list of cases") {
        let field =
            |name: &String| vocabulary["case"].as_array().is_some_and(|list| list.iter().any(|item| item == name));
        assert!(case.as_object().is_some_and(|fields| fields.keys().all(field)), "{case}: an unknown field");
        if case["skip_in"].get(RUNNER).is_some() {
            skipped += 1;
            continue;
        }
        let stores: &[bool] = if case["needs"] == "file" { &[true] } else { &[false, true] };
        let mut wrong = Vec::new();
        for (on_file, awaited) in stores.iter().flat_map(|on_file| [(*on_file, false), (*on_file, true)]) {
            if let Err(why) = run(&vocabulary, case, on_file, awaited) {
                let (place, calls) =
                    (if on_file { "file" } else { "memory" }, if awaited { "awaited" } else { "waited for" });
                wrong.push(format!("{} ({place}, {calls}): {why}", case["name"]));
            }
        }
        if wrong.is_empty() { passed += 1 } else { failed.extend(wrong) }
    }
    println!("contract: {passed} cases passed of {name}, {skipped} skipped");
    assert!(failed.is_empty(), "{name}:\n{}", failed.join("\n"));
    assert!(passed > 0, "{name} has no case for {RUNNER}");
}

/// Whether a callback is worth running again.
pub(crate) fn is_conflict(failure: &Failure) -> bool {
    matches!(failure, Failure::Store(error) if error.kind() == ErrorKind::Conflict)
}
