//! Ways through small topologies, counted by hand.

use std::sync::Arc;

use super::*;

fn blueprint(shape: Shape, places: u32) -> Blueprint {
    Blueprint {
        shape: Some(shape),
        inside: None,
        places,
        at: (0..places).collect(),
        gpus_per_node: 4,
        node_bandwidth: 100.0,
        ways: 1,
        faults: Vec::new(),
    }
}

fn names(topology: &Topology, from: u32, to: u32, (rail, turn): (u32, u64)) -> Vec<String> {
    let way = Router::new(Arc::new(topology.clone())).between_nodes(from, to, rail, turn).unwrap();
    way.into_iter().map(|edge| topology.edges()[edge as usize].name.clone()).collect()
}

fn bandwidth(topology: &Topology, name: &str) -> f64 {
    topology.edges().iter().find(|edge| edge.name == name).unwrap().bandwidth
}

/// Four nodes of 100 bytes/s, two a leaf, two spines, oversubscribed 2 to 1: 200 come from below a leaf, 100 go up, 50 to
/// each spine.
#[test]
fn an_oversubscribed_fat_tree() {
    let shape = Shape::FatTree { nodes_per_leaf: 2, spines: 2, oversubscription: 2.0, rails: 1 };
    let tree = Topology::new(&blueprint(shape, 4)).unwrap();
    assert_eq!(names(&tree, 0, 1, (0, 0)), ["node 0 > leaf 0", "leaf 0 > node 1"]);
    let over = |spine: &str| {
        ["node 0 > leaf 0", &format!("leaf 0 > {spine}"), &format!("{spine} > leaf 1"), "leaf 1 > node 3"]
            .map(str::to_owned)
    };
    assert_eq!(names(&tree, 0, 3, (0, 0)), over("spine 0"));
    assert_eq!(names(&tree, 0, 3, (0, 1)), over("spine 1"));
    assert!((bandwidth(&tree, "leaf 0 > spine 1") - 50.0).abs() < 1e-9);
}

/// Two rails: nodes of a group reach each other on the same rail through one leaf, whichever it is.
#[test]
fn rails_have_leaves_of_their_own() {
    let shape = Shape::FatTree { nodes_per_leaf: 2, spines: 1, oversubscription: 1.0, rails: 2 };
    let tree = Topology::new(&blueprint(shape, 4)).unwrap();
    assert_eq!(tree.rails(), 2);
    assert_eq!(names(&tree, 0, 1, (1, 0)), ["node 0 rail 1 > leaf 1", "leaf 1 > node 1 rail 1"]);
    assert_eq!(names(&tree, 0, 2, (1, 0)).len(), 4);
    assert!((bandwidth(&tree, "node 0 rail 1 > leaf 1") - 50.0).abs() < 1e-9);
}

/// Three groups of two routers with one node each: a way crosses at most one local link, the global one, and a local one.
#[test]
fn a_dragonfly_takes_one_global_hop() {
    let shape = Shape::Dragonfly { routers_per_group: 2, nodes_per_router: 1, local: 50.0, global: 25.0 };
    let fly = Topology::new(&blueprint(shape, 6)).unwrap();
    let global = fly.edges().iter().filter(|edge| (edge.bandwidth - 25.0).abs() < 1e-9).count();
    assert_eq!(global, 2 * 3, "one link between every two groups, in two directions");
    for (from, to) in (0..6).flat_map(|from| (0..6).map(move |to| (from, to))).filter(|(a, b)| a != b) {
        let way = names(&fly, from, to, (0, 0));
        let crossed = way.iter().filter(|name| (bandwidth(&fly, name) - 25.0).abs() < 1e-9).count();
        assert_eq!(crossed, usize::from(from / 2 != to / 2), "{way:?}");
        assert!(way.len() <= 5, "{way:?}");
    }
}

