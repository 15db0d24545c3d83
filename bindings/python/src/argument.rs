//! Arguments, checked for their type once at the door. What they may contain is the core's business.

use crate::error::{invalid, invalid_type, wrong_type};
use crate::value;
use llmspell_state_persistence::{Document, Moment, Number, Origin, Select, Undo, WatchOptions};
#[cfg(feature = "stubs")]
use pyo3::PyTypeInfo;
use pyo3::conversion::FromPyObjectOwned;
use pyo3::exceptions::PyTypeError;
#[cfg(feature = "stubs")]
use pyo3::inspect::PyStaticExpr;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::{PyBool, PyDateTime, PyFloat, PyInt, PyString, PyTzInfo};
use std::time::Duration;

/// Text of a `str`, borrowed from it: the call that passed the argument keeps the object alive.
fn text<'a>(what: &str, object: Borrowed<'a, '_, PyAny>) -> PyResult<&'a str> {
    match value::text_of(object) {
        Some(Ok(text)) => Ok(text),
        Some(Err(_)) => Err(invalid(format!("{what} has a lone surrogate, which UTF-8 cannot hold"))),
        None => Err(wrong_type(what, "a str", &object)),
    }
}

/// Which keys a listing gives.
pub(crate) fn select(pattern: &str, after: Option<After<'_>>, limit: Option<Limit>, reverse: bool) -> Select {
    Select {
        pattern: Some(pattern.to_owned()),
        after: after.map(|after| after.0.to_owned()),
        limit: limit.map(|limit| limit.0),
        reverse,
    }
}

/// The most of what is told, where it is bounded.
pub(crate) fn most(limit: Option<Limit>) -> Option<usize> {
    limit.map(|limit| usize::try_from(limit.0).unwrap_or(usize::MAX))
}

/// A whole number in the range that `range` names.
fn whole<'py, T: FromPyObjectOwned<'py>>(what: &str, range: &str, object: &Bound<'py, PyAny>) -> PyResult<T> {
    if !object.is_instance_of::<PyInt>() || object.is_instance_of::<PyBool>() {
        return Err(wrong_type(what, "an int", object));
    }
    object.extract().map_err(|_| outside(what, range, object))
}

fn outside(what: &str, range: &str, object: &Bound<'_, PyAny>) -> PyErr {
    invalid(format!("{what} takes an int from {range}, not {object}"))
}

macro_rules! text_arguments {
    ($($name:ident: $what:literal),*) => {$(
        #[doc = concat!("The argument `", $what, "`.")]
        pub(crate) struct $name<'a>(pub(crate) &'a str);

        impl<'a> FromPyObject<'a, '_> for $name<'a> {
            type Error = PyErr;

            #[cfg(feature = "stubs")]
            const INPUT_TYPE: PyStaticExpr = PyString::TYPE_HINT;

            fn extract(object: Borrowed<'a, '_, PyAny>) -> PyResult<Self> {
                text($what, object).map(Self)
            }
        }
    )*};
}
text_arguments! { Key: "key", Name: "name", Child: "scope", After: "after", Actor: "actor", Run: "run", Reason: "reason" }

/// What is watched.
pub(crate) fn watched(pattern: &str, since: Option<Since>, name: Option<Name<'_>>) -> WatchOptions {
    WatchOptions {
        pattern: Some(pattern.to_owned()),
        since: since.map(|since| since.0),
        name: name.map(|name| name.0.to_owned()),
    }
}

/// The argument `pattern`, a function since it has a default that is text.
pub(crate) fn pattern<'a>(object: &'a Bound<'_, PyAny>) -> PyResult<&'a str> {
    text("pattern", object.as_borrowed())
}

/// The argument `reverse`, a function since it has a default.
pub(crate) fn reverse(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    object.extract().map_err(|_| wrong_type("reverse", "a bool", object))
}

macro_rules! natural_arguments {
    ($($name:ident: $what:literal),*) => {$(
        #[doc = concat!("The argument `", $what, "`.")]
        pub(crate) struct $name(pub(crate) u64);

        impl FromPyObject<'_, '_> for $name {
            type Error = PyErr;

            #[cfg(feature = "stubs")]
            const INPUT_TYPE: PyStaticExpr = PyInt::TYPE_HINT;

            fn extract(object: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
                whole($what, "0 to 2**64 - 1", &object).map(Self)
            }
        }
    )*};
}
natural_arguments! { Version: "if_version", Limit: "limit", Since: "since" }

