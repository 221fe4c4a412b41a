//! What a collective or a send costs: a fixed time and a number of bytes through each member's port.
//!
//! Every way to do a collective has a [`crate::Curve`], fitted to measurements. Its arguments follow from the
//! algorithm, with `n` ranks on `k` nodes of `m`, and `S` the whole array as nccl-tests counts it
//! (`doc/PERFORMANCE.md`): for an all-gather what every rank holds afterwards, for a reduce-scatter and an
//! all-to-all what every rank holds before.
//!
//! | | steps inside nodes, between | bytes through each port |
//! | --- | --- | --- |
//! | ring all-reduce | 2(n-k), 2(k-1) | 2(n-1)/n S |
//! | ring all-gather, reduce-scatter | n-k, k-1 | (n-1)/n S |
//! | ring broadcast | n-k, k-1 | S |
//! | tree all-reduce (over nodes) | 2(m-1), 2 ⌈log2 k⌉ | 2 S |
//! | tree broadcast (over nodes) | m-1, ⌈log2 k⌉ | S |
//! | NVLS all-reduce | m, 2 ⌈log2 k⌉ | (m+1)/m S; between nodes S on two, else 2 S a node |
//! | all-to-all | ⌈log2 n⌉ - ⌈log2 k⌉, ⌈log2 k⌉ | (n-1)/n S; between nodes m(n-m)/n S a node |
//!
//! The ring's bytes are those of Thakur, Rabenseifner and Gropp (2005), and the factor that turns algorithm
//! bandwidth into bus bandwidth. The tree is NCCL's double binary tree (Sanders, Speck, Träff 2009): a rank
//! is inner in one tree and a leaf in the other, so it carries S up and S down. NVLS reduces inside the
//! switches: each GPU sends its array once and the reduced part that it looks after.
//!
//! Messages between nodes cost time of their own ([`crate::Network::message_s`]). Over a ring's link pass the parts of all
//! other ranks one after another, in each round; a tree or a reduction in switches passes its array in pieces
//! (`between`); of an all-to-all each rank posts a part for every rank on another node.
//!
//! The protocol of a ring, and between nodes the algorithm of an all-reduce, is the one that NCCL takes (`tuning`); in a node
//! the algorithm is the one that is fastest. More bytes are never faster: where the library moves to a protocol that would
//! have been faster before, the time waits.

mod between;
mod tuning;

use crate::cluster::Cluster;
use crate::fabric::{Costs, Curve};
pub use tuning::Protocol;
use tuning::{Rung, all_reduce_ladder, ladder, most_ll_between};

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

    /// How often so many ranks' array passes each link of a ring: bus bandwidth over algorithm bandwidth, as nccl-tests counts
    /// them (`doc/PERFORMANCE.md`).
    pub fn bus_factor(self, ranks: f64) -> f64 {
        match self {
            Self::AllReduce => 2.0 * (ranks - 1.0) / ranks,
            Self::AllGather | Self::ReduceScatter | Self::AllToAll => (ranks - 1.0) / ranks,
            Self::Broadcast => 1.0,
        }
    }
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
    /// Neighbour to neighbour.
    Ring,
    /// Two binary trees over the nodes, a chain inside each node.
    Tree,
    /// Reduced inside the switches of a node (NVLink SHARP).
    Nvls,
    /// The same inside the nodes, two binary trees over them.
    NvlsTree,
    /// Every pair sends directly.
    Direct,
}

/// A transfer: a fixed time, then a flow of bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transfer {
    /// Start, hops and filling of the pipeline, seconds; grows a little with the size.
    pub fixed_s: f64,
    /// Bytes through the busiest port of one member at the rate of the group's links
    /// ([`Cluster::group_bandwidth`]). A transfer that reaches less than that rate counts proportionally more
    /// bytes, so that the flow lasts as long as it does.
    pub wire_bytes: u64,
    /// How it is done.
    pub algorithm: Algorithm,
    /// In which protocol.
    pub protocol: Protocol,
    /// Whether it leaves a node.
    pub crosses_nodes: bool,
    /// Which collective it is; `None` for a send.
    pub kind: Option<CollectiveKind>,
    /// Bytes that were asked for: the whole array, or what is sent.
    pub bytes: u64,
}

