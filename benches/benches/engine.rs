//! The engine alone, beside plain loops that do only what cannot be left out.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use steptime_benches as set_up;
use steptime_benches::{Delays, SetUp};
use steptime_core::allocator::{Allocator, Config};
use steptime_core::{NoObserver, simulate};

/// Kernel records of one rank.
const KERNELS: u64 = 1_000_000;

/// Events in the queue while it is measured.
const PENDING: [u64; 3] = [100, 10_000, 1_000_000];

/// Kernel records a second, without and with a launch queue, beside the bare loop.
pub(crate) fn kernels(criterion: &mut Criterion) -> SetUp<()> {
    let kernels = set_up::kernels(KERNELS);
    let mut group = criterion.benchmark_group("kernels");
    group.throughput(Throughput::Elements(KERNELS));
    group.bench_function("bare loop", |b| b.iter(|| set_up::bare_loop(black_box(&kernels))));
    for (name, depth) in [("engine", 0), ("engine, launch queue of 1024", 1024)] {
        let world = set_up::one_rank(&kernels, depth)?;
        group.bench_function(name, |b| b.iter(|| simulate(&world, &mut NoObserver)));
    }
    group.finish();
    Ok(())
}

/// One hold (an event leaves and comes again later) with so many pending, beside the standard heap.
pub(crate) fn event_queues(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hold");
    group.throughput(Throughput::Elements(1));
    for pending in PENDING {
        let mut delays = Delays::default();
        let mut queue = set_up::event_queue(pending, &mut delays);
        group.bench_function(BenchmarkId::new("event queue", pending), |b| {
            b.iter(|| set_up::hold_in_event_queue(&mut queue, &mut delays));
        });
        let mut delays = Delays::default();
        let mut heap = set_up::binary_heap(pending, &mut delays);
        group.bench_function(BenchmarkId::new("std binary heap", pending), |b| {
            b.iter(|| set_up::hold_in_binary_heap(&mut heap, &mut delays));
        });
    }
    group.finish();
}

/// An all-to-all of 256 GPUs (65,280 flows at once) and a ring all-reduce of 1,024 hosts (2.1 M flows), beside a bare loop.
pub(crate) fn flows(criterion: &mut Criterion) -> SetUp<()> {
    let (exchange, ring) = (set_up::all_to_all(256, 1 << 20)?, set_up::ring(1024, 1 << 20)?);
    let mut group = criterion.benchmark_group("flows");
    group.sample_size(10);
    group.bench_function("bare loop of 2.1 M", |b| {
        b.iter(|| set_up::bare_flows(black_box(2 * 1023 * 1024), 1 << 20));
    });
    group.bench_function("all-to-all of 256", |b| b.iter(|| simulate(&exchange, &mut NoObserver)));
    group.bench_function("ring of 1024", |b| b.iter(|| simulate(&ring, &mut NoObserver)));
    group.finish();
    Ok(())
}

/// Pairs of requests and frees of a training step in its steady state, beside a loop that only notes sizes.
pub(crate) fn allocators(criterion: &mut Criterion) -> SetUp<()> {
    let turns = set_up::training_step();
    let mut group = criterion.benchmark_group("alloc and free");
    group.throughput(Throughput::Elements(turns.len() as u64 / 2));
    let mut noted: Vec<Option<u64>> = set_up::slots().iter().map(|_| None).collect();
    group.bench_function("bare loop", |b| b.iter(|| set_up::bare_step(&mut noted, black_box(&turns))));
    for (name, expandable_segments) in [("caching allocator", false), ("expandable segments", true)] {
        let mut allocator = Allocator::new(Config { expandable_segments, ..Config::default() })?;
        let mut slots = set_up::slots();
        group.bench_function(name, |b| {
            b.iter(|| set_up::play_step(&mut allocator, &mut slots, black_box(&turns)));
        });
    }
    group.finish();
    Ok(())
}
