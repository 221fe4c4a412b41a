//! Blocks that other streams than their own use: they are free once these streams got past their free.
//!
//! PyTorch records an event on each such stream when the block is freed, and asks before every request which
//! events have passed. Here the caller, who knows the time, says so.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::blocks::State;
use super::{Allocator, Block, Counts};
use crate::program::Stream;

/// Streams that use a block, by its index; most blocks have none.
pub(super) type Uses = BTreeMap<u32, BTreeSet<u8>>;

/// The events that frees recorded on a stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Events {
    passed: u64,
    /// Blocks of the events that have not passed, oldest first.
    waiting: VecDeque<u32>,
}

impl<C: Counts> Allocator<C> {
    /// Notes that `stream` uses a block of another stream (`Tensor.record_stream`), so that a free of the block
    /// will wait for what has been issued to `stream` until then.
    pub fn record_stream(&mut self, block: &Block, stream: Stream) {
        if block.size == 0 {
            return;
        }
        let node = self.blocks.get_mut(block.index);
        if node.stream() != stream.0 {
            node.shared = true;
            self.uses.entry(block.index).or_default().insert(stream.0);
        }
    }

    /// How many events frees have recorded on a stream so far. A free that waits for the stream has added one;
    /// it passes when the stream has done all that was issued to it before the free.
    pub fn events_recorded(&self, stream: Stream) -> u64 {
        let events = self.events.get(usize::from(stream.0));
        events.map_or(0, |events| events.passed + events.waiting.len() as u64)
    }

    /// The first `count` events of a stream have passed; blocks that waited for nothing else are cached.
    pub fn events_passed(&mut self, stream: Stream, count: u64) {
        while let Some(events) = self.events.get_mut(usize::from(stream.0))
            && events.passed < count
            && let Some(block) = events.waiting.pop_front()
        {
            events.passed += 1;
            let node = self.blocks.get_mut(block);
            node.events -= 1;
            if node.events == 0 {
                self.recycle(block);
            }
        }
    }

    /// All events of a stream have passed, as after a synchronisation with it.
    pub fn synchronise(&mut self, stream: Stream) {
        self.events_passed(stream, u64::MAX);
    }

    /// All events of all streams have passed.
    pub fn synchronise_all(&mut self) {
        for stream in 0..self.events.len() {
            self.synchronise(Stream(stream as u8));
        }
    }

    /// A freed block waits for an event on each stream that uses it.
    pub(super) fn await_streams(&mut self, block: u32) {
        let streams = self.uses.remove(&block).unwrap_or_default();
        for stream in streams.iter().map(|stream| usize::from(*stream)) {
            if stream >= self.events.len() {
                self.events.resize_with(stream + 1, Events::default);
            }
            self.events[stream].waiting.push_back(block);
        }
        let node = self.blocks.get_mut(block);
        (node.state, node.events, node.shared) = (State::Pending, streams.len() as u32, false);
    }
}
