//! Traffic over described switches and links, against what is reckoned by hand.

use std::sync::Arc;

use steptime_clusters::{Blueprint, Cluster, Fault, Inside, PcieTree, Shape, Topology};
use steptime_core::{NoObserver, simulate};

use super::fixtures::{free_links, model, plan, workload};
use crate::classes;
use crate::error::PlanError;
use crate::lower::{Lowered, lower};
use crate::plan::Plan;
use crate::schedule::ScheduleKind;
use crate::zero::ZeroStage;

/// Nodes of one GPU each that reduce all gradients at once at the end of a step.
fn job(cluster: &Cluster) -> Result<Lowered, PlanError> {
    let plan = plan(cluster.gpus(), 1, ScheduleKind::OneForwardOneBackward, ZeroStage::Zero);
    let plan = Plan { gradient_overlap: false, explicit: true, ..plan };
    lower(&model("gpt2", 4), cluster, &plan, &workload(1))
}

fn blueprint(cluster: &Cluster, shape: Shape, ways: u32) -> Blueprint {
    Blueprint {
        shape: Some(shape),
        inside: None,
        places: cluster.nodes,
        at: (0..cluster.nodes).collect(),
        gpus_per_node: cluster.gpus_per_node,
        node_bandwidth: cluster.network.as_ref().map_or(0.0, |network| network.bandwidth),
        ways,
        faults: Vec::new(),
    }
}

fn with(cluster: &Cluster, drawn: &Blueprint) -> Cluster {
    let topology = Topology::new(drawn).expect("a possible topology");
    Cluster { topology: Some(Arc::new(topology)), ..cluster.clone() }
}

fn picos(cluster: &Cluster) -> u64 {
    let lowered = job(cluster).expect("legal");
    simulate(&lowered.world, &mut NoObserver).expect("no deadlock").end.picos()
}

/// Nodes whose cards bring all that the network takes, so that a switch can be the bottleneck.
fn nodes(count: u32) -> Cluster {
    let mut cluster = free_links(count, 1);
    if let Some(network) = &mut cluster.network {
        network.bandwidth = network.gpu_bandwidth;
    }
    cluster
}

fn tree(oversubscription: f64, spines: u32) -> Shape {
    Shape::FatTree { nodes_per_leaf: 2, spines, oversubscription, rails: 1 }
}

/// A ring over four nodes leaves each of two leaves once. Up to twice as many nodes' rate as leaves go up without loss; at
/// four to one half the rate is left, at eight to one a quarter: the flow takes twice and four times as long.
#[test]
fn a_ring_is_as_fast_as_the_narrowest_way_up() {
    let nodes = nodes(4);
    let free = picos(&nodes);
    let at = |oversubscription| picos(&with(&nodes, &blueprint(&nodes, tree(oversubscription, 2), 2)));
    assert_eq!([1.0, 2.0].map(at), [free, free]);
    let [four, eight] = [4.0, 8.0].map(at);
    assert!(four > free && (eight - free).abs_diff(3 * (four - free)) <= 4, "{free} {four} {eight}");
    // One way takes one of the two spines only.
    let one = picos(&with(&nodes, &blueprint(&nodes, tree(2.0, 2), 1)));
    assert!(one.abs_diff(four) <= 1, "{one} {four}");
}

/// Every shape with enough links carries a ring as if it had none, within 0.1 %.
#[test]
fn without_contention_a_topology_costs_nothing() {
    let nodes = nodes(8);
    let rate = nodes.network.as_ref().map_or(0.0, |network| network.bandwidth);
    let free = picos(&nodes);
    let shapes = [
        tree(1.0, 2),
        Shape::FatTree { nodes_per_leaf: 4, spines: 1, oversubscription: 1.0, rails: 1 },
        Shape::Dragonfly { routers_per_group: 2, nodes_per_router: 2, local: 2.0 * rate, global: 2.0 * rate },
        // The way back from the last node to the first shares the links of a ring that is as long as the job.
        Shape::Torus { dimensions: vec![8], link: rate },
        Shape::Explicit {
            links: (0..8).map(|node| (format!("node {node}"), "hub".to_owned(), rate)).collect(),
        },
    ];
    for shape in shapes {
        let found = picos(&with(&nodes, &blueprint(&nodes, shape.clone(), 2)));
        assert!(found.abs_diff(free) * 1000 <= free, "{shape:?}: {found} against {free}");
    }
}

