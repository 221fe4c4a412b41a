//! Nodes of equal GPUs: the host, and how GPUs, fabric, network and host make a cluster.

use std::sync::Arc;

use steptime_models::{Bytes, Pass};
use thiserror::Error;

use crate::backing::{Backing, Drives};
use crate::catalogue::{
    CatalogueError, fabric_from_catalogue, gpu_from_catalogue, host_from_catalogue, network_from_catalogue,
};
use crate::collective::Placement;
use crate::fabric::Fabric;
use crate::fact::Fact;
use crate::gpu::Gpu;
use crate::hooks::HookCost;
use crate::mix::Mix;
use crate::network::Network;
use crate::topology::Topology;

/// One Gbit/s in bytes/s.
const GIGABIT: f64 = 1e9 / 8.0;

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

/// What issues the kernels: plain PyTorch modules, or a framework with more Python around them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framework {
    /// Modules of PyTorch and of libraries that look like it.
    PyTorch,
    /// Megatron-LM and NeMo: autograd functions in Python around each linear layer, their communication, and hooks that
    /// gather gradients.
    Megatron,
    /// nanotron: layers like Megatron-LM's, in PyTorch's `DistributedDataParallel`; with ZeRO 1 it moves each tensor's
    /// parts one by one into the buffers of its collectives and out of them.
    Nanotron,
}

/// Host time beside that of launching kernels, seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FrameworkCost {
    /// Forward of one block.
    pub block_forward_s: f64,
    /// Backward of one block.
    pub block_backward_s: f64,
    /// One collective of a group that shares a layer.
    pub collective_s: f64,
    /// One pass of a micro-batch through a stage's chunk, beside its blocks: the schedule's Python, taking the batch and
    /// spreading it over the ranks that share it, the loss.
    pub chunk_pass_s: f64,
    /// One pass of a block with routed experts, beside what another block takes: choosing, sorting, and sending tokens.
    pub routing_s: f64,
    /// One pass of one of the experts that a rank holds, where they run one after the other.
    pub expert_s: f64,
    /// One trained tensor and step: what the optimizer's Python does in its loops over them.
    pub tensor_s: f64,
    /// The rest of a step: timers, learning rate, scalars that ranks agree on and write down.
    pub step_s: f64,
}

impl FrameworkCost {
    /// The costs in the order of [`crate::calibrate_host::FRAMEWORK_COSTS`], seconds.
    pub fn values(&self) -> [f64; 8] {
        [
            self.block_forward_s,
            self.block_backward_s,
            self.collective_s,
            self.chunk_pass_s,
            self.routing_s,
            self.expert_s,
            self.tensor_s,
            self.step_s,
        ]
    }

    /// Costs from such a list.
    pub fn from_values(values: [f64; 8]) -> Self {
        let [
            block_forward_s,
            block_backward_s,
            collective_s,
            chunk_pass_s,
            routing_s,
            expert_s,
            tensor_s,
            step_s,
        ] = values;
        Self {
            block_forward_s,
            block_backward_s,
            collective_s,
            chunk_pass_s,
            routing_s,
            expert_s,
            tensor_s,
            step_s,
        }
    }

    /// The same on a host that takes `factor` times as long.
    #[must_use]
    pub fn scaled(self, factor: f64) -> Self {
        Self {
            block_forward_s: factor * self.block_forward_s,
            block_backward_s: factor * self.block_backward_s,
            collective_s: factor * self.collective_s,
            chunk_pass_s: factor * self.chunk_pass_s,
            routing_s: factor * self.routing_s,
            expert_s: factor * self.expert_s,
            tensor_s: factor * self.tensor_s,
            step_s: factor * self.step_s,
        }
    }
}

/// The CPU side of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Host {
    /// Preset whose framework costs these are; of a host that says them itself, the name of its cluster.
    pub framework_from: String,
    /// Time to launch one kernel.
    pub launch: LaunchCost,
    /// What [`Framework::Megatron`] and [`Framework::Nanotron`] add to launches of eager execution.
    pub megatron: FrameworkCost,
    /// What hooks of libraries that shard models take beside launches, where Python runs.
    pub hooks: HookCost,
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
    /// What states that are kept off the GPUs need of the node; `None` where it is not known.
    pub backing: Option<Backing>,
    /// Every constant with its source.
    pub facts: Vec<Fact>,
}

impl Host {
    /// What a framework adds to launching kernels. Generated code and replayed graphs run without it.
    pub fn framework(&self, framework: Framework, style: ExecutionStyle) -> FrameworkCost {
        match (framework, style) {
            (Framework::Megatron, ExecutionStyle::Eager) => self.megatron,
            // Its trainer's own Python has not been measured.
            (Framework::Nanotron, ExecutionStyle::Eager) => {
                let FrameworkCost { block_forward_s, block_backward_s, collective_s, .. } = self.megatron;
                FrameworkCost { block_forward_s, block_backward_s, collective_s, ..FrameworkCost::default() }
            }
            _ => FrameworkCost::default(),
        }
    }

