//! Arguments: checked here, told in Lua's own words.

use crate::call::Call;
use crate::error::Failure;
use crate::handle::{self, Object, Owner};
use crate::module::MODULE_FUNCTIONS;
use llmspell_state_persistence::{
    Entry, Moment, Number, Origin, Result as Answer, Scope, Select, SetOptions, State, Transaction, Ttl, Undo, View,
    Watch, WatchOptions,
};
use mlua::ffi;
use std::os::raw::c_int;
use std::sync::Arc;
use std::time::Duration;

/// Handles that have the data operations.
pub(crate) enum Target<'c> {
    Scope(&'c Scope),
    Transaction(&'c Transaction),
}

/// Handles that can be read.
pub(crate) enum Source<'c> {
    Scope(&'c Scope),
    Transaction(&'c Transaction),
    View(&'c View),
}

/// The same verb on either kind of handle.
macro_rules! on {
    ($target:expr, $handle:ident => $verb:expr) => {
        match $target {
            $crate::args::Target::Scope($handle) => $verb,
            $crate::args::Target::Transaction($handle) => $verb,
        }
    };
}
pub(crate) use on;

/// The same reading verb on any kind of handle.
macro_rules! read {
    ($source:expr, $handle:ident => $verb:expr) => {
        match $source {
            $crate::args::Source::Scope($handle) => $verb,
            $crate::args::Source::Transaction($handle) => $verb,
            $crate::args::Source::View($handle) => $verb,
        }
    };
}
pub(crate) use read;

impl Source<'_> {
    /// What is known of a key without asking the database.
    #[allow(clippy::option_option)] // whether it is known, and if so, whether it is there
    pub(crate) fn peek(&self, key: &str) -> Answer<Option<Option<Arc<Entry>>>> {
        match self {
            Self::Scope(scope) => scope.peek(key),
            Self::Transaction(transaction) => transaction.peek(key),
            Self::View(_) => Ok(None),
        }
    }
}

impl<'c> Target<'c> {
    /// It can be read as well.
    pub(crate) fn source(&self) -> Source<'c> {
        match self {
            Self::Scope(scope) => Source::Scope(scope),
            Self::Transaction(transaction) => Source::Transaction(transaction),
        }
    }

    pub(crate) fn max_value_bytes(&self) -> usize {
        on!(self, handle => handle.max_value_bytes())
    }
}

/// Who is called.
impl Call {
    /// The handle of a method, for as long as Lua does not run.
    #[inline]
    pub(crate) fn target(&self) -> Result<Target<'_>, Failure> {
        match handle::object(self, 1) {
            Some(Object::State(state)) => Ok(Target::Scope(state)),
            Some(Object::Scope(scope)) => Ok(Target::Scope(scope)),
            Some(Object::Transaction(transaction)) => Ok(Target::Transaction(transaction)),
            _ => Err(self.bad_self("State, Scope or Transaction")),
        }
    }

    /// The handle of a method that only reads, for as long as Lua does not run.
    #[inline]
    pub(crate) fn source(&self) -> Result<Source<'_>, Failure> {
        match handle::object(self, 1) {
            Some(Object::State(state)) => Ok(Source::Scope(state)),
            Some(Object::Scope(scope)) => Ok(Source::Scope(scope)),
            Some(Object::Transaction(transaction)) => Ok(Source::Transaction(transaction)),
            Some(Object::View(view)) => Ok(Source::View(view)),
            _ => Err(self.bad_self("State, Scope, Transaction or View")),
        }
    }

    /// Where a listing comes from.
    pub(crate) fn owner(&self) -> Result<Owner, Failure> {
        Ok(match self.source()? {
            Source::Scope(scope) => Owner::Scope(scope.clone()),
            Source::Transaction(transaction) => Owner::Transaction(transaction.clone()),
            Source::View(view) => Owner::View(view.clone()),
        })
    }

    /// The handle of a method, and the key or name that comes first.
    #[inline]
    pub(crate) fn keyed(&self) -> Result<(Target<'_>, &str), Failure> {
        Ok((self.target()?, self.text(2)?))
    }

    pub(crate) fn own_state(&self) -> Result<State, Failure> {
        match handle::object(self, 1) {
            Some(Object::State(state)) => Ok(state.clone()),
            _ => Err(self.bad_self("State")),
        }
    }

    /// A state or a scope.
    pub(crate) fn own_scope(&self) -> Result<Scope, Failure> {
        match self.target() {
            Ok(Target::Scope(scope)) => Ok(scope.clone()),
            _ => Err(self.bad_self("State or Scope")),
        }
    }

    pub(crate) fn own_transaction(&self) -> Result<Transaction, Failure> {
        match self.target() {
            Ok(Target::Transaction(transaction)) => Ok(transaction.clone()),
            _ => Err(self.bad_self("Transaction")),
        }
    }

    pub(crate) fn own_view(&self) -> Result<View, Failure> {
        match handle::object(self, 1) {
            Some(Object::View(view)) => Ok(view.clone()),
            _ => Err(self.bad_self("View")),
        }
    }

    /// A watch and the scope that it watches.
    pub(crate) fn own_watch(&self) -> Result<(Watch, Scope), Failure> {
        match handle::object(self, 1) {
            Some(Object::Watch(watch, scope)) => Ok((watch.clone(), scope.clone())),
            _ => Err(self.bad_self("Watch")),
        }
    }

    #[cold]
    pub(crate) fn bad_self(&self, expected: &str) -> Failure {
        Failure::invalid(format!(
            "calling '{}' on bad self ({expected} expected, got {}); call it with ':' on a handle that is in use",
            self.name,
            self.given(1)
        ))
    }

    fn given(&self, index: c_int) -> &'static str {
        if self.kind(index) == ffi::LUA_TNONE { "no value" } else { self.kind_name(index) }
    }
}