/// On a torus of 4 nodes with a cut link the ring's hop over it goes the other way round, over all three other links, which
/// carry two flows then.
#[test]
fn a_cut_link_is_gone_round_and_two_are_an_error() {
    let nodes = nodes(4);
    let rate = nodes.network.as_ref().map_or(0.0, |network| network.bandwidth);
    let mut drawn = blueprint(&nodes, Shape::Torus { dimensions: vec![4], link: rate }, 1);
    let free = picos(&with(&nodes, &drawn));
    let fault = |a: u32, b: u32, rate| Fault { between: [a, b].map(|node| format!("node {node}")), rate };
    drawn.faults = vec![fault(1, 2, 0.5)];
    let degraded = picos(&with(&nodes, &drawn));
    drawn.faults = vec![fault(1, 2, 0.0)];
    let cut = picos(&with(&nodes, &drawn));
    // Back over three links against the direction of the others: no link carries more than one flow in a direction.
    assert!(cut.abs_diff(free) <= 1 && degraded > free, "{free} {degraded} {cut}");
    drawn.faults.push(fault(3, 0, 0.0));
    let error = job(&with(&nodes, &drawn)).expect_err("two halves");
    assert!(matches!(error, PlanError::Topology(_)), "{error}");
    assert_eq!(error.to_string(), "no way is left from node 1 to node 2");
}

/// Two jobs of two nodes each, one node of each below every leaf: what leaves a leaf is one node's rate, which a job has to
/// itself, or shares with the other. Its flow then takes twice as long.
#[test]
fn jobs_share_the_links_between_switches() {
    let nodes = nodes(2);
    let drawn = |at: [u32; 2], oversubscription| Blueprint {
        places: 4,
        at: at.to_vec(),
        ..blueprint(&nodes, tree(oversubscription, 1), 1)
    };
    let worlds = |oversubscription| {
        [[0, 2], [1, 3]].map(|at| job(&with(&nodes, &drawn(at, oversubscription))).expect("legal").world)
    };
    let end =
        |world: &steptime_core::World| simulate(world, &mut NoObserver).expect("no deadlock").end.picos();
    let together = |oversubscription| {
        let [one, other] = worlds(oversubscription);
        let shared = |name: &str| name.contains("leaf");
        let both = one.beside(&other, "job 1 ", shared).expect("links of both");
        let outcome = simulate(&both, &mut NoObserver).expect("no deadlock");
        outcome.of_first(one.ranks().len(), classes::TAIL).end.picos()
    };
    let alone = end(&worlds(2.0)[0]);
    assert_eq!(together(1.0), alone, "enough for both");
    // At 4 to 1 half of a node's rate goes up: alone as long as together at 2 to 1.
    assert_eq!(together(2.0), end(&worlds(4.0)[0]));
    assert!(together(2.0) > alone);
}

/// Four GPUs, two below each socket: a ring crosses the link between the sockets once in each direction.
#[test]
fn a_ring_crosses_sockets_once_each_way() {
    let node = free_links(1, 4);
    let port = node.fabric.bandwidth;
    let inside = |between_sockets| {
        let pcie = PcieTree {
            gpus_per_switch: 2,
            switches_per_socket: 1,
            slot: port,
            uplink: port,
            between_sockets,
        };
        let inside = Some(Inside { nvlinks: Vec::new(), nvlink: 0.0, pcie: Some(pcie) });
        let none = blueprint(&node, Shape::Explicit { links: Vec::new() }, 1);
        picos(&with(&node, &Blueprint { shape: None, inside, ..none }))
    };
    let free = picos(&node);
    assert_eq!(inside(port), free);
    let [half, quarter] = [2.0, 4.0].map(|less| inside(port / less));
    assert!(half > free && (quarter - free).abs_diff(3 * (half - free)) <= 4, "{free} {half} {quarter}");
}

/// Tokens of experts on two nodes of two GPUs: each of the two GPUs of a node sends a quarter of its array to each of the
/// two on the other, over one way up. What flows up is then what leaves a node, so that half the rate of a node's cards
/// doubles the flow.
#[test]
fn an_exchange_crosses_switches_by_its_pairs() {
    let mut cluster = free_links(2, 2);
    if let Some(network) = &mut cluster.network {
        network.bandwidth = network.group_bandwidth(2);
    }
    let plan = Plan {
        expert: 4,
        explicit: true,
        ..plan(4, 1, ScheduleKind::OneForwardOneBackward, ZeroStage::Zero)
    };
    let time = |cluster: &Cluster| {
        let lowered = lower(&model("mixtral-8x7b", 1), cluster, &plan, &workload(1)).expect("legal");
        simulate(&lowered.world, &mut NoObserver).expect("no deadlock").end.picos()
    };
    let one = |oversubscription| Shape::FatTree { nodes_per_leaf: 1, spines: 1, oversubscription, rails: 1 };
    let at = |oversubscription| time(&with(&cluster, &blueprint(&cluster, one(oversubscription), 1)));
    let free = time(&cluster);
    let [whole, half, quarter] = [1.0, 2.0, 4.0].map(at);
    assert!(whole.abs_diff(free) * 1000 <= free, "{whole} against {free}");
    assert!(half > free && quarter > half);
}
