//! What an allocator did, block by block: the stuff of memory timelines.

use std::collections::{BTreeMap, VecDeque};

use steptime_core::allocator::{Allocator, Block, SnapshotSegment};
use steptime_core::{SimTime, Stream};

use super::{Asked, Played, RankMemory};

/// One thing that an allocator did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockTrace {
    /// Step, from 0.
    pub step: u32,
    /// When the host asked, since the beginning of the step.
    pub at: SimTime,
    /// `alloc`, `free_requested`, `free_completed`, `segment_alloc` or `segment_free`, PyTorch's words.
    pub action: &'static str,
    /// First byte of the block or segment.
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
        Self { memory, blocks, segments, tensors }
    }
}

/// Writes a trace while an allocator is at work.
#[derive(Default)]
pub(super) struct Tracer {
    blocks: Vec<BlockTrace>,
    /// Tensors by the address of their block.
    tensors: BTreeMap<u64, u32>,
    /// By stream: frees that wait for it.
    waiting: BTreeMap<Stream, VecDeque<BlockTrace>>,
    /// Segments by address.
    segments: BTreeMap<u64, (u64, Stream)>,
    /// Calls of the driver that have been looked at.
    calls: u64,
}

impl Tracer {
    pub(super) fn allocated(&mut self, allocator: &Allocator, record: &Asked, block: &Block, step: u32) {
        let stats = allocator.stats();
        let entry = BlockTrace {
            step,
            at: SimTime::from_picos(record.host),
            action: "alloc",
            address: block.address(),
            size: block.size(),
            requested: block.requested(),
            stream: record.stream,
            tensor: Some(record.tensor),
            allocated: stats.all.allocated_bytes.current,
            reserved: stats.all.reserved_bytes.current,
        };
        let calls = stats.device_allocations + stats.device_frees;
        if calls != self.calls {
            self.calls = calls;
            self.note_segments(allocator, &entry);
        }
        self.tensors.insert(entry.address, record.tensor);
        self.blocks.push(entry);
    }

    /// Segments that came and went before a block could be handed out.
    fn note_segments(&mut self, allocator: &Allocator, entry: &BlockTrace) {
        let snapshot = allocator.snapshot();
        let now: BTreeMap<u64, (u64, Stream)> =
            snapshot.iter().map(|it| (it.address, (it.total_size, it.stream))).collect();
        let before = std::mem::take(&mut self.segments);
        // They came and went before the block was handed out.
        let allocated = entry.allocated - entry.size;
        let mut push = |action, address, (size, stream): (u64, Stream)| {
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
        for (&address, &segment) in before.iter().filter(|&(address, it)| now.get(address) != Some(it)) {
            push("segment_free", address, segment);
        }
        for (&address, &segment) in now.iter().filter(|&(address, it)| before.get(address) != Some(it)) {
            push("segment_alloc", address, segment);
        }
        self.segments = now;
    }

    /// The host gives a block back, which may have to wait for a stream.
    pub(super) fn freed(
        &mut self,
        block: &Block,
        stream: Stream,
        (step, at): (u32, SimTime),
        waits: Option<Stream>,
    ) {
        let last = self.blocks.last();
        let (allocated, reserved) = last.map_or((0, 0), |last| (last.allocated, last.reserved));
        let requested = BlockTrace {
            step,
            at,
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
            self.blocks.push(BlockTrace { step, at, allocated, reserved, ..done });
        }
    }

    pub(super) fn finish(self, allocator: &Allocator) -> Blocks {
        (self.blocks, allocator.snapshot())
    }
}
