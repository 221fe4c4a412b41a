//! Sequences whose outcome follows from the rules; the names in brackets are PyTorch's
//! (`c10/cuda/CUDACachingAllocator.cpp`, 2.6).

use super::*;

#[test]
fn sizes_round_up_to_512_bytes() {
    // [round_size, kMinBlockSize]
    let config = Config::default();
    let sizes = [(1, 512), (512, 512), (513, 1024), (MIB, MIB), (MIB + 1, MIB + 512)];
    for (bytes, size) in sizes {
        assert_eq!(config.round(bytes), size);
    }
    // An empty tensor takes no memory [NativeCachingAllocator::allocate].
    let mut a = allocator(config);
    let empty = a.alloc(S0, 0).unwrap();
    a.record_stream(&empty, S1);
    a.free(empty);
    assert_eq!(a.stats(), &Stats::default());
}

#[test]
fn sizes_round_up_to_divisions_of_powers_of_two() {
    // [roundup_power2_next_division]: the source's example, 1200 with 4 divisions between 1024 and 2048 becomes
    // 1280. It applies from 512 bytes a division on, so here in KiB.
    let every = |divisions| Config { roundup_power2_divisions: [divisions; 16], ..Config::default() };
    assert_eq!(every(4).round(1200 * KIB), 1280 * KIB);
    assert_eq!(every(4).round(1200), 1536);
    // PyTorch's test_allocator_settings: 21 Mi floats with 4 divisions between 64 and 128 MiB.
    assert_eq!(every(4).round(84 * MIB), 96 * MIB);
    assert_eq!(every(8).round(84 * MIB), 88 * MIB);
    assert_eq!(every(4).round(64 * MIB), 64 * MIB);
    assert_eq!(every(1).round(84 * MIB + 1), 84 * MIB + 512);
    // By interval [roundup_power2_divisions(size)]: from 1 MiB, doubling; the ends hold beyond.
    let mut config = every(0);
    config.roundup_power2_divisions[0] = 2;
    config.roundup_power2_divisions[15] = 2;
    assert_eq!(config.round(5 * KIB), 6 * KIB);
    assert_eq!(config.round(5 * MIB), 5 * MIB);
    assert_eq!(config.round(200 << 30), 256 << 30);
}

#[test]
fn settings_that_pytorch_refuses_are_refused() {
    let refused = |config: Config| Allocator::new(config).unwrap_err().to_string();
    let text = refused(Config { max_split_size: Some(19 * MIB), ..Config::default() });
    let expected = "max_split_size is 19922944 bytes, but must be 20 MiB (20971520 bytes) or more whole MiB";
    assert_eq!(text, expected);
    refused(Config { max_split_size: Some(20 * MIB + 512), ..Config::default() });
    let text = refused(Config { garbage_collection_threshold: Some(1.0), ..Config::default() });
    assert_eq!(text, "garbage_collection_threshold is 1, but must lie between 0 and 1");
    let text = refused(Config { roundup_power2_divisions: [3; 16], ..Config::default() });
    assert_eq!(text, "roundup_power2_divisions has 3, but must be 0 or a power of two");
}

#[test]
fn segments_have_2_mib_20_mib_or_the_size_of_the_request() {
    // [get_allocation_size]
    let cases = [
        (1, 2 * MIB),
        (MIB, 2 * MIB),
        (MIB + 1, 20 * MIB),
        (10 * MIB - 512, 20 * MIB),
        (10 * MIB - 511, 10 * MIB),
        (10 * MIB + 1, 12 * MIB),
        (100 * MIB + 1, 102 * MIB),
    ];
    for (bytes, segment) in cases {
        let mut a = allocator(Config::default());
        let _block = a.alloc(S0, bytes).unwrap();
        assert_eq!(a.stats().all.reserved_bytes.current, segment, "{bytes} bytes");
    }
}

