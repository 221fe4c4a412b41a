//! GPUs, nodes and links, and what operations and collectives cost on them.
//!
//! The catalogue ([`cluster_from_catalogue`], [`gpu_from_catalogue`]) holds constants only, each with its source.
//! [`price()`] turns an operation, described by shape, into a duration on a GPU; [`collective()`] and
//! [`point_to_point`] turn a transfer into a fixed time and a number of bytes on the links. Sharing of links
//! between transfers is not priced here: the event engine does it.
//!
//! **Invariant**: no model, plan or schedule is known here. What nobody has measured kernel by kernel (convolutions, BatchNorm) is
//! fitted to whole steps that the caller plays ([`calibrate::steps`]), and says so in its source.
//!
//! ```
//! use steptime_clusters::{ClusterEntry, cluster_from_catalogue, price};
//! use steptime_models::{Dtype, Kernel};
//!
//! let ClusterEntry::Nodes(cluster) = cluster_from_catalogue("dgx-h100")? else { unreachable!() };
//! let kernel = Kernel::Gemm { batch: 1, m: 4096, n: 4096, k: 4096, dtype: Dtype::Bf16 };
//! let price = price(&cluster.gpu, &cluster.host, &kernel)?;
//! assert!(price.seconds > 139e-6 && price.seconds < 278e-6); // between the peak and half of it
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod backing;
pub mod calibrate;
pub mod calibrate_fabric;
pub mod calibrate_host;
mod catalogue;
mod cluster;
mod coefficients;
mod collective;
mod communicator;
mod contention;
mod fabric;
mod fact;
mod gpu;
mod hooks;
mod mix;
mod network;
mod price;
mod topology;
mod vehicle;

pub use backing::{Backing, Drives, HOST_ADAM_FLOPS, HOST_ADAM_TRAFFIC};
pub use catalogue::{
    CatalogueError, ClusterEntry, cluster_from_catalogue, cluster_from_toml, cluster_names,
    fabric_from_catalogue, fabric_names, gpu_from_catalogue, gpu_from_toml, gpu_names, host_from_catalogue,
    host_names, network_names,
};
pub use cluster::{
    AssembleError, Cluster, ClusterError, Domain, ExecutionStyle, Framework, FrameworkCost, Host, LaunchCost,
};
pub use coefficients::{
    AttentionCoefficients, Coefficient, CoefficientUnit, ConvolutionCoefficients, GemmCoefficients,
};
pub use collective::{Algorithm, CollectiveKind, Placement, Protocol, Transfer, collective, point_to_point};
pub use communicator::{communicator_bytes, pair_bytes};
pub use contention::Contention;
pub use fabric::{Costs, Curve, Fabric, FabricKind, Overlap};
pub use fact::{Basis, Constant, Fact, FactId};
pub use gpu::{
    Achievable, Arithmetic, Calibrated, Gpu, GpuArchitecture, Ground, Lent, MemoryFractions, MemoryShare,
};
pub use hooks::{HOOK_COSTS, HookCost, ModuleHooks, UnitHooks};
pub use mix::{MOST_KINDS, Mix, MixError};
pub use network::{Network, NetworkKind, Spread};
pub use price::{
    FactRef, GemmShape, Price, PriceError, attention, component, convolution, embedding, gemm, host_copy,
    memory_bound, optimizer, price, traffic,
};
pub use topology::{Blueprint, Edge, Fault, Graph, Inside, PcieTree, Router, Shape, Topology, TopologyError};
pub use vehicle::{Vehicle, VehicleCluster};
