//! Nanoseconds a record, for people: `cargo test --release -p steptime-core speed -- --ignored --nocapture`.

use std::time::Instant;

use super::*;
use crate::EventQueue;

/// Best of five, in nanoseconds for each of `count`.
fn time(what: &str, count: u64, mut work: impl FnMut()) {
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let start = Instant::now();
        work();
        best = best.min(start.elapsed().as_nanos() as f64);
    }
    println!("{what}: {:.1} ns each, {:.1} ms in all", best / count as f64, best / 1e6);
}

#[test]
#[ignore = "measures; in release mode"]
fn speed_of_plain_kernels() {
    for depth in [0, 1024] {
        let program = write("kernels", |b| {
            let (l, s) = (b.label("k"), b.stream("s"));
            for i in 0..1_000_000 {
                b.kernel(s, Class(1 + (i % 3) as u8), l, ps(5_000 + i), ps(3_000));
            }
        });
        let mut w = world();
        let spec = RankSpec { queue_depth: depth, ..rank(&mut w, program, &[]) };
        w.rank(spec);
        let world = w.build().unwrap();
        time(&format!("kernel, queue depth {depth}"), 1_000_000, || {
            simulate(&world, &mut NoObserver).unwrap();
        });
    }
}

#[test]
#[ignore = "measures; in release mode"]
fn speed_of_a_pipeline_of_every_rank() {
    // 1024 ranks in pipelines of 8, each of 64 micro-batches of 100 kernels, with sends and receives on a
    // stream of their own, over links that no other uses; then all of a stage meet.
    const STAGES: usize = 8;
    const PIPELINES: usize = 128;
    let mut w = world();
    let programs: Vec<u32> = (0..STAGES).map(|stage| w.program(pipeline_stage(stage, STAGES))).collect();
    let all: Vec<GroupId> = (0..STAGES).map(|_| w.group(PIPELINES as u32, vec![])).collect();
    for _ in 0..PIPELINES {
        let mut before = None;
        for stage in 0..STAGES {
            let nic = w.link("nic", 25e9, ps(2_000_000));
            let after = (stage + 1 < STAGES).then(|| w.group(2, vec![uses(nic, 1)]));
            let groups: Vec<GroupId> = [before, after, Some(all[stage])].into_iter().flatten().collect();
            w.rank(RankSpec { program: programs[stage], groups, queue_depth: 1024, ..RankSpec::default() });
            before = after;
        }
    }
    let world = w.build().unwrap();
    let records: usize = world.ranks().iter().map(|r| world.programs()[r.program as usize].len()).sum();
    time(&format!("record of {records} on 1024 ranks"), records as u64, || {
        simulate(&world, &mut NoObserver).unwrap();
    });
}

fn pipeline_stage(stage: usize, stages: usize) -> Program {
    write(&format!("stage {stage}"), |b| {
        let (l, compute, network) = (b.label("x"), b.stream("compute"), b.stream("network"));
        let before = (stage > 0).then(|| b.channel("before"));
        let after = (stage + 1 < stages).then(|| b.channel("after"));
        let all = b.channel("all");
        for _ in 0..64 {
            if let Some(before) = before {
                b.rendezvous(network, before, SEND, WAIT, l, ps(1_000), 1 << 20);
                let received = b.record(network);
                b.wait(compute, received);
            }
            for _ in 0..100 {
                b.kernel(compute, COMPUTE, l, ps(50_000), ps(3_000));
            }
            if let Some(after) = after {
                let done = b.record(compute);
                b.wait(network, done);
                b.rendezvous(network, after, SEND, WAIT, l, ps(1_000), 1 << 20);
            }
        }
        b.rendezvous(compute, all, SEND, WAIT, l, ps(1_000_000), 0);
    })
}

#[test]
#[ignore = "measures; in release mode"]
fn speed_of_an_all_to_all() {
    // 65,280 concurrent flows over the in and out links of 256 hosts, each on a stream of its sender.
    const HOSTS: usize = 256;
    let mut w = world();
    let links: Vec<_> = (0..2 * HOSTS).map(|_| w.link("nic", 25e9, ps(1_000))).collect();
    let program = w.program(write("sender", |b| {
        let l = b.label("x");
        for _ in 1..HOSTS {
            let (s, c) = (b.stream("s"), b.channel("c"));
            b.rendezvous(s, c, SEND, WAIT, l, ps(0), 1 << 20);
        }
    }));
    for from in 0..HOSTS {
        let others = (0..HOSTS).filter(|to| *to != from);
        let groups = others.map(|to| w.group(1, vec![uses(links[from], 1), uses(links[HOSTS + to], 1)]));
        let groups = groups.collect();
        w.rank(RankSpec { program, groups, ..RankSpec::default() });
    }
    let world = w.build().unwrap();
    time("flow of 65280", 65_280, || {
        simulate(&world, &mut NoObserver).unwrap();
    });
}

#[test]
#[ignore = "measures; in release mode"]
fn speed_of_a_ring_all_reduce() {
    // 1024 ranks, 2046 steps, a message to the next rank in each. Links of their own need no event; a link
    // that something else uses once, at the very beginning, does.
    const RANKS: usize = 1024;
    for shared in [false, true] {
        let mut w = world();
        let program = w.program(ring_member(2 * (RANKS - 1)));
        let other = w.program(write("other", |b| {
            let (l, s, c) = (b.label("x"), b.stream("s"), b.channel("c"));
            b.rendezvous(s, c, SEND, WAIT, l, ps(0), 1);
        }));
        let mut next = Vec::new();
        for _ in 0..RANKS {
            let link = w.link("l", 25e9, ps(1_000));
            if shared {
                let groups = vec![w.group(1, vec![uses(link, 1)])];
                w.rank(RankSpec { program: other, groups, ..RankSpec::default() });
            }
            next.push(w.group(2, vec![uses(link, 1)]));
        }
        for rank in 0..RANKS {
            let groups = vec![next[rank], next[(rank + RANKS - 1) % RANKS]];
            w.rank(RankSpec { program, groups, ..RankSpec::default() });
        }
        let world = w.build().unwrap();
        let messages = RANKS as u64 * 2 * (RANKS as u64 - 1);
        time(&format!("message of a ring, shared links {shared}"), messages, || {
            simulate(&world, &mut NoObserver).unwrap();
        });
    }
}

fn ring_member(steps: usize) -> Program {
    write("ring", |b| {
        let (l, out, into) = (b.label("x"), b.stream("out"), b.stream("in"));
        let (next, previous) = (b.channel("next"), b.channel("previous"));
        for _ in 0..steps {
            b.rendezvous(out, next, SEND, WAIT, l, ps(0), 1 << 20);
            b.rendezvous(into, previous, SEND, WAIT, l, ps(0), 1 << 20);
            let (sent, received) = (b.record(out), b.record(into));
            b.wait(into, sent);
            b.wait(out, received);
        }
    })
}

#[test]
#[ignore = "measures; in release mode"]
fn speed_of_the_event_queue() {
    let mut queue = EventQueue::new();
    let mut random = 1_u64;
    let mut next = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        random >> 40
    };
    for i in 0..10_000_u64 {
        queue.push(ps(next()), 0, i);
    }
    time("event with 10000 pending", 1_000_000, || {
        for _ in 0..1_000_000 {
            let (now, value) = queue.pop().unwrap();
            queue.push(ps(now.0 + next()), 0, value);
        }
    });
}