#[test]
fn large_blocks_split_if_more_than_1_mib_remains() {
    // [should_split]: 20 MiB serve 9 + 9; of the 2 that remain a third 9 gets nothing.
    let mut a = allocator(Config::default());
    let [first, second] = [9, 9].map(|size| a.alloc(S0, size * MIB).unwrap());
    assert_eq!((held(&a), cached(&a)), ((20, 18), vec![2]));
    let third = a.alloc(S0, 9 * MIB).unwrap();
    assert_eq!((held(&a), cached(&a)), ((40, 27), vec![2, 11]));
    for block in [first, second, third] {
        a.free(block);
    }
    assert_eq!((held(&a), cached(&a)), ((40, 0), vec![20, 20]));
    // Exactly 1 MiB would remain: the whole block is handed out.
    let whole = a.alloc(S0, 19 * MIB).unwrap();
    assert_eq!((whole.size(), whole.requested()), (20 * MIB, 19 * MIB));
    a.free(whole);
    let split = a.alloc(S0, 19 * MIB - 512).unwrap();
    assert_eq!(split.size(), 19 * MIB - 512);
    assert_eq!(a.stats().all.requested_bytes.current, 19 * MIB - 512);
    check(&a);
}

#[test]
fn small_blocks_split_if_512_bytes_remain() {
    // [should_split, is_small]
    let mut a = allocator(Config::default());
    let first = a.alloc(S0, MIB).unwrap();
    let second = a.alloc(S0, MIB - 512).unwrap();
    let third = a.alloc(S0, 1).unwrap();
    assert_eq!([&first, &second, &third].map(Block::size), [MIB, MIB - 512, 512]);
    assert_eq!(held(&a).0, 2);
    assert_eq!(a.stats().all.inactive_split_bytes.peak, MIB);
    check(&a);
}

#[test]
fn the_best_fit_serves_and_of_equals_the_lowest() {
    // [BlockComparatorSize: stream, size, address]
    let mut a = allocator(Config::default());
    let blocks = [30, 12, 14, 12].map(|size| a.alloc(S0, size * MIB).unwrap());
    let [_, low, _, _] = blocks.each_ref().map(Block::address);
    for block in blocks {
        a.free(block);
    }
    let block = a.alloc(S0, 11 * MIB).unwrap();
    assert_eq!((block.address(), block.size()), (low, 12 * MIB));
    assert_eq!(held(&a).0, 68);
}

#[test]
fn pools_are_apart_by_stream_and_kind() {
    // [get_pool; BlockComparatorSize begins with the stream]
    let mut a = allocator(Config::default());
    let block = a.alloc(S0, 5 * MIB).unwrap();
    a.free(block);
    let _other = a.alloc(S1, 5 * MIB).unwrap();
    assert_eq!(held(&a).0, 40);
    let _small = a.alloc(S0, MIB).unwrap();
    assert_eq!((held(&a).0, cached(&a)), (42, vec![20, 15, 1]));
    assert_eq!(a.snapshot()[1].stream, S1);
    check(&a);
}

#[test]
fn a_block_that_other_streams_use_is_free_once_they_are_past() {
    // [recordStream, insert_events, process_events]
    let mut a = allocator(Config::default());
    let block = a.alloc(S0, 12 * MIB).unwrap();
    a.record_stream(&block, S0);
    a.record_stream(&block, S1);
    a.record_stream(&block, Stream(2));
    a.record_stream(&block, S1);
    a.free(block);
    assert_eq!([S0, S1, Stream(2)].map(|stream| a.events_recorded(stream)), [0, 1, 1]);
    let all = a.stats().all;
    assert_eq!((all.allocated_bytes.current, all.active_bytes.current), (0, 12 * MIB));
    assert_eq!(a.snapshot()[0].blocks[0].state.name(), "active_pending_free");
    check(&a);
    let second = a.alloc(S0, 12 * MIB).unwrap();
    a.record_stream(&second, S1);
    a.free(second);
    assert_eq!((a.events_recorded(S1), held(&a)), (2, (24, 0)));
    a.events_passed(S1, 1);
    let third = a.alloc(S0, 12 * MIB).unwrap();
    assert_eq!(held(&a).0, 36, "stream 2 still uses the first, stream 1 the second");
    a.synchronise(Stream(2));
    let _fourth = a.alloc(S0, 12 * MIB).unwrap();
    assert_eq!(held(&a).0, 36, "the first is free");
    a.free(third);
    a.synchronise_all();
    assert_eq!((cached(&a), a.events_recorded(S1)), (vec![12, 12], 2));
    check(&a);
}

