//! What the rules say, what was measured, and what holds for any sequence.

use std::collections::BTreeMap;

use super::*;

mod edges;
mod expandable;
mod model;
mod random;
mod rules;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

const S0: Stream = Stream(0);
const S1: Stream = Stream(1);

fn allocator(config: Config) -> Allocator {
    Allocator::new(config).unwrap()
}

/// Reserved, allocated, in MiB.
fn held(allocator: &Allocator) -> (u64, u64) {
    let all = &allocator.stats().all;
    (all.reserved_bytes.current / MIB, all.allocated_bytes.current / MIB)
}

/// Sizes of the free blocks, in MiB, by address.
fn cached(allocator: &Allocator) -> Vec<u64> {
    let blocks = allocator.snapshot().into_iter().flat_map(|segment| segment.blocks);
    blocks.filter(|block| block.state == BlockState::Inactive).map(|block| block.size / MIB).collect()
}

/// Everything that must hold between any two calls.
fn check(allocator: &Allocator) {
    let snapshot = allocator.snapshot();
    let mut sums = BTreeMap::new();
    let mut end = 0;
    let mut free = 0;
    for segment in &snapshot {
        assert!(segment.address >= end, "segments overlap");
        end = segment.address + segment.total_size;
        let sum: &mut PoolStats = sums.entry(segment.kind).or_default();
        let mut at = segment.address;
        let mut before = None;
        for block in &segment.blocks {
            assert_eq!(block.address, at, "blocks tile their segment");
            at += block.size;
            assert!(block.size >= 512 && block.size.is_multiple_of(512));
            assert!(
                before != Some(BlockState::Inactive) || block.state != BlockState::Inactive,
                "free neighbours"
            );
            before = Some(block.state);
            if block.state == BlockState::Inactive {
                free += 1;
                if segment.blocks.len() > 1 && !segment.is_expandable {
                    sum.inactive_split.current += 1;
                    sum.inactive_split_bytes.current += block.size;
                }
            } else {
                assert!(block.requested_size <= block.size);
                sum.active.current += 1;
                sum.active_bytes.current += block.size;
                sum.requested_bytes.current += block.requested_size;
            }
            if block.state == BlockState::ActiveAllocated {
                sum.allocations.current += 1;
                sum.allocated_bytes.current += block.size;
            }
        }
        assert_eq!(at, end, "every byte is accounted for");
        sum.segments.current += u64::from(!segment.is_expandable);
        sum.reserved_bytes.current += segment.total_size;
        if segment.is_expandable {
            assert!(segment.address.is_multiple_of(Config::page(segment.kind)));
            assert!(segment.total_size.is_multiple_of(Config::page(segment.kind)));
        }
    }
    let listed: usize = allocator.pools.iter().map(|pool| pool.free.sorted().len()).sum();
    assert_eq!(listed, free, "what is free is cached, and nothing else");
    let zero = PoolStats::default();
    let (small, large) = (PoolKind::Small, PoolKind::Large);
    let stats = allocator.stats();
    agree(&stats.small, sums.get(&small).unwrap_or(&zero));
    agree(&stats.large, sums.get(&large).unwrap_or(&zero));
    let all = &stats.all;
    assert!(all.reserved_bytes.current >= all.active_bytes.current);
    assert!(all.active_bytes.current >= all.allocated_bytes.current);
    let Config { capacity, allowed, expandable_segments, .. } = *allocator.config();
    assert!(capacity.is_none_or(|capacity| all.reserved_bytes.peak <= capacity));
    // What is allowed is compared with the request, not with the pages mapped for it [alloc_block].
    let beyond = if expandable_segments { config::LARGE_SEGMENT } else { 0 };
    assert!(allowed.is_none_or(|allowed| all.reserved_bytes.peak <= allowed + beyond));
}

/// The current amounts of two sets of statistics are the same.
fn agree(counted: &PoolStats, found: &PoolStats) {
    let current = |s: &PoolStats| {
        [
            s.allocations,
            s.allocated_bytes,
            s.active,
            s.active_bytes,
            s.requested_bytes,
            s.segments,
            s.reserved_bytes,
            s.inactive_split,
            s.inactive_split_bytes,
        ]
        .map(|stat| stat.current)
    };
    assert_eq!(current(counted), current(found));
}