impl Transfer {
    const NOTHING: Self = Self {
        fixed_s: 0.0,
        wire_bytes: 0,
        algorithm: Algorithm::Ring,
        protocol: Protocol::LowLatency,
        crosses_nodes: false,
        kind: None,
        bytes: 0,
    };

    /// Duration when nothing else uses the links, seconds: `fixed_s` + `wire_bytes` / [`Cluster::group_bandwidth`].
    pub fn alone_s(&self, cluster: &Cluster, placement: Placement) -> f64 {
        self.fixed_s + self.wire_bytes as f64 / cluster.group_bandwidth(placement)
    }
}

/// Parts of at most this many bytes take the low-latency way in an all-to-all (NCCL's default of
/// `NCCL_P2P_LL_THRESHOLD`).
const SMALL_PART: f64 = 16384.0;
/// Sends of more bytes than this go over more channels: NCCL starts with two and doubles them until none takes more than
/// 32 steps of its buffer, 16 MiB (`calcP2pChunkSize` in `src/enqueue.cc`).
pub(crate) const LARGE_SEND: f64 = 33_554_432.0;
/// Fewer ranks of a node than this do not reduce in the switches.
pub(crate) const FEWEST_NVLS_RANKS: u32 = 4;

/// Cost of a collective over `bytes`, the whole array. One rank or no bytes: nothing.
pub fn collective(cluster: &Cluster, kind: CollectiveKind, placement: Placement, bytes: u64) -> Transfer {
    if placement.ranks <= 1 || bytes == 0 {
        return Transfer::NOTHING;
    }
    let placement = Placement { ranks: placement.ranks, nodes: placement.nodes.clamp(1, placement.ranks) };
    let group = Group::new(cluster, placement);
    let asked = bytes;
    let bytes = bytes as f64;
    let ways = match kind {
        CollectiveKind::AllToAll => [Some(group.all_to_all(bytes)), None, None],
        CollectiveKind::AllReduce if placement.nodes > 1 => [Some(group.all_reduce(bytes)), None, None],
        CollectiveKind::AllReduce => {
            let (ring, nvls) = (group.ring(kind, bytes), group.nvls(bytes));
            let switches = nvls.is_some() && group.fills_its_node() && ring.protocol == Protocol::Simple;
            [Some(ring).filter(|_| !switches), nvls, None]
        }
        CollectiveKind::Broadcast => [Some(group.ring(kind, bytes)), group.broadcast_tree(bytes), None],
        CollectiveKind::AllGather | CollectiveKind::ReduceScatter => {
            [Some(group.ring(kind, bytes)), None, None]
        }
    };
    let fastest = ways.into_iter().flatten().reduce(|best, way| {
        if way.alone_s(cluster, placement) < best.alone_s(cluster, placement) { way } else { best }
    });
    Transfer { kind: Some(kind), bytes: asked, ..fastest.unwrap_or(Transfer::NOTHING) }
}

/// Cost of a send of `bytes` from one GPU to another.
pub fn point_to_point(cluster: &Cluster, crosses_nodes: bool, bytes: u64) -> Transfer {
    let crosses_nodes = crosses_nodes && cluster.network.is_some();
    let group = Group::new(cluster, Placement { ranks: 2, nodes: if crosses_nodes { 2 } else { 1 } });
    let asked = bytes;
    let bytes = bytes as f64;
    let (inside, between) = if crosses_nodes { (0.0, 1.0) } else { (1.0, 0.0) };
    let share = cluster.network.as_ref().map_or(1.0, |network| network.point_to_point);
    let work = |bytes: f64| Work {
        inside,
        between,
        messages: 0.0,
        wire: bytes,
        node: bytes / share,
        handled: bytes,
    };
    let Some(large) = &group.costs.large_point_to_point else {
        let small = &group.costs.point_to_point;
        let transfer = group.transfer(Algorithm::Direct, Protocol::Simple, small, &work(bytes));
        return Transfer { bytes: asked, ..transfer };
    };
    let rungs =
        [Rung { choice: &group.costs.point_to_point, from: 0.0 }, Rung { choice: large, from: LARGE_SEND }];
    let transfer = group.climb(&rungs, bytes, |curve, bytes| {
        group.transfer(Algorithm::Direct, Protocol::Simple, curve, &work(bytes))
    });
    Transfer { bytes: asked, ..transfer }
}

