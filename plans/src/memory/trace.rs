//! What an allocator did, block by block: the stuff of memory timelines.

use std::collections::{BTreeMap, VecDeque};

use steptime_core::allocator::{Block, SnapshotSegment};
use steptime_core::{SimTime, Stream};

use super::replay::Allocator;
use super::{Asked, Moment, Played, RankMemory, Shortage};

/// One thing that an allocator did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockTrace {
    /// Step, from 0.
    pub step: u32,
    /// When the host asked, since the beginning of the step.
    pub at: SimTime,
    /// When the stream gets there.
    pub reached: SimTime,
    /// `alloc`, `free_requested`, `free_completed`, `segment_alloc`, `segment_free`, `segment_map`, `segment_unmap` or
    /// `oom`, PyTorch's words.
    pub action: &'static str,
    /// First byte of the block or segment; of `oom` the bytes that the device has left.
    pub address: u64,
    /// Its bytes.
    pub size: u64,
    /// Bytes that were asked for.
    pub requested: u64,
    /// Stream that it belongs to.
    pub stream: Stream,
    /// The tensor, by its number in the rank's program; none of segments.
    pub tensor: Option<u32>,
    /// Bytes in blocks handed out, and taken from the device, after it.
    pub allocated: u64,
    /// The same taken from the device.
    pub reserved: u64,
}

/// Everything that the allocator of a rank did.
#[derive(Clone, Debug, PartialEq)]
pub struct Traced {
    /// Its peaks.
    pub memory: RankMemory,
    /// What happened, in order.
    pub blocks: Vec<BlockTrace>,
    /// What it holds at the end.
    pub segments: Vec<SnapshotSegment>,
    /// By tensor: its name and its category's number.
    pub tensors: Vec<(String, u8)>,
    /// When the replayed step ends, which may have fewer micro-batches than the job's.
    pub end: SimTime,
}

impl Traced {
    /// When a moment of the replayed step is in one that ends at `step_s`, seconds: those of the second half count from
    /// the end.
    pub fn seconds(&self, at: SimTime, step_s: f64) -> f64 {
        let left = SimTime::from_picos(self.end.picos().saturating_sub(at.picos()));
        let until_end = (at.picos() > self.end.picos() / 2).then_some(left);
        Moment { since_begin: at, until_end }.seconds_of(step_s)
    }
}

/// What an allocator did, and what it holds at the end.
pub(super) type Blocks = (Vec<BlockTrace>, Vec<SnapshotSegment>);

impl Traced {
    pub(super) fn new(played: &Played, stage: usize, memory: RankMemory, (blocks, segments): Blocks) -> Self {
        let lowered = &played.lowered;
        let rank = lowered.ranks.iter().position(|rank| rank.stage == stage).unwrap_or(0);
        let program = &lowered.world.programs()[lowered.world.ranks()[rank].program as usize];
        let tensors = program.tensor_specs().iter();
        let tensors = tensors.map(|spec| (program.label(spec.label).to_owned(), spec.category.0)).collect();
        Self { memory, blocks, segments, tensors, end: played.outcome.end }
    }
}

/// Bytes taken from the device in one piece: their number, their stream, and whether an expandable segment maps them.
type Segment = (u64, Stream, bool);

/// Writes a trace while an allocator is at work.
#[derive(Default)]
pub(super) struct Tracer {
    blocks: Vec<BlockTrace>,
    /// Tensors by the address of their block.
    tensors: BTreeMap<u64, u32>,
    /// By stream: frees that wait for it.
    waiting: BTreeMap<Stream, VecDeque<BlockTrace>>,
    /// Segments by address.
    segments: BTreeMap<u64, Segment>,
    /// Calls of the driver that have been looked at.
    calls: u64,
}

impl Tracer {
    pub(super) fn allocated(
        &mut self,
        allocator: &Allocator,
        (record, reached): (&Asked, SimTime),
        block: &Block,
        step: u32,
    ) {
        let stats = allocator.stats();
        let entry = BlockTrace {
            step,
            at: SimTime::from_picos(record.host),
            reached,
            action: "alloc",
            address: block.address(),
            size: block.size(),
            requested: block.requested(),
            stream: record.stream,
            tensor: Some(record.tensor),
            allocated: stats.allocated,
            reserved: stats.reserved,
        };
        if stats.device_calls != self.calls {
            self.calls = stats.device_calls;
            self.note_segments(allocator, &entry);
        }
        self.tensors.insert(entry.address, record.tensor);
        self.blocks.push(entry);
    }

