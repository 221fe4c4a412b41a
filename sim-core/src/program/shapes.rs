//! Shapes: what records have in common. A program of millions of records has some hundred of them, so that a record is kept
//! as the number of its shape and what it is about.

use std::ops::Range;

use super::Record;
use super::builder::mix;
use super::numbers::Numbers;

/// A record as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    /// Number of its shape.
    pub(crate) shape: u32,
    /// As [`Record::index`].
    pub(crate) index: u32,
}

/// A list of records.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Records<'a> {
    pub(crate) kept: &'a [Kept],
    /// Records whose index says nothing.
    pub(crate) shapes: &'a [Record],
}

impl Records<'_> {
    /// One of them; the shapes of all that are kept are known.
    #[inline]
    pub(crate) fn of(self, kept: Kept) -> Record {
        Record { index: kept.index, ..self.shapes[kept.shape as usize] }
    }

    /// Shape of one of them.
    #[inline]
    pub(crate) fn shape(&self, place: usize) -> &Record {
        &self.shapes[self.kept[place].shape as usize]
    }

    #[inline]
    pub(crate) fn at(self, place: usize) -> Record {
        self.of(self.kept[place])
    }

    #[inline]
    pub(crate) fn get(self, place: usize) -> Option<Record> {
        self.kept.get(place).map(|kept| self.of(*kept))
    }
}

impl<'a> Records<'a> {
    /// Those of a range, without a copy of them: their shapes, and what they are about.
    #[inline]
    pub(crate) fn shapes_of(self, range: Range<usize>) -> impl Iterator<Item = (&'a Record, u32)> {
        self.kept[range].iter().map(move |kept| (&self.shapes[kept.shape as usize], kept.index))
    }

    /// Those of a range.
    pub(crate) fn range(self, range: Range<usize>) -> impl Iterator<Item = Record> + 'a {
        self.kept[range].iter().map(move |kept| self.of(*kept))
    }
}

/// Shapes from which on it is looked whether records have any in common.
const MANY: usize = 1 << 12;

/// Shapes, each once as far as that is worth the search.
#[derive(Debug, Default)]
pub(super) struct Shapes {
    known: Numbers,
    /// Records whose shape was there.
    found: usize,
}

impl Shapes {
    /// The kept form of a record, whose shape is added to a list where it is new.
    pub(super) fn keep(&mut self, list: &mut Vec<Record>, record: Record) -> Kept {
        // Where hardly two records take the same time, each has a shape of its own.
        let searches = list.len() < MANY || self.found > list.len() / 2;
        let small = small(&record);
        let same = |number: usize| {
            let it = &list[number];
            (it.time, it.extra) == (record.time, record.extra) && self::small(it) == small
        };
        let known = if searches { self.known.find(hash(&record), same) } else { None };
        if let Some(shape) = known {
            self.found += 1;
            return Kept { shape, index: record.index };
        }
        list.push(Record { index: 0, ..record });
        let shape = list.len() as u32 - 1;
        if searches {
            self.known.add(shape, |number| hash(&list[number]));
        }
        Kept { shape, index: record.index }
    }
}

/// Of what is in a shape.
#[inline]
fn hash(record: &Record) -> u64 {
    let mixed = mix(mix(u64::from(small(record)), record.time), record.extra);
    mixed ^ (mixed >> 32)
}

/// All of a shape but its times.
#[inline]
fn small(shape: &Record) -> u32 {
    u32::from_le_bytes([shape.kind as u8, shape.stream, shape.class, shape.wait_class])
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::*;

    fn record(time: u64, index: u32) -> Record {
        Record { kind: Kind::Kernel, stream: 0, class: 1, wait_class: 0, index, time, extra: 3 }
    }

    #[test]
    fn records_come_back_whether_or_not_they_share_shapes() {
        for times in [7, u64::MAX] {
            let (mut shapes, mut list) = (Shapes::default(), Vec::new());
            let all: Vec<Record> = (0..20_000).map(|it| record(it % times, it as u32)).collect();
            let kept: Vec<Kept> = all.iter().map(|it| shapes.keep(&mut list, *it)).collect();
            let records = Records { kept: &kept, shapes: &list };
            assert!(records.range(0..kept.len()).eq(all.iter().copied()));
            assert_eq!(list.len() as u64, times.min(20_000));
        }
    }

    /// Where each comes three times in a row, they share shapes however many there are.
    #[test]
    fn many_shapes_are_each_kept_once_where_that_is_worth_the_search() {
        let (mut shapes, mut list) = (Shapes::default(), Vec::new());
        for number in 0..3 * 10_000 {
            let kept = shapes.keep(&mut list, record(number / 3, 0));
            assert_eq!(u64::from(kept.shape), number / 3);
        }
        assert_eq!(list.len(), 10_000);
    }

    /// Each of what a shape holds tells it from others.
    #[test]
    fn records_that_differ_in_anything_but_what_they_are_about_have_other_shapes() {
        let one = record(5, 1);
        let others = [
            Record { kind: Kind::Rendezvous, ..one },
            Record { stream: 1, ..one },
            Record { class: 2, ..one },
            Record { wait_class: 1, ..one },
            Record { time: 6, ..one },
            Record { extra: 4, ..one },
        ];
        let (mut shapes, mut list) = (Shapes::default(), Vec::new());
        let first = shapes.keep(&mut list, one);
        for (number, other) in (1..).zip(others) {
            assert_eq!(shapes.keep(&mut list, other), Kept { shape: number, index: 1 });
        }
        assert_eq!(shapes.keep(&mut list, Record { index: 9, ..one }), Kept { index: 9, ..first });
    }
}
