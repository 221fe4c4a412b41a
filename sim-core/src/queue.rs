//! The event queue: what happens next.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::time::SimTime;

/// A queue of events in one total order: time, then priority (smaller first), then order of insertion.
///
/// Events of equal time and priority therefore come out first in, first out, and two runs that insert the
/// same events in the same order pop them in the same order.
///
/// `push` and `pop` take O(log n), `peek_time` and `len` O(1). It is a binary heap over one contiguous
/// array, its key packed into 128 bits so that a comparison is two instructions and no branch. A calendar
/// queue would be O(1) on evenly spread times but degrades on the bunched ones that synchronous training
/// makes; a pairing heap would allow removal but allocates for every event. There is no removal here:
/// whoever outdates an event recognizes it when it comes out (the links do so by a generation number).
#[derive(Clone, Debug)]
pub struct EventQueue<T> {
    heap: BinaryHeap<Entry<T>>,
    pushed: u64,
}

/// Time in the upper 64 bits, priority in the next 8, insertion number in the last 56.
#[derive(Clone, Debug)]
struct Entry<T> {
    key: u128,
    value: T,
}

impl<T> Entry<T> {
    fn time(&self) -> SimTime {
        SimTime((self.key >> 64) as u64)
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    /// Reversed: the standard heap gives its greatest element first.
    fn cmp(&self, other: &Self) -> Ordering {
        other.key.cmp(&self.key)
    }
}

impl<T> EventQueue<T> {
    /// An empty queue.
    pub fn new() -> Self {
        Self { heap: BinaryHeap::new(), pushed: 0 }
    }

    /// Adds an event.
    pub fn push(&mut self, time: SimTime, priority: u8, value: T) {
        let order = u64::from(priority) << 56 | self.pushed;
        self.pushed += 1;
        self.heap.push(Entry { key: u128::from(time.0) << 64 | u128::from(order), value });
    }

    /// Removes and returns the first event with its time.
    pub fn pop(&mut self) -> Option<(SimTime, T)> {
        self.heap.pop().map(|entry| (entry.time(), entry.value))
    }

    /// Time of the first event.
    pub fn peek_time(&self) -> Option<SimTime> {
        self.heap.peek().map(Entry::time)
    }

    /// Number of events waiting.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether no event waits.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

impl<T> Default for EventQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_time_then_priority_then_insertion() {
        let mut queue = EventQueue::default();
        for (name, time, priority) in
            [("e", 9, 0), ("c", 5, 1), ("d", 5, 1), ("b", 5, 0), ("a", 0, 255), ("f", u64::MAX, 0)]
        {
            queue.push(SimTime(time), priority, name);
        }
        assert_eq!((queue.len(), queue.peek_time()), (6, Some(SimTime(0))));
        let order: String = std::iter::from_fn(|| queue.pop()).map(|(_, name)| name).collect();
        assert_eq!(order, "abcdef");
        assert!(queue.is_empty());
    }

    #[test]
    fn equal_keys_leave_first_in_first_out_between_pops() {
        let mut queue = EventQueue::new();
        for value in 0..100 {
            queue.push(SimTime(7), 3, value);
        }
        for value in 0..100 {
            assert_eq!(queue.pop(), Some((SimTime(7), value)));
            queue.push(SimTime(7), 3, value + 100);
        }
        assert_eq!(queue.pop(), Some((SimTime(7), 100)));
    }
}