    /// What hooks take beside launches. Compiled models run them between their graphs; a graph that the device replays does
    /// not.
    pub fn hook_costs(&self, style: ExecutionStyle) -> HookCost {
        match style {
            ExecutionStyle::Eager | ExecutionStyle::Compiled => self.hooks,
            ExecutionStyle::CudaGraphs => HookCost::default(),
        }
    }

    /// The same host with processors of which one thread is so many times as fast: what it spends on launching, on a
    /// framework's Python, on hooks and on coming back from a wait takes as much less.
    pub fn speed_up(&mut self, factor: f64) {
        let LaunchCost { eager_forward_s, eager_backward_s, compiled_s, cuda_graphs_s } = &mut self.launch;
        for time in [eager_forward_s, eager_backward_s, compiled_s, cuda_graphs_s, &mut self.sync_latency_s] {
            *time /= factor;
        }
        self.megatron = self.megatron.scaled(1.0 / factor);
        self.hooks = self.hooks.scaled(1.0 / factor);
    }

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

/// The nodes that make up one domain of links, such as a rack whose switches join all its GPUs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Domain {
    /// GPUs of one of its nodes.
    pub node_gpus: u32,
    /// Most nodes of a domain.
    pub nodes: u32,
    /// Network of one of its nodes, bytes/s.
    pub node_bandwidth: f64,
    /// Host memory of one of its nodes.
    pub node_memory: Bytes,
    /// Drives of one of its nodes.
    pub node_drives: Option<Drives>,
}

/// Nodes of equal GPUs.
///
/// A *node* here is what the fabric joins. Where it joins several machines ([`Cluster::domain`]), all of them
/// together are one node: traffic between them takes the fabric and not the network.
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
    /// The machines of a node, where the fabric joins several.
    pub domain: Option<Domain>,
    /// Links inside a node.
    pub fabric: Fabric,
    /// Links between nodes, where there are any.
    pub network: Option<Network>,
    /// CPU side of a node.
    pub host: Host,
    /// The kinds of GPUs and their nodes, where not all are alike.
    pub mix: Option<Box<Mix>>,
    /// Switches and links behind the ports of nodes and GPUs, where they are described.
    pub topology: Option<Arc<Topology>>,
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

/// Parts that do not make a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AssembleError {
    /// A name is not in the catalogue.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    /// The parts do not have the size asked for.
    #[error(transparent)]
    Size(#[from] ClusterError),
    /// A rate that no network has.
    #[error("a network of {gbit_per_node} Gbit/s a node carries nothing; the rate must be above 0")]
    Rate {
        /// What was asked for, as text.
        gbit_per_node: String,
    },
}

impl Cluster {
    /// A cluster from parts of the catalogue: a GPU, a fabric ([`crate::fabric_names`]) with the host that it
    /// usually has, and between several nodes a network ([`crate::network_names`]) with its rate in Gbit/s of
    /// a node (a machine: where the fabric joins several, `nodes` and `gpus_per_node` count machines too).
    ///
    /// ```
    /// # use steptime_clusters::Cluster;
    /// let cluster = Cluster::assemble("a100-80gb-sxm", "nvswitch-3", Some(("infiniband", 800.0)), 8, 8)?;
    /// assert_eq!(cluster.gpus(), 64);
    /// # Ok::<(), steptime_clusters::AssembleError>(())
    /// ```
    ///
    /// # Errors
    /// [`AssembleError`] for unknown names, a rate that is not above 0, and sizes as [`Self::with_size`].
    pub fn assemble(
        gpu: &str,
        fabric: &str,
        network: Option<(&str, f64)>,
        nodes: u32,
        gpus_per_node: u32,
    ) -> Result<Self, AssembleError> {
        let gpu = gpu_from_catalogue(gpu)?;
        let fabric = fabric_from_catalogue(fabric)?;
        let host = host_from_catalogue(&fabric.host)?;
        let network = match network {
            Some((_, rate)) if !(rate > 0.0 && rate.is_finite()) => {
                return Err(AssembleError::Rate { gbit_per_node: rate.to_string() });
            }
            Some((preset, rate)) => {
                Some(network_from_catalogue(preset)?.network(rate * GIGABIT, gpus_per_node.max(1)))
            }
            None => None,
        };
        let name = format!("{} over {}", gpu.name, fabric.name);
        let source = "assembled from parts of the catalogue".to_owned();
        let (mix, topology) = (None, None);
        let parts = Self {
            name,
            gpu,
            gpus_per_node,
            nodes: 1,
            domain: None,
            fabric,
            network,
            host,
            mix,
            topology,
            source,
        };
        Ok(parts.in_domain(gpus_per_node).with_size(nodes, gpus_per_node)?)
    }