    /// Segments that came and went before a block could be handed out.
    fn note_segments(&mut self, allocator: &Allocator, entry: &BlockTrace) {
        let snapshot = allocator.snapshot();
        let segment = |it: &SnapshotSegment| (it.address, (it.total_size, it.stream, it.is_expandable));
        let now: BTreeMap<u64, Segment> = snapshot.iter().map(segment).collect();
        let before = std::mem::take(&mut self.segments);
        // They came and went before the block was handed out.
        let allocated = entry.allocated - entry.size;
        let mut push = |whole, part, (address, size, stream, expandable)| {
            let action = if expandable { part } else { whole };
            let (tensor, requested) = (None, size);
            let entry = entry.clone();
            self.blocks.push(BlockTrace {
                action,
                address,
                size,
                requested,
                stream,
                tensor,
                allocated,
                ..entry
            });
        };
        for part in beyond(&before, &now) {
            push("segment_free", "segment_unmap", part);
        }
        for part in beyond(&now, &before) {
            push("segment_alloc", "segment_map", part);
        }
        self.segments = now;
    }

    /// The device has no memory for a request.
    pub(super) fn failed(
        &mut self,
        allocator: &Allocator,
        (record, reached): (&Asked, SimTime),
        shortage: &Shortage,
        step: u32,
    ) {
        let stats = allocator.stats();
        let entry = BlockTrace {
            step,
            at: SimTime::from_picos(record.host),
            reached,
            action: "oom",
            address: shortage.free,
            size: shortage.requested,
            requested: shortage.requested,
            stream: record.stream,
            tensor: Some(record.tensor),
            allocated: stats.allocated,
            reserved: stats.reserved,
        };
        // The cache that was given back in vain.
        let caches = BlockTrace { size: 0, ..entry.clone() };
        self.note_segments(allocator, &caches);
        self.blocks.push(entry);
    }

    /// The host gives a block back, which may have to wait for a stream.
    pub(super) fn freed(
        &mut self,
        block: &Block,
        stream: Stream,
        (step, at, reached): (u32, SimTime, SimTime),
        waits: Option<Stream>,
    ) {
        let last = self.blocks.last();
        let (allocated, reserved) = last.map_or((0, 0), |last| (last.allocated, last.reserved));
        let requested = BlockTrace {
            step,
            at,
            reached,
            action: "free_requested",
            address: block.address(),
            size: block.size(),
            requested: block.requested(),
            stream,
            tensor: self.tensors.remove(&block.address()),
            allocated: allocated.saturating_sub(block.size()),
            reserved,
        };
        let completed = BlockTrace { action: "free_completed", ..requested.clone() };
        self.blocks.push(requested);
        match waits {
            Some(stream) => self.waiting.entry(stream).or_default().push_back(completed),
            None => self.blocks.push(completed),
        }
    }

    /// So many of the frees that wait for a stream are done.
    pub(super) fn passed(&mut self, stream: Stream, count: u64, (step, at): (u32, SimTime)) {
        for _ in 0..count {
            let done = self.waiting.get_mut(&stream).and_then(VecDeque::pop_front);
            let Some(done) = done else { return };
            let last = self.blocks.last();
            let (allocated, reserved) = last.map_or((0, 0), |last| (last.allocated, last.reserved));
            self.blocks.push(BlockTrace { step, at, reached: at, allocated, reserved, ..done });
        }
    }

    pub(super) fn finish(self, allocator: &Allocator) -> Blocks {
        (self.blocks, allocator.snapshot())
    }
}

/// What `these` segments hold and `those` do not: whole segments, or the parts of expandable ones.
fn beyond(these: &BTreeMap<u64, Segment>, those: &BTreeMap<u64, Segment>) -> Vec<(u64, u64, Stream, bool)> {
    let mut parts = Vec::new();
    for (&address, &(size, stream, expandable)) in these {
        if !expandable {
            if those.get(&address) != Some(&(size, stream, expandable)) {
                parts.push((address, size, stream, expandable));
            }
            continue;
        }
        let (mut from, end) = (address, address + size);
        let from_before = those.range(..=address).next_back().map_or(address, |(&at, _)| at);
        for (&at, &(size, ..)) in those.range(from_before..end) {
            if at > from {
                parts.push((from, at - from, stream, expandable));
            }
            from = from.max(at + size);
        }
        if from < end {
            parts.push((from, end - from, stream, expandable));
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expandable_segments_grow_and_shrink_by_parts() {
        let of = |list: &[(u64, u64, bool)]| -> BTreeMap<u64, Segment> {
            list.iter().map(|&(at, size, grows)| (at, (size, Stream(0), grows))).collect()
        };
        let before = of(&[(100, 40, true), (500, 20, false)]);
        let now = of(&[(100, 10, true), (120, 60, true), (700, 20, false)]);
        let part = |at, size, grows| (at, size, Stream(0), grows);
        assert_eq!(beyond(&before, &now), [part(110, 10, true), part(500, 20, false)]);
        assert_eq!(beyond(&now, &before), [part(140, 40, true), part(700, 20, false)]);
        assert_eq!(beyond(&now, &now), []);
    }
}