/// A moment of the past: the version of a commit, or a date that says of which time zone it is.
fn moment(what: &str, object: &Bound<'_, PyAny>) -> PyResult<Moment> {
    if !object.is_instance_of::<PyDateTime>() {
        if !object.is_instance_of::<PyInt>() || object.is_instance_of::<PyBool>() {
            return Err(wrong_type(what, "an int, which is a version, or a datetime", object));
        }
        return whole(what, "0 to 2**64 - 1", object).map(Moment::Version);
    }
    if object.call_method0("utcoffset")?.is_none() {
        return Err(invalid(format!(
            "{what} takes a datetime with a time zone, such as timezone.utc; {object} has none"
        )));
    }
    let py = object.py();
    let since = object.sub(PyDateTime::from_timestamp(py, 0.0, Some(&*PyTzInfo::utc(py)?))?)?;
    // Before 1970 it is the days that are negative, so what is not a whole millisecond is cut off downwards.
    let part = |name| since.getattr(name)?.extract::<i64>();
    let seconds = part(intern!(py, "days"))? * 86_400 + part(intern!(py, "seconds"))?;
    Ok(Moment::TimeMs(seconds * 1_000 + part(intern!(py, "microseconds"))? / 1_000))
}

macro_rules! moment_arguments {
    ($($name:ident: $what:literal),*) => {$(
        #[doc = concat!("The argument `", $what, "`.")]
        pub(crate) struct $name(pub(crate) Moment);

        impl FromPyObject<'_, '_> for $name {
            type Error = PyErr;

            fn extract(object: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
                moment($what, &object).map(Self)
            }
        }
    )*};
}
moment_arguments! { When: "when", From: "since", Until: "until" }

/// Who makes changes, in the course of what, and why.
pub(crate) fn origin(actor: Option<Actor<'_>>, run: Option<Run<'_>>, reason: Option<Reason<'_>>) -> Origin {
    Origin {
        actor: actor.map(|actor| actor.0.to_owned()),
        run: run.map(|run| run.0.to_owned()),
        reason: reason.map(|reason| reason.0.to_owned()),
    }
}

/// Whose changes are to be taken back.
pub(crate) fn undo(actor: Option<Actor<'_>>, run: Option<Run<'_>>, since: Since) -> Undo {
    Undo { actor: actor.map(|actor| actor.0.to_owned()), run: run.map(|run| run.0.to_owned()), since: since.0 }
}

/// The argument `timeout`, in seconds; nothing waits as long as it takes.
pub(crate) struct Timeout(pub(crate) Option<Duration>);

impl FromPyObject<'_, '_> for Timeout {
    type Error = PyErr;

    #[cfg(feature = "stubs")]
    const INPUT_TYPE: PyStaticExpr = PyFloat::TYPE_HINT;

    fn extract(object: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        if object.is_instance_of::<PyBool>()
            || !(object.is_instance_of::<PyFloat>() || object.is_instance_of::<PyInt>())
        {
            return Err(wrong_type("timeout", "a number of seconds", &object));
        }
        let outside = || invalid(format!("timeout takes a number of seconds from 0 on, not {}", *object));
        let seconds: f64 = object.extract().map_err(|_| outside())?;
        if seconds.is_nan() || seconds < 0.0 {
            return Err(outside());
        }
        // What is longer than a clock can tell is for ever.
        Ok(Self(Duration::try_from_secs_f64(seconds).ok()))
    }
}

/// The argument `attempts`: how often a transaction may run.
pub(crate) struct Attempts(pub(crate) u32);

impl FromPyObject<'_, '_> for Attempts {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        const RANGE: &str = "1 to 2**32 - 1";
        match whole("attempts", RANGE, &object)? {
            0 => Err(outside("attempts", RANGE, &object)),
            attempts => Ok(Self(attempts)),
        }
    }
}

macro_rules! function_arguments {
    ($($name:ident: $what:literal),*) => {$(
        #[doc = concat!("The argument `", $what, "`.")]
        pub(crate) struct $name(pub(crate) Py<PyAny>);

        impl FromPyObject<'_, '_> for $name {
            type Error = PyErr;

            fn extract(object: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
                if object.is_callable() {
                    Ok(Self(object.to_owned().unbind()))
                } else {
                    Err(wrong_type($what, "a function", &object))
                }
            }
        }
    )*};
}
function_arguments! { Function: "fn", Resolver: "resolve", Hook: "default" }

