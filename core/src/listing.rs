//! Keys and items in order, page by page over one snapshot. Nothing is held between pages, so a slow reader costs nobody
//! anything, and what is written meanwhile is not seen.

use crate::engine::{Head, Range, ScopeId};
use crate::key::Pattern;
use crate::session::Session;
use crate::store::Store;
use crate::store::snapshot::{AsOf, Page};
use crate::transaction::too_old;
use crate::{Entry, Result, limits};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// Which keys, from where on, how many, in which direction. The default is all of them.
///
/// ```
/// # use llmspell_state_persistence::{Select, State};
/// # let state = State::in_memory()?;
/// # for n in 0..5 { state.set(&format!("n{n}"), n)?; }
/// let last_two = Select { limit: Some(2), reverse: true, ..Select::from("n*") };
/// let keys: Vec<String> = state.keys(last_two)?.collect::<Result<_, _>>()?;
/// assert_eq!(keys, ["n4", "n3"]);
/// # Ok::<(), llmspell_state_persistence::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Select {
    /// A glob that keys must match; see [`Pattern`].
    pub pattern: Option<String>,
    /// Only keys after this one in the direction of the listing; it need not exist.
    pub after: Option<String>,
    /// At most so many.
    pub limit: Option<u64>,
    /// From the last key to the first.
    pub reverse: bool,
}

impl From<&str> for Select {
    fn from(pattern: &str) -> Self {
        Self { pattern: Some(pattern.to_owned()), ..Self::default() }
    }
}

/// Uncommitted writes of a transaction in one scope; `None` is a deletion.
pub(crate) type Overlay = BTreeMap<Box<str>, Option<Arc<Entry>>>;

/// What is listed: a scope as of a snapshot, with a transaction's own writes on top.
#[derive(Debug)]
pub(crate) struct Listed {
    session: Arc<Session>,
    scope: ScopeId,
    /// Taken at the first page if it is not given.
    at: Option<Head>,
    /// When keys expire: as the time passes, unless it is given.
    clock_ms: Option<i64>,
    overlay: Overlay,
    /// Told when something that is listed expires.
    soonest: Option<Arc<Soonest>>,
}

/// The earliest time at which something that a transaction has read expires.
#[derive(Debug)]
pub(crate) struct Soonest(AtomicI64);

impl Default for Soonest {
    fn default() -> Self {
        Self(AtomicI64::new(i64::MAX))
    }
}

impl Soonest {
    pub(crate) fn note(&self, expires_ms: Option<i64>) {
        if let Some(time_ms) = expires_ms {
            self.0.fetch_min(time_ms, Ordering::Relaxed);
        }
    }

    pub(crate) fn get(&self) -> Option<i64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|time_ms| *time_ms != i64::MAX)
    }
}

impl Listed {
    pub(crate) fn of_scope(session: &Arc<Session>, scope: ScopeId) -> Result<Self> {
        session.store()?;
        let session = Arc::clone(session);
        Ok(Self { session, scope, at: None, clock_ms: None, overlay: Overlay::new(), soonest: None })
    }

    pub(crate) fn of_transaction(
        session: &Arc<Session>,
        scope: ScopeId,
        at: Head,
        overlay: Overlay,
        soonest: &Arc<Soonest>,
    ) -> Self {
        let (session, soonest) = (Arc::clone(session), Some(Arc::clone(soonest)));
        Self { session, scope, at: Some(at), clock_ms: None, overlay, soonest }
    }

    pub(crate) fn of_view(session: &Arc<Session>, scope: ScopeId, head: Head, clock_ms: i64) -> Self {
        let (at, clock_ms) = (Some(head), Some(clock_ms));
        Self { session: Arc::clone(session), scope, at, clock_ms, overlay: Overlay::new(), soonest: None }
    }
}

/// What a listing fetches with every key.
trait Fetch: Sized {
    fn page(store: &Store, range: &Range, pattern: &Pattern, at: AsOf, rows: usize) -> Result<Page<Self>>;
    fn of(entry: &Arc<Entry>) -> Self;
}

impl Fetch for () {
    fn page(store: &Store, range: &Range, pattern: &Pattern, at: AsOf, rows: usize) -> Result<Page<Self>> {
        store.keys(range, pattern, at, rows)
    }

    fn of(_: &Arc<Entry>) -> Self {}
}

impl Fetch for Arc<Entry> {
    fn page(store: &Store, range: &Range, pattern: &Pattern, at: AsOf, rows: usize) -> Result<Page<Self>> {
        store.items(range, pattern, at, rows)
    }

    fn of(entry: &Arc<Entry>) -> Self {
        Arc::clone(entry)
    }
}

/// A listing under way.
#[derive(Debug)]
struct Pager<T> {
    listed: Listed,
    pattern: Pattern,
    /// What is still to come.
    range: Range,
    left: u64,
    /// Size of the next page.
    rows: usize,
    buffer: VecDeque<(Box<str>, T)>,
    /// Everything is in the buffer, or something failed.
    done: bool,
}

