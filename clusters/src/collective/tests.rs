use super::*;
use crate::catalogue::{ClusterEntry, cluster_from_catalogue};
use crate::fabric::{Fabric, FabricKind};

fn named(name: &str) -> Cluster {
    match cluster_from_catalogue(name).unwrap() {
        ClusterEntry::Nodes(cluster) => cluster,
        ClusterEntry::Vehicles(_) => panic!("{name} has no GPUs"),
    }
}

/// Hops of 1 us, start of 5 us, network hops of 10 us, ports of 100 GB/s, 8 cards of 10 GB/s.
fn round_numbers() -> Cluster {
    let mut cluster = named("dgx-h100");
    cluster.fabric = Fabric::flat(FabricKind::NvSwitch, 100e9);
    let costs = &mut cluster.fabric.costs;
    for curve in [
        &mut costs.ll,
        &mut costs.all_reduce,
        &mut costs.all_gather,
        &mut costs.reduce_scatter,
        &mut costs.small_all_to_all,
        &mut costs.all_to_all,
        &mut costs.point_to_point,
    ] {
        (curve.start_s, curve.hop_s) = (5e-6, 1e-6);
    }
    let network = cluster.network.as_mut().unwrap();
    (network.bandwidth, network.gpu_bandwidth, network.point_to_point) = (80e9, 10e9, 1.0);
    (network.latency_s, network.bulk_latency_s) = (10e-6, 10e-6);
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
    assert_eq!((small.algorithm, small.protocol), (Algorithm::Tree, Protocol::LowLatency));
    close(small.fixed_s, 79e-6);
    // Between more than two nodes LL carries 20.4 GB/s: 2 x 8000 bytes, counted at the 80 GB/s of the cards.
    assert_eq!(small.wire_bytes, (16_000.0 / 20.4 * 80.0_f64).ceil() as u64);
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

/// What sends of bridged pairs, rings and switches reach of 512 MiB, from the public measurements of aiconfigurator
/// (NCCL 2.27 and 2.29), GB/s of bus bandwidth as nccl-tests counts it (`PERFORMANCE.md`).
#[test]
fn large_messages_reach_the_measured_bus_bandwidth() {
    use CollectiveKind::{AllGather, AllReduce, ReduceScatter};
    let bytes = 512_u64 << 20;
    for (name, kind, ranks, measured) in [
        ("dgx-h100", AllReduce, 8, 444.9e9),
        ("dgx-h100", AllReduce, 4, 349.2e9),
        ("dgx-h100", AllReduce, 2, 320.5e9),
        ("dgx-h100", AllGather, 8, 335.8e9),
        ("dgx-h100", AllGather, 2, 258.1e9),
        ("dgx-h100", ReduceScatter, 8, 335.5e9),
        ("dgx-a100-80gb", AllReduce, 8, 222.3e9),
        ("dgx-a100-80gb", AllReduce, 2, 193.0e9),
        ("dgx-a100-80gb", AllGather, 8, 205.3e9),
        ("dgx-a100-80gb", ReduceScatter, 8, 212.8e9),
    ] {
        let cluster = named(name);
        let time = collective(&cluster, kind, at(ranks, 1), bytes).alone_s(&cluster, at(ranks, 1));
        let rounds = if kind == AllReduce { 2.0 } else { 1.0 };
        let bus = rounds * f64::from(ranks - 1) / f64::from(ranks) * bytes as f64 / time;
        assert!((bus / measured - 1.0).abs() < 0.06, "{name} {kind:?} {ranks}: {bus} is not {measured}");
    }
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
        let transfer = collective(&cluster, kind, at(ranks, 1), 512);
        assert_eq!((transfer.algorithm, transfer.protocol), (Algorithm::Ring, Protocol::LowLatency));
        let time = transfer.alone_s(&cluster, at(ranks, 1));
        assert!((time / measured - 1.0).abs() < 0.08, "{kind:?} over {ranks}: {time} against {measured}");
    }
}