/// What it is given. Indices count from 1 = self; messages count as Lua does, without self.
impl Call {
    #[cold]
    pub(crate) fn bad_argument(&self, index: c_int, problem: &str) -> Failure {
        let position = if MODULE_FUNCTIONS.contains(&self.name) { index } else { index - 1 };
        Failure::invalid(format!("bad argument #{position} to '{}' ({problem})", self.name))
    }

    #[cold]
    pub(crate) fn expected(&self, index: c_int, what: &str) -> Failure {
        self.bad_argument(index, &format!("{what} expected, got {}", self.given(index)))
    }

    /// A string that is UTF-8.
    #[inline]
    pub(crate) fn text(&self, index: c_int) -> Result<&str, Failure> {
        let bytes = self.bytes(index).ok_or_else(|| self.expected(index, "string"))?;
        std::str::from_utf8(bytes).map_err(|_| self.bad_argument(index, "it is not valid UTF-8"))
    }

    /// A pattern; without one, every key.
    pub(crate) fn pattern(&self, index: c_int) -> Result<&str, Failure> {
        if self.is_missing(index) { Ok("*") } else { self.text(index) }
    }

    pub(crate) fn check_table(&self, index: c_int) -> Result<(), Failure> {
        if self.kind(index) == ffi::LUA_TTABLE { Ok(()) } else { Err(self.expected(index, "table")) }
    }

    /// nil would read as if the key were to be deleted.
    pub(crate) fn check_value(&self, index: c_int) -> Result<(), Failure> {
        if self.is_missing(index) {
            return Err(
                self.bad_argument(index, "nil is not a value; State.null stores a null, and delete removes a key")
            );
        }
        Ok(())
    }

    pub(crate) fn check_function(&self, index: c_int) -> Result<(), Failure> {
        if self.kind(index) == ffi::LUA_TFUNCTION { Ok(()) } else { Err(self.expected(index, "function")) }
    }

    /// A number to add; without one, 1.
    pub(crate) fn addend(&self, index: c_int) -> Result<Number, Failure> {
        if self.is_missing(index) {
            Ok(Number::Int(1))
        } else {
            self.number(index).ok_or_else(|| self.expected(index, "number"))
        }
    }

    /// A number of seconds.
    #[allow(clippy::cast_precision_loss)] // times so far away are all the same
    fn float(&self, index: c_int) -> Option<f64> {
        Some(match self.number(index)? {
            Number::Int(int) => int as f64,
            Number::Float(float) => float,
        })
    }

    /// A time to live in seconds; without one, as the scope says.
    pub(crate) fn ttl(&self, index: c_int) -> Result<Ttl, Failure> {
        if self.is_missing(index) {
            return Ok(Ttl::Default);
        }
        Ok(Ttl::seconds(self.float(index).ok_or_else(|| self.expected(index, "number of seconds"))?)?)
    }

    /// A time to wait in seconds; nothing for as long as it takes.
    pub(crate) fn seconds(&self, index: c_int) -> Result<Option<Duration>, Failure> {
        if self.is_missing(index) {
            return Ok(None);
        }
        let seconds = self.float(index).ok_or_else(|| self.expected(index, "number of seconds"))?;
        if seconds.is_nan() || seconds < 0.0 {
            return Err(self.bad_argument(index, "a number of seconds from 0 up expected"));
        }
        // What is longer than can be counted is as long as it takes.
        Ok(Duration::try_from_secs_f64(seconds).ok())
    }

