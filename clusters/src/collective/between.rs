//! How an array is cut between nodes.

use crate::network::Network;

/// Bytes of a piece that a tree's kernel waits for from below, adds up and sends on: `NCCL_BUFFSIZE`, 4 MiB, in the eight
/// steps of a channel's buffer.
const PIECE: f64 = 524_288.0;

/// Pieces of an array that one channel passes on: at least one. `members` ranks of a node with so many GPUs take part.
pub(super) fn pieces(network: &Network, members: u32, gpus_per_node: u32, bytes: f64) -> f64 {
    (bytes / (network.channels(members, gpus_per_node) * PIECE)).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::network_from_catalogue;

    /// 256 MiB over 8 GPUs that bring 32 interfaces: 16 channels of 16 MiB, 32 pieces. One of them: 2 channels, 256 pieces.
    #[test]
    fn pieces_follow_the_channels() {
        let efa = network_from_catalogue("efa").unwrap().network(400e9, 8);
        let count = |members, bytes: u64| pieces(&efa, members, 8, bytes as f64);
        assert!((count(8, 256 << 20) - 32.0).abs() < 1e-12);
        assert!((count(1, 256 << 20) - 256.0).abs() < 1e-12);
        assert!((count(8, 1000) - 1.0).abs() < 1e-12);
    }
}
