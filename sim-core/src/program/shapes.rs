//! Shapes: what records have in common. A program of millions of records has some hundred of them, so that a record is kept
//! as the number of its shape and what it is about.

use std::ops::Range;

use super::Record;
use super::builder::mix;

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
    /// Those of a range.
    pub(crate) fn range(self, range: Range<usize>) -> impl Iterator<Item = Record> + 'a {
        self.kept[range].iter().map(move |kept| self.of(*kept))
    }
}

/// Shapes, each once.
#[derive(Debug, Default)]
pub(super) struct Shapes {
    /// Numbers in the list, plus one, at the place of their hash or at one of the next; 0 where there is none. Their number
    /// is a power of two, and more than a quarter of them are free.
    table: Vec<u32>,
}

impl Shapes {
    /// The kept form of a record, whose shape is added to a list where it is new.
    pub(super) fn keep(&mut self, list: &mut Vec<Record>, record: Record) -> Kept {
        let shape = Record { index: 0, ..record };
        let small = small(&shape);
        let mut place = self.place(&shape);
        while let Some(&number) = self.table.get(place).filter(|number| **number > 0) {
            let other = &list[number as usize - 1];
            if (other.time, other.extra) == (shape.time, shape.extra) && self::small(other) == small {
                return Kept { shape: number - 1, index: record.index };
            }
            place = (place + 1) & (self.table.len() - 1);
        }
        list.push(shape);
        if list.len() * 4 > self.table.len() * 3 {
            self.grow(list);
        } else {
            self.table[place] = list.len() as u32;
        }
        Kept { shape: list.len() as u32 - 1, index: record.index }
    }

    fn grow(&mut self, list: &[Record]) {
        self.table = vec![0; (self.table.len() * 2).max(64)];
        for (number, shape) in (1..).zip(list) {
            let mut place = self.place(shape);
            while self.table[place] > 0 {
                place = (place + 1) & (self.table.len() - 1);
            }
            self.table[place] = number;
        }
    }

    fn place(&self, shape: &Record) -> usize {
        let mixed = mix(mix(u64::from(small(shape)), shape.time), shape.extra);
        (mixed ^ (mixed >> 32)) as usize & self.table.len().saturating_sub(1)
    }
}

/// All of a shape but its times.
#[inline]
fn small(shape: &Record) -> u32 {
    u32::from_le_bytes([shape.kind as u8, shape.stream, shape.class, shape.wait_class])
}
