//! One rank: host, streams, events, launch depth, and why the primary stream was idle.

use super::*;
use crate::{Span, SpanKind, Stream};

/// Start and end of a stream's kernels.
fn kernels(recorder: &Recorder, stream: u8) -> Vec<(u64, u64)> {
    let of = |span: &&Span| span.stream == Some(Stream(stream)) && span.kind == SpanKind::Kernel;
    recorder.spans().iter().filter(of).map(|span| (span.start.0, span.end.0)).collect()
}

#[test]
fn a_stream_waits_for_an_event_of_another() {
    // Issue takes nothing. Stream 1: 0..30, event at 30. Stream 0: 0..10, waits 20, then 30..35.
    let world = one_rank(write("wait", |b| {
        let l = b.label("k");
        let (a, c) = (b.stream("a"), b.stream("c"));
        b.kernel(a, COMPUTE, l, ps(10), ps(0));
        b.kernel(c, SEND, l, ps(30), ps(0));
        let event = b.record(c);
        b.kernel(c, SEND, l, ps(100), ps(0));
        b.wait(a, event);
        b.kernel(a, COMPUTE, l, ps(5), ps(0));
    }));
    let (outcome, recorder) = play(&world);
    assert_eq!(kernels(&recorder, 0), [(0, 10), (30, 35)]);
    assert_eq!(kernels(&recorder, 1), [(0, 30), (30, 130)]);
    assert_eq!((outcome.end, outcome.operations, outcome.events), (ps(130), 6, 0));
    let rank = &outcome.ranks[0];
    assert_eq!(rank.streams[0].end, ps(35));
    assert_eq!(charges(&rank.streams[0].busy), [(COMPUTE.0, 15)]);
    // The 20 of waiting are the other stream's work; from 35 to 130 nothing is left to do.
    assert_eq!(charges(&rank.idle), [(SEND.0, 20), (TAIL.0, 95)]);
}

#[test]
fn a_slow_host_leaves_gaps() {
    // The host issues at 10, 20, 30; kernels of 4 leave 6 between them, and 10 before the first.
    let world = one_rank(write("host-bound", |b| {
        let (l, s) = (b.label("k"), b.stream("s"));
        for _ in 0..3 {
            b.kernel(s, COMPUTE, l, ps(4), ps(10));
        }
    }));
    let (outcome, recorder) = play(&world);
    assert_eq!(kernels(&recorder, 0), [(10, 14), (20, 24), (30, 34)]);
    assert_eq!(charges(&outcome.ranks[0].idle), [(HOST.0, 22)]);
    assert_eq!(charges(&outcome.ranks[0].host_busy), [(HOST.0, 30)]);
    let host: Vec<_> = recorder.spans().iter().filter(|s| s.stream.is_none()).collect();
    assert_eq!((host.len(), host[2].start, host[2].end), (3, ps(20), ps(30)));
}

#[test]
fn a_late_host_is_charged_to_its_explicit_work_where_that_is_why() {
    // Kernel 0..10. The host works (class LOAD) 2..22, issues 22..25: idle 10..25, of which 12 are LOAD.
    let world = one_rank(write("load", |b| {
        let (l, s) = (b.label("k"), b.stream("s"));
        b.kernel(s, COMPUTE, l, ps(10), ps(2));
        b.host(ps(20), LOAD, l);
        b.kernel(s, COMPUTE, l, ps(1), ps(3));
    }));
    let (outcome, recorder) = play(&world);
    assert_eq!(kernels(&recorder, 0), [(2, 12), (25, 26)]);
    // 0..2 before the first kernel; then 12..22 of the load, 22..25 of the issue.
    assert_eq!(charges(&outcome.ranks[0].idle), [(LOAD.0, 10), (HOST.0, 5)]);
    assert_eq!(charges(&outcome.ranks[0].host_busy), [(LOAD.0, 20), (HOST.0, 5)]);
}