/// On a 4 x 3 torus node 0 is at (0, 0) and node 11 at (3, 2): one step back in each dimension, the first one first.
#[test]
fn a_torus_is_crossed_dimension_by_dimension() {
    let shape = Shape::Torus { dimensions: vec![4, 3], link: 10.0 };
    let torus = Topology::new(&blueprint(shape, 12)).unwrap();
    assert_eq!(torus.edges().len(), 12 * 2 * 2);
    assert_eq!(names(&torus, 0, 11, (0, 0)), ["node 0 > node 3", "node 3 > node 11"]);
    // Half way round: upwards.
    assert_eq!(names(&torus, 0, 2, (0, 0)), ["node 0 > node 1", "node 1 > node 2"]);
    let hops = |to| names(&torus, 0, to, (0, 0)).len() as u32;
    assert_eq!((0..12).map(hops).collect::<Vec<_>>(), [0, 1, 2, 1, 1, 2, 3, 2, 1, 2, 3, 2]);
}

#[test]
fn a_cut_link_of_a_torus_is_gone_round() {
    let shape = Shape::Torus { dimensions: vec![4], link: 10.0 };
    let cut = |a: &str, b: &str| Fault { between: [a.to_owned(), b.to_owned()], rate: 0.0 };
    let mut drawn = blueprint(shape, 4);
    drawn.faults.push(cut("node 0", "node 1"));
    let torus = Topology::new(&drawn).unwrap();
    assert_eq!(names(&torus, 0, 1, (0, 0)), ["node 0 > node 3", "node 3 > node 2", "node 2 > node 1"]);
    drawn.faults.push(cut("node 3", "node 2"));
    let torus = Topology::new(&drawn).unwrap();
    let error = Router::new(Arc::new(torus.clone())).between_nodes(0, 1, 0, 0).unwrap_err();
    assert_eq!(error.to_string(), "no way is left from node 0 to node 1");
    drawn.faults.push(cut("node 0", "node 2"));
    assert!(matches!(Topology::new(&drawn), Err(TopologyError::NotJoined { .. })));
}

/// Eight GPUs, two below each switch, two switches below each socket, and NVLink bridges between neighbours.
#[test]
fn bridges_and_a_pcie_tree() {
    let tree = PcieTree {
        gpus_per_switch: 2,
        switches_per_socket: 2,
        slot: 25.0,
        uplink: 25.0,
        between_sockets: 20.0,
    };
    let inside = Inside { nvlinks: vec![(0, 1), (1, 0), (2, 3)], nvlink: 50.0, pcie: Some(tree) };
    let drawn = Blueprint {
        inside: Some(inside),
        shape: None,
        gpus_per_node: 8,
        ..blueprint(Shape::Explicit { links: Vec::new() }, 1)
    };
    let node = Topology::new(&drawn).unwrap();
    let way = |from, to| {
        let way = Router::new(Arc::new(node.clone())).inside(0, from, to).unwrap();
        way.into_iter()
            .map(|edge| node.edges()[edge as usize].name.replace("node 0 ", ""))
            .collect::<Vec<_>>()
    };
    assert_eq!(way(0, 1), ["gpu 0 > gpu 1"]);
    assert!((bandwidth(&node, "node 0 gpu 0 > node 0 gpu 1") - 100.0).abs() < 1e-9);
    assert_eq!(way(4, 5), ["gpu 4 > switch 2", "switch 2 > gpu 5"]);
    assert_eq!(way(4, 6).len(), 4);
    let across = ["gpu 0 > switch 0", "switch 0 > socket 0", "socket 0 > socket 1"];
    assert_eq!(way(0, 7)[..3], across);
    assert_eq!(way(0, 7).len(), 5);
    let apart =
        Blueprint { inside: Some(Inside { nvlinks: vec![(0, 1)], nvlink: 1.0, pcie: None }), ..drawn };
    assert!(matches!(Topology::new(&apart), Err(TopologyError::Inside(_))));
}

#[test]
fn every_node_has_a_place_of_its_own() {
    let mut drawn = blueprint(Shape::Torus { dimensions: vec![4], link: 10.0 }, 4);
    drawn.at = vec![2, 0];
    let torus = Topology::new(&drawn).unwrap();
    assert_eq!(names(&torus, 0, 1, (0, 0)), ["node 2 > node 3", "node 3 > node 0"]);
    drawn.at = vec![2, 2];
    assert!(matches!(Topology::new(&drawn), Err(TopologyError::Place { node: 1, place: 2, .. })));
}
