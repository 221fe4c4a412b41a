//! Which protocol NCCL takes for a ring: the fastest by its own model, whose constants are not the hardware's.
//!
//! NCCL (`src/graph/tuning.cc`) reckons with the latencies below, with the bus bandwidth
//! that its topology search found, with half of it but no more than a limit by generation for LL (versions before 2.19: a
//! quarter or a third), and with 92 % of it for LL128. Real times jump where it
//! changes from one protocol to the next, because the choice does not know them.

use crate::cluster::Cluster;
use crate::collective::Placement;

/// How a message is made safe to read on arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// LL: a flag beside every 4 bytes; least latency, half of the bandwidth at best.
    LowLatency,
    /// LL128: a flag in every 128 bytes.
    LowLatency128,
    /// Simple: whole chunks, a fence and a flag for each.
    Simple,
}

impl Protocol {
    pub(super) const ALL: [Self; 3] = [Self::LowLatency, Self::LowLatency128, Self::Simple];
}

/// Start of a ring by protocol, seconds.
const START: [f64; 3] = [6.6e-6, 14.0e-6, 8.4e-6];
/// One step over NVLink.
const NVLINK: [f64; 3] = [0.6e-6, 1.9e-6, 3.4e-6];
/// One step over PCI Express.
const PCI: [f64; 3] = [1.0e-6, 2.5e-6, 5.7e-6];
/// One step over the network.
const NETWORK: [f64; 3] = [2.7e-6, 4.0e-6, 14.0e-6];

/// A protocol and the size from which it is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rung<T> {
    /// What is chosen.
    pub(super) choice: T,
    /// Bytes of the array from which it is.
    pub(super) from: f64,
}

/// The protocols of a ring by size of the array, smallest sizes first.
pub(super) fn ladder(
    cluster: &Cluster,
    placement: Placement,
    (inside, between): (f64, f64),
    share: f64,
) -> Vec<Rung<Protocol>> {
    let members = placement.members_per_node();
    let costs = cluster.fabric.costs(if placement.nodes > 1 { 0 } else { members });
    let step = if cluster.fabric.is_nvlink(members) { NVLINK } else { PCI };
    let crosses = placement.nodes > 1;
    let bandwidth = match &cluster.network {
        Some(network) if crosses => costs.assumed_bandwidth.min(network.group_bandwidth(members)),
        _ => costs.assumed_bandwidth,
    };
    let rates = [(0.5 * bandwidth).min(costs.assumed_ll_bandwidth), 0.92 * bandwidth, bandwidth];
    let lines: Vec<(Protocol, f64, f64)> = Protocol::ALL
        .into_iter()
        .zip(START.into_iter().zip(step).zip(NETWORK))
        .zip(rates)
        .filter(|((protocol, _), _)| *protocol != Protocol::LowLatency128 || costs.ll128.is_some())
        .map(|((protocol, ((start, step), network)), rate)| {
            (protocol, start + inside * step + between * network, share / rate)
        })
        .collect();
    envelope(&lines)
}

/// The lowest of straight lines (what, height at 0, slope), from 0 to the right.
fn envelope<T: Copy>(lines: &[(T, f64, f64)]) -> Vec<Rung<T>> {
    let start = lines.iter().copied().reduce(|best, line| if line.1 < best.1 { line } else { best });
    let Some(mut current) = start else { return Vec::new() };
    let mut rungs = vec![Rung { choice: current.0, from: 0.0 }];
    loop {
        let mut next: Option<(f64, (T, f64, f64))> = None;
        for &line in lines.iter().filter(|line| line.2 < current.2) {
            let crossing = (line.1 - current.1) / (current.2 - line.2);
            if next.is_none_or(|(nearest, best)| (crossing, line.2) < (nearest, best.2)) {
                next = Some((crossing, line));
            }
        }
        let Some((crossing, line)) = next else { return rungs };
        rungs.push(Rung { choice: line.0, from: crossing });
        current = line;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_envelope_of_lines_is_walked_from_the_left() {
        let lines = [('a', 1.0, 3.0), ('b', 3.0, 2.0), ('c', 4.0, 0.5)];
        // a and b cross at 2, a and c at 1.2: b is never lowest.
        let rungs = envelope(&lines);
        assert_eq!(rungs.len(), 2);
        assert_eq!((rungs[0].choice, rungs[1].choice), ('a', 'c'));
        assert!((rungs[1].from - 1.2).abs() < 1e-12);
    }
}
