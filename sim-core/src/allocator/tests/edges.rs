//! The values at which a rule begins or ends to hold.

use super::*;

/// The largest request is served by a device without end; one byte more is refused unseen, and leaves no trace.
#[test]
fn the_largest_request_is_half_of_the_address_space() {
    let mut a = allocator(Config::default());
    let block = a.alloc(S0, 1 << 47).unwrap();
    assert_eq!((block.size(), block.requested()), (1 << 47, 1 << 47));
    let before = a.stats().all;
    assert!(a.alloc(S0, (1 << 47) + 1).is_err());
    assert!(a.alloc_at_once(S1, (1 << 47) + 1).is_none());
    assert_eq!(a.stats().all, before);
    assert!(a.alloc_at_once(S1, 1 << 47).is_some());
}

/// No address is 0, which blocks of no bytes have.
#[test]
fn blocks_have_addresses_and_empty_ones_have_none() {
    let mut a = allocator(Config::default());
    assert!(a.alloc(S0, 1).unwrap().address() > 0);
    let empty = a.alloc(S0, 0).unwrap();
    assert_eq!((empty.address(), empty.size(), empty.requested()), (0, 0, 0));
    assert!(a.alloc_at_once(S0, 0).is_none());
}

/// An allocator tells how it was set.
#[test]
fn settings_can_be_asked_for() {
    let config = Config { capacity: Some(64 * MIB), allowed: Some(32 * MIB), ..Config::default() };
    let a = allocator(config.clone());
    assert_eq!(*a.config(), config);
    let free = a.without_limits();
    assert_eq!(*free.config(), Config::default());
}

/// What is served at once is what an ordinary request gets; what is not has changed nothing, and an ordinary request fails or
/// gives something back first.
#[test]
fn requests_at_once_are_requests_that_give_nothing_back() {
    let mut a = allocator(Config { capacity: Some(48 * MIB), ..Config::default() });
    assert!(a.can_tell_first_failure());
    let (mut served, mut refused, mut held) = (0, 0, Vec::new());
    let mut seed = 7_u64;
    let mut draw = |end: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % end
    };
    for _ in 0..400 {
        let bytes = [512, 3 * KIB, MIB, MIB + 1, 7 * MIB, 30 * MIB][draw(6)];
        let before = (*a.stats(), a.snapshot());
        let mut other = a.clone();
        let at_once = other.alloc_at_once(S0, bytes);
        let block = a.alloc(S0, bytes);
        if let Some(at_once) = at_once {
            served += 1;
            assert_eq!(Ok(&at_once), block.as_ref());
            assert_eq!((a.stats(), a.snapshot()), (other.stats(), other.snapshot()));
        } else {
            refused += 1;
            assert_eq!((*other.stats(), other.snapshot()), before);
            assert!(block.is_err() || a.stats().device_frees > before.0.device_frees);
        }
        held.extend(block);
        if !held.is_empty() && (draw(3) == 0 || held.len() > 12) {
            let block = held.swap_remove(draw(held.len()));
            a.free(block);
        }
    }
    assert!(served > 100 && refused > 20, "{served}, {refused}");
}

/// Neither expandable segments nor garbage collection are known to requests at once.
#[test]
fn requests_at_once_are_for_segments_of_fixed_size() {
    let expandable = Config { expandable_segments: true, ..Config::default() };
    let collecting =
        Config { allowed: Some(64 * MIB), garbage_collection_threshold: Some(0.5), ..Config::default() };
    for config in [expandable.clone(), collecting.clone(), Config { expandable_segments: true, ..collecting }]
    {
        let mut a = allocator(config);
        assert!(!a.can_tell_first_failure());
        assert!(a.alloc_at_once(S0, MIB).is_none());
        assert!(a.alloc(S0, MIB).is_ok());
    }
    // Without a limit nothing is collected.
    let idle = Config { garbage_collection_threshold: Some(0.5), ..Config::default() };
    assert!(allocator(idle).can_tell_first_failure());
}

/// The copy without limits holds what the original holds, and gets what that does not.
#[test]
fn copies_without_limits_hold_the_same() {
    for (capacity, allowed) in
        [(Some(40 * MIB), None), (None, Some(40 * MIB)), (Some(40 * MIB), Some(30 * MIB))]
    {
        let mut a = allocator(Config { capacity, allowed, ..Config::default() });
        let block = a.alloc(S0, 25 * MIB).unwrap();
        assert!(a.alloc(S0, 50 * MIB).is_err());
        let mut free = a.without_limits();
        assert_eq!((free.stats(), free.snapshot()), (a.stats(), a.snapshot()));
        let more = free.alloc(S0, 50 * MIB).unwrap();
        assert!(more.address() > block.address());
        assert_eq!(held(&free), (76, 76));
    }
}

