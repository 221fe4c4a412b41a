//! Which way NCCL takes: the fastest by its own model, whose constants are not the hardware's.
//!
//! NCCL (`src/graph/tuning.cc`) reckons with the latencies below, with the bus bandwidth
//! that its topology search found, with half of it but no more than a limit by generation for LL (versions before 2.19: a
//! quarter or a third), and with 92 % of it for LL128. Real times jump where it
//! changes from one protocol to the next, because the choice does not know them.
//!
//! Between nodes it adds to a hop what the card's driver says of itself ([`crate::Network::reported_latency_s`]), twice in the
//! Simple protocol, whose receiver reads back what has arrived; each of a ring's steps takes at least the time of posting
//! a message, three times that in the Simple protocol. LL has a limit of its own there, and LL128 loses more where one GPU of a
//! node sends and receives. Trees reach 92 % of a ring, those of the switches five sixths of what is left when a node
//! feeds two others.

use crate::cluster::Cluster;
use crate::collective::{Algorithm, Placement};
use crate::network::{Network, NetworkKind};

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
/// The same of a tree: start, a step over NVLink, over PCI Express, over the network.
const TREE: [[f64; 3]; 4] = [
    [6.8e-6, 14.0e-6, 0.0],
    [0.6e-6, 1.25e-6, 28.0e-6],
    [1.0e-6, 1.9e-6, 28.0e-6],
    [5.0e-6, 8.5e-6, 28.0e-6],
];
/// The same of a reduction in the switches: inside the node, and a step between nodes.
const SWITCHES: [f64; 2] = [23.0e-6, 14.0e-6];
/// Posting a message on hosts with Intel processors; on AMD's the model takes twice as long.
const POST: f64 = 1.0e-6;
/// Most of LL over two nodes and over more, bytes/s, where the host looks at every flag before it sends: those of Intel's
/// processors (AMD's: 22.5 and 19.0 GB/s).
const LL_BETWEEN: [f64; 2] = [39.0e9, 20.4e9];

/// What LL reaches at most between so many nodes, bytes/s.
pub(super) fn most_ll_between(nodes: u32) -> f64 {
    LL_BETWEEN[usize::from(nodes > 2)]
}

/// Latency of long rings in the Simple protocol, of the sum of their steps, from Ampere on.
const PLATEAU: f64 = 1.4;
/// Bandwidth of a tree, of a ring's.
const TREE_SHARE: f64 = 0.92;
/// A tree in LL, of a tree's.
const TREE_LL: f64 = 1.0 / 3.8;
/// Bandwidth of a reduction in the switches, of the links that it takes.
const SWITCHES_SHARE: f64 = 5.0 / 6.0;

/// A protocol and the size from which it is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rung<T> {
    /// What is chosen.
    pub(super) choice: T,
    /// Bytes of the array from which it is.
    pub(super) from: f64,
}

/// What the model knows of a group's links.
struct Links<'a> {
    network: Option<&'a Network>,
    nodes: u32,
    members: u32,
    /// Place of the links inside a node in [`TREE`].
    inside: usize,
    /// Bus bandwidth of a ring, bytes/s.
    ring: f64,
    most_ll: f64,
    ll128: bool,
}

impl<'a> Links<'a> {
    fn new(cluster: &'a Cluster, placement: Placement) -> Self {
        let members = placement.members_per_node();
        let costs = cluster.fabric.costs(if placement.nodes > 1 { 0 } else { members });
        let network = cluster.network.as_ref().filter(|_| placement.nodes > 1);
        let between = most_ll_between(placement.nodes);
        Self {
            network,
            nodes: placement.nodes,
            members,
            inside: if cluster.fabric.is_nvlink(members) { 1 } else { 2 },
            ring: network.map_or(costs.assumed_bandwidth, |network| {
                costs.assumed_bandwidth.min(network.group_bandwidth(members))
            }),
            most_ll: network.map_or(costs.assumed_ll_bandwidth, |_| costs.assumed_ll_bandwidth.min(between)),
            // Sockets copy through the host and keep no order.
            ll128: costs.ll128.is_some()
                && network.is_none_or(|network| network.kind != NetworkKind::Ethernet),
        }
    }

