//! What a collective and the kernels of its ranks take from each other while they run at the same time.
//!
//! The library launches one block of threads for each of its channels, and each keeps a multiprocessor while the
//! collective runs: of `n` multiprocessors with `c` channels a kernel that arithmetic limits keeps `(n - c) / n` of its
//! rate. A kernel that memory limits needs only some of the multiprocessors, but the collective's traffic takes its share
//! of the bandwidth: for every byte through a port a ring writes and reads a buffer and reads or writes the array.
//!
//! Published steps of MPT under FSDP bear that out: without any such loss, what predictions fall short by grows with the
//! share of the step in which kernels run beside collectives, by 0.27 of it (standard error 0.15) over 80 runs in a node of
//! 8 A100, where 24 channels of 108 multiprocessors make 0.22, and by 0.45 (0.18) over 32 runs on several nodes.
//! On an H100 with 24 channels that is 18 % of the rate, so that kernels take 1.22 times as long; Lee et al. 2025 (arXiv
//! 2507.03114) measured 1.19 on average over models on four kinds of GPU, and 1.40 at most.

use crate::cluster::Cluster;
use crate::collective::Placement;

/// Bytes of memory traffic for a byte through a port: the buffer that a neighbour fills is written and read, and the own
/// part is read before it is added, or written after it has arrived.
const TRAFFIC: f64 = 3.0;
/// Most of the bandwidth that one of two users of the memory takes from the other.
const FAIR_HALF: f64 = 0.5;

/// Shares that a collective of a group and the kernels beside it lose.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Contention {
    /// Bytes/s through a port of a group, when all groups of its kind on a node are busy.
    pub bandwidth: f64,
    /// Share of its rate that a kernel loses which arithmetic limits.
    pub arithmetic: f64,
    /// The same of one that memory limits.
    pub memory: f64,
    /// Share of its rate that the collective loses. Between nodes the cards limit it, and it loses nothing.
    pub transfer: f64,
}

impl Cluster {
    /// What collectives of groups with this placement and kernels take from each other.
    pub fn contention(&self, placement: Placement) -> Contention {
        let members = f64::from(placement.members_per_node());
        let gpus = f64::from(self.gpus_per_node.max(1));
        let alone = self.group_bandwidth(placement);
        let overlap = &self.fabric.overlap;
        let inside = f64::from(overlap.channels);
        let (bandwidth, channels, transfer) = match &self.network {
            Some(network) if placement.nodes > 1 => {
                let part = (members / gpus).min(1.0);
                let channels = network.channels(placement.members_per_node(), self.gpus_per_node);
                (alone.min(network.bandwidth * part), inside.min(channels), 0.0)
            }
            _ => (alone, inside, 1.0 - overlap.bandwidth_share),
        };
        let multiprocessors = f64::from(self.gpu.sms.max(1));
        Contention {
            bandwidth,
            arithmetic: (channels / multiprocessors).min(FAIR_HALF),
            memory: (TRAFFIC * bandwidth / self.gpu.memory_bandwidth).min(FAIR_HALF),
            transfer: transfer.clamp(0.0, FAIR_HALF),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::{ClusterEntry, cluster_from_catalogue};

    fn entry(name: &str) -> Cluster {
        match cluster_from_catalogue(name).unwrap() {
            ClusterEntry::Nodes(cluster) => cluster,
            ClusterEntry::Vehicles(_) => panic!("{name} has vehicles"),
        }
    }

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-9, "{found} against {expected}");
    }

    #[test]
    fn a_collective_in_a_node_takes_its_channels_multiprocessors() {
        let cluster = entry("dgx-a100-80gb");
        let found = cluster.contention(Placement { ranks: 8, nodes: 1 });
        // 24 of 108 multiprocessors, 3 x 300 GB/s of memory traffic.
        close(found.arithmetic, 24.0 / 108.0);
        close(found.memory, 900e9 / cluster.gpu.memory_bandwidth);
        close(found.transfer, 0.1);
        close(found.bandwidth, 300e9);
    }

    #[test]
    fn between_nodes_channels_follow_the_cards_and_groups_share_them() {
        let cluster = entry("a100-80gb-ib-800").with_size(4, 8).unwrap();
        // Whole nodes: 4 cards, 8 channels, 96 GB/s. One rank a node: an eighth of 96 GB/s, 2 channels.
        let whole = cluster.contention(Placement { ranks: 32, nodes: 4 });
        close(whole.arithmetic, 8.0 / 108.0);
        close(whole.bandwidth, 96e9);
        let one = cluster.contention(Placement { ranks: 4, nodes: 4 });
        close(one.arithmetic, 2.0 / 108.0);
        close(one.bandwidth, 96e9 / 8.0);
        close(one.transfer, 0.0);
        assert!(one.memory < 0.02);
    }
}
