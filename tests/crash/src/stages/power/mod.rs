//! Power loss, simulated: a writer's every write and sync is recorded, then the power is cut anywhere, and what was
//! not synced reaches the disk in any part, order and tear. Every image must open, and hold every acknowledged commit.

mod check;
mod disk;
mod follow;
mod life;
mod model;
mod operation;
mod workload;
mod writer;

use self::check::{Verdict, check, held};
use self::disk::Image;
use self::life::{KINDS, Life};
use self::model::Model;
use self::operation::Operation;
use self::workload::FLAVOURS;
use crate::hold;
use crate::stage::{Context, Failure, Outcome, Size, Stage};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Cuts of one life.
const CUTS: u64 = 84;
/// Lives of one store: it is cut, and another writer goes on with what is left.
const LIVES: u64 = 2;
/// Cuts of one store, and so parts of a run.
const PARTS: u64 = CUTS * LIVES;

/// Power loss.
pub(super) const POWER: Stage = Stage {
    name: "power",
    what: "power loss through an SQLite VFS: un-synced writes lost, reordered, torn, sizes and names reverted; every \
           acknowledgement after its sync",
    long: 2_000_000,
    run,
};

fn run(context: &Context) -> Result<Outcome, Failure> {
    let only: Option<u64> = context.only.as_deref().map(str::parse).transpose()?;
    let stores = match context.size {
        Size::Small => 12,
        Size::Middle => 600,
    };
    let mut counts = Counts::default();
    let rounds = only.map_or(0..stores, |part| part / PARTS..part / PARTS + 1);
    for number in rounds {
        Round { context, number, only }.run(&mut counts)?;
    }
    hold!(
        only.is_some() || counts.lost.load(Ordering::Relaxed) > 0,
        "with NORMAL no image has lost a commit: this test does not bite"
    );
    // A few lives may miss one.
    let missing = KINDS.iter().zip(counts.kinds).find(|(_, count)| *count == 0);
    let is_few = only.is_some() || matches!(context.size, Size::Small);
    hold!(is_few || missing.is_none(), "what no writer has done: {missing:?}");
    Ok(counts.outcome())
}

#[derive(Default)]
struct Counts {
    images: AtomicU64,
    over: AtomicU64,
    in_flight: AtomicU64,
    lost: AtomicU64,
    orders: u64,
    kinds: [u64; KINDS.len()],
}

impl Counts {
    fn outcome(&self) -> Outcome {
        let mut outcome = Outcome::default();
        let all = [
            ("images", &self.images),
            ("operations that were over and looked for in them", &self.over),
            ("commits in flight that were there", &self.in_flight),
            ("images that had lost commits, with NORMAL only", &self.lost),
        ];
        for (what, count) in all {
            outcome.count(what, count.load(Ordering::Relaxed));
        }
        outcome.count("acknowledgements with FULL after their sync", self.orders);
        KINDS.iter().zip(self.kinds).for_each(|(what, count)| outcome.count(what, count));
        outcome
    }
}

/// One store and its lives.
struct Round<'c> {
    context: &'c Context,
    number: u64,
    only: Option<u64>,
}

impl Round<'_> {
    fn run(&self, counts: &mut Counts) -> Result<(), Failure> {
        let flavour = FLAVOURS[usize::try_from(self.number)? % FLAVOURS.len()];
        let (mut base, mut model) = (Image::default(), Model::new(writer::CLOCK_MS));
        for turn in 0..LIVES {
            let first = self.number * PARTS + turn * CUTS;
            let told = |failure: Failure| {
                let Context { size, seed, .. } = self.context;
                Failure::new(format!("{failure}\nagain: scripts/crash.sh stage power {size} {seed} {first}"))
            };
            let seed = self.context.random(first).u64(..);
            let dir = self.context.fast_dir.join("writer");
            std::fs::create_dir_all(&dir)?;
            let record = || writer::record(&dir, flavour, &base, &model, seed);
            let life = record().map_err(told)?;
            let again = record().map_err(told)?.fingerprint();
            hold!(again == life.fingerprint(), "part {first}: the same seed has led to other operations on files");
            counts.kinds.iter_mut().zip(life.kinds()).for_each(|(sum, count)| *sum += count);
            if flavour.keeps_all() {
                life.check_order().map_err(told)?;
                counts.orders += life.committed();
            }
            match self.only {
                Some(part) if part >= first + CUTS => {}
                Some(part) => return self.cut(&life, part, "replay", counts),
                None => self.cut_all(&life, first, counts)?,
            }
            if turn + 1 < LIVES {
                let last = first + CUTS - 1;
                let cut = life.cut(&mut self.random(last));
                model = held(&self.dir("base")?, flavour, &cut.image, life.clock_ms(&cut))?;
                base = cut.image;
            }
        }
        Ok(())
    }

    fn random(&self, part: u64) -> fastrand::Rng {
        // Apart from the seeds of the lives.
        self.context.random(part + (1 << 40))
    }

    fn dir(&self, name: &str) -> Result<PathBuf, Failure> {
        let dir = self.context.fast_dir.join(name);
        std::fs::create_dir_all(&dir)?;
        Ok(dir)
    }

    fn cut_all(&self, life: &Life, first: u64, counts: &Counts) -> Result<(), Failure> {
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        let (next, stop) = (AtomicU64::new(first), AtomicBool::new(false));
        let failed = Mutex::new(None);
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let (next, stop, failed) = (&next, &stop, &failed);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let part = next.fetch_add(1, Ordering::Relaxed);
                        if part >= first + CUTS {
                            break;
                        }
                        if let Err(failure) = self.cut(life, part, &format!("image{thread}"), counts) {
                            stop.store(true, Ordering::Relaxed);
                            *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
                        }
                    }
                });
            }
        });
        failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    fn cut(&self, life: &Life, part: u64, dir: &str, counts: &Counts) -> Result<(), Failure> {
        let mut random = self.random(part);
        let cut = life.cut(&mut random);
        let Verdict { in_flight, lost } = check(&self.dir(dir)?, life, &cut, &mut random).map_err(|failure| {
            let Context { size, seed, .. } = self.context;
            let story = life.story(&cut);
            Failure::new(format!("{failure}\n{story}\nagain: scripts/crash.sh stage power {size} {seed} {part}"))
        })?;
        counts.images.fetch_add(1, Ordering::Relaxed);
        counts.over.fetch_add(cut.over as u64, Ordering::Relaxed);
        counts.in_flight.fetch_add(in_flight.into(), Ordering::Relaxed);
        counts.lost.fetch_add(lost.into(), Ordering::Relaxed);
        Ok(())
    }
}

/// An operation in few words.
fn tell(operation: &Operation) -> String {
    let text = format!("{operation:?}");
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
