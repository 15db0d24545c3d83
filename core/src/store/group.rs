//! One commit group: its requests inside one write transaction, and what the cache learns of it.

use super::Store;
use super::apply::{Apply, Published, Rules, Times};
use super::commit::Writer;
use super::request::{Request, Response};
use crate::engine::{Head, SETTINGS};
use crate::harness::{self, sabotaged};
use crate::{Error, ErrorKind, Result, clock, limits};
use std::sync::atomic::Ordering;

/// More rows than this in one group are not put into the cache: they would push out what is read.
const PUBLISHED_ROWS: usize = 1_000;

impl Writer for Store {
    type Request = Request;
    type Answer = Result<Response>;

    fn footprint(request: &Request) -> usize {
        request.footprint()
    }

    /// Each request stands or falls alone.
    fn commit(&self, mut requests: Vec<Request>) -> Vec<Result<Response>> {
        if sabotaged("split-commit")
            && let [request] = &mut *requests
            && request.changes.len() > 1
        {
            let second = request.changes.split_off(request.changes.len() / 2);
            let first = self.commit_all(requests).pop();
            let mut both = self.commit_all(vec![Request { changes: second, ..Request::default() }]);
            if let (Some(Ok(first)), Some(Ok(both))) = (first, both.first_mut()) {
                both.applied.splice(0..0, first.applied);
            }
            return both;
        }
        // On a full disk deletions are tried again, with the space that was kept back for them.
        let deletions: Vec<(usize, Request)> =
            requests.iter().enumerate().filter_map(|(index, request)| Some((index, request.deletion()?))).collect();
        let mut results = self.commit_all(requests);
        for (index, request) in deletions {
            if results[index].as_ref().is_err_and(|error| error.kind() == ErrorKind::DiskFull)
                && let Some(again) = self.commit_all(vec![request]).pop()
            {
                results[index] = again;
            }
        }
        results
    }

    fn lead_elsewhere(&self) -> bool {
        self.lead_in_background()
    }

    fn refused(error: Error) -> Result<Response> {
        Err(error)
    }

    fn is_cancelled(answer: &Result<Response>) -> bool {
        answer.as_ref().is_err_and(|error| error.kind() == ErrorKind::Cancelled)
    }

    fn unknown() -> Result<Response> {
        Err(Error::new(
            ErrorKind::CommitUnknown,
            "the writer failed unexpectedly; read the keys again to know what is stored",
        ))
    }
}

impl Store {
    fn commit_all(&self, requests: Vec<Request>) -> Vec<Result<Response>> {
        let count = requests.len();
        let mut requests = Some(requests);
        let (mut results, mut published) = (Vec::with_capacity(count), Vec::new());
        let (mut start, mut end) = (Head::default(), Head::default());
        let rules = Rules { compress: self.config.enable_compression, max_bytes: self.config.max_value_bytes };
        let committed = self.engine.write(&mut |writes| {
            start = writes.head();
            // The times of the log never go back, whatever the clock does: whoever looks for one finds it.
            let times = Times { now_ms: clock::now_ms().max(writes.last_ms()), clock_ms: self.clock_ms() };
            let settings = self.settings(writes.reads(), start)?;
            for request in requests.take().into_iter().flatten() {
                // Undoing a part costs more than most parts, so only what may fail halfway can be undone alone.
                let guarded = count > 1 && request.may_fail_halfway();
                if guarded {
                    writes.savepoint()?;
                }
                let (before, written) = (published.len(), writes.written());
                let result = Apply::new(writes, rules, &settings, times, &self.cache, &mut published).request(request);
                match &result {
                    Ok(_) if guarded => writes.release()?,
                    Ok(_) => {}
                    Err(error) => {
                        published.truncate(before);
                        if guarded && sabotaged("half-group") {
                            writes.release()?;
                        } else if guarded {
                            // A failing disk makes SQLite undo the whole group; that failure is the one to tell.
                            writes.undo().map_err(|_| error.clone())?;
                        } else if count == 1
                            || writes.written() > written
                            || !writes.is_intact() && !sabotaged("group-goes-on")
                        {
                            return Err(error.clone());
                        }
                    }
                }
                results.push(result);
            }
            end = writes.head();
            Ok(())
        });
        match committed {
            Ok(stamp) => {
                self.tell_sweeper(&published);
                if published.iter().all(|(scope, ..)| *scope != SETTINGS) {
                    self.settings_stay(start, end);
                }
                self.publish(start, end, stamp, published);
                results
            }
            Err(_) if sabotaged("ack-before-commit") && results.len() == count => results,
            Err(error) => {
                if error.kind() == ErrorKind::CommitUnknown {
                    self.distrust();
                }
                (0..count).map(|_| Err(error.clone())).collect()
            }
        }
    }

    /// Tells the sweeper of what was committed.
    fn tell_sweeper(&self, published: &[Published]) {
        let Some(store) = self.me.get().filter(|_| !harness::one_thread()) else { return };
        let times = published.iter().filter_map(|(_, _, entry)| entry.as_ref()?.expires_ms());
        self.sweeper.expect(store, times.min());
        let weight = |(_, _, entry): &Published| {
            let len = entry.as_ref().map_or(0, |entry| entry.document().text().len());
            1 + len / limits::TRIM_BYTES
        };
        if !published.is_empty() {
            self.sweeper.count(store, published.iter().map(weight).sum());
        }
    }

    /// After a commit that may or may not be stored: nothing that was cached counts any more.
    fn distrust(&self) {
        let mut known = self.known();
        // Where this fails too, the next successful read of the log's end starts from the older one.
        let _ = self.engine.read(&mut |reads| {
            *known = reads.head()?;
            Ok(())
        });
        // Afterwards, or a value from before the new end could be taken in in between.
        self.cache.clear();
    }

    /// Tells the cache what was committed. Before anybody is answered: a caller that has its acknowledgement must find its
    /// own write.
    fn publish(&self, start: Head, end: Head, stamp: Option<u64>, published: Vec<Published>) {
        let mut known = self.known();
        // Otherwise the log's end was read meanwhile, and these keys were forgotten, or it is still to be read, and they will be.
        // Telling the cache now could show an older value of the group to somebody who has seen a newer one.
        if known.seq == start.seq {
            let keep = published.len() <= PUBLISHED_ROWS;
            for (scope, key, entry) in published {
                if sabotaged("unpublished") {
                    continue;
                }
                if keep {
                    self.cache.publish(scope, &key, entry);
                } else {
                    self.cache.forget(scope, &key);
                }
            }
            *known = end;
            if let Some(stamp) = stamp {
                self.seen.store(stamp, Ordering::Release);
            }
        }
        drop(known);
        self.pulse.beat(Some(self.stamp()));
        harness::point("write.published");
    }
}