impl<T: Fetch> Pager<T> {
    fn new(mut listed: Listed, select: Select) -> Result<Self> {
        let pattern = select.pattern.as_deref().map_or_else(|| Ok(Pattern::all()), Pattern::parse)?;
        let Select { after, limit, reverse, .. } = select;
        let (mut from, mut to) = (pattern.prefix().to_owned(), pattern.upper_bound());
        match after {
            // Control characters are not allowed in keys, so no key lies between.
            Some(after) if !reverse => from = from.max(after + "\0"),
            Some(after) => to = Some(to.map_or_else(|| after.clone(), |to| to.min(after.clone()))),
            None => {}
        }
        let range = Range { scope: listed.scope, from, to, reverse };
        listed.overlay.retain(|key, _| pattern.matches(key) && is_within(&range, key));
        Ok(Self {
            listed,
            pattern,
            range,
            left: limit.unwrap_or(u64::MAX),
            rows: limits::PAGE,
            buffer: VecDeque::new(),
            done: false,
        })
    }

    fn is_buffered(&self) -> bool {
        self.left == 0 || self.done || !self.buffer.is_empty()
    }

    fn next(&mut self) -> Option<Result<(Box<str>, T)>> {
        if self.left == 0 {
            return None;
        }
        if let Err(error) = self.fill() {
            return Some(Err(error));
        }
        self.left -= 1;
        self.buffer.pop_front().map(Ok)
    }

    /// Fetches a page unless there is one, or nothing more to come. After an error the listing ends.
    fn fill(&mut self) -> Result<()> {
        if let Err(error) = self.listed.session.store() {
            self.left = 0;
            return Err(error);
        }
        while !self.is_buffered() {
            if let Err(error) = self.fetch() {
                self.done = true;
                return Err(error);
            }
        }
        Ok(())
    }

    fn fetch(&mut self) -> Result<()> {
        let store = self.listed.session.store()?;
        let at = match self.listed.at {
            Some(at) => at,
            None => *self.listed.at.insert(store.head()?),
        };
        let rows = self.rows.min(usize::try_from(self.left).unwrap_or(usize::MAX));
        // Who reads on is likely to read to the end.
        self.rows = limits::LONG_PAGE;
        let at = AsOf { seq: at.seq, clock_ms: self.listed.clock_ms.unwrap_or_else(|| store.clock_ms()) };
        let page = T::page(store, &self.range, &self.pattern, at, rows);
        let page = match &self.listed.soonest {
            None => page?,
            Some(soonest) => {
                let page = page.map_err(too_old)?;
                soonest.note(page.expires_ms);
                page
            }
        };
        self.done = page.last;
        let reach = page.rows.last().filter(|_| !page.last).map(|(key, _)| key.clone());
        let own = self.own_writes_up_to(reach.as_deref());
        self.buffer = merge(page.rows, own, self.range.reverse);
        match reach {
            Some(reach) if self.range.reverse => self.range.to = Some(reach.into()),
            Some(reach) => self.range.from = reach.into_string() + "\0",
            None => {}
        }
        Ok(())
    }

    /// Takes the transaction's own writes that belong before the end of a page; all that are left after the last page.
    fn own_writes_up_to(&mut self, reach: Option<&str>) -> Overlay {
        let overlay = &mut self.listed.overlay;
        match reach {
            None => std::mem::take(overlay),
            Some(reach) if self.range.reverse => overlay.split_off(reach),
            Some(reach) => {
                let later = overlay.split_off(&*format!("{reach}\0"));
                std::mem::replace(overlay, later)
            }
        }
    }
}

fn is_within(range: &Range, key: &str) -> bool {
    *key >= *range.from && range.to.as_deref().is_none_or(|to| key < to)
}

/// A page with a transaction's own writes on top, in order.
fn merge<T: Fetch>(rows: Vec<(Box<str>, T)>, own: Overlay, reverse: bool) -> VecDeque<(Box<str>, T)> {
    if own.is_empty() {
        return rows.into();
    }
    let mut merged: BTreeMap<Box<str>, T> = rows.into_iter().collect();
    for (key, entry) in own {
        match entry {
            Some(entry) => merged.insert(key, T::of(&entry)),
            None => merged.remove(&key),
        };
    }
    if reverse { merged.into_iter().rev().collect() } else { merged.into_iter().collect() }
}

/// Keys in order; made by [`Scope::keys`](crate::Scope::keys). After an error it ends.
#[derive(Debug)]
pub struct Keys(Pager<()>);

/// Keys with their entries in order; made by [`Scope::items`](crate::Scope::items). After an error it ends.
#[derive(Debug)]
pub struct Items(Pager<Arc<Entry>>);

impl Keys {
    pub(crate) fn new(listed: Listed, select: Select) -> Result<Self> {
        Pager::new(listed, select).map(Self)
    }

    /// Whether the next step needs no input or output.
    pub fn is_buffered(&self) -> bool {
        self.0.is_buffered()
    }

    /// Does the input that the next step needs.
    ///
    /// # Errors
    /// What the next step would fail with; the listing ends then.
    pub fn fill(&mut self) -> Result<()> {
        self.0.fill()
    }
}

impl Items {
    pub(crate) fn new(listed: Listed, select: Select) -> Result<Self> {
        Pager::new(listed, select).map(Self)
    }

    /// Whether the next step needs no input or output.
    pub fn is_buffered(&self) -> bool {
        self.0.is_buffered()
    }

    /// Does the input that the next step needs.
    ///
    /// # Errors
    /// What the next step would fail with; the listing ends then.
    pub fn fill(&mut self) -> Result<()> {
        self.0.fill()
    }
}

impl Iterator for Keys {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.0.next()?.map(|(key, ())| key.into()))
    }
}

impl Iterator for Items {
    type Item = Result<(String, Arc<Entry>)>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.0.next()?.map(|(key, entry)| (key.into(), entry)))
    }
}
