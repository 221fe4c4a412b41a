use super::*;
use crate::catalogue::{ClusterEntry, cluster_from_catalogue, fabric_names, network_names};
use crate::collective::{CollectiveKind, collective};
use crate::fabric::FabricKind;
use crate::fact::Basis;
use crate::network::NetworkKind;

fn assembled(fabric: &str, network: Option<(&str, f64)>, nodes: u32, gpus: u32) -> Cluster {
    Cluster::assemble("h100-80gb-sxm", fabric, network, nodes, gpus).unwrap()
}

#[test]
fn every_preset_makes_a_cluster_whose_constants_have_sources() {
    for fabric in fabric_names() {
        let cluster = assembled(fabric, None, 1, 4);
        assert_eq!(cluster.fabric.name, fabric);
        assert_eq!((cluster.nodes, cluster.gpus_per_node), (1, 4), "{fabric}");
        let facts = &cluster.fabric.facts;
        assert!(facts.iter().all(|fact| fact.source.len() > 5), "{fabric}");
        for what in ["bandwidth", "assumed.bandwidth", "ll.fill", "all_to_all.wire", "overlap.channels"] {
            assert_eq!(facts.iter().filter(|fact| fact.what == what).count(), 1, "{fabric}: {what}");
        }
        assert!(cluster.fabric.overlap.channels > 0);
        let pair = facts.iter().any(|fact| fact.what == "pair.all_reduce.wire");
        assert_eq!(pair, cluster.fabric.kind == FabricKind::NvLinkBridge, "{fabric}");
    }
    for network in network_names() {
        let cluster = assembled("nvswitch-4", Some((network, 100.0)), 2, 8);
        let network = cluster.network.unwrap();
        assert!(network.facts.iter().all(|fact| fact.source.len() > 5));
        assert!(network.bandwidth <= 12.5e9 && network.gpu_bandwidth <= network.bandwidth);
    }
}

#[test]
fn what_is_borrowed_is_scaled_and_says_so() {
    let (h100, b200) =
        (assembled("nvswitch-4", None, 1, 8).fabric, assembled("nvswitch-5", None, 1, 8).fabric);
    assert!((b200.costs.all_to_all.wire / h100.costs.all_to_all.wire - 2.0).abs() < 1e-12);
    assert!((b200.costs.ll.start_s / h100.costs.ll.start_s - 1.0).abs() < 1e-12);
    let fact = b200.facts.iter().find(|fact| fact.what == "all_to_all.wire").unwrap();
    assert!(fact.source.starts_with("Borrowed from nvswitch-4: Fitted to"), "{}", fact.source);
    assert!(fact.value.ends_with(" x 2.000") && fact.basis == Basis::DataSheet, "{fact:?}");
}

#[test]
fn the_network_of_a_node_is_shared_as_its_cards_are() {
    // 4 cards of 200 Gbit/s for 8 GPUs at 94 %: a GPU alone uses a whole card.
    let network = assembled("nvswitch-3", Some(("infiniband", 800.0)), 8, 8).network.unwrap();
    assert_eq!((network.kind, network.cards), (NetworkKind::InfiniBand, 4));
    assert!((network.bandwidth - 94e9).abs() < 1.0 && (network.gpu_bandwidth - 23.5e9).abs() < 1.0);
    // 32 cards of 100 Gbit/s at 90 %: four for each GPU.
    let network = assembled("nvswitch-4", Some(("efa", 3200.0)), 8, 8).network.unwrap();
    assert_eq!(network.cards, 32);
    assert!((network.gpu_bandwidth - 45e9).abs() < 1.0);
}

#[test]
fn rings_leave_by_a_far_card_where_no_two_of_their_gpus_share_one() {
    // 4 cards for 8 GPUs: card 0 is near to GPUs 0 and 1, card 3 to 6 and 7.
    let Ok(ClusterEntry::Nodes(cluster)) = cluster_from_catalogue("a100-80gb-ib-800") else {
        panic!("a cluster of nodes")
    };
    let network = cluster.network.unwrap();
    let far = |places: &[u32]| network.leaves_by_far_card(places, 8);
    assert!(!far(&[0, 1, 2, 3, 4, 5, 6, 7]), "tensor parallel 1: in by GPU 0, out by GPU 1");
    assert!(far(&[0, 2, 4, 6]) && far(&[1, 3, 5, 7]) && far(&[0, 4]) && far(&[3, 7]));
    assert!(!far(&[5]), "tensor parallel 8: in and out by one GPU");
    assert!(!far(&[0, 2, 3]), "2 and 3 share a card");
    // Libraries that move data to a GPU near the card have no such limit.
    let moves = Network { far_bandwidth: None, ..network };
    assert!(!moves.leaves_by_far_card(&[0, 4], 8));
}

#[test]
fn parts_that_do_not_fit_are_refused() {
    let refused = |gpu: &str, fabric: &str, network, nodes, gpus| {
        Cluster::assemble(gpu, fabric, network, nodes, gpus).unwrap_err().to_string()
    };
    let message = refused("h100-80gb-sxm", "nvswitch4", None, 1, 8);
    assert!(message.starts_with("unknown fabric `nvswitch4`; did you mean `nvswitch-4`?"), "{message}");
    let message = refused("h100-80gb-sxm", "nvswitch-4", Some(("infinband", 3200.0)), 2, 8);
    assert!(message.contains("did you mean `infiniband`?"), "{message}");
    assert!(refused("h100-80gb-sxm", "nvswitch-4", None, 2, 8).contains("no [network]"));
    assert!(refused("h100-80gb-sxm", "nvswitch-4", Some(("efa", 0.0)), 2, 8).contains("above 0"));
    assert!(refused("h100-80gb-sxm", "nvswitch-4", None, 0, 8).contains("hold no GPU"));
}

