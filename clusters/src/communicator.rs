//! Device memory that NCCL takes for a communicator, outside the framework's allocator.
//!
//! Every channel of a communicator has a connection from the rank before and one to the rank after in its ring. A
//! connection has a buffer for each protocol: Simple 4 MiB (`NCCL_BUFFSIZE`), LL 512 threads x 8 lines x 8 steps x 16
//! bytes, LL128 640 threads x 120 values x 8 steps x 8 bytes (`src/init.cc`, `src/include/device.h`). Between GPUs that
//! reach each other's memory the two ends share it, and a rank holds one set a channel; over a network both ends have
//! their own. Connections of trees and of switches' reduction are made only where they are used (since NCCL 2.22) and
//! are not counted.

use steptime_models::Bytes;

use crate::cluster::Cluster;
use crate::collective::Placement;
use crate::fabric::FabricKind;

/// Simple: `NCCL_BUFFSIZE`.
const SIMPLE: u64 = 4 << 20;
/// LL: threads x lines of a thread x steps x bytes of a line.
const LL: u64 = 512 * 8 * 8 * 16;
/// LL128: threads x values of a thread x steps x bytes of a value.
const LL128: u64 = 640 * 120 * 8 * 8;
/// Channels between two ranks that send to each other (`ncclNChannelsPerPeer` of such groups on one network card).
const PAIR_CHANNELS: u64 = 2;

/// Bytes that a rank holds for a communicator whose ranks lie so; 0 for a rank alone.
///
/// Channels: 24 through switches (NCCL's rings over NVSwitch on Hopper, half of them twice on Ampere), 12 in a mesh of
/// links, 4 over bridges, 2 over PCI Express; across nodes two for each card, at most as many as within the node.
pub fn communicator_bytes(cluster: &Cluster, placement: Placement) -> Bytes {
    if placement.ranks < 2 {
        return Bytes(0);
    }
    let within = match cluster.fabric.kind {
        FabricKind::NvSwitch => 24,
        FabricKind::NvLinkMesh => 12,
        FabricKind::NvLinkBridge => 4,
        FabricKind::Pcie => 2,
    };
    let set = SIMPLE + LL + LL128;
    if placement.nodes < 2 {
        return Bytes(within * set);
    }
    // Cards are shared by the ranks of a node.
    let cards = cluster.network.as_ref().map_or(1, |network| u64::from(network.cards));
    let gpus = u64::from(cluster.gpus_per_node.max(1));
    let on_node = u64::from(placement.ranks.div_ceil(placement.nodes));
    let channels = (2 * cards * on_node).div_ceil(gpus).clamp(2, within.max(2));
    let ends = if on_node > 1 { 1 } else { 2 };
    Bytes(channels * ends * set)
}

/// The same for a pair of ranks of neighbouring pipeline stages.
pub fn pair_bytes(crosses: bool) -> Bytes {
    let ends = if crosses { 2 } else { 1 };
    Bytes(PAIR_CHANNELS * ends * (SIMPLE + LL + LL128))
}