/// A way through the links of one node, as a curve takes it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Way {
    pub(crate) protocol: Protocol,
    /// Steps.
    pub(crate) hops: f64,
    /// Bytes through each port.
    pub(crate) wire: f64,
    /// Bytes that each member handles.
    pub(crate) handled: f64,
}

/// The ring inside a node; of an all-to-all, its direct sends.
pub(crate) fn way_in_node(cluster: &Cluster, kind: CollectiveKind, ranks: u32, bytes: u64) -> Way {
    let group = Group::new(cluster, Placement { ranks, nodes: 1 });
    let array = bytes as f64;
    if kind == CollectiveKind::AllToAll {
        let wire = share(group.ranks - 1.0, group.ranks, array);
        return Way { protocol: group.all_to_all(array).protocol, hops: log2(ranks), wire, handled: array };
    }
    let (rounds, parts) = group.rounds(kind);
    let wire = share(parts, group.ranks, array);
    let protocol = group.ring(kind, array).protocol;
    Way { protocol, hops: rounds * (group.ranks - 1.0), wire, handled: rounds * array }
}

/// The largest all-to-all of so many ranks that is done in the low-latency protocol.
pub(crate) fn largest_small_exchange(ranks: u32) -> Way {
    let bytes = SMALL_PART * f64::from(ranks);
    let wire = share(f64::from(ranks) - 1.0, f64::from(ranks), bytes);
    Way { protocol: Protocol::LowLatency, hops: log2(ranks), wire, handled: bytes }
}

/// The same of NVLS.
pub(crate) fn nvls_in_node(ranks: u32, bytes: u64) -> Option<Way> {
    let members = f64::from(ranks);
    let wire = share(members + 1.0, members, bytes as f64);
    (ranks >= FEWEST_NVLS_RANKS).then_some(Way {
        protocol: Protocol::Simple,
        hops: members,
        wire,
        handled: bytes as f64,
    })
}

/// What an algorithm asks of the links.
#[derive(Clone, Copy, Debug)]
struct Work {
    /// Steps inside nodes.
    inside: f64,
    /// Steps between nodes.
    between: f64,
    /// Messages that pass a link between nodes one after another.
    messages: f64,
    /// Bytes through a member's port.
    wire: f64,
    /// Bytes that leave a node.
    node: f64,
    /// Bytes that a member handles: its array once a round.
    handled: f64,
}

/// Ranks and the links between them.
struct Group<'a> {
    cluster: &'a Cluster,
    placement: Placement,
    costs: &'a Costs,
    ranks: f64,
    nodes: f64,
    members: f64,
}

impl<'a> Group<'a> {
    fn new(cluster: &'a Cluster, placement: Placement) -> Self {
        let members = placement.members_per_node();
        let costs = cluster.fabric.costs(if placement.nodes > 1 { 0 } else { members });
        let (ranks, nodes, members) =
            (f64::from(placement.ranks), f64::from(placement.nodes), f64::from(members));
        Self { cluster, placement, costs, ranks, nodes, members }
    }

    /// Rounds of a ring, and how often a rank's part of the array passes its port.
    fn rounds(&self, kind: CollectiveKind) -> (f64, f64) {
        match kind {
            CollectiveKind::AllReduce => (2.0, 2.0 * (self.ranks - 1.0)),
            CollectiveKind::Broadcast => (1.0, self.ranks),
            _ => (1.0, self.ranks - 1.0),
        }
    }

    /// Whether these are all GPUs behind the switches of one node. NCCL's model then gives their reduction more bandwidth
    /// and less latency than a ring in the Simple protocol, whatever either takes.
    fn fills_its_node(&self) -> bool {
        self.placement.nodes == 1 && self.placement.ranks >= self.cluster.gpus_per_node
    }

    fn ring(&self, kind: CollectiveKind, bytes: f64) -> Transfer {
        let (rounds, parts) = self.rounds(kind);
        let (inside, between) = (rounds * (self.ranks - self.nodes), rounds * (self.nodes - 1.0));
        let rungs = ladder(self.cluster, self.placement, (inside, between), parts / self.ranks);
        self.climb(&rungs, bytes, |protocol, array| self.ring_in(kind, protocol, array))
    }