/// All-reduces over 72 GB200 in one domain (coreweave/nccl-tests pull request 43): 1806.7 us for 512 MiB, 20.3 ms
/// for 8 GiB.
#[test]
fn a_rack_of_switches_reduces_as_one_node() {
    let rack = named("gb200-nvl72");
    assert_eq!((rack.nodes, rack.gpus_per_node), (1, 72));
    for (bytes, measured) in [(512_u64 << 20, 1806.7e-6), (8 << 30, 20.299e-3)] {
        let transfer = collective(&rack, CollectiveKind::AllReduce, at(72, 1), bytes);
        assert_eq!((transfer.algorithm, transfer.crosses_nodes), (Algorithm::Nvls, false));
        let time = transfer.alone_s(&rack, at(72, 1));
        assert!((time / measured - 1.0).abs() < 0.06, "{bytes}: {time} against {measured}");
    }
}

#[test]
fn two_neighbours_use_their_bridge_and_larger_groups_do_not() {
    let cluster = named("rtx8000-nvlink-8");
    let per_byte = |ranks| {
        let gather = collective(&cluster, CollectiveKind::AllGather, at(ranks, 1), 1 << 30);
        gather.alone_s(&cluster, at(ranks, 1)) / f64::from(ranks - 1) * f64::from(ranks)
    };
    assert!(per_byte(2) < 0.5 * per_byte(4), "{} {}", per_byte(2), per_byte(4));
    let without = named("rtx8000-pcie-8");
    let pcie = collective(&without, CollectiveKind::AllGather, at(4, 1), 1 << 30);
    let bridged = collective(&cluster, CollectiveKind::AllGather, at(4, 1), 1 << 30);
    let ratio = bridged.alone_s(&cluster, at(4, 1)) / pcie.alone_s(&without, at(4, 1));
    assert!((ratio - 1.0).abs() < 1e-6, "over PCI Express both are the same: {ratio}");
}

/// What a microsecond a message adds to 8 GB over so many ranks, in microseconds.
fn added_by_messages(kind: CollectiveKind, placement: Placement, change: fn(&mut Cluster)) -> f64 {
    let mut cluster = round_numbers().with_size(4, 8).unwrap();
    change(&mut cluster);
    let time = |cluster: &mut Cluster, message_s: f64| {
        cluster.network.as_mut().unwrap().message_s = message_s;
        collective(cluster, kind, placement, 1000 * S)
    };
    let (before, after) = (time(&mut cluster, 0.0), time(&mut cluster, 1e-6));
    assert_eq!(after.wire_bytes, before.wire_bytes);
    (after.fixed_s - before.fixed_s) * 1e6
}

/// A ring of 32 ranks on 4 nodes passes 31 parts over each link between nodes in each of its rounds, whatever the size; the 8
/// ranks of one node pass none. Of an all-to-all each rank posts 24 parts for those on other nodes.
#[test]
fn every_part_of_a_ring_is_a_message_between_nodes() {
    for (kind, rounds) in [
        (CollectiveKind::AllGather, 1.0),
        (CollectiveKind::ReduceScatter, 1.0),
        (CollectiveKind::AllReduce, 2.0),
    ] {
        for (placement, expected) in [(at(32, 4), 31.0 * rounds), (at(4, 4), 3.0 * rounds), (at(8, 1), 0.0)] {
            let added = added_by_messages(kind, placement, |_| {});
            assert!((added - expected).abs() < 1e-5, "{kind:?} {placement:?}: {added}");
        }
    }
    let exchange = added_by_messages(CollectiveKind::AllToAll, at(32, 4), |_| {});
    assert!((exchange - 24.0).abs() < 1e-5, "{exchange}");
}

/// A tree over 4 nodes of 8 ranks passes 8 GB through 16 channels, 500 MB each, in pieces of 512 KiB. A ring would post 62
/// messages.
#[test]
fn trees_pass_their_array_in_pieces() {
    let added = added_by_messages(CollectiveKind::AllReduce, at(32, 4), |cluster| {
        // The library takes hops for so long that it prefers a tree's 4 to a ring's 6 at this size.
        cluster.network.as_mut().unwrap().reported_latency_s = 10e-3;
    });
    assert!((added - 8e9 / 16.0 / 524_288.0).abs() < 1e-4, "{added}");
}