#[test]
fn nodes_of_one_domain_talk_over_its_switches() {
    let rack = |nodes, gpus| {
        let cluster = assembled("nvl72", Some(("infiniband", 1600.0)), nodes, gpus);
        let rate = cluster.network.as_ref().map_or(0.0, |network| network.bandwidth);
        (
            cluster.nodes,
            cluster.gpus_per_node,
            (rate / 188e9).round() as u32,
            cluster.host.memory.0 / 960_000_000_000,
        )
    };
    // Domains, GPUs of each, its network in units of one machine's, its memory likewise.
    assert_eq!(rack(1, 4), (1, 4, 1, 1));
    assert_eq!(rack(18, 4), (1, 72, 18, 18));
    assert_eq!(rack(16, 4), (1, 64, 16, 16));
    assert_eq!(rack(32, 4), (2, 64, 16, 16));
    assert_eq!(rack(64, 4), (4, 64, 16, 16));
    // Rows that state 8 GPUs a node of such a rack: two machines.
    let wide = assembled("nvl72", Some(("infiniband", 1600.0)), 1, 4).with_size(2, 8).unwrap();
    assert_eq!((wide.nodes, wide.gpus_per_node), (2, 8));
    assert!(wide.with_size(1, 73).unwrap_err().to_string().contains("a node has 72"));
    // 8 ranks of two machines stay on the switches.
    let cluster = assembled("nvl72", Some(("infiniband", 1600.0)), 2, 4);
    let placement = Placement { ranks: 8, nodes: 1 };
    let transfer = collective(&cluster, CollectiveKind::AllGather, placement, 1 << 30);
    assert!(!transfer.crosses_nodes && transfer.alone_s(&cluster, placement) < 2e-3);
}

#[test]
fn jobs_on_a_shared_network_differ_by_its_nodes() {
    let network = assembled("nvswitch-4", Some(("efa", 3200.0)), 64, 8).network.unwrap();
    assert_eq!(network.messages(1), None);
    let (two, four) = (network.messages(2).unwrap(), network.messages(4).unwrap());
    let three = network.messages(3).unwrap();
    for (found, ends) in [(three.0, (two.0, four.0)), (three.1, (two.1, four.1))] {
        assert!((found - f64::midpoint(ends.0, ends.1)).abs() < 1e-12);
    }
    // Public sweep, 64 nodes, all-gathers of 256 MiB: 511/512 of them at 43.19 GB/s in the fastest tenth of the jobs are
    // 6.20 ms, at 6.23 GB/s in the slowest 43.0 ms, for 511 messages beside about 1 ms of bytes and 63 hops of 34 us: 6 and 78
    // us, less what the links inside the nodes take.
    let (fastest, slowest) = network.messages(64).unwrap();
    assert!((2e-6..8e-6).contains(&fastest) && (70e-6..80e-6).contains(&slowest), "{fastest} {slowest}");
    assert!(fastest < network.message_s && network.message_s < slowest);
    assert_eq!(network.messages(1000), network.messages(64));
    let infiniband = assembled("nvswitch-4", Some(("infiniband", 3200.0)), 2, 8).network.unwrap();
    assert_eq!(infiniband.messages(2), None);
    // Jobs on one network differ by its messages, clusters of a kind by what they reach.
    let (fast, slow) = network.extremes(64).unwrap();
    assert_eq!((fast.message_s, slow.message_s), (fastest, slowest));
    assert_eq!((fast.bandwidth, slow.bandwidth), (network.bandwidth, network.bandwidth));
    assert!(network.extremes(1).is_none() && infiniband.extremes(1).is_none());
}

/// Line rates of data sheets, 8 cards a node: a card of each generation brings twice what the one before does, and speeds of RoCE
/// differ. What the slowest and the fastest published clusters reach lies around each preset's own share.
#[test]
fn networks_are_told_apart_by_generation_and_speed() {
    for (name, card) in [
        ("infiniband-edr", 100.0),
        ("infiniband-hdr", 200.0),
        ("infiniband-ndr", 400.0),
        ("infiniband-xdr", 800.0),
        ("roce-100", 100.0),
        ("roce-200", 200.0),
        ("roce-400", 400.0),
    ] {
        let network = assembled("nvswitch-4", Some((name, 8.0 * card)), 4, 8).network.unwrap();
        assert_eq!(network.cards, 8, "{name}");
        let line = 8.0 * card * 1e9 / 8.0;
        assert!((network.bandwidth / line - network.share).abs() < 1e-9, "{name}");
        let (fast, slow) = network.extremes(4).unwrap();
        assert!(slow.bandwidth < network.bandwidth && network.bandwidth <= fast.bandwidth, "{name}");
        assert!(slow.bandwidth >= 0.5 * line && fast.bandwidth < line, "{name}");
        assert!((fast.gpu_bandwidth / fast.bandwidth - 1.0 / 8.0).abs() < 1e-9, "{name}");
    }
}
