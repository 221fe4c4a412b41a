//! What the allocator holds, segment by segment, as `torch.cuda.memory_snapshot` shows it.

use super::blocks::{NONE, State};
use super::config::PoolKind;
use super::{Allocator, Counts};
use crate::program::Stream;

/// A segment, or a run of mapped pages of an expandable one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotSegment {
    /// First byte in the address space of the device.
    pub address: u64,
    /// Bytes reserved.
    pub total_size: u64,
    /// Bytes of blocks handed out.
    pub allocated_size: u64,
    /// Bytes of blocks handed out or still in use by a stream.
    pub active_size: u64,
    /// Bytes that were asked for, of active blocks.
    pub requested_size: u64,
    /// Stream whose requests it serves.
    pub stream: Stream,
    /// Pool it belongs to.
    pub kind: PoolKind,
    /// Whether it is part of an expandable segment.
    pub is_expandable: bool,
    /// Its blocks without gaps, by address.
    pub blocks: Vec<SnapshotBlock>,
}

/// A block of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotBlock {
    /// First byte in the address space of the device.
    pub address: u64,
    /// Bytes it occupies.
    pub size: u64,
    /// Bytes that were asked for; of an inactive block, by its last user.
    pub requested_size: u64,
    /// Whether it is in use.
    pub state: BlockState,
}

/// Whether a block is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockState {
    /// Handed out.
    ActiveAllocated,
    /// Freed, but streams may still use it.
    ActivePendingFree,
    /// Cached.
    Inactive,
}

impl BlockState {
    /// Its name in PyTorch's snapshots.
    pub fn name(self) -> &'static str {
        match self {
            Self::ActiveAllocated => "active_allocated",
            Self::ActivePendingFree => "active_pending_free",
            Self::Inactive => "inactive",
        }
    }
}

impl<C: Counts> Allocator<C> {
    /// All segments by address.
    pub fn snapshot(&self) -> Vec<SnapshotSegment> {
        let begins = |prev: u32| prev == NONE || self.blocks.neighbour(prev, State::Unmapped).is_some();
        let heads = self.blocks.iter().filter(|(_, node)| node.state != State::Unmapped && begins(node.prev));
        let mut segments: Vec<SnapshotSegment> = heads.map(|(head, _)| self.segment_from(head)).collect();
        segments.sort_unstable_by_key(|segment| segment.address);
        segments
    }

    fn segment_from(&self, head: u32) -> SnapshotSegment {
        let first = self.blocks.get(head);
        let mut segment = SnapshotSegment {
            address: first.address,
            total_size: 0,
            allocated_size: 0,
            active_size: 0,
            requested_size: 0,
            stream: Stream(first.stream()),
            kind: first.kind(),
            is_expandable: self.config.expandable_segments,
            blocks: Vec::new(),
        };
        let mut block = head;
        while block != NONE {
            let node = self.blocks.get(block);
            let state = match node.state {
                State::Allocated => BlockState::ActiveAllocated,
                State::Pending => BlockState::ActivePendingFree,
                State::Free => BlockState::Inactive,
                State::Unmapped | State::Vacant => break,
            };
            segment.total_size += node.size;
            if state == BlockState::ActiveAllocated {
                segment.allocated_size += node.size;
            }
            if state != BlockState::Inactive {
                segment.active_size += node.size;
                segment.requested_size += node.requested;
            }
            let (address, size, requested_size) = (node.address, node.size, node.requested);
            segment.blocks.push(SnapshotBlock { address, size, requested_size, state });
            block = node.next;
        }
        segment
    }
}