#[test]
fn the_device_gives_no_more_than_it_has() {
    // [malloc, OutOfMemoryError]
    let mut a = allocator(Config { capacity: Some(50 * MIB), ..Config::default() });
    let _held = a.alloc(S0, 5 * MIB).unwrap();
    let error = a.alloc(S0, 31 * MIB).unwrap_err();
    assert_eq!(
        error,
        OutOfMemory {
            requested: 31 * MIB,
            segment: 32 * MIB,
            capacity: Some(50 * MIB),
            free: Some(30 * MIB),
            allowed: None,
            allocated: 5 * MIB,
            unallocated: 15 * MIB,
        }
    );
    assert_eq!(
        error.to_string(),
        "out of device memory: 32505856 bytes requested, 33554432 bytes needed from the device, of which 31457280 \
         bytes are free; 5242880 bytes are allocated and 15728640 bytes are reserved but unallocated"
    );
    let stats = a.stats();
    assert_eq!((stats.out_of_memory, stats.retries, stats.synchronisations), (1, 1, 1));
    assert!(a.alloc(S0, u64::MAX).is_err());
    let _fits = a.alloc(S0, 30 * MIB).unwrap();
    check(&a);
}

#[test]
fn what_is_wholly_free_is_given_back_before_a_request_fails() {
    // [release_cached_blocks]: the segments of 30, 2 and 12 MiB go, for the last of which stream 1 is waited
    // for; the one of which 9 MiB are in use stays.
    let mut a = allocator(Config { capacity: Some(64 * MIB), ..Config::default() });
    let _kept = a.alloc(S0, 9 * MIB).unwrap();
    let freed = a.alloc(S0, 30 * MIB).unwrap();
    let small = a.alloc(S0, KIB).unwrap();
    let used = a.alloc(S0, 12 * MIB).unwrap();
    a.record_stream(&used, S1);
    for block in [freed, small, used] {
        a.free(block);
    }
    assert_eq!((held(&a), a.events_recorded(S1)), ((64, 9), 1));
    let _large = a.alloc(S1, 44 * MIB).unwrap();
    assert_eq!((held(&a), cached(&a)), ((64, 53), vec![11]));
    let stats = a.stats();
    assert_eq!((stats.device_allocations, stats.device_frees, stats.retries), (5, 3, 1));
    check(&a);
}

#[test]
fn oversize_blocks_are_not_split_and_not_wasted() {
    // [get_free_block, should_split with max_split_size]
    let config = Config { max_split_size: Some(40 * MIB), ..Config::default() };
    let mut a = allocator(config.clone());
    let block = a.alloc(S0, 100 * MIB).unwrap();
    a.free(block);
    // Below the limit: not from an oversize block.
    let small = a.alloc(S0, 37 * MIB).unwrap();
    assert_eq!(held(&a).0, 138);
    // Above it: only if less than 20 MiB are wasted, and then whole.
    let far = a.alloc(S0, 80 * MIB).unwrap();
    assert_eq!(held(&a).0, 218);
    let near = a.alloc(S0, 80 * MIB + 512).unwrap();
    assert_eq!((near.size(), held(&a).0), (100 * MIB, 218));
    assert_eq!(a.stats().oversize_allocations.current, 2);
    assert_eq!(a.stats().oversize_segments.current, 2);
    // [max_non_split_rounding_mb]
    let mut wider = allocator(Config { max_non_split_rounding: 30 * MIB, ..config });
    let block = wider.alloc(S0, 100 * MIB).unwrap();
    wider.free(block);
    assert_eq!(wider.alloc(S0, 80 * MIB).unwrap().size(), 100 * MIB);
    for block in [small, far, near] {
        a.free(block);
    }
    check(&a);
}

