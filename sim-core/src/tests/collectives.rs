//! Several ranks: meetings, and flows that share links.

use super::*;
use crate::{Channel, Label, Stream};

/// One stream, one channel.
fn setup(b: &mut ProgramBuilder) -> (Label, Stream, Channel) {
    (b.label("all-reduce"), b.stream("s"), b.channel("g"))
}

/// A program that computes for a time and then meets.
fn computes_and_meets(compute: u64, fixed: u64, bytes: u64) -> Program {
    write("p", |b| {
        let (l, s, c) = setup(b);
        b.kernel(s, COMPUTE, l, ps(compute), ps(0));
        b.rendezvous(s, c, SEND, WAIT, l, ps(fixed), bytes);
    })
}

#[test]
fn members_wait_for_the_last_and_go_on_together() {
    // Arrivals at 10, 25 and 40; 5 fixed; latency 3 of the path; no bytes.
    let mut w = world();
    let link = w.link("l", 1e12, ps(3));
    let group = w.group(3, vec![uses(link, 1)]);
    for compute in [10, 25, 40] {
        let spec = rank(&mut w, computes_and_meets(compute, 5, 0), &[group]);
        w.rank(spec);
    }
    let (outcome, _) = play(&w.build().unwrap());
    assert_eq!((outcome.end, outcome.events), (ps(48), 0));
    assert_eq!(charges(&outcome.ranks[0].streams[0].busy), [(COMPUTE.0, 10), (SEND.0, 8), (WAIT.0, 30)]);
    assert_eq!(charges(&outcome.ranks[2].streams[0].busy), [(COMPUTE.0, 40), (SEND.0, 8)]);
}

#[test]
fn two_flows_share_a_link() {
    // 1 byte/ps. Group A starts 100 bytes at 0, group B 100 bytes at 40. A has 60 left at 40, half the rate
    // each: A ends at 160, when B has 40 left, B at 200. Fixed 0, latency 7.
    let mut w = world();
    let link = w.link("shared", 1e12, ps(7));
    for compute in [0, 40] {
        let group = w.group(1, vec![uses(link, 1)]);
        let spec = rank(&mut w, computes_and_meets(compute, 0, 100), &[group]);
        w.rank(spec);
    }
    let (outcome, recorder) = play(&w.build().unwrap());
    let flows: Vec<_> = recorder.flows().iter().map(|f| (f.group.0, f.start.0, f.end.0)).collect();
    assert_eq!(flows, [(0, 0, 160), (1, 40, 200)]);
    assert_eq!((outcome.ranks[0].end, outcome.ranks[1].end), (ps(167), ps(207)));
    // Two starts, and A's first end, outdated by B's start, two ends that came.
    assert_eq!(outcome.events, 5);
}

#[test]
fn weights_count_as_equal_flows() {
    // 4 bytes/ps shared by weight 3 and weight 1: rate 1 each. 100 bytes take 100; the other 50 left after
    // that has the link alone at weight 3: 4/3 bytes/ps, 37.5 more, rounded up.
    let mut w = world();
    let link = w.link("shared", 4e12, ps(0));
    for (weight, bytes) in [(1, 100), (3, 150)] {
        let group = w.group(1, vec![uses(link, weight)]);
        let spec = rank(&mut w, computes_and_meets(0, 0, bytes), &[group]);
        w.rank(spec);
    }
    let (outcome, _) = play(&w.build().unwrap());
    assert_eq!((outcome.ranks[0].end, outcome.ranks[1].end), (ps(100), ps(138)));
}

#[test]
fn three_links_fill_progressively_in_time() {
    // Capacities 6, 10, 12 bytes/ps; the first flow crosses all, two more the first link, one each the
    // others. Rates 2, 2, 2, 8, 10 (worked in the tests of the links); 240 bytes each.
    //   24: flow 4 (10/ps) ends. Flow 0 is held by link 0, nothing changes.
    //   30: flow 3 (8/ps) ends. The same.
    //   120: flows 0, 1, 2 end.
    let mut w = world();
    let links: Vec<_> = [6e12, 10e12, 12e12].iter().map(|c| w.link("l", *c, ps(0))).collect();
    let paths = [vec![0, 1, 2], vec![0], vec![0], vec![1], vec![2]];
    for path in paths {
        let group = w.group(1, path.iter().map(|i| uses(links[*i], 1)).collect());
        let spec = rank(&mut w, computes_and_meets(0, 0, 240), &[group]);
        w.rank(spec);
    }
    let (_, recorder) = play(&w.build().unwrap());
    let mut ends: Vec<_> = recorder.flows().iter().map(|f| (f.group.0, f.end.0)).collect();
    ends.sort_unstable();
    assert_eq!(ends, [(0, 120), (1, 120), (2, 120), (3, 30), (4, 24)]);
}