/// The stream sends until 10; meanwhile the host works (class LOAD) 0..20 and issues a transfer, which explains why the
/// stream is idle 10..20.
#[test]
fn a_late_host_is_charged_to_its_work_before_a_transfer_behind_another() {
    let mut w = world();
    let link = w.link("link", 1e12, ps(0));
    let [both, first, last] = [2, 1, 1].map(|members| w.group(members, vec![uses(link, 1)]));
    for own in [first, last] {
        let program = write("late", |b| {
            let (l, a, c) = (b.label("k"), b.stream("a"), b.stream("c"));
            let (both, own) = (b.channel("both"), b.channel("own"));
            b.rendezvous(a, both, SEND, WAIT, l, ps(0), 10);
            b.host(ps(20), LOAD, l);
            b.rendezvous(a, own, SEND, WAIT, l, ps(5), 0);
            b.host(ps(20), COMPUTE, l);
            b.rendezvous(c, own, SEND, WAIT, l, ps(0), 10);
        });
        let spec = rank(&mut w, program, &[both, own]);
        w.rank(spec);
    }
    let (outcome, _) = play(&w.build().unwrap());
    // Both send over the link in the end.
    assert_eq!(outcome.end, ps(60));
    for rank in outcome.ranks {
        assert_eq!(charges(&rank.idle), [(LOAD.0, 10), (TAIL.0, 35)]);
    }
}

#[test]
fn a_wait_and_a_late_host_share_a_gap() {
    // Stream 1's kernel ends at 20, stream 0 is free from 5. The host is busy 0..50 after issuing the wait,
    // so 5..20 is the event's, 20..50 the host's work.
    let world = one_rank(write("both", |b| {
        let (l, s, t) = (b.label("k"), b.stream("s"), b.stream("t"));
        b.kernel(s, COMPUTE, l, ps(5), ps(0));
        b.kernel(t, SEND, l, ps(20), ps(0));
        let event = b.record(t);
        b.wait(s, event);
        b.host(ps(50), LOAD, l);
        b.kernel(s, COMPUTE, l, ps(1), ps(0));
    }));
    let (outcome, _) = play(&world);
    assert_eq!(charges(&outcome.ranks[0].idle), [(SEND.0, 15), (LOAD.0, 30)]);
}

#[test]
fn the_host_waits_for_streams_and_events() {
    // Sync with stream 1 at 30; kernel 30..40 on stream 0 after 1 of issue; the event of 31..41 at 41.
    let world = one_rank(write("sync", |b| {
        let (l, s, t) = (b.label("k"), b.stream("s"), b.stream("t"));
        b.kernel(t, SEND, l, ps(30), ps(0));
        b.host_sync(t);
        b.kernel(s, COMPUTE, l, ps(10), ps(1));
        let event = b.record(s);
        b.kernel(s, COMPUTE, l, ps(10), ps(1));
        b.host_wait(event);
        b.host(ps(100), LOAD, l);
    }));
    let (outcome, recorder) = play(&world);
    assert_eq!(kernels(&recorder, 0), [(31, 41), (41, 51)]);
    assert_eq!((outcome.end, outcome.ranks[0].streams[0].end), (ps(141), ps(51)));
}

#[test]
fn the_launch_depth_holds_the_host_back() {
    // Depth 2, kernels of 10 issued in 1. Launch 2 waits for launch 0 to end at 11, launch 3 for 1 at 21.
    let program = write("depth", |b| {
        let (l, s) = (b.label("k"), b.stream("s"));
        for _ in 0..4 {
            b.kernel(s, COMPUTE, l, ps(10), ps(1));
        }
        b.host(ps(0), LOAD, l);
    });
    let mut w = world();
    let spec = RankSpec { queue_depth: 2, ..rank(&mut w, program, &[]) };
    w.rank(spec);
    let (outcome, recorder) = play(&w.build().unwrap());
    let host: Vec<_> = recorder.spans().iter().filter(|s| s.stream.is_none()).map(|s| s.start.0).collect();
    assert_eq!(host, [0, 1, 11, 21, 22]);
    assert_eq!(kernels(&recorder, 0), [(1, 11), (11, 21), (21, 31), (31, 41)]);
    assert_eq!(outcome.end, ps(41));
}

#[test]
fn a_program_of_nothing_and_one_without_streams_end() {
    let (outcome, _) = play(&one_rank(write("nothing", |_| ())));
    assert_eq!((outcome.end, outcome.operations), (ps(0), 0));
    let (outcome, _) = play(&one_rank(write("host-only", |b| {
        let l = b.label("l");
        b.host(ps(7), LOAD, l);
    })));
    assert_eq!((outcome.end, charges(&outcome.ranks[0].idle)), (ps(7), vec![(TAIL.0, 7)]));
}