    /// A ring in a given protocol.
    fn ring_in(&self, kind: CollectiveKind, protocol: Protocol, bytes: f64) -> Transfer {
        let (rounds, parts) = self.rounds(kind);
        let wire = share(parts, self.ranks, bytes);
        let work = Work {
            inside: rounds * (self.ranks - self.nodes),
            between: rounds * (self.nodes - 1.0),
            messages: if self.placement.nodes > 1 { rounds * (self.ranks - 1.0) } else { 0.0 },
            wire,
            node: wire,
            handled: rounds * bytes,
        };
        self.transfer(Algorithm::Ring, protocol, self.curve(kind, protocol), &work)
    }

    /// The curve of a protocol.
    fn curve(&self, kind: CollectiveKind, protocol: Protocol) -> &Curve {
        match (protocol, &self.costs.ll128) {
            (Protocol::LowLatency, _) => &self.costs.ll,
            (Protocol::LowLatency128, Some(ll128)) => ll128,
            _ => self.costs.simple(kind),
        }
    }

    /// An all-reduce over nodes, in the way that NCCL takes for so many bytes.
    fn all_reduce(&self, bytes: f64) -> Transfer {
        let reduces = self.costs.nvls.is_some() && self.placement.members_per_node() >= FEWEST_NVLS_RANKS;
        let rungs = all_reduce_ladder(self.cluster, self.placement, reduces);
        self.climb(&rungs, bytes, |(algorithm, protocol), array| match algorithm {
            Algorithm::Tree => self.tree(2.0, protocol, array),
            Algorithm::NvlsTree => self.nvls(array).unwrap_or(Transfer::NOTHING),
            _ => self.ring_in(CollectiveKind::AllReduce, protocol, array),
        })
    }

    /// Down the tree, over nodes only: inside one, NCCL's tree is a chain, no faster than its ring.
    fn broadcast_tree(&self, bytes: f64) -> Option<Transfer> {
        if self.placement.nodes <= 1 {
            return None;
        }
        let (small, large) =
            (self.tree(1.0, Protocol::LowLatency, bytes), self.tree(1.0, Protocol::Simple, bytes));
        Some(if self.alone_s(&small) <= self.alone_s(&large) { small } else { large })
    }

    /// The double binary tree over nodes, a chain inside each, in one direction or both.
    fn tree(&self, directions: f64, protocol: Protocol, bytes: f64) -> Transfer {
        let wire = directions * bytes;
        let work = Work {
            inside: directions * (self.members - 1.0),
            between: directions * log2(self.placement.nodes),
            messages: self.pieces(bytes),
            wire,
            node: wire,
            handled: wire,
        };
        self.transfer(Algorithm::Tree, protocol, self.curve(CollectiveKind::AllReduce, protocol), &work)
    }

    fn nvls(&self, bytes: f64) -> Option<Transfer> {
        let curve = self.costs.nvls.as_ref()?;
        if self.placement.members_per_node() < FEWEST_NVLS_RANKS {
            return None;
        }
        let trees = if self.placement.nodes > 2 { 2.0 } else { 1.0 };
        let work = Work {
            inside: self.members,
            between: 2.0 * log2(self.placement.nodes),
            messages: self.pieces(bytes),
            wire: share(self.members + 1.0, self.members, bytes),
            node: trees * bytes,
            handled: bytes,
        };
        let algorithm = if self.placement.nodes > 1 { Algorithm::NvlsTree } else { Algorithm::Nvls };
        let port = self.cluster.fabric_bandwidth(self.placement.members_per_node());
        // The switches add what several GPUs send, so that a port carries less than its share of a ring.
        Some(self.transfer_over(port.max(curve.wire), algorithm, Protocol::Simple, curve, &work))
    }

    fn all_to_all(&self, bytes: f64) -> Transfer {
        let between = log2(self.placement.nodes);
        let inside = log2(self.placement.ranks) - between;
        let rungs = [
            Rung { choice: Protocol::LowLatency, from: 0.0 },
            Rung { choice: Protocol::Simple, from: SMALL_PART * self.ranks + 1.0 },
        ];
        self.climb(&rungs, bytes, |protocol, array| {
            let wire = share(self.ranks - 1.0, self.ranks, array);
            // Every of the m members of a node sends (n-m)/n of its array to other nodes.
            let node = share(self.members * (self.ranks - self.members), self.ranks, array);
            let messages = if self.placement.nodes > 1 { self.ranks - self.members } else { 0.0 };
            let work = Work { inside, between, messages, wire, node, handled: array };
            let curve = match protocol {
                Protocol::LowLatency => &self.costs.small_all_to_all,
                _ => &self.costs.all_to_all,
            };
            self.transfer(Algorithm::Direct, protocol, curve, &work)
        })
    }