    /// Calls `take` for every field of an optional table of options; the value is on top.
    fn options(
        &self,
        index: c_int,
        mut take: impl FnMut(&str) -> Option<Result<(), Failure>>,
        known: &str,
    ) -> Result<(), Failure> {
        if self.is_missing(index) {
            return Ok(());
        }
        self.check_table(index)?;
        self.push_nil();
        while self.next(index) {
            let name = self.bytes(-2).and_then(|name| std::str::from_utf8(name).ok());
            let Some(taken) = name.and_then(&mut take) else {
                let name =
                    name.map_or_else(|| format!("of type {}", self.kind_name(-2)), |name| format!("'{name:.40}'"));
                return Err(self.bad_argument(index, &format!("unknown option {name}; it takes {known}")));
            };
            taken?;
            self.pop(1);
        }
        Ok(())
    }

    #[cold]
    fn bad_option(&self, index: c_int, name: &str, expected: &str) -> Failure {
        self.bad_argument(index, &format!("option '{name}': {expected} expected, got {}", self.given(-1)))
    }

    fn whole_option(&self, index: c_int, name: &str) -> Result<u64, Failure> {
        let whole = self.integer(-1).and_then(|n| u64::try_from(n).ok());
        whole.ok_or_else(|| match self.kind(-1) {
            ffi::LUA_TNUMBER => {
                self.bad_argument(index, &format!("option '{name}': a whole number from 0 up expected"))
            }
            _ => self.bad_option(index, name, "whole number"),
        })
    }

    fn text_option(&self, index: c_int, name: &str) -> Result<String, Failure> {
        let bytes = self.bytes(-1).ok_or_else(|| self.bad_option(index, name, "string"))?;
        let text = std::str::from_utf8(bytes)
            .map_err(|_| self.bad_argument(index, &format!("option '{name}' is not valid UTF-8")))?;
        Ok(text.to_owned())
    }

    fn seconds_option(&self, index: c_int, name: &str) -> Result<f64, Failure> {
        self.float(-1).ok_or_else(|| self.bad_option(index, name, "number of seconds"))
    }

    /// `{ttl = seconds}`.
    pub(crate) fn ttl_option(&self, index: c_int) -> Result<Ttl, Failure> {
        let mut ttl = Ttl::Default;
        let mut take = |name: &str| {
            ttl = Ttl::seconds(self.seconds_option(index, name)?)?;
            Ok(())
        };
        self.options(index, |name| (name == "ttl").then(|| take(name)), "ttl")?;
        Ok(ttl)
    }

    /// `{ttl = seconds, if_version = n}`.
    pub(crate) fn set_options(&self, index: c_int) -> Result<SetOptions, Failure> {
        let mut options = SetOptions::default();
        let mut take = |name: &str| {
            match name {
                "ttl" => options.ttl = Ttl::seconds(self.seconds_option(index, name)?)?,
                _ => options.if_version = Some(self.whole_option(index, name)?),
            }
            Ok(())
        };
        self.options(index, |name| matches!(name, "ttl" | "if_version").then(|| take(name)), "ttl, if_version")?;
        Ok(options)
    }

    /// `{if_version = n}`.
    pub(crate) fn if_version(&self, index: c_int) -> Result<Option<u64>, Failure> {
        let mut version = None;
        self.options(
            index,
            |name| (name == "if_version").then(|| self.whole_option(index, name).map(|n| version = Some(n))),
            "if_version",
        )?;
        Ok(version)
    }

    /// `{attempts = n}`.
    pub(crate) fn attempts(&self, index: c_int) -> Result<Option<u32>, Failure> {
        let mut attempts = None;
        let mut take = |name: &str| {
            let n = self.whole_option(index, name).and_then(|n| match u32::try_from(n) {
                Ok(n) if n > 0 => Ok(n),
                _ => Err(self.bad_argument(index, "option 'attempts': 1 or more expected")),
            });
            n.map(|n| attempts = Some(n))
        };
        self.options(index, |name| (name == "attempts").then(|| take(name)), "attempts")?;
        Ok(attempts)
    }

    /// A pattern, or `{pattern = , after = , limit = , reverse = }`.
    pub(crate) fn select(&self, index: c_int) -> Result<Select, Failure> {
        if self.is_missing(index) {
            return Ok(Select::default());
        }
        if self.kind(index) == ffi::LUA_TSTRING {
            return Ok(Select::from(self.text(index)?));
        }
        if self.kind(index) != ffi::LUA_TTABLE {
            return Err(self.expected(index, "string or table"));
        }
        let mut select = Select::default();
        let take = |name: &str| match name {
            "pattern" => Some(self.text_option(index, name).map(|text| select.pattern = Some(text))),
            "after" => Some(self.text_option(index, name).map(|text| select.after = Some(text))),
            "limit" => Some(self.whole_option(index, name).map(|n| select.limit = Some(n))),
            "reverse" => Some(match self.kind(-1) {
                ffi::LUA_TBOOLEAN => {
                    select.reverse = self.boolean(-1);
                    Ok(())
                }
                _ => Err(self.bad_option(index, name, "boolean")),
            }),
            _ => None,
        };
        self.options(index, take, "pattern, after, limit, reverse")?;
        Ok(select)
    }

