//! Many flows at once: an all-to-all in which every pair sends, and a ring all-reduce in which every step is a flow.

use std::hint::black_box;

use steptime_core::{Class, LinkUse, ProgramBuilder, RankSpec, SimTime, World, WorldBuilder, WorldError};

use crate::SetUp;

/// Rate of every port, bytes/s.
pub const RATE: f64 = 50e9;

const SEND: Class = Class(1);
const WAIT: Class = Class(2);

/// One flow from every GPU to every other, all at once, through the egress of one and the ingress of the other. A program
/// has at most 256 streams, and so sends 255 flows beside each other.
///
/// # Errors
/// The world is not legal.
pub fn all_to_all(gpus: u32, bytes: u64) -> SetUp<World> {
    let mut b = ProgramBuilder::new("all to all");
    let label = b.label("part");
    for other in 1..gpus {
        let (stream, channel) = (b.stream(&format!("to {other}")), b.channel(&format!("to {other}")));
        b.rendezvous(stream, channel, SEND, WAIT, label, SimTime::ZERO, bytes);
    }
    let program = b.build()?;
    let mut world = WorldBuilder::new();
    let program = world.program(program);
    let ports: Vec<_> = (0..gpus)
        .map(|gpu| {
            let out = world.link(&format!("out {gpu}"), RATE, SimTime::ZERO);
            (out, world.link(&format!("in {gpu}"), RATE, SimTime::ZERO))
        })
        .collect();
    for gpu in 0..gpus {
        let to = |step: u32| {
            let (out, into) = (ports[gpu as usize].0, ports[((gpu + step) % gpus) as usize].1);
            vec![LinkUse { link: out, weight: 1 }, LinkUse { link: into, weight: 1 }]
        };
        let groups = (1..gpus).map(|step| world.group(1, to(step))).collect();
        world.rank(RankSpec { program, groups, multiplicity: 1, ..RankSpec::default() });
    }
    Ok(world.build()?)
}

/// A ring all-reduce of hosts with `part` bytes each of the array: `2 (n - 1)` steps, in each of which every host sends a
/// part to the next one and goes on when it has sent its own and has received the other.
///
/// # Errors
/// The world is not legal.
pub fn ring(hosts: u32, part: u64) -> SetUp<World> {
    let mut b = ProgramBuilder::new("ring");
    let label = b.label("part");
    let (sends, receives) = (b.stream("sends"), b.stream("receives"));
    let (next, before) = (b.channel("next"), b.channel("before"));
    for _ in 0..2 * (hosts - 1) {
        b.rendezvous(sends, next, SEND, WAIT, label, SimTime::ZERO, part);
        b.rendezvous(receives, before, SEND, WAIT, label, SimTime::ZERO, part);
        let received = b.record(receives);
        b.wait(sends, received);
    }
    let program = b.build()?;
    let built: Result<World, WorldError> = {
        let mut world = WorldBuilder::new();
        let program = world.program(program);
        let pairs: Vec<_> = (0..hosts)
            .map(|host| {
                let out = world.link(&format!("out {host}"), RATE, SimTime::ZERO);
                let into = world.link(&format!("in {}", (host + 1) % hosts), RATE, SimTime::ZERO);
                world.group(2, vec![LinkUse { link: out, weight: 1 }, LinkUse { link: into, weight: 1 }])
            })
            .collect();
        for host in 0..hosts {
            let groups = vec![pairs[host as usize], pairs[((host + hosts - 1) % hosts) as usize]];
            world.rank(RankSpec { program, groups, multiplicity: 1, ..RankSpec::default() });
        }
        world.build()
    };
    Ok(built?)
}

/// What cannot be left out of `flows` flows: for each a start that is the later of two moments, a division, and an end.
pub fn bare_flows(flows: u64, bytes: u64) -> u64 {
    let mut ends = [0_u64; 1024];
    for flow in 0..flows {
        let at = (flow & 1023) as usize;
        let start = ends[at].max(ends[(at + 1) & 1023]);
        let picos = (black_box(bytes) as f64 * 1e12 / black_box(RATE)).ceil() as u64;
        ends[at] = start + picos;
    }
    ends.iter().copied().max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use steptime_core::{NoObserver, simulate};

    use super::*;

    const PART: u64 = 1 << 20;

    /// Chan et al. 2007: an array of `S` bytes over `n` hosts takes `2 (n - 1) / n S / rate` without latency.
    #[test]
    fn a_ring_of_flows_takes_the_closed_form() {
        for hosts in [2, 3, 8, 64, 256] {
            let found = simulate(&ring(hosts, PART).unwrap(), &mut NoObserver).unwrap().end.seconds();
            let array = PART as f64 * f64::from(hosts);
            let form = 2.0 * f64::from(hosts - 1) / f64::from(hosts) * array / RATE;
            assert!((found / form - 1.0).abs() < 1e-3, "{hosts}: {found} against {form}");
        }
    }

    /// Every port carries the parts of all others: `(n - 1) part / rate`.
    #[test]
    fn an_all_to_all_of_flows_takes_the_closed_form() {
        for gpus in [2, 5, 64] {
            let found = simulate(&all_to_all(gpus, PART).unwrap(), &mut NoObserver).unwrap().end.seconds();
            let form = f64::from(gpus - 1) * PART as f64 / RATE;
            assert!((found / form - 1.0).abs() < 1e-9, "{gpus}: {found} against {form}");
        }
    }

    /// Shortest of three.
    fn seconds(mut work: impl FnMut()) -> f64 {
        let once = |()| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64()
        };
        [(); 3].map(once).into_iter().fold(f64::INFINITY, f64::min)
    }

    /// The targets are 50 ms for 65,280 flows at once, and 0.6 s for 2,095,104 flows one after another. They are gated as
    /// multiples of the bare loop in the same run, which does 2 M flows in 6 to 10 ms on the machines at hand.
    #[test]
    #[cfg_attr(debug_assertions, ignore = "about the optimized engine")]
    fn many_flows_take_a_small_multiple_of_a_bare_loop() {
        let ring = ring(1024, PART).unwrap();
        let exchange = all_to_all(256, PART).unwrap();
        let flows = 2 * 1023 * 1024;
        let bare = seconds(|| {
            black_box(bare_flows(flows, PART));
        });
        let of_ring = seconds(|| {
            simulate(&ring, &mut NoObserver).unwrap();
        });
        let of_exchange = seconds(|| {
            simulate(&exchange, &mut NoObserver).unwrap();
        });
        println!("bare {bare:.4} s, ring {of_ring:.4} s, all-to-all {of_exchange:.4} s");
        assert!(of_ring < 100.0 * bare, "ring {of_ring} s against {bare} s");
        assert!(of_exchange < 25.0 * bare, "all-to-all {of_exchange} s against {bare} s");
    }
}
