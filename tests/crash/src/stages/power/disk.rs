//! What a disk may hold after a power cut: of everything that was not synced any part, in any order, torn.

use crate::vfs::record::{Kind, Step};
use std::collections::BTreeMap;

/// What a disk writes as a whole, in bytes.
const SECTOR: usize = 512;

/// The files that a power cut has left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Image(pub(super) BTreeMap<u8, Vec<u8>>);

impl Image {
    pub(super) fn file(&self, kind: Kind) -> Option<&Vec<u8>> {
        self.0.get(&(kind as u8))
    }

    pub(super) fn kinds(&self) -> impl Iterator<Item = Kind> + '_ {
        Kind::ALL.into_iter().filter(|kind| self.file(*kind).is_some())
    }
}

/// How much of what was not synced has reached the disk.
#[derive(Debug, Clone, Copy)]
pub(super) enum Survival {
    /// Nothing.
    Nothing,
    /// Everything.
    Everything,
    /// The first of them, the last one torn.
    Prefix,
    /// Each with this probability in percent, in any order, some torn, sizes as they were in between.
    Subset(u8),
}

impl Survival {
    pub(super) fn random(random: &mut fastrand::Rng) -> Self {
        match random.u8(..10) {
            0 => Self::Nothing,
            1 => Self::Everything,
            2 | 3 => Self::Prefix,
            4 | 5 => Self::Subset(15),
            6 | 7 => Self::Subset(50),
            _ => Self::Subset(85),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Pending<'t> {
    Write { offset: usize, bytes: &'t [u8] },
    Size(usize),
}

impl Pending<'_> {
    /// The size of the file that the operation leads to, at least.
    fn end(&self) -> usize {
        match self {
            Self::Write { offset, bytes } => offset + bytes.len(),
            Self::Size(size) => *size,
        }
    }
}

#[derive(Debug, Clone, Default)]
struct File<'t> {
    synced: Vec<u8>,
    pending: Vec<Pending<'t>>,
}

/// Names point to files by number; nothing is a name that does not exist.
type Names = [Option<usize>; 4];

/// A disk and what the system still has to write to it.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk<'t> {
    files: Vec<File<'t>>,
    names: Names,
    synced_names: Names,
    pending_names: Vec<(Kind, Option<usize>)>,
}

fn place(number: u64) -> usize {
    usize::try_from(number).expect("files of tests fit into memory")
}

impl<'t> Disk<'t> {
    /// A disk that holds an image and nothing else.
    pub(super) fn of(image: &Image) -> Self {
        let mut disk = Self::default();
        for kind in image.kinds() {
            disk.names[kind as usize] = Some(disk.files.len());
            let synced = image.file(kind).cloned().unwrap_or_default();
            disk.files.push(File { synced, pending: Vec::new() });
        }
        disk.synced_names = disk.names;
        disk
    }

    /// Does a step.
    pub(super) fn step(&mut self, step: &'t Step) {
        match step {
            Step::Make(kind) => {
                self.names[*kind as usize] = Some(self.files.len());
                self.pending_names.push((*kind, Some(self.files.len())));
                self.files.push(File::default());
            }
            Step::Write { kind, offset, bytes } => self.add(*kind, Pending::Write { offset: place(*offset), bytes }),
            Step::Size { kind, size } => self.add(*kind, Pending::Size(place(*size))),
            Step::Sync { kind, directory } => {
                if let Some(number) = self.names[*kind as usize] {
                    let file = &mut self.files[number];
                    for pending in std::mem::take(&mut file.pending) {
                        apply(&mut file.synced, pending);
                    }
                }
                if *directory {
                    self.sync_names();
                }
            }
            Step::Delete { kind, sync_directory } => {
                self.names[*kind as usize] = None;
                self.pending_names.push((*kind, None));
                if *sync_directory {
                    self.sync_names();
                }
            }
            Step::Acknowledged { .. } => {}
        }
    }

    fn add(&mut self, kind: Kind, pending: Pending<'t>) {
        if let Some(number) = self.names[kind as usize] {
            self.files[number].pending.push(pending);
        }
    }

    fn sync_names(&mut self) {
        self.synced_names = self.names;
        self.pending_names.clear();
    }

