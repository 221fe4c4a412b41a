//! Links inside a node and what the collective library makes of them.

use crate::collective::CollectiveKind;
use crate::fact::Fact;

/// How the GPUs of a node are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FabricKind {
    /// Every GPU reaches every other at full rate through switches.
    NvSwitch,
    /// NVLink from GPU to GPU without switches (the cube mesh of a DGX-1).
    NvLinkMesh,
    /// Pairs of GPUs joined by NVLink bridges, the pairs joined by PCI Express.
    NvLinkBridge,
    /// PCI Express slots below the host's root complex.
    Pcie,
}

impl FabricKind {
    pub(crate) const NAMES: [(&'static str, Self); 4] = [
        ("nvswitch", Self::NvSwitch),
        ("nvlink-mesh", Self::NvLinkMesh),
        ("nvlink-bridge", Self::NvLinkBridge),
        ("pcie", Self::Pcie),
    ];
}

/// Bytes at which [`Curve::fill_s`] is stated.
pub(crate) const FILL_BYTES: f64 = 1_048_576.0;

/// Time of one way to move data: `start + hop h + fill sqrt(p / 1 MiB) + w / wire + p / touch` for `h` steps, `w`
/// bytes through each member's port and `p` bytes that each member handles: its array once a round (an all-reduce
/// has two), what it has itself and what arrives.
///
/// The square root is what cutting a message into pieces costs: with the best size of piece a pipeline of `h`
/// steps of latency `a` takes `(sqrt(h a) + sqrt(p / b))^2`, whose middle term grows with the square root of the
/// message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Curve {
    /// Launch and end, seconds.
    pub start_s: f64,
    /// One step of the algorithm, seconds.
    pub hop_s: f64,
    /// Filling of the pipeline when a member handles 1 MiB, seconds.
    pub fill_s: f64,
    /// Rate of the bytes through a port, bytes/s; infinite where the data cannot tell.
    pub wire: f64,
    /// Rate at which a member handles bytes, bytes/s; infinite where the data cannot tell.
    pub touch: f64,
}

impl Curve {
    /// A curve of bandwidth alone.
    pub const fn flat(bandwidth: f64) -> Self {
        Self { start_s: 0.0, hop_s: 0.0, fill_s: 0.0, wire: bandwidth, touch: f64::INFINITY }
    }

    /// The part that does not share links: start, `hops` steps, filling.
    pub(crate) fn fixed_s(&self, hops: f64, handled: f64) -> f64 {
        self.start_s + hops * self.hop_s + self.fill_s * (handled / FILL_BYTES).sqrt()
    }

    /// The part that flows.
    pub(crate) fn flow_s(&self, wire_bytes: f64, handled: f64) -> f64 {
        wire_bytes / self.wire + handled / self.touch
    }

    /// The same latencies on links that are `factor` times as fast.
    pub(crate) fn scaled(&self, factor: f64) -> Self {
        Self { wire: self.wire * factor, touch: self.touch * factor, ..*self }
    }
}

/// Costs of the collectives over one kind of link.
#[derive(Clone, Debug, PartialEq)]
pub struct Costs {
    /// Bus bandwidth that the library assumes when it chooses a protocol, bytes/s.
    pub assumed_bandwidth: f64,
    /// The most that it assumes of the low-latency protocol, bytes/s.
    pub assumed_ll_bandwidth: f64,
    /// Rings in the low-latency protocol (LL: a flag beside every 4 bytes).
    pub ll: Curve,
    /// Rings in the LL128 protocol (a flag every 128 bytes), where the links keep the order that it needs.
    pub ll128: Option<Curve>,
    /// Ring all-reduce in the Simple protocol.
    pub all_reduce: Curve,
    /// Ring all-gather and broadcast, Simple.
    pub all_gather: Curve,
    /// Ring reduce-scatter, Simple.
    pub reduce_scatter: Curve,
    /// All-to-all of small parts; steps are doublings of the group.
    pub small_all_to_all: Curve,
    /// All-to-all of larger parts.
    pub all_to_all: Curve,
    /// Send and receive between two GPUs.
    pub point_to_point: Curve,
    /// The same of more than 32 MiB, which NCCL spreads over more channels; `None`: as smaller ones.
    pub large_point_to_point: Option<Curve>,
    /// All-reduce inside the switches (NVLink SHARP), where they can; steps are ranks.
    pub nvls: Option<Curve>,
}

