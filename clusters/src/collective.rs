//! What a collective or a send costs: a fixed time and a number of bytes through each member's port.
//!
//! Hockney's model (1994): a message takes `alpha + bytes / beta`. Here `alpha` is summed over the steps of the
//! algorithm as NCCL's own tuning model does it (`src/graph/tuning.cc`), `n` ranks on `k` nodes, `h` the hop
//! inside a node, `H` the hop between nodes, `L` the start of a collective:
//!
//! | | steps | fixed time | bytes through each port |
//! | --- | --- | --- | --- |
//! | ring all-reduce | 2(n-1), of them 2(k-1) between nodes | L + 2(n-k) h + 2(k-1) H | 2(n-1)/n S |
//! | ring all-gather, reduce-scatter | n-1, of them k-1 between nodes | L + (n-k) h + (k-1) H | (n-1)/n S |
//! | ring broadcast | n-1, of them k-1 between nodes | L + (n-k) h + (k-1) H | S |
//! | tree all-reduce | chain inside a node, tree over nodes, up and down | L + 2((n/k-1) h + ⌈log2 k⌉ H) | 2 S |
//! | tree broadcast | the same, down | L + (n/k-1) h + ⌈log2 k⌉ H | S |
//! | all-to-all | all exchanges posted at once | L + (⌈log2 n⌉ - ⌈log2 k⌉) h + ⌈log2 k⌉ H | (n-1)/n S |
//!
//! `S` is the whole array as nccl-tests counts it (`doc/PERFORMANCE.md`): for an all-gather what every rank holds
//! afterwards, for a reduce-scatter and an all-to-all what every rank holds before. The ring's bytes are
//! those of Thakur, Rabenseifner and Gropp (2005), and the factor that turns algorithm bandwidth into bus
//! bandwidth. The tree is NCCL's double binary tree (Sanders, Speck, Träff 2009): a rank is inner in one
//! tree and a leaf in the other, so it carries S up and S down.

use crate::cluster::Cluster;

/// Kinds of collective.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CollectiveKind {
    /// Every rank gets the sum of all arrays.
    AllReduce,
    /// Every rank gets every rank's part.
    AllGather,
    /// Every rank gets its part of the sum.
    ReduceScatter,
    /// Every rank gets one rank's array.
    Broadcast,
    /// Every rank sends a part to every other.
    AllToAll,
}

impl CollectiveKind {
    /// All kinds.
    pub const ALL: [Self; 5] =
        [Self::AllReduce, Self::AllGather, Self::ReduceScatter, Self::Broadcast, Self::AllToAll];
}

/// Ranks of a group and the nodes over which they spread evenly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Placement {
    /// Ranks.
    pub ranks: u32,
    /// Nodes, from 1 to `ranks`.
    pub nodes: u32,
}

impl Placement {
    /// Ranks on the fullest node.
    pub fn members_per_node(self) -> u32 {
        self.ranks.div_ceil(self.nodes.max(1)).max(1)
    }
}

/// How a collective is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// Neighbour to neighbour (also direct sends).
    Ring,
    /// Two binary trees over the nodes, a chain inside each node.
    Tree,
}

/// A transfer: a fixed time, then a flow of bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transfer {
    /// Start and hops, seconds.
    pub fixed_s: f64,
    /// Bytes through the busiest port of one member at the port's rate. A kind of transfer that reaches less
    /// than the port's rate counts proportionally more bytes, so that the flow lasts as long as it does.
    pub wire_bytes: u64,
    /// How it is done.
    pub algorithm: Algorithm,
    /// Whether it leaves a node.
    pub crosses_nodes: bool,
}

impl Transfer {
    const NOTHING: Self =
        Self { fixed_s: 0.0, wire_bytes: 0, algorithm: Algorithm::Ring, crosses_nodes: false };

    /// Duration when nothing else uses the links, seconds: `fixed_s` + `wire_bytes` / [`Cluster::group_bandwidth`].
    pub fn alone_s(&self, cluster: &Cluster, placement: Placement) -> f64 {
        self.fixed_s + self.wire_bytes as f64 / cluster.group_bandwidth(placement)
    }
}

/// Cost of a collective over `bytes`, the whole array: the faster of ring and tree. One rank: nothing.
pub fn collective(cluster: &Cluster, kind: CollectiveKind, placement: Placement, bytes: u64) -> Transfer {
    if placement.ranks <= 1 || bytes == 0 {
        return Transfer::NOTHING;
    }
    let placement = Placement { ranks: placement.ranks, nodes: placement.nodes.clamp(1, placement.ranks) };
    let ring = ring(cluster, kind, placement, bytes);
    match tree(cluster, kind, placement, bytes) {
        Some(tree) if tree.alone_s(cluster, placement) < ring.alone_s(cluster, placement) => tree,
        _ => ring,
    }
}

