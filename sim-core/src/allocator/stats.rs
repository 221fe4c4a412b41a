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

/// What an allocator counts as it works; [`Stats`] everything, [`Totals`] next to nothing.
///
/// Sizes are bytes of blocks; what is `oversize` has at least [`Config::max_split_size`](super::Config::max_split_size).
pub trait Counts: Clone + std::fmt::Debug + Default {
    /// Bytes of blocks handed out.
    fn allocated(&self) -> u64;
    /// Bytes taken from the device.
    fn reserved(&self) -> u64;
    /// A block of a size is handed out for so many bytes asked for.
    fn hands_out(&mut self, kind: PoolKind, sizes: (u64, u64), oversize: bool);
    /// The user gives a block back.
    fn frees(&mut self, kind: PoolKind, size: u64, oversize: bool);
    /// No stream uses a block of a size any more, which was asked for with so many bytes.
    fn recycles(&mut self, kind: PoolKind, sizes: (u64, u64));
    /// Free parts of segments, by number and bytes, come about and cease to be.
    fn splits(&mut self, kind: PoolKind, made: (u64, u64), gone: (u64, u64));
    /// Memory comes from the device.
    fn reserves(&mut self, kind: PoolKind, bytes: u64);
    /// Memory goes back to it.
    fn gives_back(&mut self, kind: PoolKind, bytes: u64);
    /// A segment of fixed size is made.
    fn makes_segment(&mut self, kind: PoolKind, oversize: bool);
    /// A segment of fixed size is no more.
    fn drops_segment(&mut self, kind: PoolKind, oversize: bool);
    /// All that was cached has been given back to serve a request.
    fn retries(&mut self);
    /// A request fails.
    fn fails(&mut self);
    /// The host waits for all streams.
    fn synchronises(&mut self);
}

/// What is held, and the most that was taken from the device: all that a forecast of peaks asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Bytes of blocks handed out.
    pub allocated: u64,
    /// Bytes taken from the device.
    pub reserved: u64,
    /// The most of them.
    pub most_reserved: u64,
    /// Times a segment was asked for again after all that is cached was given back.
    pub retries: u64,
    /// Calls of the driver: segments made and given back, runs of pages mapped and unmapped.
    pub device_calls: u64,
}

impl Counts for Totals {
    #[inline]
    fn allocated(&self) -> u64 {
        self.allocated
    }

    #[inline]
    fn reserved(&self) -> u64 {
        self.reserved
    }

    #[inline]
    fn hands_out(&mut self, _: PoolKind, (size, _): (u64, u64), _: bool) {
        self.allocated += size;
    }

    #[inline]
    fn frees(&mut self, _: PoolKind, size: u64, _: bool) {
        self.allocated -= size;
    }

    #[inline]
    fn recycles(&mut self, _: PoolKind, _: (u64, u64)) {}

    #[inline]
    fn splits(&mut self, _: PoolKind, _: (u64, u64), _: (u64, u64)) {}

    fn reserves(&mut self, _: PoolKind, bytes: u64) {
        self.device_calls += 1;
        self.reserved += bytes;
        self.most_reserved = self.most_reserved.max(self.reserved);
    }

    fn gives_back(&mut self, _: PoolKind, bytes: u64) {
        self.device_calls += 1;
        self.reserved -= bytes;
    }

    fn makes_segment(&mut self, _: PoolKind, _: bool) {}

    fn drops_segment(&mut self, _: PoolKind, _: bool) {}

    fn retries(&mut self) {
        self.retries += 1;
    }

    fn fails(&mut self) {}

    fn synchronises(&mut self) {}
}

impl Counts for Stats {
    fn allocated(&self) -> u64 {
        self.all.allocated_bytes.current
    }

    fn reserved(&self) -> u64 {
        self.all.reserved_bytes.current
    }

    #[inline]
    fn hands_out(&mut self, kind: PoolKind, (size, requested): (u64, u64), oversize: bool) {
        self.each(kind, |stats| {
            stats.allocations.rise(1);
            stats.allocated_bytes.rise(size);
            stats.active.rise(1);
            stats.active_bytes.rise(size);
            stats.requested_bytes.rise(requested);
        });
        if oversize {
            self.oversize_allocations.rise(1);
        }
    }

    #[inline]
    fn frees(&mut self, kind: PoolKind, size: u64, oversize: bool) {
        self.each(kind, |stats| {
            stats.allocations.fall(1);
            stats.allocated_bytes.fall(size);
        });
        if oversize {
            self.oversize_allocations.fall(1);
        }
    }

    #[inline]
    fn recycles(&mut self, kind: PoolKind, (size, requested): (u64, u64)) {
        self.each(kind, |stats| {
            stats.active.fall(1);
            stats.active_bytes.fall(size);
            stats.requested_bytes.fall(requested);
        });
    }

    #[inline]
    fn splits(&mut self, kind: PoolKind, made: (u64, u64), gone: (u64, u64)) {
        self.each(kind, |stats| {
            stats.inactive_split.change(made.0, gone.0);
            stats.inactive_split_bytes.change(made.1, gone.1);
        });
    }

    fn reserves(&mut self, kind: PoolKind, bytes: u64) {
        self.device_allocations += 1;
        self.each(kind, |stats| stats.reserved_bytes.rise(bytes));
    }

    fn gives_back(&mut self, kind: PoolKind, bytes: u64) {
        self.device_frees += 1;
        self.each(kind, |stats| stats.reserved_bytes.fall(bytes));
    }

    fn makes_segment(&mut self, kind: PoolKind, oversize: bool) {
        self.each(kind, |stats| stats.segments.rise(1));
        if oversize {
            self.oversize_segments.rise(1);
        }
    }

    fn drops_segment(&mut self, kind: PoolKind, oversize: bool) {
        self.each(kind, |stats| stats.segments.fall(1));
        if oversize {
            self.oversize_segments.fall(1);
        }
    }

    fn retries(&mut self) {
        self.retries += 1;
    }

    fn fails(&mut self) {
        self.out_of_memory += 1;
    }

    fn synchronises(&mut self) {
        self.synchronisations += 1;
    }
}

impl Stats {
    /// Applies a change to one pool kind and to the sum.
    #[inline]
    fn each(&mut self, kind: PoolKind, change: impl Fn(&mut PoolStats)) {
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