#[test]
fn a_private_path_needs_no_event_and_gives_the_same() {
    let ends = |shared: bool| {
        let mut w = world();
        let link = w.link("l", 3e9, ps(11));
        let group = w.group(2, vec![uses(link, 2)]);
        for compute in [10, 25] {
            let spec = rank(&mut w, computes_and_meets(compute, 5, 1_000_003), &[group]);
            w.rank(spec);
        }
        if shared {
            // A flow on the same link long after.
            let other = w.group(1, vec![uses(link, 1)]);
            let spec = rank(&mut w, computes_and_meets(10_000_000_000_000, 0, 1), &[other]);
            w.rank(spec);
        }
        let (outcome, recorder) = play(&w.build().unwrap());
        (outcome.ranks[0].end, recorder.flows()[0], outcome.events > 0)
    };
    let (private, shared) = (ends(false), ends(true));
    // 25 + 5, then 1000003 bytes at 1.5 GB/s = 666668666.67 ps, then 11.
    assert_eq!((private.0, private.2), (ps(666_668_708), false));
    assert_eq!((shared.0, shared.1, shared.2), (private.0, private.1, true));
}

#[test]
fn sends_and_receives_match_in_order_of_issue() {
    // Rank 0 sends twice on stream 0; rank 1 receives the first on stream 1 and the second on stream 0, in
    // the other order of time: the first issued meets the first issued. The first receive arrives at 50,
    // after the kernel before it; the second send follows the first.
    let mut w = world();
    let group = w.group(2, vec![]);
    let sender = write("sender", |b| {
        let (l, s, c) = setup(b);
        b.rendezvous(s, c, SEND, WAIT, l, ps(10), 0);
        b.rendezvous(s, c, SEND, WAIT, l, ps(20), 0);
    });
    let receiver = write("receiver", |b| {
        let (l, s, c) = setup(b);
        let t = b.stream("t");
        b.kernel(t, COMPUTE, l, ps(50), ps(0));
        b.rendezvous(t, c, SEND, WAIT, l, ps(10), 0);
        b.rendezvous(s, c, SEND, WAIT, l, ps(20), 0);
    });
    for program in [sender, receiver] {
        let spec = rank(&mut w, program, &[group]);
        w.rank(spec);
    }
    let (outcome, _) = play(&w.build().unwrap());
    let ends: Vec<_> = outcome.ranks[1].streams.iter().map(|s| s.end.0).collect();
    assert_eq!(ends, [80, 60]);
    assert_eq!(charges(&outcome.ranks[1].streams[0].busy), [(SEND.0, 20), (WAIT.0, 60)]);
}

#[test]
fn a_backlog_plays_out_when_its_meeting_resolves() {
    // Rank 0's stream 1 meets at 0 and waits for rank 1 until 100, then 10 of transfer. Issued meanwhile:
    // a kernel on stream 1 (110..120), an event, stream 0's wait for it, a kernel (120..125).
    let mut w = world();
    let group = w.group(2, vec![]);
    let early = write("early", |b| {
        let (l, s, c) = setup(b);
        let t = b.stream("t");
        b.rendezvous(t, c, SEND, WAIT, l, ps(10), 0);
        let met = b.record(t);
        b.kernel(t, LOAD, l, ps(10), ps(0));
        let event = b.record(t);
        b.wait(s, met);
        b.wait(s, event);
        b.kernel(s, COMPUTE, l, ps(5), ps(0));
        b.host_sync(s);
        b.host(ps(1), LOAD, l);
    });
    let late = computes_and_meets(100, 10, 0);
    for program in [early, late] {
        let spec = rank(&mut w, program, &[group]);
        w.rank(spec);
    }
    let (outcome, _) = play(&w.build().unwrap());
    let rank = &outcome.ranks[0];
    assert_eq!((rank.end, rank.streams[0].end, rank.streams[1].end), (ps(126), ps(125), ps(120)));
    // Stream 0 waits 0..100 for the rank that is late, 100..110 for the transfer, 110..120 for the kernel.
    assert_eq!(charges(&rank.idle), [(SEND.0, 10), (WAIT.0, 100), (LOAD.0, 10), (TAIL.0, 1)]);
}

#[test]
fn launches_in_flight_include_meetings_of_their_stream() {
    // Depth 1. The kernel behind the meeting is issued when that is over, at 110, and the host goes on at 111;
    // a kernel on another stream does not have to wait for the meeting.
    let ends = |before: bool| {
        let mut w = world();
        let group = w.group(2, vec![]);
        let early = write("early", |b| {
            let (l, s, c) = setup(b);
            let t = b.stream("t");
            b.rendezvous(t, c, SEND, WAIT, l, ps(10), 0);
            for stream in if before { [s, t] } else { [t, s] } {
                b.kernel(stream, COMPUTE, l, ps(5), ps(1));
            }
        });
        let first = RankSpec { queue_depth: 1, ..rank(&mut w, early, &[group]) };
        let second = rank(&mut w, computes_and_meets(100, 10, 0), &[group]);
        w.rank(first);
        w.rank(second);
        let (outcome, _) = play(&w.build().unwrap());
        let streams = &outcome.ranks[0].streams;
        (streams[0].end, streams[1].end)
    };
    assert_eq!(ends(true), (ps(6), ps(116)));
    assert_eq!(ends(false), (ps(117), ps(116)));
}

