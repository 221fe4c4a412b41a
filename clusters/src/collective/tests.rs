use super::*;
use crate::catalogue::{ClusterEntry, cluster_from_catalogue};
use crate::cluster::BusBandwidth;

fn named(name: &str) -> Cluster {
    match cluster_from_catalogue(name).unwrap() {
        ClusterEntry::Nodes(cluster) => cluster,
        ClusterEntry::Vehicles(_) => panic!("{name} has no GPUs"),
    }
}

/// Hops of 1 us, start of 5 us, network hops of 10 us, ports of 100 GB/s, 8 cards of 10 GB/s.
fn round_numbers() -> Cluster {
    let mut cluster = named("dgx-h100");
    let bandwidth = 100e9;
    cluster.fabric.bandwidth = bandwidth;
    cluster.fabric.bus_bandwidth = BusBandwidth {
        all_reduce: bandwidth,
        all_gather: bandwidth,
        reduce_scatter: bandwidth,
        broadcast: bandwidth,
        all_to_all: bandwidth,
        point_to_point: bandwidth,
    };
    cluster.fabric.latency_s = 1e-6;
    cluster.fabric.launch_s = 5e-6;
    let network = cluster.network.as_mut().unwrap();
    network.bandwidth = 80e9;
    network.gpu_bandwidth = 10e9;
    network.latency_s = 10e-6;
    cluster
}

fn close(found: f64, expected: f64) {
    assert!((found / expected - 1.0).abs() < 1e-12, "{found} is not {expected}");
}

const S: u64 = 8_000_000;

fn at(ranks: u32, nodes: u32) -> Placement {
    Placement { ranks, nodes }
}

#[test]
fn ring_in_a_node_follows_its_closed_form() {
    let cluster = round_numbers();
    // n, all-reduce: 5 us + 2(n-1) x 1 us + 2(n-1)/n x 80 us; all-gather: half of the steps and bytes.
    for (n, reduce_us, gather_us) in [(2, 7.0 + 80.0, 6.0 + 40.0), (4, 131.0, 68.0), (8, 159.0, 82.0)] {
        let reduce = collective(&cluster, CollectiveKind::AllReduce, at(n, 1), S);
        assert_eq!(reduce.algorithm, Algorithm::Ring);
        assert!(!reduce.crosses_nodes);
        close(reduce.alone_s(&cluster, at(n, 1)), reduce_us * 1e-6);
        for kind in [CollectiveKind::AllGather, CollectiveKind::ReduceScatter] {
            let gather = collective(&cluster, kind, at(n, 1), S);
            close(gather.alone_s(&cluster, at(n, 1)), gather_us * 1e-6);
        }
    }
}

#[test]
fn one_rank_or_no_bytes_cost_nothing() {
    let cluster = round_numbers();
    for kind in CollectiveKind::ALL {
        assert_eq!(collective(&cluster, kind, at(1, 1), S), Transfer::NOTHING);
        assert_eq!(collective(&cluster, kind, at(8, 1), 0), Transfer::NOTHING);
    }
}

#[test]
fn wire_bytes_of_each_collective() {
    let cluster = round_numbers();
    let bytes = |kind, placement| collective(&cluster, kind, placement, S).wire_bytes;
    for (n, both_ways, one_way) in [(2, S, S / 2), (4, S / 4 * 6, S / 4 * 3), (8, S / 8 * 14, S / 8 * 7)] {
        assert_eq!(bytes(CollectiveKind::AllReduce, at(n, 1)), both_ways);
        assert_eq!(bytes(CollectiveKind::AllGather, at(n, 1)), one_way);
        assert_eq!(bytes(CollectiveKind::ReduceScatter, at(n, 1)), one_way);
        assert_eq!(bytes(CollectiveKind::AllToAll, at(n, 1)), one_way);
        assert_eq!(bytes(CollectiveKind::Broadcast, at(n, 1)), S);
    }
    // Two nodes of 8: each of the 8 ranks sends half of its array to the other node.
    assert_eq!(bytes(CollectiveKind::AllToAll, at(16, 2)), 4 * S);
    // What does not divide is rounded up: 2/3 of 10 bytes.
    assert_eq!(collective(&cluster, CollectiveKind::AllGather, at(3, 1), 10).wire_bytes, 7);
    assert_eq!(point_to_point(&cluster, false, S).wire_bytes, S);
}

#[test]
fn small_all_reduces_over_nodes_take_the_tree_and_large_ones_the_ring() {
    let cluster = round_numbers().with_size(8, 8).unwrap();
    let placement = at(64, 8);
    // Tree: 5 + 2 (7 x 1 + 3 x 10) = 79 us; ring: 5 + 2 x 56 x 1 + 2 x 7 x 10 = 257 us.
    let small = collective(&cluster, CollectiveKind::AllReduce, placement, 8000);
    assert_eq!((small.algorithm, small.wire_bytes), (Algorithm::Tree, 16_000));
    close(small.fixed_s, 79e-6);
    let large = collective(&cluster, CollectiveKind::AllReduce, placement, 8_000_000_000);
    assert_eq!((large.algorithm, large.wire_bytes), (Algorithm::Ring, 15_750_000_000));
    close(large.fixed_s, 257e-6);
    assert!(large.crosses_nodes);
    // The 8 cards of a node carry what its ring sends: 15.75 GB at 80 GB/s.
    close(large.alone_s(&cluster, placement), 257e-6 + 15.75 / 80.0);
    // Broadcast: 5 + 7 + 3 x 10 us down the tree.
    let broadcast = collective(&cluster, CollectiveKind::Broadcast, placement, S);
    assert_eq!(broadcast.algorithm, Algorithm::Tree);
    close(broadcast.fixed_s, 42e-6);
}

