//! Amounts in program order, moments in stream order.

use super::*;
use crate::{Category, Tensor};

/// Moments and totals of rank 0's memory curve.
fn curve(recorder: &Recorder) -> Vec<(u64, u64)> {
    recorder.memory_records().iter().filter(|r| r.rank == 0).map(|r| (r.at.0, r.total)).collect()
}

#[test]
fn the_curve_shows_when_the_stream_gets_there() {
    // Host issues at 1, 2; kernels 1..11 and 11..21. The first allocation is served before any work, the
    // second after the first kernel, the free after the second.
    let program = write("p", |b| {
        let (l, s) = (b.label("x"), b.stream("s"));
        let (weights, saved) = (b.tensor(100, Category(0), l), b.tensor(30, Category(2), l));
        b.alloc(s, weights);
        b.kernel(s, COMPUTE, l, ps(10), ps(1));
        b.alloc(s, saved);
        b.kernel(s, COMPUTE, l, ps(10), ps(1));
        b.free(s, saved);
    });
    let (outcome, recorder) = play(&one_rank(program));
    assert_eq!(curve(&recorder), [(0, 100), (11, 130), (21, 100)]);
    let deltas: Vec<i64> = recorder.memory_records().iter().map(|record| record.delta).collect();
    assert_eq!(deltas, [100, 30, -30]);
    let memory = &outcome.ranks[0].memory;
    assert_eq!((memory.peak, memory.peak_at), (130, ps(11)));
    assert_eq!((memory.peak_by_category[0], memory.peak_by_category[2]), (100, 30));
    assert_eq!((memory.end_by_category[0], memory.end_by_category[2]), (100, 0));
    assert_eq!((memory.capacity, &memory.failure), (None, &None));
}

#[test]
fn moments_never_fall_and_wait_for_the_streams_before() {
    // Stream 1 is at a meeting until 110 when the host frees there; the allocation on the free stream 0
    // comes later in the program, so it shows at 110 as well, and the peak with it.
    let mut w = world();
    let group = w.group(2, vec![]);
    let early = write("early", |b| {
        let (l, s) = (b.label("x"), b.stream("s"));
        let (t, c) = (b.stream("t"), b.channel("g"));
        let (old, new) = (b.tensor(50, Category(0), l), b.tensor(70, Category(1), l));
        b.alloc(s, old);
        b.rendezvous(t, c, SEND, WAIT, l, ps(10), 0);
        b.free(t, old);
        b.alloc(s, new);
    });
    let late = write("late", |b| {
        let (l, s, c) = (b.label("x"), b.stream("s"), b.channel("g"));
        b.kernel(s, COMPUTE, l, ps(100), ps(0));
        b.rendezvous(s, c, SEND, WAIT, l, ps(10), 0);
    });
    for program in [early, late] {
        let spec = rank(&mut w, program, &[group]);
        w.rank(spec);
    }
    let (outcome, recorder) = play(&w.build().unwrap());
    assert_eq!(curve(&recorder), [(0, 50), (110, 0), (110, 70)]);
    let memory = &outcome.ranks[0].memory;
    assert_eq!((memory.peak, memory.peak_at, memory.peak_by_category[1]), (70, ps(110), 70));
}

#[test]
fn the_first_allocation_that_does_not_fit_is_named_and_play_goes_on() {
    let program = write("p", |b| {
        let (l, s, logits) = (b.label("x"), b.stream("s"), b.label("logits"));
        for (bytes, category, label) in [(60, 0, l), (50, 3, logits), (500, 1, l)] {
            let tensor = b.tensor(bytes, Category(category), label);
            b.kernel(s, COMPUTE, l, ps(10), ps(0));
            b.alloc(s, tensor);
        }
    });
    let mut w = world();
    let spec = RankSpec { memory_capacity: Some(100), ..rank(&mut w, program, &[]) };
    w.rank(spec);
    let (outcome, _) = play(&w.build().unwrap());
    let memory = &outcome.ranks[0].memory;
    assert_eq!((memory.peak, memory.peak_at, memory.capacity), (610, ps(30), Some(100)));
    let failure = memory.failure.as_ref().unwrap();
    assert_eq!((failure.at, failure.tensor, failure.label.as_str()), (ps(20), Tensor(1), "logits"));
    assert_eq!((failure.category, failure.requested, failure.short_by), (Category(3), 50, 10));
}

#[test]
fn equal_peaks_count_once_at_the_earliest() {
    let program = write("p", |b| {
        let (l, s) = (b.label("x"), b.stream("s"));
        let (first, second) = (b.tensor(9, Category(0), l), b.tensor(9, Category(1), l));
        for tensor in [first, second] {
            b.alloc(s, tensor);
            b.kernel(s, COMPUTE, l, ps(10), ps(0));
            b.free(s, tensor);
        }
    });
    let memory = play(&one_rank(program)).0.ranks.remove(0).memory;
    assert_eq!((memory.peak, memory.peak_at, memory.peak_by_category[0]), (9, ps(0), 9));
}