    /// The same with a node of `node_gpus` GPUs taken as one of the machines of a domain, where there are any.
    pub(crate) fn in_domain(mut self, node_gpus: u32) -> Self {
        self.domain = (self.fabric.nodes_per_domain > 1).then(|| Domain {
            node_gpus,
            nodes: self.fabric.nodes_per_domain,
            node_bandwidth: self.network.as_ref().map_or(0.0, |network| network.bandwidth),
            node_memory: self.host.memory,
            node_drives: self.host.backing.and_then(|backing| backing.drives),
        });
        self
    }

    /// The same hardware with another number of nodes, and with all or some of the GPUs of each node.
    ///
    /// Where the fabric joins several machines, up to a machine's GPUs are taken as machines: 32 nodes of 4 GPUs
    /// become 2 domains of 64 GPUs, the largest equal domains that the fabric can join. More GPUs than a machine
    /// has are taken as domains.
    ///
    /// # Errors
    /// [`ClusterError`] when the result would hold no GPU, needs more GPUs than a node has, or needs a network
    /// that the cluster does not have.
    pub fn with_size(&self, nodes: u32, gpus_per_node: u32) -> Result<Self, ClusterError> {
        let cluster = self.name.clone();
        if nodes == 0 || gpus_per_node == 0 {
            return Err(ClusterError::Empty { cluster, nodes, gpus_per_node });
        }
        let most =
            self.domain.map_or(self.gpus_per_node, |domain| domain.node_gpus.saturating_mul(domain.nodes));
        if gpus_per_node > most {
            return Err(ClusterError::TooManyGpus { cluster, gpus_per_node, most });
        }
        if let Some(domain) = self.domain {
            return self.with_domains(domain, nodes, gpus_per_node);
        }
        if nodes > 1 && self.network.is_none() {
            return Err(ClusterError::NoNetwork { cluster, nodes });
        }
        Ok(Self { gpus_per_node, nodes, ..self.clone() })
    }

    fn with_domains(&self, domain: Domain, nodes: u32, gpus_per_node: u32) -> Result<Self, ClusterError> {
        let (domains, machines, gpus_per_machine) = if gpus_per_node > domain.node_gpus {
            (nodes, gpus_per_node.div_ceil(domain.node_gpus), None)
        } else {
            let machines = (1..=domain.nodes.min(nodes)).rev().find(|count| nodes.is_multiple_of(*count));
            let machines = machines.unwrap_or(1);
            (nodes / machines, machines, Some(gpus_per_node))
        };
        if domains > 1 && self.network.is_none() {
            return Err(ClusterError::NoNetwork { cluster: self.name.clone(), nodes: domains });
        }
        let mut sized = self.clone();
        sized.nodes = domains;
        sized.gpus_per_node = gpus_per_machine.map_or(gpus_per_node, |gpus| gpus * machines);
        sized.host.memory = Bytes(domain.node_memory.0.saturating_mul(u64::from(machines)));
        if let Some(backing) = &mut sized.host.backing {
            backing.drives = domain.node_drives.map(|drives| Drives {
                capacity: Bytes(drives.capacity.0.saturating_mul(u64::from(machines))),
                read: drives.read * f64::from(machines),
                write: drives.write * f64::from(machines),
            });
        }
        if let Some(network) = &mut sized.network {
            network.bandwidth = domain.node_bandwidth * f64::from(machines);
        }
        Ok(sized)
    }

    /// GPUs of all nodes.
    pub fn gpus(&self) -> u64 {
        u64::from(self.nodes) * u64::from(self.gpus_per_node)
    }

    /// Rate of one group's flow when nothing else uses its links, bytes/s: the slowest of a member's port, the
    /// group's share of the host bridge, and, over several nodes, the cards that it may use.
    pub fn group_bandwidth(&self, placement: Placement) -> f64 {
        let members = placement.members_per_node();
        let rate = self.fabric_bandwidth(members);
        match &self.network {
            Some(network) if placement.nodes > 1 => rate.min(network.group_bandwidth(members)),
            _ => rate,
        }
    }

    /// The slowest of a member's port and the group's share of the host bridge, bytes/s.
    pub(crate) fn fabric_bandwidth(&self, members: u32) -> f64 {
        match self.fabric.shared_bandwidth {
            Some(shared) if members > 1 => self.fabric.bandwidth.min(shared / f64::from(members)),
            _ => self.fabric.bandwidth,
        }
    }
}

#[cfg(test)]
mod tests;