#[test]
fn a_group_with_one_rank_a_node_has_only_its_own_cards() {
    let cluster = round_numbers().with_size(2, 8).unwrap();
    close(cluster.group_bandwidth(at(2, 2)), 10e9);
    close(cluster.group_bandwidth(at(4, 2)), 20e9);
    close(cluster.group_bandwidth(at(16, 2)), 80e9);
    close(cluster.group_bandwidth(at(8, 1)), 100e9);
    let send = point_to_point(&cluster, true, S);
    close(send.fixed_s, 15e-6);
    close(send.alone_s(&cluster, at(2, 2)), 15e-6 + 8e6 / 10e9);
}

#[test]
fn bus_bandwidth_of_large_messages_is_the_catalogue_s() {
    for name in ["dgx-h100", "dgx-a100-40gb", "dgx-a100-80gb", "h100-efa"] {
        let cluster = named(name);
        let bytes = 1_u64 << 40;
        for kind in CollectiveKind::ALL {
            let time = collective(&cluster, kind, at(8, 1), bytes).alone_s(&cluster, at(8, 1));
            // nccl-tests, PERFORMANCE.md: factors from algorithm to bus bandwidth.
            let factor = match kind {
                CollectiveKind::AllReduce => 2.0 * 7.0 / 8.0,
                CollectiveKind::Broadcast => 1.0,
                _ => 7.0 / 8.0,
            };
            let bus = factor * bytes as f64 / time;
            let expected = cluster.fabric.bus_bandwidth.of(kind);
            assert!((bus / expected - 1.0).abs() < 1e-4, "{name} {kind:?}: {bus} is not {expected}");
        }
    }
    assert!((named("dgx-h100").fabric.bus_bandwidth.all_reduce - 445e9).abs() < 1.0);
}

/// Latencies of 512-byte messages on 8 H100 as published by aiconfigurator (NCCL 2.29): all-reduce 15.51 us
/// over 8 and 6.20 us over 2 ranks, all-gather 10.37 and 5.44 us.
#[test]
fn small_messages_on_h100_are_near_the_measured_latency() {
    let cluster = named("dgx-h100");
    for (kind, ranks, measured) in [
        (CollectiveKind::AllReduce, 8, 15.51e-6),
        (CollectiveKind::AllReduce, 2, 6.20e-6),
        (CollectiveKind::AllGather, 8, 10.37e-6),
        (CollectiveKind::AllGather, 2, 5.44e-6),
    ] {
        let time = collective(&cluster, kind, at(ranks, 1), 512).alone_s(&cluster, at(ranks, 1));
        assert!((time / measured - 1.0).abs() < 0.05, "{kind:?} over {ranks}: {time} against {measured}");
    }
}

#[test]
fn the_host_bridge_limits_what_its_gpus_send_together() {
    let mut cluster = named("rtx8000-pcie-4");
    let free = cluster.group_bandwidth(at(4, 1));
    close(free, cluster.fabric.port_bandwidth());
    cluster.fabric.shared_bandwidth = Some(8e9);
    close(cluster.group_bandwidth(at(4, 1)), 2e9);
    let transfer = collective(&cluster, CollectiveKind::AllReduce, at(4, 1), S);
    assert!(transfer.alone_s(&cluster, at(4, 1)) > 1.5 * S as f64 / 2e9);
}

#[test]
fn more_bytes_are_never_faster_and_more_bandwidth_is_never_slower() {
    for name in ["dgx-h100", "dgx-a100-80gb", "h100-efa", "rtx8000-pcie-4", "a5000-pcie-2"] {
        let slow = named(name);
        let mut fast = slow.clone();
        fast.fabric.bandwidth *= 2.0;
        let bus = &mut fast.fabric.bus_bandwidth;
        for rate in [
            &mut bus.all_reduce,
            &mut bus.all_gather,
            &mut bus.reduce_scatter,
            &mut bus.broadcast,
            &mut bus.all_to_all,
        ] {
            *rate *= 2.0;
        }
        let nodes: &[u32] = if slow.network.is_some() { &[1, 2, 3, 8] } else { &[1] };
        for kind in CollectiveKind::ALL {
            for &nodes in nodes {
                for members in 1..=slow.gpus_per_node {
                    let placement = at(members * nodes, nodes);
                    let mut before = 0.0;
                    for bytes in (0..36).map(|power| 3_u64 << power) {
                        let time = collective(&slow, kind, placement, bytes).alone_s(&slow, placement);
                        assert!(time >= before, "{name} {kind:?} {placement:?} {bytes}: {time} < {before}");
                        before = time;
                        let faster = collective(&fast, kind, placement, bytes).alone_s(&fast, placement);
                        assert!(faster <= time * (1.0 + 1e-12), "{name} {kind:?} {placement:?} {bytes}");
                    }
                }
            }
        }
    }
}
