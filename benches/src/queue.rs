//! The hold model of event queues: a full queue from which one event leaves for each that comes.
//!
//! Jones 1986, An Empirical Comparison of Priority-Queue and Event-Set Implementations, section 2: fill the
//! queue, then repeat "take the first event and insert it again after a random delay", and time one such hold.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use steptime_core::{EventQueue, SimTime};

/// Delays spread evenly from 0 to 2^24 - 1 ps, the same in every run: the upper bits of a linear
/// congruential generator (Knuth's MMIX constants), which costs a multiplication.
#[derive(Clone, Debug)]
pub struct Delays(u64);

impl Default for Delays {
    fn default() -> Self {
        Self(1)
    }
}

impl Delays {
    /// The next delay in picoseconds.
    #[inline]
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 40
    }
}

/// The heap that comes to mind first: the standard one over (time, priority, sequence number, value).
#[derive(Clone, Debug, Default)]
pub struct BinaryHeapOfKeys {
    heap: BinaryHeap<Reverse<(u64, u8, u64, u64)>>,
    pushed: u64,
}

impl BinaryHeapOfKeys {
    /// Adds an event.
    #[inline]
    pub fn push(&mut self, time: u64, priority: u8, value: u64) {
        self.heap.push(Reverse((time, priority, self.pushed, value)));
        self.pushed += 1;
    }

    /// Removes and returns time and value of the first event.
    #[inline]
    pub fn pop(&mut self) -> Option<(u64, u64)> {
        self.heap.pop().map(|Reverse((time, _, _, value))| (time, value))
    }
}

/// The workspace's queue with `pending` events, each of which has been held once on average, so that the
/// times in it are spread as they stay.
pub fn event_queue(pending: u64, delays: &mut Delays) -> EventQueue<u64> {
    let mut queue = EventQueue::new();
    for value in 0..pending {
        queue.push(SimTime(delays.draw()), 0, value);
    }
    for _ in 0..pending {
        hold_in_event_queue(&mut queue, delays);
    }
    queue
}

/// The same with the standard heap.
pub fn binary_heap(pending: u64, delays: &mut Delays) -> BinaryHeapOfKeys {
    let mut heap = BinaryHeapOfKeys::default();
    for value in 0..pending {
        heap.push(delays.draw(), 0, value);
    }
    for _ in 0..pending {
        hold_in_binary_heap(&mut heap, delays);
    }
    heap
}

/// One hold: the first event leaves and comes again later. Returns its time and value; `None` from an empty
/// queue.
#[inline]
pub fn hold_in_event_queue(queue: &mut EventQueue<u64>, delays: &mut Delays) -> Option<(u64, u64)> {
    let (SimTime(now), value) = queue.pop()?;
    queue.push(SimTime(now + delays.draw()), 0, value);
    Some((now, value))
}

/// The same with the standard heap.
#[inline]
pub fn hold_in_binary_heap(heap: &mut BinaryHeapOfKeys, delays: &mut Delays) -> Option<(u64, u64)> {
    let (now, value) = heap.pop()?;
    heap.push(now + delays.draw(), 0, value);
    Some((now, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_queues_hold_the_same_events() {
        let (mut left, mut right) = (Delays::default(), Delays::default());
        let (mut queue, mut heap) = (event_queue(100, &mut left), binary_heap(100, &mut right));
        for _ in 0..1_000 {
            let held = hold_in_event_queue(&mut queue, &mut left);
            assert!(held.is_some());
            assert_eq!(held, hold_in_binary_heap(&mut heap, &mut right));
        }
        assert_eq!(queue.len(), 100);
    }
}