    /// The transfer of the rung that `bytes` stand on, no faster than the last sizes of the rungs below it.
    fn climb<T: Copy>(&self, rungs: &[Rung<T>], bytes: f64, price: impl Fn(T, f64) -> Transfer) -> Transfer {
        let mut floor = 0.0_f64;
        for (index, rung) in rungs.iter().enumerate() {
            match rungs.get(index + 1) {
                Some(next) if bytes >= next.from => {
                    floor = floor.max(self.alone_s(&price(rung.choice, next.from)));
                }
                _ => {
                    let mut transfer = price(rung.choice, bytes);
                    transfer.fixed_s += (floor - self.alone_s(&transfer)).max(0.0);
                    return transfer;
                }
            }
        }
        Transfer::NOTHING
    }

    fn transfer(&self, algorithm: Algorithm, protocol: Protocol, curve: &Curve, work: &Work) -> Transfer {
        let port = self.cluster.fabric_bandwidth(self.placement.members_per_node());
        self.transfer_over(port, algorithm, protocol, curve, work)
    }

    fn transfer_over(
        &self,
        port: f64,
        algorithm: Algorithm,
        protocol: Protocol,
        curve: &Curve,
        work: &Work,
    ) -> Transfer {
        let mut fixed_s = curve.fixed_s(work.inside, work.handled);
        let mut flow_s = curve.flow_s(work.wire, work.handled).max(work.wire / port);
        let crosses_nodes = self.placement.nodes > 1;
        match &self.cluster.network {
            Some(network) if crosses_nodes => {
                let (hop, message, cost) = match protocol {
                    // Half of every LL packet is flags.
                    Protocol::LowLatency => (network.latency_s, network.ll_message_s, 2.0),
                    Protocol::LowLatency128 => (network.latency_s, network.message_s, 128.0 / 120.0),
                    Protocol::Simple => (network.bulk_latency_s, network.message_s, 1.0),
                };
                let cards = network.group_bandwidth(self.placement.members_per_node());
                fixed_s += work.between * hop + work.messages * message;
                flow_s = flow_s.max(cost * work.node / cards);
                if protocol == Protocol::LowLatency {
                    flow_s = flow_s.max(work.node / most_ll_between(self.placement.nodes));
                }
            }
            _ => fixed_s += work.between * curve.hop_s,
        }
        let wire_bytes = whole_bytes(flow_s * self.cluster.group_bandwidth(self.placement));
        Transfer { fixed_s, wire_bytes, algorithm, protocol, crosses_nodes, kind: None, bytes: 0 }
    }

    fn alone_s(&self, transfer: &Transfer) -> f64 {
        transfer.alone_s(self.cluster, self.placement)
    }

    /// Pieces of an array that one channel sends up a tree or down to the nodes below it, each of them a message.
    fn pieces(&self, bytes: f64) -> f64 {
        let members = self.placement.members_per_node();
        match &self.cluster.network {
            Some(network) if self.placement.nodes > 1 => {
                between::pieces(network, members, self.cluster.gpus_per_node, bytes)
            }
            _ => 0.0,
        }
    }
}

/// `parts / ranks` of the bytes.
fn share(parts: f64, ranks: f64, bytes: f64) -> f64 {
    parts * bytes / ranks
}

/// Rounded up, but not for the last bits of a product that is whole.
fn whole_bytes(bytes: f64) -> u64 {
    let nearest = bytes.round();
    let close = (bytes - nearest).abs() <= 1e-12 * nearest.max(1.0);
    if close { nearest as u64 } else { bytes.ceil() as u64 }
}

/// Rounds of doubling to reach `count`: the logarithm to base 2, rounded up.
fn log2(count: u32) -> f64 {
    f64::from(u32::BITS - count.saturating_sub(1).leading_zeros())
}

#[cfg(test)]
mod tests;