/// What NCCL's model takes at 8 nodes of 8 H100 (400 Gbit/s each, nothing reported of the hops): trees in LL for a few bytes,
/// switches and trees for megabytes, rings for gigabytes; in LL an all-gather takes 6.6 + 56 x 1 + 7 x 2.7 = 81.5 us and, in the
/// Simple protocol, 8.4 + 56 x 3.4 + 7 x 14 = 296.8 us; LL is taken to reach 20.4 GB/s, Simple what a node's links do.
#[test]
fn the_library_s_choice_between_nodes() {
    let cluster = named("dgx-h100").with_size(8, 8).unwrap();
    let way = |kind, bytes| {
        let transfer = collective(&cluster, kind, at(64, 8), bytes);
        (transfer.algorithm, transfer.protocol)
    };
    let reduce = CollectiveKind::AllReduce;
    assert_eq!(way(reduce, 1 << 10), (Algorithm::Tree, Protocol::LowLatency));
    assert_eq!(way(reduce, 64 << 20), (Algorithm::NvlsTree, Protocol::Simple));
    assert_eq!(way(reduce, 8 << 30), (Algorithm::Ring, Protocol::Simple));
    let rates = (1.0 / 20.4e9 - 1.0 / cluster.fabric.costs.assumed_bandwidth.min(376e9)) * 63.0 / 64.0;
    let border = (296.8e-6 - 81.5e-6) / rates;
    for (share, protocol) in [(0.99, Protocol::LowLatency), (1.01, Protocol::Simple)] {
        let found = way(CollectiveKind::AllGather, (share * border) as u64);
        assert_eq!(found, (Algorithm::Ring, protocol), "{border}");
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

/// The same cluster with links that are twice as fast.
fn twice_as_fast(cluster: &Cluster) -> Cluster {
    let mut fast = cluster.clone();
    fast.fabric.bandwidth *= 2.0;
    for costs in [Some(&mut fast.fabric.costs), fast.fabric.pair.as_mut()].into_iter().flatten() {
        for curve in [
            Some(&mut costs.ll),
            costs.ll128.as_mut(),
            Some(&mut costs.all_reduce),
            Some(&mut costs.all_gather),
            Some(&mut costs.reduce_scatter),
            Some(&mut costs.small_all_to_all),
            Some(&mut costs.all_to_all),
            costs.nvls.as_mut(),
        ] {
            let Some(curve) = curve else { continue };
            *curve = curve.scaled(2.0);
        }
    }
    fast
}

#[test]
fn more_bytes_are_never_faster_and_more_bandwidth_is_never_slower() {
    for name in ["dgx-h100", "dgx-a100-80gb", "h100-efa", "rtx8000-pcie-4", "rtx8000-nvlink-8"] {
        let slow = named(name);
        let fast = twice_as_fast(&slow);
        let nodes: &[u32] = if slow.network.is_some() { &[1, 2, 3, 8] } else { &[1] };
        for kind in CollectiveKind::ALL {
            for &nodes in nodes {
                for members in 1..=slow.gpus_per_node {
                    let placement = at(members * nodes, nodes);
                    let mut before = 0.0;
                    for bytes in (0..72).map(|step| (3_u64 << (step / 2)) + (step % 2) * (1 << (step / 2))) {
                        let time = collective(&slow, kind, placement, bytes).alone_s(&slow, placement);
                        let enough = time >= before * (1.0 - 1e-9);
                        assert!(enough, "{name} {kind:?} {placement:?} {bytes}: {time} < {before}");
                        before = time;
                        let faster = collective(&fast, kind, placement, bytes).alone_s(&fast, placement);
                        assert!(faster <= time * (1.0 + 1e-9), "{name} {kind:?} {placement:?} {bytes}");
                    }
                }
            }
        }
    }
}