    /// A pattern, or `{pattern = , since = , name = }`.
    pub(crate) fn watch_options(&self, index: c_int) -> Result<WatchOptions, Failure> {
        if self.kind(index) == ffi::LUA_TSTRING {
            return Ok(WatchOptions::from(self.text(index)?));
        }
        if !self.is_missing(index) && self.kind(index) != ffi::LUA_TTABLE {
            return Err(self.expected(index, "string or table"));
        }
        let mut options = WatchOptions::default();
        let take = |name: &str| match name {
            "pattern" => Some(self.text_option(index, name).map(|text| options.pattern = Some(text))),
            "since" => Some(self.whole_option(index, name).map(|n| options.since = Some(n))),
            "name" => Some(self.text_option(index, name).map(|text| options.name = Some(text))),
            _ => None,
        };
        self.options(index, take, "pattern, since, name")?;
        Ok(options)
    }

    /// `{limit = n}`.
    pub(crate) fn limit(&self, index: c_int) -> Result<Option<usize>, Failure> {
        let mut limit = None;
        // What memory cannot hold is no limit.
        let mut take =
            |name: &str| self.whole_option(index, name).map(|n| limit = Some(usize::try_from(n).unwrap_or(usize::MAX)));
        self.options(index, |name| (name == "limit").then(|| take(name)), "limit")?;
        Ok(limit)
    }

    /// A moment of the past: a version, `{version = }` or `{time = }`.
    pub(crate) fn moment(&self, index: c_int) -> Result<Moment, Failure> {
        match self.kind(index) {
            ffi::LUA_TNUMBER => {
                let version = self.integer(index).and_then(|n| u64::try_from(n).ok());
                let version =
                    version.ok_or_else(|| self.bad_argument(index, "a version is a whole number from 0 up"))?;
                return Ok(Moment::Version(version));
            }
            ffi::LUA_TTABLE => {}
            _ => return Err(self.expected(index, "version or table")),
        }
        let (mut version, mut time) = (None, None);
        let take = |name: &str| match name {
            "version" => Some(self.whole_option(index, name).map(|n| version = Some(Moment::Version(n)))),
            "time" => Some(self.time_option(index, name).map(|ms| time = Some(Moment::TimeMs(ms)))),
            _ => None,
        };
        self.options(index, take, "version, time")?;
        match (version, time) {
            (Some(moment), None) | (None, Some(moment)) => Ok(moment),
            _ => Err(self.bad_argument(index, "a moment is told by version or by time, by one of the two")),
        }
    }

    /// A moment, or now.
    pub(crate) fn moment_or_now(&self, index: c_int) -> Result<Option<Moment>, Failure> {
        if self.is_missing(index) { Ok(None) } else { self.moment(index).map(Some) }
    }

    /// Seconds since the epoch, as `os.time` counts them and entries tell them; here in milliseconds.
    fn time_option(&self, index: c_int, name: &str) -> Result<i64, Failure> {
        let seconds = self.seconds_option(index, name)?;
        if seconds.is_nan() {
            return Err(self.bad_argument(index, &format!("option '{name}': a number of seconds expected")));
        }
        // To the nearest, since a float of seconds can be a little less than the milliseconds that it stands for.
        #[allow(clippy::cast_possible_truncation)] // what is beyond all times stays beyond them
        Ok((seconds * 1000.0).round() as i64)
    }

    /// `{actor = , run = , reason = }`.
    pub(crate) fn origin(&self, index: c_int) -> Result<Origin, Failure> {
        self.check_table(index)?;
        let mut origin = Origin::default();
        let take = |name: &str| {
            let part = match name {
                "actor" => &mut origin.actor,
                "run" => &mut origin.run,
                "reason" => &mut origin.reason,
                _ => return None,
            };
            Some(self.text_option(index, name).map(|text| *part = Some(text)))
        };
        self.options(index, take, "actor, run, reason")?;
        Ok(origin)
    }

    /// `{actor = , run = , since = }`.
    pub(crate) fn undo(&self, index: c_int) -> Result<Undo, Failure> {
        let mut undo = Undo::default();
        let take = |name: &str| match name {
            "actor" => Some(self.text_option(index, name).map(|text| undo.actor = Some(text))),
            "run" => Some(self.text_option(index, name).map(|text| undo.run = Some(text))),
            "since" => Some(self.whole_option(index, name).map(|n| undo.since = n)),
            _ => None,
        };
        self.options(index, take, "actor, run, since")?;
        Ok(undo)
    }
}