    /// A hop between nodes.
    fn hop(&self, latency: f64, protocol: Protocol) -> f64 {
        let reported = self.network.map_or(0.0, |network| network.reported_latency_s);
        latency + if protocol == Protocol::Simple { 2.0 * reported } else { reported }
    }

    fn usable(&self, protocol: Protocol) -> bool {
        protocol != Protocol::LowLatency128 || self.ll128
    }

    /// Lines of a ring with so many steps inside nodes and between them, of whose array `share` passes a link.
    fn rings(&self, (inside, between): (f64, f64), share: f64) -> Vec<(Protocol, f64, f64)> {
        let step = if self.inside == 1 { NVLINK } else { PCI };
        let one_gpu = self.network.is_some() && self.members < 2;
        let rates =
            [(0.5 * self.ring).min(self.most_ll), if one_gpu { 0.7 } else { 0.92 } * self.ring, self.ring];
        let lines = Protocol::ALL.into_iter().zip(START.into_iter().zip(step).zip(NETWORK)).zip(rates);
        lines
            .filter(|((protocol, _), _)| self.usable(*protocol))
            .map(|((protocol, ((start, step), network)), rate)| {
                let post = if protocol == Protocol::Simple { 3.0 * POST } else { POST };
                let step = if self.network.is_some() { post.max(step) } else { step };
                (protocol, start + inside * step + between * self.hop(network, protocol), share / rate)
            })
            .collect()
    }

    /// Lines of a double binary tree's all-reduce.
    fn trees(&self) -> Vec<(Protocol, f64, f64)> {
        let depth = f64::from(self.nodes.max(1).ilog2());
        let rate = TREE_SHARE * self.ring;
        let rates = [(TREE_LL * rate).min(self.most_ll), 120.0 / 128.0 * rate, rate];
        let line = |((index, protocol), rate): ((usize, Protocol), f64)| {
            let chain = (f64::from(self.members) - 1.0) * TREE[self.inside][index];
            let latency = TREE[0][index] + 2.0 * (chain + depth * self.hop(TREE[3][index], protocol));
            (protocol, latency, 2.0 / rate)
        };
        let known = Protocol::ALL.into_iter().enumerate().zip(rates);
        known.filter(|((_, protocol), _)| self.usable(*protocol)).map(line).collect()
    }

    /// The line of an all-reduce in the switches of nodes, and over trees between them.
    fn switches(&self) -> (f64, f64) {
        let depth = f64::from(self.nodes.max(1).ilog2());
        let latency = SWITCHES[0] + 2.0 * depth * self.hop(SWITCHES[1], Protocol::Simple);
        let feeding = if self.nodes > 2 { 2.0 } else { 1.0 };
        (latency, feeding / (SWITCHES_SHARE * self.ring))
    }
}

/// The protocols of a ring by size of the array, smallest sizes first.
pub(super) fn ladder(
    cluster: &Cluster,
    placement: Placement,
    steps: (f64, f64),
    share: f64,
) -> Vec<Rung<Protocol>> {
    envelope(&Links::new(cluster, placement).rings(steps, share))
}

/// Ways of an all-reduce over nodes by size of the array, smallest sizes first; `switches`: whether those of the nodes reduce.
pub(super) fn all_reduce_ladder(
    cluster: &Cluster,
    placement: Placement,
    switches: bool,
) -> Vec<Rung<(Algorithm, Protocol)>> {
    let links = Links::new(cluster, placement);
    let (ranks, nodes) = (f64::from(placement.ranks), f64::from(placement.nodes));
    let steps = (2.0 * (ranks - nodes), 2.0 * (nodes - 1.0));
    let rings =
        links.rings(steps, 2.0 * (ranks - 1.0) / ranks).into_iter().map(|(protocol, height, slope)| {
            let height = if protocol == Protocol::Simple { PLATEAU * height } else { height };
            ((Algorithm::Ring, protocol), height, slope)
        });
    let trees = links
        .trees()
        .into_iter()
        .map(|(protocol, height, slope)| ((Algorithm::Tree, protocol), height, slope));
    let (height, slope) = links.switches();
    let reduction = switches.then_some(((Algorithm::NvlsTree, Protocol::Simple), height, slope));
    let lines: Vec<_> = rings.chain(trees).chain(reduction).collect();
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