/// A threshold of nothing would collect always, one of everything never; PyTorch refuses both.
#[test]
fn thresholds_lie_inside_the_whole() {
    let with = |part| Config { garbage_collection_threshold: Some(part), ..Config::default() };
    for part in [f64::MIN_POSITIVE, 0.5, 1.0 - f64::EPSILON] {
        assert_eq!(with(part).check(), Ok(()));
    }
    for part in [-0.5, 0.0, 1.0, 1.5, f64::NAN] {
        assert!(with(part).check().is_err(), "{part}");
    }
}

/// Nothing is rounded to one block, like any request below one.
#[test]
fn no_bytes_round_to_one_block() {
    let every = |divisions| Config { roundup_power2_divisions: [divisions; 16], ..Config::default() };
    for config in [every(0), every(8)] {
        assert_eq!([0, 1, 511, 512].map(|bytes| config.round(bytes)), [512; 4]);
    }
}

/// What rises and falls is told by its sums.
#[test]
fn falls_are_rises_less_what_is_there() {
    let mut a = allocator(Config::default());
    let blocks = [12, 30, 14].map(|size| a.alloc(S0, size * MIB).unwrap());
    let [first, _held, last] = blocks;
    a.free(first);
    a.free(last);
    a.empty_cache();
    let all = a.stats().all;
    assert_eq!((all.segments.risen, all.segments.fallen(), all.segments.current), (3, 2, 1));
    assert_eq!((all.reserved_bytes.risen, all.reserved_bytes.fallen()), (56 * MIB, 26 * MIB));
    assert_eq!((all.allocated_bytes.risen, all.allocated_bytes.fallen()), (56 * MIB, 26 * MIB));
}

/// A segment's sizes are those of its blocks: handed out, waiting for a stream, and cached.
#[test]
fn sizes_of_a_segment_are_sums_over_its_blocks() {
    let mut a = allocator(Config::default());
    let kept = [2 * MIB + 1, 3 * MIB].map(|bytes| a.alloc(S0, bytes).unwrap());
    let waits = [4 * MIB - 100, 5 * MIB].map(|bytes| a.alloc(S0, bytes).unwrap());
    for block in waits {
        a.record_stream(&block, S1);
        a.free(block);
    }
    let [segment] = &a.snapshot()[..] else { panic!("one segment of 20 MiB serves all") };
    assert_eq!(segment.total_size, 20 * MIB);
    assert_eq!(segment.allocated_size, 5 * MIB + 512);
    assert_eq!(segment.active_size, 14 * MIB + 512);
    assert_eq!(segment.requested_size, 14 * MIB + 1 - 100);
    assert_eq!((segment.stream, segment.kind, segment.is_expandable), (S0, PoolKind::Large, false));
    let states: Vec<&str> = segment.blocks.iter().map(|block| block.state.name()).collect();
    let (held, waiting) = ("active_allocated", "active_pending_free");
    assert_eq!(states, [held, held, waiting, waiting, "inactive"]);
    drop(kept);
}

/// Largest first until they suffice: exactly enough is enough.
#[test]
fn oversize_blocks_go_until_there_is_exactly_enough() {
    let config = Config { max_split_size: Some(40 * MIB), capacity: Some(300 * MIB), ..Config::default() };
    let mut a = allocator(config);
    for block in [50, 60, 70, 120].map(|size| a.alloc(S0, size * MIB).unwrap()) {
        a.free(block);
    }
    let _large = a.alloc(S0, 190 * MIB).unwrap();
    assert_eq!((held(&a), cached(&a)), ((300, 190), vec![50, 60]));
    assert_eq!((a.stats().device_frees, a.stats().retries), (2, 0));
}

/// Three cached blocks of 12 MiB of 56 reserved, freed 3, 2 and 1 searches before: the two of at least average age go at
/// once, the last only if they were not enough; and if exactly enough went, no more go.
#[test]
fn garbage_is_collected_until_there_is_exactly_enough() {
    for (allowed, frees) in [(66, 2), (64, 2), (62, 3)] {
        let config = Config {
            allowed: Some(allowed * MIB),
            garbage_collection_threshold: Some(0.5),
            ..Config::default()
        };
        let mut a = allocator(Config { garbage_collection_threshold: None, ..config.clone() });
        let mut others = vec![a.alloc(S1, 2 * MIB).unwrap()];
        for block in [12, 12, 12].map(|size| a.alloc(S0, size * MIB).unwrap()) {
            a.free(block);
            others.push(a.alloc(S1, 2 * MIB).unwrap());
        }
        assert_eq!((held(&a), a.stats().device_frees), ((56, 8), 0), "20 and three times 12");
        // Only now, that making the blocks has collected none.
        a.config = config;
        let _grows = a.alloc(S1, 20 * MIB);
        assert_eq!(a.stats().device_frees, frees, "{allowed} MiB allowed");
        check(&a);
    }
}
