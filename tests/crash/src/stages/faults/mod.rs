//! I/O errors: every operation of the public interface with every operation on a file failing in turn.

mod case;
mod content;
mod operations;
mod template;

use self::case::{Case, Expected};
use self::operations::Past;
use self::template::{Setting, Template};
use crate::vfs::fault::{Fault, Kind, Times};
use crate::{Context, Failure, Outcome, Size, Stage};
use llmspell_state_persistence::harness;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Every fault point, or a sample of them.
pub(super) const FAULTS: Stage = Stage {
    name: "faults",
    what: "Every file operation of every call fails, once, from then on, and with the whole disk: told as failed is not there, \
           told as done survives a kill and a power cut, and the store goes on",
    long: 1_000_000,
    run,
};

/// Operations of the small size, and the fault points of each.
const SAMPLE: (usize, usize) = (160, 4);
/// Failures after which a run ends.
const FAILURES: usize = 20;
/// An operation takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// A fault point: an operation under a setting, and what fails.
#[derive(Clone, Copy)]
struct Point {
    case: usize,
    fault: Fault,
}

fn run(context: &Context) -> Result<Outcome, Failure> {
    harness::use_one_thread(true);
    harness::set_clock(template::CLOCK_MS);
    let mut outcome = Outcome::default();
    let (mut templates, dir) = (Vec::new(), context.fast_dir.join("template"));
    for setting in Setting::ALL {
        for past in [Past::Nothing, Past::Closed, Past::Killed, Past::Long] {
            std::fs::create_dir_all(&dir)?;
            templates.push((setting, past, Template::make(setting, past, &dir)?));
            std::fs::remove_dir_all(&dir)?;
        }
    }
    let mut all = Vec::new();
    for (setting, past, template) in &templates {
        let operations = operations::ALL.iter().filter(|operation| operation.past == *past);
        all.extend(operations.map(|operation| Case { setting: *setting, operation, template }));
    }
    if let Some(only) = &context.only {
        all.retain(|case| only.starts_with(&format!("{}:", name(case))));
    } else if context.size == Size::Small {
        // Operations rather than points are drawn: those with few points get their turn, too.
        context.random(0).shuffle(&mut all);
        all.truncate(SAMPLE.0);
    }
    let mut cases: Vec<(Case<'_>, Expected)> = Vec::new();
    for case in all {
        let expected =
            case.expect(&dir).map_err(|why| Failure::new(format!("{} without a fault: {why}", name(&case))))?;
        cases.push((case, expected));
    }
    let points = choose(context, &cases);
    let done = Done::default();
    std::thread::scope(|scope| {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        for worker in 0..workers {
            let (cases, points, done) = (&cases, &points, &done);
            let dir = context.fast_dir.join(format!("case{worker}"));
            scope.spawn(move || work(cases, points, done, &dir));
        }
        done.watch(workers);
    });
    let failures = done.failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    if !failures.is_empty() {
        return Err(Failure::new(format!("{} fault points did not hold", failures.len())));
    }
    outcome.count("fault points", done.reached.load(Ordering::Relaxed));
    outcome.count("operations", cases.len() as u64);
    Ok(outcome)
}

fn name(case: &Case<'_>) -> String {
    format!("{}/{}", case.setting.name, case.operation.name)
}

/// The fault points of this run.
fn choose(context: &Context, cases: &[(Case<'_>, Expected)]) -> Vec<Point> {
    let mut points = Vec::new();
    let mut random = context.random(1);
    for (case, (_, expected)) in cases.iter().enumerate() {
        let first = points.len();
        for (kind, count) in &expected.hit.seen {
            for nth in 1..=*count {
                // A named point is no operation: it only tells when the disk dies.
                let times = Times::ALL.into_iter().filter(|times| *kind != Kind::Point || *times == Times::Dead);
                points.extend(times.map(|times| Point { case, fault: Fault { kind: *kind, nth, times } }));
            }
        }
        if context.size == Size::Small && context.only.is_none() {
            // A sync that fails on a disk that then is dead is where most promises can be broken.
            let is_key = |point: &Point| point.fault.kind == Kind::Sync && point.fault.times == Times::Dead;
            random.shuffle(&mut points[first..]);
            points[first..].sort_by_key(|point| !is_key(point));
            let keys = points[first..].iter().filter(|point| is_key(point)).count();
            points.truncate(first + keys + SAMPLE.1);
        }
    }
    if let Some(only) = &context.only {
        // One point, or all of one operation: `shared/fork:`.
        points
            .retain(|point| only.ends_with(':') || *only == format!("{}:{}", name(&cases[point.case].0), point.fault));
    }
    points
}

/// What all workers have done.
#[derive(Default)]
struct Done {
    next: AtomicUsize,
    reached: AtomicU64,
    ended: AtomicUsize,
    failures: Mutex<Vec<String>>,
    /// What each worker is at, and since when.
    at: Mutex<BTreeMap<std::path::PathBuf, (String, Instant)>>,
}

impl Done {
    /// Waits for the workers, and gives up on one that hangs: only ending the process ends that.
    fn watch(&self, workers: usize) {
        while self.ended.load(Ordering::Acquire) < workers {
            for (part, since) in self.at.lock().unwrap_or_else(PoisonError::into_inner).values() {
                if since.elapsed() > PATIENCE {
                    eprintln!("{part}: it hangs");
                    std::process::exit(1);
                }
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Notes a failure; answers whether it is time to stop.
    fn fail(&self, failure: String) -> bool {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        eprintln!("{failure}");
        failures.push(failure);
        failures.len() >= FAILURES
    }
}

fn work(cases: &[(Case<'_>, Expected)], points: &[Point], done: &Done, dir: &Path) {
    while let Some(point) = points.get(done.next.fetch_add(1, Ordering::Relaxed)) {
        let (case, expected) = &cases[point.case];
        let part = format!("{}:{}", name(case), point.fault);
        let at = (part.clone(), Instant::now());
        done.at.lock().unwrap_or_else(PoisonError::into_inner).insert(dir.to_owned(), at);
        match case.check(expected, point.fault, dir) {
            Ok(reached) => {
                done.reached.fetch_add(u64::from(reached), Ordering::Relaxed);
            }
            Err(why) => {
                if done.fail(format!("part {part}: {why}")) {
                    done.next.store(points.len(), Ordering::Relaxed);
                }
            }
        }
    }
    done.at.lock().unwrap_or_else(PoisonError::into_inner).remove(dir);
    done.ended.fetch_add(1, Ordering::Release);
}