#[test]
fn oversize_blocks_are_given_back_first_and_no_more_than_needed() {
    // [release_available_cached_blocks]
    let config = Config { max_split_size: Some(40 * MIB), capacity: Some(300 * MIB), ..Config::default() };
    let mut a = allocator(config);
    let blocks = [50, 60, 70, 120].map(|size| a.alloc(S0, size * MIB).unwrap());
    for block in blocks {
        a.free(block);
    }
    // The smallest that suffices: the 50 for a segment of 40.
    let first = a.alloc(S0, 39 * MIB).unwrap();
    assert_eq!((held(&a), cached(&a)), ((290, 40), vec![60, 70, 120]));
    // None suffices: the largest first, until they suffice together.
    let second = a.alloc(S0, 180 * MIB).unwrap();
    assert_eq!((held(&a), cached(&a)), ((280, 220), vec![60]));
    let stats = a.stats();
    assert_eq!((stats.device_frees, stats.retries, stats.synchronisations), (3, 0, 0));
    for block in [first, second] {
        a.free(block);
    }
    check(&a);
}

#[test]
fn old_cached_blocks_are_collected_above_the_threshold() {
    // [garbage_collect_cached_blocks]: 56 of 100 allowed MiB are reserved, 6 above the threshold. Three cached
    // blocks of 12 MiB were freed 3, 2 and 1 searches ago; those of at least average age go.
    let config =
        Config { allowed: Some(100 * MIB), garbage_collection_threshold: Some(0.5), ..Config::default() };
    let mut a = allocator(config.clone());
    let mut searches = vec![a.alloc(S1, 2 * MIB).unwrap()];
    let blocks = [12, 12, 12].map(|size| a.alloc(S0, size * MIB).unwrap());
    let last = blocks[2].address();
    for (number, block) in blocks.into_iter().enumerate() {
        a.free(block);
        if number < 2 {
            searches.push(a.alloc(S1, 2 * MIB).unwrap());
        }
    }
    assert_eq!((held(&a), cached(&a)), ((56, 6), vec![14, 12, 12, 12]));
    let _grows = a.alloc(S1, 30 * MIB).unwrap();
    assert_eq!((held(&a), cached(&a), a.stats().device_frees), ((62, 36), vec![14, 12], 2));
    assert_eq!(a.alloc(S0, 12 * MIB).unwrap().address(), last);
    check(&a);
    // Without a limit of its own PyTorch collects nothing.
    let mut a = allocator(Config { allowed: None, ..config });
    let block = a.alloc(S0, 90 * MIB).unwrap();
    a.free(block);
    let _more = a.alloc(S0, 95 * MIB).unwrap();
    assert_eq!((held(&a), a.stats().device_frees), ((186, 96), 0));
}

#[test]
fn the_allocator_keeps_to_what_it_allows_itself() {
    // [set_per_process_memory_fraction]
    let config = Config { allowed: Some(120 * MIB), capacity: Some(1 << 40), ..Config::default() };
    let mut a = allocator(config);
    // PyTorch's test_max_split_expandable without its switches: three times 40 MiB fit, a fourth does not, and
    // all of 120 MiB do once they are freed.
    let blocks = [40, 40, 40].map(|size| a.alloc(S0, size * MIB).unwrap());
    let error = a.alloc(S0, 40 * MIB).unwrap_err();
    assert_eq!((error.allowed, error.segment), (Some(120 * MIB), 40 * MIB));
    for block in blocks {
        a.free(block);
    }
    let _all = a.alloc(S0, 120 * MIB).unwrap();
    assert_eq!(held(&a), (120, 120));
}

#[test]
fn peaks_begin_anew_when_they_are_reset() {
    let mut a = allocator(Config::default());
    let block = a.alloc(S0, 30 * MIB).unwrap();
    a.free(block);
    a.empty_cache();
    let all = a.stats().all;
    assert_eq!((all.reserved_bytes.peak, all.reserved_bytes.current), (30 * MIB, 0));
    assert_eq!((all.segments.risen, all.segments.fallen()), (1, 1));
    a.reset_peaks();
    assert_eq!(a.stats().all.reserved_bytes.peak, 0);
    assert_eq!(a.stats().large.reserved_bytes.peak, 0);
}