    /// Why a power cut could take back what was done to these files; nothing when it could not.
    pub(super) fn unsynced(&self, kinds: &[Kind]) -> Option<String> {
        for kind in kinds {
            let number = self.names[*kind as usize];
            if number != self.synced_names[*kind as usize] {
                return Some(format!("the name of the {kind:?} is not synced"));
            }
            let pending = number.map_or(0, |number| self.files[number].pending.len());
            if pending > 0 {
                return Some(format!("{pending} operations on the {kind:?} are not synced"));
            }
        }
        None
    }

    /// The power is cut.
    pub(super) fn cut(&self, survival: Survival, random: &mut fastrand::Rng) -> Image {
        // Nobody syncs the mark: mostly it is as advanced as it can be, which asks most of everything else.
        let mark = if random.bool() { Survival::Everything } else { survival };
        let files = Kind::ALL.into_iter().filter_map(|kind| {
            let survival = if kind == Kind::Mark { mark } else { survival };
            let number = self.cut_name(kind, survival, random)?;
            Some((kind as u8, self.files[number].cut(survival, random)))
        });
        Image(files.collect())
    }

    /// The file that a name leads to after the cut.
    fn cut_name(&self, kind: Kind, survival: Survival, random: &mut fastrand::Rng) -> Option<usize> {
        let changes = self.pending_names.iter().filter(|(changed, _)| *changed == kind);
        let most = changes.clone().count();
        let kept = match survival {
            Survival::Nothing => 0,
            Survival::Everything => most,
            Survival::Prefix | Survival::Subset(_) => random.usize(..=most),
        };
        changes.take(kept).last().map_or(self.synced_names[kind as usize], |(_, file)| *file)
    }
}

impl File<'_> {
    fn cut(&self, survival: Survival, random: &mut fastrand::Rng) -> Vec<u8> {
        let mut bytes = self.synced.clone();
        match survival {
            Survival::Nothing => {}
            Survival::Everything => {
                for pending in &self.pending {
                    apply(&mut bytes, *pending);
                }
            }
            Survival::Prefix => {
                let kept = random.usize(..=self.pending.len());
                for (number, pending) in self.pending[..kept].iter().enumerate() {
                    if number + 1 == kept {
                        tear(&mut bytes, *pending, random);
                    } else {
                        apply(&mut bytes, *pending);
                    }
                }
            }
            Survival::Subset(percent) => {
                let mut kept: Vec<_> = self.pending.iter().filter(|_| random.u8(..100) < percent).collect();
                if random.bool() {
                    random.shuffle(&mut kept);
                }
                for pending in kept {
                    if random.u8(..4) == 0 {
                        tear(&mut bytes, *pending, random);
                    } else {
                        apply(&mut bytes, *pending);
                    }
                }
                self.resize(&mut bytes, random);
            }
        }
        bytes
    }

    /// Gives the file one of the sizes that it has had since it was synced, or one in between.
    fn resize(&self, bytes: &mut Vec<u8>, random: &mut fastrand::Rng) {
        if self.pending.is_empty() || random.u8(..3) != 0 {
            return;
        }
        let (mut size, mut sizes) = (self.synced.len(), vec![self.synced.len()]);
        for pending in &self.pending {
            size = match pending {
                Pending::Write { .. } => size.max(pending.end()),
                Pending::Size(size) => *size,
            };
            sizes.push(size);
        }
        let mut size = sizes[random.usize(..sizes.len())];
        if size > self.synced.len() && random.bool() {
            size -= random.usize(..=(size - self.synced.len()) / SECTOR) * SECTOR;
        }
        let before = bytes.len();
        bytes.resize(size, 0);
        // A file system may lengthen a file before it writes what belongs there, and show what was there once.
        if size > before && random.u8(..4) == 0 {
            random.fill(&mut bytes[before..]);
        }
    }
}

fn apply(bytes: &mut Vec<u8>, pending: Pending<'_>) {
    match pending {
        Pending::Size(size) => bytes.resize(size, 0),
        Pending::Write { offset, bytes: new } => write(bytes, offset, new),
    }
}

fn write(bytes: &mut Vec<u8>, offset: usize, new: &[u8]) {
    if bytes.len() < offset + new.len() {
        bytes.resize(offset + new.len(), 0);
    }
    bytes[offset..offset + new.len()].copy_from_slice(new);
}

