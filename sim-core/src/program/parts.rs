//! Parts: a program as a list of stretches of records, in which what comes again is the same stretch.

use std::ops::Range;

use super::builder::mix;
use super::numbers::Numbers;
use super::{Inner, Kept, Kind, Record, Records};

/// A stretch of a program's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Part {
    /// Its first record.
    pub(crate) first: u32,
    /// The record behind its last.
    pub(crate) end: u32,
}

impl Part {
    /// The records of a range; their number was checked to be one of 32 bits, or will be.
    pub(super) fn of(range: Range<usize>) -> Self {
        Self { first: range.start as u32, end: range.end as u32 }
    }

    pub(crate) fn range(self) -> Range<usize> {
        self.first as usize..self.end as usize
    }

    pub(crate) fn len(self) -> usize {
        (self.end - self.first) as usize
    }
}

/// A place in a program: a record of a part, which is counted from 1. Later places are larger.
#[inline]
pub(crate) fn place(part: usize, record: usize) -> u64 {
    (part as u64) << 32 | record as u64
}

/// Stretches by what is in them.
#[derive(Debug, Default)]
pub(super) struct Known {
    numbers: Numbers,
    /// With their hashes.
    parts: Vec<(Part, u64)>,
}

impl Known {
    /// The stretch that has the same records as the last ones of a list, from `first` on; if there is one these are taken
    /// off, else they are it from now on.
    pub(super) fn share(&mut self, records: &mut Vec<Kept>, first: usize) -> Part {
        let own = Part::of(first..records.len());
        let hash = hash(&records[own.range()]);
        let same = |number: usize| {
            let (part, other) = self.parts[number];
            other == hash && records[part.range()] == records[own.range()]
        };
        if let Some(known) = self.numbers.find(hash, same) {
            records.truncate(first);
            return self.parts[known as usize].0;
        }
        self.parts.push((own, hash));
        let parts = &self.parts;
        self.numbers.add(parts.len() as u32 - 1, |number| parts[number].1);
        own
    }
}

fn hash(records: &[Kept]) -> u64 {
    let words = records.iter().map(|it| u64::from(it.shape) << 32 | u64::from(it.index));
    let mixed = words.fold(0, mix);
    mixed ^ (mixed >> 32)
}

impl Inner {
    /// Every record once.
    pub(super) fn kept(&self) -> Records<'_> {
        Records { kept: &self.records, shapes: &self.shapes }
    }

    /// All records as they come.
    pub(super) fn in_order(&self) -> impl Iterator<Item = Record> + '_ {
        self.parts.iter().flat_map(|part| self.kept().range(part.range()))
    }

    /// All records as they come, in one stretch, with the numbers of their events.
    pub(super) fn in_full(&self) -> Vec<Record> {
        let mut recorded = 0_u32;
        let numbered = |record: Record| match record.kind {
            Kind::Record => {
                recorded += 1;
                Record { index: recorded - 1, ..record }
            }
            Kind::Wait | Kind::HostWait => Record { index: recorded.wrapping_sub(record.index), ..record },
            _ => record,
        };
        self.in_order().map(numbered).collect()
    }
}

/// Takes the numbers of their events from records in order; the reverse of [`Inner::in_full`].
pub(super) fn without_numbers(records: &mut [Record]) {
    let mut recorded = 0_u32;
    for record in records {
        match record.kind {
            Kind::Record => {
                record.index = 0;
                recorded += 1;
            }
            Kind::Wait | Kind::HostWait => record.index = recorded.wrapping_sub(record.index),
            _ => {}
        }
    }
}
