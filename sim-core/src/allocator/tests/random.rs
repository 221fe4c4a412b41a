//! Random sequences: what must always hold, holds; and the plain model does the same.

use proptest::prelude::*;

use super::model::Model;
use super::*;

/// A draw of a linear congruential generator (Knuth's MMIX constants), the same in every run.
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    /// Sizes of all magnitudes up to 64 MiB, many of them equal.
    fn size(&mut self) -> u64 {
        let power = 6 + self.below(20);
        let quarters = 4 + self.below(4);
        let odd = if self.below(4) == 0 { self.below(1000) } else { 0 };
        ((quarters << power) / 4 + odd).max(1)
    }
}

/// Allocates and frees in turns on three streams so that up to about `live` blocks are held, and checks
/// everything at the end and `checks` times between.
fn play(config: Config, seed: u64, operations: u64, live: u64, checks: u64) -> Allocator {
    let page = |size: u64| Config::page(Config::kind(size));
    let mut draw = Draw(seed);
    let mut a = allocator(config);
    let mut held: Vec<Block> = Vec::new();
    for operation in 0..operations {
        let frees = draw.below(2 * live) < held.len() as u64;
        if frees {
            let block = held.swap_remove(draw.below(held.len() as u64) as usize);
            let before = a.stats().all.allocated_bytes.current;
            let size = block.size();
            if draw.below(8) == 0 {
                a.record_stream(&block, Stream(draw.below(3) as u8));
            }
            a.free(block);
            assert_eq!(before - a.stats().all.allocated_bytes.current, size);
        } else {
            let (stream, bytes) = (Stream(draw.below(3) as u8), draw.size());
            let before = a.stats().all.reserved_bytes;
            if let Ok(block) = a.alloc(stream, bytes) {
                assert!(block.size() >= bytes && block.requested() == bytes);
                // A request takes at most its pages.
                let most = before.current + block.size().next_multiple_of(page(block.size()));
                assert!(!a.config().expandable_segments || a.stats().all.reserved_bytes.current <= most);
                held.push(block);
            }
        }
        if draw.below(16) == 0 {
            let stream = Stream(draw.below(3) as u8);
            a.events_passed(stream, a.events_recorded(stream).saturating_sub(draw.below(3)));
        }
        if (operation + 1) % operations.div_ceil(checks) == 0 {
            check(&a);
        }
    }
    check(&a);
    for block in held {
        a.free(block);
    }
    a.synchronise_all();
    check(&a);
    assert_eq!(a.stats().all.active_bytes.current, 0);
    a.empty_cache();
    // Address space may stay where a request failed before its first page.
    let left = a.blocks.iter().filter(|(_, node)| node.state != State::Unmapped).count();
    assert_eq!((a.stats().all.reserved_bytes.current, left), (0, 0));
    a
}

fn configs() -> impl Strategy<Value = Config> {
    let capacity = prop::option::of((40..400_u64).prop_map(|mib| mib * MIB));
    let allowed = prop::option::of((40..400_u64).prop_map(|mib| mib * MIB));
    let split = prop::option::of((20..64_u64).prop_map(|mib| mib * MIB));
    let threshold = prop::option::of(prop::sample::select(vec![0.3, 0.7, 0.95]));
    let divisions = prop::sample::select(vec![0_u64, 1, 2, 4, 8]);
    (capacity, allowed, any::<bool>(), split, threshold, divisions).prop_map(
        |(
            capacity,
            allowed,
            expandable_segments,
            max_split_size,
            garbage_collection_threshold,
            divisions,
        )| {
            Config {
                capacity,
                allowed,
                expandable_segments,
                max_split_size,
                garbage_collection_threshold,
                roundup_power2_divisions: [divisions; ROUNDUP_INTERVALS],
                ..Config::default()
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn nothing_is_lost_or_handed_out_twice(config in configs(), seed: u64, live in 1_u64..200) {
        play(config, seed, 1_000, live, 100);
    }

    #[test]
    fn what_is_counted_changes_nothing(config in configs(), seed: u64, live in 1_u64..200) {
        let (mut all, mut few) = (allocator(config.clone()), Allocator::<Totals>::counting(config).unwrap());
        let mut draw = Draw(seed);
        let mut held: Vec<(Block, Block)> = Vec::new();
        for _ in 0..800 {
            if draw.below(2 * live) < held.len() as u64 {
                let (one, other) = held.swap_remove(draw.below(held.len() as u64) as usize);
                if draw.below(8) == 0 {
                    let stream = Stream(draw.below(3) as u8);
                    all.record_stream(&one, stream);
                    few.record_stream(&other, stream);
                }
                all.free(one);
                few.free(other);
            } else {
                let (stream, bytes) = (Stream(draw.below(3) as u8), draw.size());
                let (one, other) = (all.alloc(stream, bytes), few.alloc(stream, bytes));
                prop_assert_eq!(&one, &other);
                held.extend(one.ok().zip(other.ok()));
            }
            if draw.below(16) == 0 {
                let stream = Stream(draw.below(3) as u8);
                let passed = all.events_recorded(stream).saturating_sub(draw.below(3));
                all.events_passed(stream, passed);
                few.events_passed(stream, passed);
            }
            let (stats, totals) = (all.stats(), few.stats());
            prop_assert_eq!(totals.allocated, stats.all.allocated_bytes.current);
            prop_assert_eq!(totals.reserved, stats.all.reserved_bytes.current);
            prop_assert_eq!((totals.most_reserved, totals.retries), (stats.all.reserved_bytes.peak, stats.retries));
            prop_assert_eq!(totals.device_calls, stats.device_allocations + stats.device_frees);
        }
        prop_assert_eq!(all.snapshot(), few.snapshot());
    }

    #[test]
    fn the_plain_model_agrees(
        capacity in prop::option::of(40..400_u64),
        split in prop::option::of(20..64_u64),
        seed: u64,
        live in 1_u64..100,
    ) {
        let config = Config {
            capacity: capacity.map(|mib| mib * MIB),
            max_split_size: split.map(|mib| mib * MIB),
            ..Config::default()
        };
        let (mut a, mut model) = (allocator(config.clone()), Model::new(config));
        let mut draw = Draw(seed);
        let mut held: Vec<Block> = Vec::new();
        for _ in 0..600 {
            if draw.below(2 * live) < held.len() as u64 {
                let block = held.swap_remove(draw.below(held.len() as u64) as usize);
                model.free_at(block.address());
                a.free(block);
            } else {
                let (stream, bytes) = (Stream(draw.below(2) as u8), draw.size());
                let expected = model.alloc(stream, bytes);
                let block = a.alloc(stream, bytes).ok();
                prop_assert_eq!(block.as_ref().map(|b| (b.address(), b.size())), expected);
                held.extend(block);
            }
            prop_assert_eq!(a.stats().all.reserved_bytes.current, model.reserved());
        }
    }
}

/// A million operations in release mode, fewer else.
#[test]
fn long_sequences_hold() {
    let operations = if cfg!(debug_assertions) { 50_000 } else { 1_000_000 };
    for expandable_segments in [false, true] {
        for capacity in [None, Some(2048 * MIB)] {
            let config = Config { capacity, expandable_segments, ..Config::default() };
            let first = play(config.clone(), 7, operations, 500, 50);
            let second = play(config, 7, operations, 500, 50);
            assert_eq!(first.stats(), second.stats(), "the same sequence gives the same");
        }
    }
}