impl Costs {
    /// The same latencies and choices on links that are `factor` times as fast.
    fn scaled(&self, factor: f64) -> Self {
        let curve = |curve: &Curve| curve.scaled(factor);
        Self {
            assumed_bandwidth: self.assumed_bandwidth * factor,
            assumed_ll_bandwidth: self.assumed_ll_bandwidth * factor,
            ll: curve(&self.ll),
            ll128: self.ll128.as_ref().map(curve),
            all_reduce: curve(&self.all_reduce),
            all_gather: curve(&self.all_gather),
            reduce_scatter: curve(&self.reduce_scatter),
            small_all_to_all: curve(&self.small_all_to_all),
            all_to_all: curve(&self.all_to_all),
            point_to_point: curve(&self.point_to_point),
            large_point_to_point: self.large_point_to_point.as_ref().map(curve),
            nvls: self.nvls.as_ref().map(curve),
        }
    }

    /// Costs of bandwidth alone: no latency, every protocol and kind at the same rate.
    pub const fn flat(bandwidth: f64) -> Self {
        let curve = Curve::flat(bandwidth);
        Self {
            assumed_bandwidth: bandwidth,
            assumed_ll_bandwidth: bandwidth,
            ll: curve,
            ll128: None,
            all_reduce: curve,
            all_gather: curve,
            reduce_scatter: curve,
            small_all_to_all: curve,
            all_to_all: curve,
            point_to_point: curve,
            large_point_to_point: None,
            nvls: None,
        }
    }

    /// The Simple protocol of a kind.
    pub fn simple(&self, kind: CollectiveKind) -> &Curve {
        match kind {
            CollectiveKind::AllReduce => &self.all_reduce,
            CollectiveKind::AllGather | CollectiveKind::Broadcast => &self.all_gather,
            CollectiveKind::ReduceScatter => &self.reduce_scatter,
            CollectiveKind::AllToAll => &self.all_to_all,
        }
    }
}

/// What a collective and a kernel that run at the same time take from each other; see [`crate::Contention`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Overlap {
    /// Streaming multiprocessors that the blocks of a collective occupy.
    pub channels: u32,
    /// Share of its bandwidth that a collective keeps beside kernels.
    pub bandwidth_share: f64,
}

/// Links between the GPUs of one node.
#[derive(Clone, Debug, PartialEq)]
pub struct Fabric {
    /// Name of the preset, or of the cluster whose file describes it.
    pub name: String,
    /// How they are built.
    pub kind: FabricKind,
    /// Preset of the host that machines with this fabric usually have.
    pub host: String,
    /// What one GPU's port carries in each direction, bytes/s. A transfer that reaches less counts more bytes
    /// ([`crate::Transfer::wire_bytes`]).
    pub bandwidth: f64,
    /// Collectives and sends over all GPUs.
    pub costs: Costs,
    /// The same between the two GPUs of a bridged pair.
    pub pair: Option<Costs>,
    /// Capacity of the host bridge that the GPUs of a node share, bytes/s; what every GPU sends counts once.
    pub shared_bandwidth: Option<f64>,
    /// Nodes that the links join: 1, or the nodes of a rack whose switches reach all of them.
    pub nodes_per_domain: u32,
    /// What overlapped kernels and collectives take from each other.
    pub overlap: Overlap,
    /// Every constant with its source.
    pub facts: Vec<Fact>,
}

impl Fabric {
    /// Links of bandwidth alone, without latency, for reckoning by hand.
    pub fn flat(kind: FabricKind, bandwidth: f64) -> Self {
        Self {
            name: "flat".to_owned(),
            kind,
            host: String::new(),
            bandwidth,
            costs: Costs::flat(bandwidth),
            pair: None,
            shared_bandwidth: None,
            nodes_per_domain: 1,
            overlap: Overlap { channels: 0, bandwidth_share: 1.0 },
            facts: Vec::new(),
        }
    }

    /// The same links `factor` times as fast: what ports carry, and what collectives reach of it.
    pub fn speed_up(&mut self, factor: f64) {
        self.bandwidth *= factor;
        self.shared_bandwidth = self.shared_bandwidth.map(|rate| rate * factor);
        self.costs = self.costs.scaled(factor);
        self.pair = self.pair.as_ref().map(|pair| pair.scaled(factor));
    }

    /// Capacity of a GPU's egress port and of its ingress port, bytes/s.
    pub fn port_bandwidth(&self) -> f64 {
        self.bandwidth
    }

    /// Costs for a group of so many ranks of one node. A group of two is taken to be a bridged pair where there
    /// are bridges, as launchers that number neighbours in order place it.
    pub fn costs(&self, members: u32) -> &Costs {
        match &self.pair {
            Some(pair) if members == 2 => pair,
            _ => &self.costs,
        }
    }

    /// Whether a group of so many ranks of one node talks over NVLink.
    pub(crate) fn is_nvlink(&self, members: u32) -> bool {
        match self.kind {
            FabricKind::NvSwitch | FabricKind::NvLinkMesh => true,
            FabricKind::NvLinkBridge => members == 2,
            FabricKind::Pcie => false,
        }
    }
}