/// Writes a part: some sectors, or one run of bytes. Within a sector, a disk writes from one end towards the other:
/// SQLite relies on that where it wipes the header of a rollback journal
/// (<https://sqlite.org/atomiccommit.html>, "Hardware Assumptions").
fn tear(bytes: &mut Vec<u8>, pending: Pending<'_>, random: &mut fastrand::Rng) {
    let Pending::Write { offset, bytes: new } = pending else {
        return apply(bytes, pending);
    };
    if random.bool() {
        let (one, other) = (random.usize(..=new.len()), random.usize(..=new.len()));
        let (from, to) = match random.u8(..3) {
            0 => (one, new.len()),
            1 if (offset + one) / SECTOR < (offset + other) / SECTOR => (one, other),
            _ => (0, other),
        };
        if from < to {
            write(bytes, offset + from, &new[from..to]);
        }
        return;
    }
    let mut from = 0;
    while from < new.len() {
        let to = new.len().min(from + SECTOR - (offset + from) % SECTOR);
        if random.bool() {
            write(bytes, offset + from, &new[from..to]);
        }
        from = to;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_step(byte: u8) -> Step {
        Step::Write { kind: Kind::Log, offset: 0, bytes: vec![byte; 2 * SECTOR] }
    }

    #[test]
    fn what_is_synced_survives_every_cut_and_what_is_not_may_survive_in_part() {
        let steps = [
            Step::Make(Kind::Log),
            write_step(1),
            Step::Sync { kind: Kind::Log, directory: true },
            write_step(2),
            Step::Size { kind: Kind::Log, size: 0 },
        ];
        let mut disk = Disk::default();
        for step in &steps[..3] {
            disk.step(step);
        }
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..100 {
            let image = disk.cut(Survival::random(&mut random), &mut random);
            assert_eq!(image.file(Kind::Log), Some(&vec![1; 2 * SECTOR]));
        }
        disk.step(&steps[3]);
        disk.step(&steps[4]);
        assert!(disk.unsynced(&[Kind::Log]).is_some_and(|why| why.starts_with('2')));
        let (mut sizes, mut torn) = (std::collections::HashSet::new(), false);
        for _ in 0..300 {
            let image = disk.cut(Survival::random(&mut random), &mut random);
            let bytes = image.file(Kind::Log).expect("its name is synced");
            sizes.insert(bytes.len());
            torn |= bytes.contains(&1) && bytes.contains(&2);
        }
        assert!(torn && sizes.contains(&0) && sizes.contains(&(2 * SECTOR)), "{sizes:?}");
    }

    #[test]
    fn a_name_without_a_sync_of_its_directory_may_be_missing() {
        let steps = [Step::Make(Kind::Log), write_step(1), Step::Sync { kind: Kind::Log, directory: false }];
        let mut disk = Disk::default();
        for step in &steps {
            disk.step(step);
        }
        assert!(disk.unsynced(&[Kind::Log]).is_some_and(|why| why.contains("name")));
        let mut random = fastrand::Rng::with_seed(1);
        assert_eq!(disk.cut(Survival::Nothing, &mut random), Image::default());
        assert!(disk.cut(Survival::Everything, &mut random).file(Kind::Log).is_some());
    }

    #[test]
    fn within_a_sector_a_write_is_torn_from_one_end() {
        let steps = [
            Step::Make(Kind::Journal),
            Step::Write { kind: Kind::Journal, offset: 100, bytes: vec![1; 28] },
            Step::Sync { kind: Kind::Journal, directory: true },
            Step::Write { kind: Kind::Journal, offset: 100, bytes: vec![2; 28] },
        ];
        let mut disk = Disk::default();
        for step in &steps {
            disk.step(step);
        }
        let mut random = fastrand::Rng::with_seed(1);
        let mut torn = 0;
        for _ in 0..300 {
            let image = disk.cut(Survival::Prefix, &mut random);
            let bytes = image.file(Kind::Journal).expect("its name is synced");
            let changes = bytes[100..].windows(2).filter(|pair| pair[0] != pair[1]).count();
            assert!(changes <= 1, "{:?}", &bytes[100..]);
            torn += changes;
        }
        assert!(torn > 0);
    }
}
