//! Giving cached memory back to the device.

use super::blocks::{State, pool_index};
use super::config::PoolKind;
use super::{Allocator, Counts, Request};

impl<C: Counts> Allocator<C> {
    /// Waits for all streams and gives back all cached memory that is not part of a segment in use
    /// (`torch.cuda.empty_cache`, and the last resort of a request).
    pub fn empty_cache(&mut self) {
        self.counts.synchronises();
        self.synchronise_all();
        for kind in [PoolKind::Large, PoolKind::Small] {
            for block in self.cached(kind) {
                if self.config.expandable_segments {
                    self.unmap(block);
                } else if !self.blocks.get(block).is_split() {
                    self.give_back(block);
                }
            }
        }
    }

    /// Gives back cached segments that may not be split, so that the device has room for the request: the
    /// smallest that suffices, or else the largest ones until they suffice together. Whether they do.
    pub(super) fn give_back_oversize(&mut self, request: &Request) -> bool {
        let Some(limit) = self.config.max_split_size.filter(|_| !self.config.expandable_segments) else {
            return false;
        };
        // A block of at least the limit is a whole segment: what a smaller request splits off leaves less, as
        // the limit is in whole MiB and a segment at most rounded up to 2 MiB.
        let needed = request.size.max(limit);
        let pool = usize::from(request.pool);
        let first = self.pools.get(pool).and_then(|pool| pool.free.at_or_after(needed, 0));
        if let Some(entry) = first {
            self.give_back(entry.block);
            return true;
        }
        let mut given = 0;
        while given < needed {
            let last = self.pools.get(pool).and_then(|pool| pool.free.largest());
            let Some(entry) = last.filter(|entry| entry.size >= limit) else { return false };
            given += entry.size;
            self.give_back(entry.block);
        }
        true
    }

    /// Gives back whole cached segments of the large pools that have not been reused for long, if more is
    /// reserved than the threshold: those at least as old as the average, then again, until enough is free.
    pub(super) fn collect_garbage(&mut self) {
        let Some(threshold) = self.config.collects_above() else { return };
        let reserved = self.counts.reserved();
        if reserved <= threshold || self.config.expandable_segments {
            return;
        }
        let now = self.searches[PoolKind::Large as usize];
        let mut cached = self.cached(PoolKind::Large);
        cached.retain(|block| !self.blocks.get(*block).is_split());
        let mut age: u64 = cached.iter().map(|block| now - self.blocks.get(*block).freed_at).sum();
        let mut given = 0;
        while given < reserved - threshold && !cached.is_empty() {
            let average = age as f64 / cached.len() as f64;
            let before = cached.len();
            cached.retain(|block| {
                let node = *self.blocks.get(*block);
                let old = now - node.freed_at;
                if (old as f64) < average {
                    return true;
                }
                age -= old;
                given += node.size;
                self.give_back(*block);
                false
            });
            if cached.len() == before {
                return;
            }
        }
    }

    /// All free blocks of a pool kind, by stream, size and address.
    fn cached(&self, kind: PoolKind) -> Vec<u32> {
        let first = usize::from(pool_index(0, kind));
        let pools = self.pools.iter().skip(first).step_by(2);
        pools.flat_map(|pool| pool.free.sorted()).map(|entry| entry.block).collect()
    }

    /// A free block that is a whole segment goes back to the device.
    fn give_back(&mut self, block: u32) {
        let node = *self.blocks.get(block);
        debug_assert!(node.state == State::Free && !node.is_split());
        self.forget(node.pool, node.size, node.address);
        self.counts.gives_back(node.kind(), node.size);
        self.counts.drops_segment(node.kind(), node.size >= self.config.split_limit());
        self.blocks.discard(block);
    }
}
