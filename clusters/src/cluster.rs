//! Nodes of equal GPUs: the fabric inside a node, the network between nodes, the host.

use steptime_models::{Bytes, Pass};
use thiserror::Error;

use crate::collective::{CollectiveKind, Placement};
use crate::fact::Fact;
use crate::gpu::Gpu;

/// How the GPUs of a node are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FabricKind {
    /// Every GPU reaches every other at full rate through switches.
    NvSwitch,
    /// Pairs of GPUs joined by NVLink bridges.
    NvLinkBridge,
    /// PCI Express slots below the host's root complex.
    Pcie,
}

impl FabricKind {
    pub(crate) const NAMES: [(&'static str, Self); 3] =
        [("nvswitch", Self::NvSwitch), ("nvlink-bridge", Self::NvLinkBridge), ("pcie", Self::Pcie)];
}

/// Bus bandwidth that large messages reach inside a node, bytes/s, as nccl-tests defines it
/// (`PERFORMANCE.md`: bytes per second, scaled so that it equals the rate of each GPU's port).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BusBandwidth {
    /// All-reduce.
    pub all_reduce: f64,
    /// All-gather.
    pub all_gather: f64,
    /// Reduce-scatter.
    pub reduce_scatter: f64,
    /// Broadcast.
    pub broadcast: f64,
    /// All-to-all.
    pub all_to_all: f64,
    /// Send and receive between two GPUs.
    pub point_to_point: f64,
}

impl BusBandwidth {
    /// The bandwidth of a kind of collective.
    pub fn of(&self, kind: CollectiveKind) -> f64 {
        match kind {
            CollectiveKind::AllReduce => self.all_reduce,
            CollectiveKind::AllGather => self.all_gather,
            CollectiveKind::ReduceScatter => self.reduce_scatter,
            CollectiveKind::Broadcast => self.broadcast,
            CollectiveKind::AllToAll => self.all_to_all,
        }
    }
}

/// Links between the GPUs of one node.
#[derive(Clone, Debug, PartialEq)]
pub struct Fabric {
    /// How they are built.
    pub kind: FabricKind,
    /// What one GPU's port carries of large messages in each direction, bytes/s: the best that any collective
    /// reaches. Collectives that reach less count more bytes ([`crate::Transfer::wire_bytes`]).
    pub bandwidth: f64,
    /// What each kind of transfer reaches of it.
    pub bus_bandwidth: BusBandwidth,
    /// Time of one hop between two GPUs, seconds.
    pub latency_s: f64,
    /// Fixed start of a collective, seconds.
    pub launch_s: f64,
    /// Capacity of the host bridge that the GPUs of a node share, bytes/s; what every GPU sends counts once.
    pub shared_bandwidth: Option<f64>,
    /// Every constant with its source.
    pub facts: Vec<Fact>,
}

impl Fabric {
    /// Capacity of a GPU's egress port and of its ingress port, bytes/s.
    pub fn port_bandwidth(&self) -> f64 {
        self.bandwidth
    }
}

/// How nodes are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NetworkKind {
    /// InfiniBand.
    InfiniBand,
    /// RDMA over converged Ethernet.
    RoCe,
    /// Elastic Fabric Adapter of Amazon EC2.
    Efa,
    /// TCP over Ethernet.
    Ethernet,
}

impl NetworkKind {
    pub(crate) const NAMES: [(&'static str, Self); 4] = [
        ("infiniband", Self::InfiniBand),
        ("roce", Self::RoCe),
        ("efa", Self::Efa),
        ("ethernet", Self::Ethernet),
    ];
}

/// Links between nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// How it is built.
    pub kind: NetworkKind,
    /// What one node reaches with all its cards in each direction, bytes/s.
    pub bandwidth: f64,
    /// What one GPU reaches alone through the cards nearest to it, bytes/s.
    pub gpu_bandwidth: f64,
    /// Cards of a node.
    pub cards: u32,
    /// Time of one hop between two nodes, seconds.
    pub latency_s: f64,
    /// Every constant with its source.
    pub facts: Vec<Fact>,
}

impl Network {
    /// Capacity of a node's egress and of its ingress with all cards, bytes/s.
    pub fn node_bandwidth(&self) -> f64 {
        self.bandwidth
    }

    /// What a group with `members` ranks on a node reaches when no other group uses the cards, bytes/s: each
    /// rank brings its nearest cards, so a ring over whole nodes spreads over all of them.
    pub fn group_bandwidth(&self, members: u32) -> f64 {
        (f64::from(members) * self.gpu_bandwidth).min(self.bandwidth)
    }
}

/// How the host issues operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExecutionStyle {
    /// One by one from Python (PyTorch's default).
    Eager,
    /// Fused kernels launched by generated code (`torch.compile`).
    Compiled,
    /// Recorded launches replayed as a CUDA graph.
    CudaGraphs,
}

