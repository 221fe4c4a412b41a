//! Device memory that NCCL takes for a communicator, outside the framework's allocator.
//!
//! Every channel of a communicator has a connection from the rank before and one to the rank after in its ring. A
//! connection has a buffer for each protocol: Simple 4 MiB (`NCCL_BUFFSIZE`), LL 512 threads x 8 lines x 8 steps x 16
//! bytes, LL128 640 threads x 120 values x 8 steps x 8 bytes (`src/init.cc`, `src/include/device.h`). Between GPUs that
//! reach each other's memory the two ends share it, and a rank holds one set a channel; over a network both ends have
//! their own.
//!
//! Trees and the reduction in switches are connected where they are used (since NCCL 2.22), by all-reduces. Within a node a
//! tree is the chain of the ring's ranks: what a rank receives from the one after it needs another set. Between nodes a
//! rank at the end of the chain sends to a parent and, each node being inner in one of the two trees and a leaf in the other,
//! to one child on average, and receives from both. Switches need, for each of their channels and each rank of the node, a
//! buffer on the way up and one on the way down, of 8 steps x 128 KiB (`ncclNvlsBufferSetup` in `src/transport/nvls.cc`).

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
/// Fewer ranks of a node than this do not reduce in the switches.
const FEWEST_SWITCHED: u64 = crate::collective::FEWEST_NVLS_RANKS as u64;
/// Channels between two ranks that send to each other (`ncclNChannelsPerPeer` of such groups on one network card).
const PAIR_CHANNELS: u64 = 2;

/// A buffer of the reduction in switches: `NCCL_STEPS` of `nvlsChunkSize`.
const SWITCH_BUFFER: u64 = 8 * (128 << 10);
/// Channels of that reduction on Hopper (`NVLS_NCHANNELS_SM90`).
const SWITCH_CHANNELS: u64 = 16;

/// Bytes that a rank holds for a communicator whose ranks lie so, and which `all_reduces` or only gathers and scatters; 0
/// for a rank alone.
///
/// Channels: 24 through switches (NCCL's rings over NVSwitch on Hopper, half of them twice on Ampere), 12 in a mesh of
/// links, 4 over bridges, 2 over PCI Express; across nodes two for each card, at most as many as within the node.
pub fn communicator_bytes(cluster: &Cluster, placement: Placement, all_reduces: bool) -> Bytes {
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
    let on_node = u64::from(placement.ranks.div_ceil(placement.nodes.max(1)));
    let reduces_in_switches =
        all_reduces && cluster.fabric.costs.nvls.is_some() && on_node >= FEWEST_SWITCHED;
    let switches = if reduces_in_switches { SWITCH_CHANNELS * 2 * SWITCH_BUFFER * on_node } else { 0 };
    // Of two ranks, the one after is the one before.
    let chain = u64::from(all_reduces && on_node > 2);
    if placement.nodes < 2 {
        return Bytes(within * (1 + chain) * set + switches);
    }
    // Cards are shared by the ranks of a node.
    let cards = cluster.network.as_ref().map_or(1, |network| u64::from(network.cards));
    let gpus = u64::from(cluster.gpus_per_node.max(1));
    let channels = (2 * cards * on_node).div_ceil(gpus).clamp(2, within.max(2));
    let ends = if on_node > 1 { 1 } else { 2 };
    // Two others of the trees, both ways; the ends of the channels' chains are spread over the node's ranks.
    let outside = if all_reduces { (channels * 4).div_ceil(on_node) } else { 0 };
    Bytes((channels * (ends + chain) + outside) * set + switches)
}

/// The same for a pair of ranks of neighbouring pipeline stages.
pub fn pair_bytes(crosses: bool) -> Bytes {
    let ends = if crosses { 2 } else { 1 };
    Bytes(PAIR_CHANNELS * ends * (SIMPLE + LL + LL128))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::{ClusterEntry, cluster_from_catalogue};

    fn cluster(name: &str) -> Cluster {
        match cluster_from_catalogue(name) {
            Ok(ClusterEntry::Nodes(cluster)) => cluster,
            other => panic!("{name} is a cluster of nodes, found {other:?}"),
        }
    }

    /// One set of buffers: 4 MiB, 512 KiB and 4800 KiB.
    const SET: u64 = 9_633_792;

    #[test]
    fn rings_trees_and_switches_add_up() {
        let dgx = cluster("dgx-h100");
        let of = |cluster: &Cluster, ranks, nodes, all_reduces| {
            communicator_bytes(cluster, Placement { ranks, nodes }, all_reduces).0
        };
        assert_eq!(SIMPLE + LL + LL128, SET);
        assert_eq!(of(&dgx, 8, 1, false), 24 * SET);
        // The chain once more, and 16 channels x 2 ways x 1 MiB for each of 8 ranks in the switches.
        assert_eq!(of(&dgx, 8, 1, true), 48 * SET + (256 << 20));
        assert_eq!(of(&dgx, 4, 1, true), 48 * SET + (128 << 20));
        // Two ranks have no third to hear from, and add in their kernels.
        assert_eq!(of(&dgx, 2, 1, true), of(&dgx, 2, 1, false));
        assert_eq!(of(&dgx, 1, 1, true), 0);
        // Two nodes, eight cards: 16 channels, each with a chain within and 4 buffers for two others outside, of which a
        // rank has an eighth.
        assert_eq!(of(&dgx, 16, 2, false), 16 * SET);
        assert_eq!(of(&dgx, 16, 2, true), (32 + 8) * SET + (256 << 20));
        // Over PCI Express nothing is reduced on the way.
        assert_eq!(of(&cluster("a5000-pcie-4"), 4, 1, true), 4 * SET);
    }
}
