//! Requests and frees in any order, checked against what must always hold.

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use steptime_core::Stream;
use steptime_core::allocator::{Allocator, Block, BlockState, Config, ROUNDUP_INTERVALS};

pub(crate) fn allocator(data: &[u8]) {
    // A sequence ends where its bytes do.
    let _ = play(&mut Unstructured::new(data));
}

fn config(input: &mut Unstructured) -> Result<Config> {
    let mib = |input: &mut Unstructured| -> Result<Option<u64>> {
        Ok(if input.arbitrary()? { Some(u64::from(input.int_in_range(0..=600_u16)?) << 20) } else { None })
    };
    let mut config = Config {
        capacity: mib(input)?,
        allowed: mib(input)?,
        expandable_segments: input.arbitrary()?,
        max_split_size: mib(input)?,
        ..Config::default()
    };
    if input.arbitrary()? {
        config.max_non_split_rounding = input.arbitrary()?;
    }
    if input.arbitrary()? {
        config.garbage_collection_threshold = Some(f64::from(input.arbitrary::<u8>()?) / 200.0);
    }
    if input.arbitrary()? {
        config.roundup_power2_divisions = [1 << input.int_in_range(0..=63_u32)?; ROUNDUP_INTERVALS];
    }
    Ok(config)
}

/// The larger of the two kinds of pages.
const PAGE: u64 = 20 << 20;

/// Mostly sizes of tensors; some at the ends of what can be asked for.
fn size(input: &mut Unstructured) -> Result<u64> {
    Ok(match input.int_in_range(0..=7_u8)? {
        0 => input.arbitrary()?,
        1 => u64::from(input.arbitrary::<u16>()?),
        2 => u64::from(input.arbitrary::<u8>()?) << 20,
        _ => u64::from(input.arbitrary::<u16>()?) << input.int_in_range(0..=12_u32)?,
    })
}

fn play(input: &mut Unstructured) -> Result<()> {
    let Ok(mut allocator) = Allocator::new(config(input)?) else { return Ok(()) };
    let mut held: Vec<Block> = Vec::new();
    for step in 0_u32.. {
        if input.is_empty() || step > 4096 {
            break;
        }
        let stream = Stream(input.int_in_range(0..=2)?);
        match input.int_in_range(0..=11_u8)? {
            0..=4 => held.extend(allocator.alloc(stream, size(input)?)),
            5 => held.extend(allocator.alloc_at_once(stream, size(input)?)),
            6..=8 if !held.is_empty() => {
                let at = input.choose_index(held.len())?;
                let block = held.swap_remove(at);
                let before = allocator.stats().all.allocated_bytes.current;
                let size = block.size();
                allocator.free(block);
                assert_eq!(before - allocator.stats().all.allocated_bytes.current, size);
            }
            9 if !held.is_empty() => {
                let at = input.choose_index(held.len())?;
                allocator.record_stream(&held[at], stream);
            }
            10 => {
                let count = u64::from(input.arbitrary::<u8>()?);
                allocator.events_passed(stream, allocator.events_recorded(stream).saturating_sub(count));
            }
            _ if input.ratio(1, 4)? => allocator.empty_cache(),
            _ => {}
        }
        if step % 16 == 0 {
            check(&allocator, &held);
        }
    }
    check(&allocator, &held);
    held.into_iter().for_each(|block| allocator.free(block));
    allocator.synchronise_all();
    allocator.empty_cache();
    check(&allocator, &[]);
    let all = &allocator.stats().all;
    assert_eq!((all.allocated_bytes.current, all.active.current, all.reserved_bytes.current), (0, 0, 0));
    Ok(())
}

/// Blocks tile their segments, no two overlap, what users hold is there once, and the sums are those that are counted.
fn check(allocator: &Allocator, held: &[Block]) {
    let segments = allocator.snapshot();
    let stats = &allocator.stats().all;
    let (mut reserved, mut allocated, mut end) = (0, 0, 0);
    let mut addresses = Vec::new();
    let mut sorted: Vec<_> = segments.iter().collect();
    sorted.sort_by_key(|segment| segment.address);
    for segment in sorted {
        assert!(segment.address >= end, "segments overlap");
        end = segment.address + segment.total_size;
        let mut at = segment.address;
        for block in &segment.blocks {
            assert_eq!(block.address, at, "a gap between blocks");
            assert!(block.size > 0);
            at += block.size;
            if block.state == BlockState::ActiveAllocated {
                allocated += block.size;
                addresses.push((block.address, block.size));
            }
        }
        assert_eq!(at, end, "blocks do not fill their segment");
        reserved += segment.total_size;
    }
    assert_eq!((reserved, allocated), (stats.reserved_bytes.current, stats.allocated_bytes.current));
    let mut own: Vec<_> = held.iter().map(|it| (it.address(), it.size())).filter(|it| it.1 > 0).collect();
    own.sort_unstable();
    assert_eq!(own, addresses, "what is held is not what is handed out");
    let config = allocator.config();
    assert!(config.capacity.is_none_or(|most| reserved <= most), "{reserved} bytes of {config:?}");
    // What may be reserved is compared with the request, as PyTorch does; an expandable segment grows by whole pages.
    let page = if config.expandable_segments { PAGE } else { 0 };
    assert!(config.allowed.is_none_or(|most| reserved <= most + page), "{reserved} bytes of {config:?}");
    assert!(allocated <= reserved && stats.reserved_bytes.peak >= reserved);
}
