//! The event queue: what happens next.

use crate::time::SimTime;

/// Children of a place in the heap.
const ARITY: usize = 4;

/// A queue of events in one total order: time, then priority (smaller first), then order of insertion.
///
/// Events of equal time and priority therefore come out first in, first out, and two runs that insert the
/// same events in the same order pop them in the same order.
///
/// `push` and `pop` take O(log n), `peek_time` and `len` O(1). It is a heap of four children a place over one
/// contiguous array, its key packed into 128 bits so that a comparison is two instructions and no branch: half the levels
/// of a binary heap, and the children of a place lie side by side. A calendar
/// queue would be O(1) on evenly spread times but degrades on the bunched ones that synchronous training
/// makes; a pairing heap would allow removal but allocates for every event. There is no removal here:
/// whoever outdates an event recognizes it when it comes out (the links do so by a generation number).
#[derive(Clone, Debug)]
pub struct EventQueue<T> {
    heap: Vec<Entry<T>>,
    pushed: u64,
}

/// Time in the upper 64 bits, priority in the next 8, insertion number in the last 56.
#[derive(Clone, Copy, Debug)]
struct Entry<T> {
    key: u128,
    value: T,
}

impl<T> Entry<T> {
    fn time(&self) -> SimTime {
        SimTime((self.key >> 64) as u64)
    }
}

impl<T: Copy> EventQueue<T> {
    /// An empty queue.
    pub fn new() -> Self {
        Self { heap: Vec::new(), pushed: 0 }
    }

    /// Adds an event.
    #[inline]
    pub fn push(&mut self, time: SimTime, priority: u8, value: T) {
        let order = u64::from(priority) << 56 | self.pushed;
        self.pushed += 1;
        let entry = Entry { key: u128::from(time.0) << 64 | u128::from(order), value };
        self.heap.push(entry);
        self.rise(self.heap.len() - 1, entry);
    }

    /// Removes and returns the first event with its time.
    #[inline]
    pub fn pop(&mut self) -> Option<(SimTime, T)> {
        let last = self.heap.pop()?;
        let Some(&first) = self.heap.first() else { return Some((last.time(), last.value)) };
        let leaf = self.sink();
        self.rise(leaf, last);
        Some((first.time(), first.value))
    }

    /// Moves the smallest children up into the place of the first event, down to a leaf, which is returned: what comes
    /// there was a leaf, and seldom rises far.
    #[inline]
    fn sink(&mut self) -> usize {
        let heap = &mut self.heap[..];
        let mut place = 0;
        loop {
            let first = place * ARITY + 1;
            let smallest = if let Some([a, b, c, d]) = heap.get(first..first + ARITY) {
                let left = usize::from(b.key < a.key);
                let right = 2 + usize::from(d.key < c.key);
                let (least, other) = (a.key.min(b.key), c.key.min(d.key));
                first + if other < least { right } else { left }
            } else {
                let some = heap.iter().enumerate().skip(first).min_by_key(|(_, entry)| entry.key);
                let Some((smallest, _)) = some else { return place };
                smallest
            };
            heap[place] = heap[smallest];
            place = smallest;
        }
    }

    /// Puts an entry at a place or as far above as its key is smaller.
    #[inline]
    fn rise(&mut self, mut place: usize, entry: Entry<T>) {
        let heap = &mut self.heap[..];
        while place > 0 {
            let above = (place - 1) / ARITY;
            let parent = heap[above];
            if parent.key <= entry.key {
                break;
            }
            heap[place] = parent;
            place = above;
        }
        heap[place] = entry;
    }

    /// Time of the first event.
    #[inline]
    pub fn peek_time(&self) -> Option<SimTime> {
        self.heap.first().map(Entry::time)
    }

    /// The events that wait and their times, in no order.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = (SimTime, T)> + '_ {
        self.heap.iter().map(|entry| (entry.time(), entry.value))
    }

    /// Has every event wait so many picoseconds longer, which moves none past the end of time.
    pub(crate) fn put_off(&mut self, picos: u64) {
        for entry in &mut self.heap {
            entry.key += u128::from(picos) << 64;
        }
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

impl<T: Copy> Default for EventQueue<T> {
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
        assert!(!queue.is_empty());
        let order: String = std::iter::from_fn(|| queue.pop()).map(|(_, name)| name).collect();
        assert_eq!(order, "abcdef");
        assert!(queue.is_empty());
    }

    #[test]
    fn order_is_that_of_a_sorted_list_at_every_size() {
        let mut drawn = 1_u64;
        let mut draw = || {
            drawn = drawn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            drawn >> 40
        };
        for size in 0..70 {
            let mut queue = EventQueue::new();
            let mut list = Vec::new();
            for value in 0..size {
                let (time, priority) = (draw() % 20, (draw() % 3) as u8);
                queue.push(SimTime(time), priority, value);
                list.push((time, priority, value));
            }
            // Some leave and come again later, as in play.
            for value in size..2 * size {
                list.sort_unstable();
                let (time, _, first) = list.remove(0);
                assert_eq!(queue.pop(), Some((SimTime(time), first)));
                let (later, priority) = (time + draw() % 20, (draw() % 3) as u8);
                queue.push(SimTime(later), priority, value);
                list.push((later, priority, value));
            }
            list.sort_unstable();
            let popped: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
            assert_eq!(popped, list.iter().map(|it| (SimTime(it.0), it.2)).collect::<Vec<_>>());
        }
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
