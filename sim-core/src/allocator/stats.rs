//! What an allocator counts, as `torch.cuda.memory_stats` does.

use super::config::PoolKind;

/// An amount that rises and falls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// Now.
    pub current: u64,
    /// The most since the beginning or [`Allocator::reset_peaks`](super::Allocator::reset_peaks).
    pub peak: u64,
    /// Sum of all rises since the beginning.
    pub risen: u64,
}

impl Stat {
    /// Sum of all falls since the beginning.
    pub fn fallen(&self) -> u64 {
        self.risen - self.current
    }

    #[inline]
    pub(super) fn rise(&mut self, amount: u64) {
        self.current += amount;
        self.risen += amount;
        self.peak = self.peak.max(self.current);
    }

    #[inline]
    pub(super) fn fall(&mut self, amount: u64) {
        self.current -= amount;
    }

    /// Rises or falls by the difference of two amounts.
    #[inline]
    pub(super) fn change(&mut self, rises: u64, falls: u64) {
        if rises > falls {
            self.rise(rises - falls);
        } else {
            self.fall(falls - rises);
        }
    }
}

/// Counts and bytes of one pool kind, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolStats {
    /// Blocks handed out and not freed.
    pub allocations: Stat,
    /// Bytes of these blocks.
    pub allocated_bytes: Stat,
    /// Blocks handed out or still in use by a stream.
    pub active: Stat,
    /// Bytes of these blocks.
    pub active_bytes: Stat,
    /// Bytes that were asked for, of active blocks.
    pub requested_bytes: Stat,
    /// Segments of fixed size.
    pub segments: Stat,
    /// Bytes taken from the device: segments, and pages of expandable ones.
    pub reserved_bytes: Stat,
    /// Free blocks that are part of a segment of fixed size, which therefore cannot be given back.
    pub inactive_split: Stat,
    /// Bytes of these blocks.
    pub inactive_split_bytes: Stat,
}

impl PoolStats {
    fn reset_peaks(&mut self) {
        for stat in [
            &mut self.allocations,
            &mut self.allocated_bytes,
            &mut self.active,
            &mut self.active_bytes,
            &mut self.requested_bytes,
            &mut self.segments,
            &mut self.reserved_bytes,
            &mut self.inactive_split,
            &mut self.inactive_split_bytes,
        ] {
            stat.peak = stat.current;
        }
    }
}

/// Everything an allocator counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Both pool kinds together.
    pub all: PoolStats,
    /// Requests of at most 1 MiB.
    pub small: PoolStats,
    /// All other requests.
    pub large: PoolStats,
    /// Allocations of at least the split limit.
    pub oversize_allocations: Stat,
    /// Segments of at least the split limit.
    pub oversize_segments: Stat,
    /// Times a segment was asked for again after all that is cached was given back.
    pub retries: u64,
    /// Requests that failed.
    pub out_of_memory: u64,
    /// Times the host waited for all streams to get blocks back.
    pub synchronisations: u64,
    /// Segments made and runs of pages mapped; each costs the host a call of the driver.
    pub device_allocations: u64,
    /// Segments given back and runs of pages unmapped.
    pub device_frees: u64,
}

impl Stats {
    /// Applies a change to one pool kind and to the sum.
    #[inline]
    pub(super) fn each(&mut self, kind: PoolKind, change: impl Fn(&mut PoolStats)) {
        change(&mut self.all);
        change(match kind {
            PoolKind::Small => &mut self.small,
            PoolKind::Large => &mut self.large,
        });
    }

    pub(super) fn reset_peaks(&mut self) {
        for pool in [&mut self.all, &mut self.small, &mut self.large] {
            pool.reset_peaks();
        }
        for stat in [&mut self.oversize_allocations, &mut self.oversize_segments] {
            stat.peak = stat.current;
        }
    }
}