/// Cost of a send of `bytes` from one GPU to another.
pub fn point_to_point(cluster: &Cluster, crosses_nodes: bool, bytes: u64) -> Transfer {
    let crosses_nodes = crosses_nodes && cluster.network.is_some();
    let placement = Placement { ranks: 2, nodes: if crosses_nodes { 2 } else { 1 } };
    let hop = if crosses_nodes { inter_hop(cluster) } else { cluster.fabric.latency_s };
    Transfer {
        fixed_s: cluster.fabric.launch_s + hop,
        wire_bytes: at_port_rate(cluster, cluster.fabric.bus_bandwidth.point_to_point, placement, bytes),
        algorithm: Algorithm::Ring,
        crosses_nodes,
    }
}

fn ring(cluster: &Cluster, kind: CollectiveKind, placement: Placement, bytes: u64) -> Transfer {
    let (n, k) = (placement.ranks, placement.nodes);
    let (inside, between, payload) = match kind {
        CollectiveKind::AllReduce => (2 * (n - k), 2 * (k - 1), share(2 * u64::from(n - 1), n, bytes)),
        CollectiveKind::AllGather | CollectiveKind::ReduceScatter => {
            (n - k, k - 1, share(u64::from(n - 1), n, bytes))
        }
        CollectiveKind::Broadcast => (n - k, k - 1, bytes),
        CollectiveKind::AllToAll => (log2(n) - log2(k), log2(k), all_to_all_bytes(placement, bytes)),
    };
    Transfer {
        fixed_s: fixed(cluster, inside, between),
        wire_bytes: at_port_rate(cluster, cluster.fabric.bus_bandwidth.of(kind), placement, payload),
        algorithm: Algorithm::Ring,
        crosses_nodes: k > 1,
    }
}

fn tree(cluster: &Cluster, kind: CollectiveKind, placement: Placement, bytes: u64) -> Option<Transfer> {
    let directions = match kind {
        CollectiveKind::AllReduce => 2,
        CollectiveKind::Broadcast => 1,
        CollectiveKind::AllGather | CollectiveKind::ReduceScatter | CollectiveKind::AllToAll => return None,
    };
    let inside = directions * (placement.members_per_node() - 1);
    let between = directions * log2(placement.nodes);
    let payload = bytes.saturating_mul(u64::from(directions));
    Some(Transfer {
        fixed_s: fixed(cluster, inside, between),
        wire_bytes: at_port_rate(cluster, cluster.fabric.bus_bandwidth.of(kind), placement, payload),
        algorithm: Algorithm::Tree,
        crosses_nodes: placement.nodes > 1,
    })
}

fn fixed(cluster: &Cluster, inside: u32, between: u32) -> f64 {
    cluster.fabric.launch_s
        + f64::from(inside) * cluster.fabric.latency_s
        + f64::from(between) * inter_hop(cluster)
}

/// A hop between nodes; the hop inside a node where there is no network.
fn inter_hop(cluster: &Cluster) -> f64 {
    cluster.network.as_ref().map_or(cluster.fabric.latency_s, |network| network.latency_s)
}

/// Bytes that a member sends in an all-to-all, or its node where that is more and nodes are crossed: every of
/// the m members of a node sends (n-m)/n of its array to other nodes.
fn all_to_all_bytes(placement: Placement, bytes: u64) -> u64 {
    let (n, m) = (placement.ranks, placement.members_per_node());
    let member = share(u64::from(n - 1), n, bytes);
    if placement.nodes > 1 { member.max(share(u64::from(m) * u64::from(n - m), n, bytes)) } else { member }
}

/// `parts / ranks` of the bytes, rounded up.
fn share(parts: u64, ranks: u32, bytes: u64) -> u64 {
    let total = u128::from(parts) * u128::from(bytes);
    u64::try_from(total.div_ceil(u128::from(ranks))).unwrap_or(u64::MAX)
}

/// Bytes that take as long at the links' rate as `payload` takes at the rate that the kind reaches.
fn at_port_rate(cluster: &Cluster, reached: f64, placement: Placement, payload: u64) -> u64 {
    let links = cluster.group_bandwidth(placement);
    if reached >= links { payload } else { (payload as f64 * (links / reached)).ceil() as u64 }
}

/// Rounds of doubling to reach `count`: the logarithm to base 2, rounded up.
fn log2(count: u32) -> u32 {
    u32::BITS - count.saturating_sub(1).leading_zeros()
}

#[cfg(test)]
mod tests;