impl Hook {
    pub(crate) fn clone_ref(&self, py: Python<'_>) -> Self {
        Self(self.0.clone_ref(py))
    }
}

impl Function {
    pub(crate) fn call<'py>(&self, argument: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        plain("fn", self.0.bind(argument.py()), &argument)
    }

    /// Calls it for what it does, which a generator has still to do when it is returned.
    pub(crate) fn run<'py>(&self, argument: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let (py, answer) = (argument.py(), self.call(argument)?);
        if value::is_generator(&answer)? {
            return Err(invalid_type(py, "fn takes a plain function, not a generator: it must not yield"));
        }
        Ok(answer)
    }
}

impl Resolver {
    pub(crate) fn call<'py>(&self, argument: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        plain("resolve", self.0.bind(argument.py()), &argument)
    }
}

/// What a function answers. An async one answers before it has done anything, so it is refused.
fn plain<'py>(what: &str, function: &Bound<'py, PyAny>, argument: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let answer = function.call1((argument,))?;
    if !value::is_async(&answer)? {
        return Ok(answer);
    }
    if answer.hasattr("close")? {
        answer.call_method0("close")?; // else the interpreter warns that nobody awaited it
    }
    let message = format!("{what} takes a plain function, not an async one, whose answer would have to be awaited");
    Err(invalid_type(argument.py(), &message))
}

/// What `increment` adds: an `int` in the signed 64-bit range, or a `float`.
pub(crate) struct Amount(pub(crate) Number);

impl Amount {
    pub(crate) const ONE: Self = Self(Number::Int(1));
}

impl FromPyObject<'_, '_> for Amount {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        if object.is_instance_of::<PyFloat>() {
            return Ok(Self(object.extract::<f64>()?.into()));
        }
        if !object.is_instance_of::<PyInt>() || object.is_instance_of::<PyBool>() {
            return Err(wrong_type("by", "an int or a float", &object));
        }
        let int: i64 =
            object.extract().map_err(|_| invalid(format!("by is {}, outside the signed 64-bit range", *object)))?;
        Ok(Self(int.into()))
    }
}

fn backed(key: &Bound<'_, PyAny>) -> PyResult<PyBackedStr> {
    text("key", key.as_borrowed())?;
    key.cast::<PyString>()?.clone().try_into()
}

/// The keys of `get_many`.
pub(crate) struct Keys(pub(crate) Vec<PyBackedStr>);

impl FromPyObject<'_, '_> for Keys {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        let takes = || wrong_type("keys", "an iterable of str", &object);
        if object.is_instance_of::<PyString>() {
            return Err(takes());
        }
        let keys = object
            .try_iter()
            .map_err(|error| if error.is_instance_of::<PyTypeError>(object.py()) { takes() } else { error })?;
        value::items(keys)?.iter().map(backed).collect::<PyResult<_>>().map(Self)
    }
}

impl Keys {
    /// For another thread, which must not have Python's.
    pub(crate) fn into_strings(self) -> Vec<String> {
        self.0.iter().map(|key| (**key).to_owned()).collect()
    }
}

/// The members of a mapping: its keys, and its values in their stored form.
pub(crate) struct Members {
    keys: Vec<PyBackedStr>,
    documents: Vec<Document>,
}

impl Members {
    pub(crate) fn of(mapping: &Bound<'_, PyAny>, hook: Option<&Bound<'_, PyAny>>, max_bytes: usize) -> PyResult<Self> {
        if !value::is_mapping(mapping)? {
            return Err(wrong_type("mapping", "a mapping of str to values", mapping));
        }
        let (mut keys, mut documents) = (Vec::new(), Vec::new());
        for (key, member) in value::pairs(mapping)? {
            keys.push(backed(&key)?);
            documents.push(value::document(&member, hook, max_bytes)?);
        }
        Ok(Self { keys, documents })
    }

    /// Keys stay where they are, to be dropped with the interpreter held; documents are given away.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = (&str, Document)> + Send {
        self.keys.iter().map(|key| &**key).zip(self.documents.drain(..))
    }
}