#[test]
fn a_group_of_one_stands_for_equal_members() {
    // Weight 8 on a link of 4 bytes/ps: 100 bytes at half a byte per picosecond.
    let mut w = world();
    let link = w.link("l", 4e12, ps(1));
    let group = w.group(1, vec![uses(link, 8)]);
    let spec = RankSpec { multiplicity: 8, ..rank(&mut w, computes_and_meets(3, 2, 100), &[group]) };
    w.rank(spec);
    let (outcome, _) = play(&w.build().unwrap());
    assert_eq!((outcome.end, outcome.ranks[0].multiplicity), (ps(206), 8));
}

/// Ranks in a circle that pass parts on as they get them, each at its own pace; some meet a few others besides.
fn circle(ranks: u32, steps: u32, shares: bool) -> World {
    let mut w = world();
    let ports: Vec<_> = (0..ranks).map(|rank| w.link(&format!("{rank}"), 1e12, ps(3))).collect();
    let backbone = w.link("backbone", 7e12, ps(1));
    let pairs: Vec<_> = ports
        .iter()
        .map(|&port| {
            let common = shares.then(|| uses(backbone, 1));
            w.group(2, std::iter::once(uses(port, 1)).chain(common).collect())
        })
        .collect();
    let far: Vec<_> = (0..ranks / 4).map(|_| w.group(4, vec![])).collect();
    for rank in 0..ranks {
        let program = write(&format!("{rank}"), |b| {
            let (sends, receives) = (b.stream("sends"), b.stream("receives"));
            let (next, before, others) = (b.channel("next"), b.channel("before"), b.channel("others"));
            let label = b.label("part");
            for step in 0..steps {
                b.kernel(sends, COMPUTE, label, ps(u64::from((rank * 7 + step * 13) % 29)), ps(2));
                b.rendezvous(sends, next, SEND, WAIT, label, ps(0), 100);
                b.rendezvous(receives, before, SEND, WAIT, label, ps(0), 100);
                let received = b.record(receives);
                b.wait(sends, received);
                if step % 5 == 4 {
                    b.rendezvous(sends, others, SEND, WAIT, label, ps(11), 0);
                }
            }
        });
        let groups = [
            pairs[rank as usize],
            pairs[((rank + ranks - 1) % ranks) as usize],
            far[(rank % (ranks / 4)) as usize],
        ];
        let spec = self::rank(&mut w, program, &groups);
        w.rank(spec);
    }
    w.build().unwrap()
}

#[test]
fn many_ranks_that_pass_parts_around_agree_with_the_reference() {
    for (ranks, steps) in [(36, 40), (64, 70), (200, 90)] {
        play(&circle(ranks, steps, false));
    }
    play(&circle(100, 20, true));
}

/// Half of a divided group's bytes cross a link of 8 bytes/ps that another group uses: rates are fair among parts, so one
/// part has 4 bytes/ps, and two parts move 80 bytes in 10 ps. The other then has the link alone: 40 of 120 bytes have passed.
#[test]
fn parts_of_a_group_share_links_like_flows() {
    let mut w = world();
    let (shared, wide) = (w.link("shared", 8e12, ps(0)), w.link("wide", 1e15, ps(0)));
    let divided = w.divided_group(1, vec![uses(shared, 1), uses(wide, 1)], 2);
    let whole = w.group(1, vec![uses(shared, 1)]);
    for (group, bytes) in [(divided, 80), (whole, 120)] {
        let spec = rank(&mut w, computes_and_meets(0, 0, bytes), &[group]);
        w.rank(spec);
    }
    let (_, recorder) = play(&w.build().unwrap());
    let flows: Vec<_> = recorder.flows().iter().map(|f| (f.group.0, f.end.0)).collect();
    assert_eq!(flows, [(0, 10), (1, 20)]);
}

/// The first ranks of a world as if it had ended with them.
#[test]
fn the_first_ranks_of_an_outcome_end_with_the_last_of_them() {
    let mut w = world();
    for compute in [30, 50, 90] {
        let spec = rank(
            &mut w,
            write("p", |b| {
                let (l, s) = (b.label("x"), b.stream("s"));
                b.kernel(s, COMPUTE, l, ps(compute), ps(0));
            }),
            &[],
        );
        w.rank(spec);
    }
    let (outcome, _) = play(&w.build().unwrap());
    let idle =
        |outcome: &Outcome| -> Vec<u64> { outcome.ranks.iter().map(|rank| rank.total_idle().0).collect() };
    assert_eq!((outcome.end, idle(&outcome)), (ps(90), vec![60, 40, 0]));
    let two = outcome.clone().of_first(2, TAIL);
    assert_eq!((two.end, idle(&two)), (ps(50), vec![20, 0]));
    assert_eq!(charges(&two.ranks[0].idle), [(TAIL.0, 20)]);
    assert_eq!(outcome.clone().of_first(3, TAIL), outcome);
    assert_eq!(outcome.clone().of_first(0, TAIL).end, SimTime::ZERO);
}