/// Host time to launch one kernel, seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LaunchCost {
    /// Eager, forward pass: Python and dispatcher.
    pub eager_forward_s: f64,
    /// Eager, backward pass: the autograd engine, without Python.
    pub eager_backward_s: f64,
    /// Compiled.
    pub compiled_s: f64,
    /// Replayed from a CUDA graph.
    pub cuda_graphs_s: f64,
}

/// The CPU side of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Host {
    /// Time to launch one kernel.
    pub launch: LaunchCost,
    /// What the host loses in waiting for a result of the device, beyond the wait itself, seconds.
    pub sync_latency_s: f64,
    /// Launches that may be pending before the host must wait.
    pub launch_queue: u32,
    /// Copies to or from page-locked memory, each GPU, bytes/s.
    pub pinned_bandwidth: f64,
    /// Copies to or from pageable memory, each GPU, bytes/s.
    pub pageable_bandwidth: f64,
    /// Memory of the node.
    pub memory: Bytes,
    /// Every constant with its source.
    pub facts: Vec<Fact>,
}

impl Host {
    /// Host time to launch one kernel, seconds.
    pub fn launch_s(&self, style: ExecutionStyle, pass: Pass) -> f64 {
        match (style, pass) {
            (ExecutionStyle::Eager, Pass::Forward) => self.launch.eager_forward_s,
            (ExecutionStyle::Eager, Pass::Backward) => self.launch.eager_backward_s,
            (ExecutionStyle::Compiled, _) => self.launch.compiled_s,
            (ExecutionStyle::CudaGraphs, _) => self.launch.cuda_graphs_s,
        }
    }
}

/// Nodes of equal GPUs.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// Catalogue name, e.g. `dgx-h100`.
    pub name: String,
    /// The GPUs.
    pub gpu: Gpu,
    /// GPUs of each node that are used.
    pub gpus_per_node: u32,
    /// Nodes.
    pub nodes: u32,
    /// Links inside a node.
    pub fabric: Fabric,
    /// Links between nodes, where there are any.
    pub network: Option<Network>,
    /// CPU side of a node.
    pub host: Host,
    /// Where the description comes from.
    pub source: String,
}

/// A size that a cluster cannot have.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ClusterError {
    /// No node or no GPU.
    #[error("{cluster}: {nodes} nodes of {gpus_per_node} GPUs hold no GPU; both counts start at 1")]
    Empty {
        /// Catalogue name.
        cluster: String,
        /// Nodes asked for.
        nodes: u32,
        /// GPUs of a node asked for.
        gpus_per_node: u32,
    },
    /// More GPUs of a node than it has.
    #[error("{cluster}: {gpus_per_node} GPUs of a node were asked for, but a node has {most}")]
    TooManyGpus {
        /// Catalogue name.
        cluster: String,
        /// GPUs of a node asked for.
        gpus_per_node: u32,
        /// GPUs of a node.
        most: u32,
    },
    /// Several nodes without a network.
    #[error("{cluster}: {nodes} nodes were asked for, but the cluster has no [network] between nodes")]
    NoNetwork {
        /// Catalogue name.
        cluster: String,
        /// Nodes asked for.
        nodes: u32,
    },
}

impl Cluster {
    /// The same hardware with another number of nodes, and with all or some of the GPUs of each node.
    ///
    /// # Errors
    /// [`ClusterError`] when the result would hold no GPU, needs more GPUs than a node has, or needs a network
    /// that the cluster does not have.
    pub fn with_size(&self, nodes: u32, gpus_per_node: u32) -> Result<Self, ClusterError> {
        let cluster = self.name.clone();
        if nodes == 0 || gpus_per_node == 0 {
            return Err(ClusterError::Empty { cluster, nodes, gpus_per_node });
        }
        if gpus_per_node > self.gpus_per_node {
            return Err(ClusterError::TooManyGpus { cluster, gpus_per_node, most: self.gpus_per_node });
        }
        if nodes > 1 && self.network.is_none() {
            return Err(ClusterError::NoNetwork { cluster, nodes });
        }
        Ok(Self { gpus_per_node, nodes, ..self.clone() })
    }

    /// GPUs of all nodes.
    pub fn gpus(&self) -> u64 {
        u64::from(self.nodes) * u64::from(self.gpus_per_node)
    }

    /// Rate of one group's flow when nothing else uses its links, bytes/s: the slowest of a member's port, the
    /// group's share of the host bridge, and, over several nodes, the cards that it may use.
    pub fn group_bandwidth(&self, placement: Placement) -> f64 {
        let members = placement.members_per_node();
        let mut rate = self.fabric.bandwidth;
        if let (Some(shared), true) = (self.fabric.shared_bandwidth, members > 1) {
            rate = rate.min(shared / f64::from(members));
        }
        match &self.network {
            Some(network) if placement.nodes > 1 => rate.min(network.group_bandwidth(members)),
            _ => rate,
        }
    }
}
