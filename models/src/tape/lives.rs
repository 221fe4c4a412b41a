//! How long tensors that are not kept live, how much of them at once, and which are the largest.

use crate::operation::{Operation, Pass, Temporary};
use crate::units::Bytes;

/// Temporaries of a pass that are reported by name.
const REPORTED: usize = 8;

/// A stretch of time, in operation indices, for which some bytes are alive.
pub(super) struct Life {
    pub(super) name: &'static str,
    pub(super) bytes: u64,
    pub(super) born: usize,
    pub(super) last: usize,
}

/// Most bytes alive at once over `operations` operations.
pub(super) fn peak(lives: &[Life], operations: usize) -> u64 {
    let mut change = vec![(0_u64, 0_u64); operations + 1];
    for life in lives {
        let born = life.born.min(operations);
        let dies = (life.last + 1).min(operations);
        change[born].0 = change[born].0.saturating_add(life.bytes);
        if dies > born {
            change[dies].1 = change[dies].1.saturating_add(life.bytes);
        }
    }
    let mut alive = 0_u64;
    let mut most = 0;
    for (born, died) in change {
        alive = alive.saturating_sub(died).saturating_add(born);
        most = most.max(alive);
    }
    most
}

/// The largest of a pass, in order of birth; of equal ones the first.
pub(super) fn largest(lives: &[Life], pass: Pass, operations: &[Operation]) -> Vec<Temporary> {
    let mut chosen: Vec<usize> = (0..lives.len()).filter(|&index| lives[index].bytes > 0).collect();
    chosen.sort_by_key(|&index| (std::cmp::Reverse(lives[index].bytes), index));
    chosen.truncate(REPORTED);
    chosen.sort_by_key(|&index| (lives[index].born, index));
    chosen.into_iter().map(|index| temporary(&lives[index], pass, operations)).collect()
}

/// All of a pass that take memory, in order of birth.
pub(super) fn all(lives: &[Life], pass: Pass, operations: &[Operation]) -> Vec<Temporary> {
    let mut chosen: Vec<&Life> = lives.iter().filter(|life| life.bytes > 0).collect();
    chosen.sort_by_key(|life| life.born);
    chosen.into_iter().map(|life| temporary(life, pass, operations)).collect()
}

fn temporary(life: &Life, pass: Pass, operations: &[Operation]) -> Temporary {
    let exchange = |at: usize| operations.get(at).is_some_and(Operation::records_streams);
    Temporary {
        name: life.name,
        pass,
        bytes: Bytes(life.bytes),
        born: life.born,
        freed: life.last,
        sent: exchange(life.born) || exchange(life.last),
    }
}
