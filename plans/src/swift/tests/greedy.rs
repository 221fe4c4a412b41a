//! The greedy baseline against plain enumeration of all paths.

use proptest::prelude::*;
use steptime_clusters::VehicleCluster;
use steptime_models::{Component, ComponentGraph, Partition};

use super::fixtures::{ORIGINAL, cluster, model, nine_vehicles};
use crate::swift::{
    FormulaParameters, GREEDY_ORDER_LIMIT, GreedyError, GreedyOutcome, PathPlan, greedy_baseline,
};

/// Partitions of one component each, `(FLOPs, bytes, bytes sent)` in 1e6.
pub(super) fn graph(partitions: &[(u32, u32, u32)]) -> ComponentGraph {
    let component = |(i, &(flops, bytes, _)): (usize, &(u32, u32, u32))| Component {
        name: format!("c{i}"),
        flops_per_sample: f64::from(flops) * 1e6,
        capacity: f64::from(bytes) * 1e6,
    };
    let partition = |(i, &(_, _, volume)): (usize, &(u32, u32, u32))| Partition {
        name: format!("p{i}"),
        communication_volume: f64::from(volume) * 1e6,
        components: vec![i],
    };
    ComponentGraph {
        components: partitions.iter().enumerate().map(component).collect(),
        partitions: partitions.iter().enumerate().map(partition).collect(),
    }
}

/// All topological orders in lexicographic order.
fn all_paths(cluster: &VehicleCluster) -> Vec<Vec<usize>> {
    fn extend(cluster: &VehicleCluster, path: &mut Vec<usize>, all: &mut Vec<Vec<usize>>) {
        if path.len() == cluster.vehicles.len() {
            all.push(path.clone());
        }
        for v in 0..cluster.vehicles.len() {
            let waits = |&(source, target): &(usize, usize)| target == v && !path.contains(&source);
            if !path.contains(&v) && !cluster.dependencies.iter().any(waits) {
                path.push(v);
                extend(cluster, path, all);
                path.pop();
            }
        }
    }
    let mut all = Vec::new();
    extend(cluster, &mut Vec::new(), &mut all);
    all
}

/// The source's placement for one path, partition by partition; or how many were placed, the next
/// partition, and each vehicle's room at that moment.
fn place(
    graph: &ComponentGraph,
    cluster: &VehicleCluster,
    path: &[usize],
) -> Result<Vec<Vec<usize>>, (usize, usize, Vec<f64>)> {
    let mut vehicles = path.to_vec();
    vehicles.sort_by(|&u, &v| cluster.vehicles[v].compute.total_cmp(&cluster.vehicles[u].compute));
    let mut partitions: Vec<usize> = (0..graph.partitions.len()).collect();
    partitions.sort_by(|&p, &q| graph.partition_flops(q).total_cmp(&graph.partition_flops(p)));
    let mut assignment = vec![Vec::new(); vehicles.len()];
    let mut used = vec![0.0; vehicles.len()];
    for (placed, &p) in partitions.iter().enumerate() {
        let capacity = graph.partition_capacity(p);
        let Some(&v) = vehicles.iter().find(|&&v| used[v] + capacity <= cluster.vehicles[v].memory) else {
            let room = used.iter().zip(&cluster.vehicles).map(|(used, vehicle)| vehicle.memory - used);
            return Err((placed, p, room.collect()));
        };
        used[v] += capacity;
        assignment[v].push(p);
    }
    Ok(assignment)
}

/// Compares the search with the enumeration of every path.
fn check_against_enumeration(graph: &ComponentGraph, cluster: &VehicleCluster) {
    let parameters = FormulaParameters::default();
    let mut plans = Vec::new();
    let mut furthest: Option<(usize, usize, Vec<f64>, Vec<usize>)> = None;
    for path in all_paths(cluster) {
        match place(graph, cluster, &path) {
            Ok(assignment) => {
                let plan = PathPlan { order: path, assignment };
                let time = plan.serial_time(graph, cluster, &parameters).unwrap().total_s;
                plans.push((plan, time));
            }
            Err((placed, p, room)) if furthest.as_ref().is_none_or(|(most, ..)| placed > *most) => {
                furthest = Some((placed, p, room, path));
            }
            Err(_) => {}
        }
    }
    match greedy_baseline(graph, cluster, &parameters, GREEDY_ORDER_LIMIT).unwrap() {
        GreedyOutcome::Feasible(plan, time) => {
            let least = plans.iter().map(|&(_, time)| time).fold(f64::INFINITY, f64::min);
            // Paths that differ by less have the same time: only the order of additions tells them apart.
            let (first, _) = plans.iter().find(|(_, time)| *time <= least * (1.0 + 1e-12)).unwrap();
            assert_eq!(&plan, first);
            assert!(time.total_s <= least * (1.0 + 1e-12));
            assert_eq!(plan.validate(graph, cluster), Ok(()));
        }
        GreedyOutcome::Infeasible(why) => {
            assert!(plans.is_empty());
            let (placed, p, room, path) = furthest.unwrap();
            let most = room.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let roomiest = room.iter().position(|room| room.total_cmp(&most).is_eq()).unwrap();
            assert_eq!((why.placed, &why.partition), (placed, &graph.partitions[p].name));
            assert_eq!(why.path, path.iter().map(|&v| cluster.vehicles[v].id.clone()).collect::<Vec<_>>());
            assert_eq!((&why.vehicle, why.available_bytes), (&cluster.vehicles[roomiest].id, most));
            let required = graph.partition_capacity(p);
            assert_eq!((why.required_bytes, why.short_by_bytes), (required, required - most));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Few distinct values make ties of every kind frequent.
    #[test]
    fn the_search_equals_plain_enumeration(
        vehicles in prop::collection::vec((2_u32..6, 1_u32..4, 1_u32..4), 1..=6),
        partitions in prop::collection::vec((1_u32..5, 1_u32..5, 1_u32..4), 0..=6),
        edges in prop::collection::vec((1_usize..=6, 1_usize..=6), 0..=4),
        rotation in 0_usize..6,
    ) {
        // Edges that follow some order of the vehicles, not always that of their indices, have no cycle.
        let n = vehicles.len();
        let rank = |v: usize| (v + rotation) % n;
        let dependencies: Vec<(usize, usize)> = edges
            .into_iter()
            .filter(|&(u, v)| u <= n && v <= n && rank(u) < rank(v))
            .collect();
        check_against_enumeration(&graph(&partitions), &cluster(&vehicles, &dependencies));
    }
}

#[test]
fn equal_vehicles_are_filled_in_path_order() {
    // Three equal vehicles but for their links. Either path must leave out one transfer; the best puts the
    // small volume (p1) on the slow link and ends with the large one.
    let partitions = graph(&[(4, 10, 6), (3, 10, 1)]);
    check_against_enumeration(&partitions, &cluster(&[(10, 2, 1), (10, 2, 3), (10, 2, 2)], &[]));
    check_against_enumeration(&partitions, &cluster(&[(10, 2, 1), (10, 2, 3), (10, 2, 2)], &[(3, 1)]));
}

#[test]
fn contradictory_orders_of_two_groups_are_passed_over() {
    // 1 > 3 and 4 > 2 with groups {1, 2} and {3, 4}: filling 2 before 1 and 3 before 4 has no path.
    let vehicles = [(10, 3, 1), (10, 3, 2), (10, 2, 3), (10, 2, 1)];
    let partitions = graph(&[(5, 9, 1), (4, 9, 2), (3, 9, 3), (2, 9, 4)]);
    check_against_enumeration(&partitions, &cluster(&vehicles, &[(1, 3), (4, 2)]));
}

#[test]
fn a_cycle_is_named() {
    let vehicles = [(10, 1, 1), (10, 2, 1), (10, 3, 1), (10, 4, 1)];
    let outcome = |dependencies: &[(usize, usize)]| {
        let cluster = cluster(&vehicles, dependencies);
        greedy_baseline(&graph(&[]), &cluster, &FormulaParameters::default(), 10).unwrap_err().to_string()
    };
    assert_eq!(
        outcome(&[(4, 1), (1, 3), (3, 2), (2, 1)]),
        "the dependencies form a cycle: v1 > v3 > v2 > v1"
    );
    assert_eq!(outcome(&[(2, 2)]), "the dependencies form a cycle: v2 > v2");
}

#[test]
fn the_limit_counts_orders_of_equal_vehicles() {
    // 4 vehicles that differ in their links only, nothing fits: all 4! orders are tried.
    let cluster = cluster(&[(1, 1, 1), (1, 1, 2), (1, 1, 3), (1, 1, 4)], &[]);
    let outcome =
        |limit| greedy_baseline(&graph(&[(1, 2, 1)]), &cluster, &FormulaParameters::default(), limit);
    assert!(matches!(outcome(24), Ok(GreedyOutcome::Infeasible(_))));
    assert_eq!(outcome(23), Err(GreedyError::TooManyOrders { limit: 23 }));
    // A chain of dependencies leaves one order.
    let chain =
        super::fixtures::cluster(&[(1, 1, 1); 12], &std::array::from_fn::<_, 11, _>(|v| (v + 1, v + 2)));
    let outcome = greedy_baseline(&graph(&[(1, 2, 1)]), &chain, &FormulaParameters::default(), 1);
    assert!(matches!(outcome, Ok(GreedyOutcome::Infeasible(_))));
}

#[test]
fn clusters_without_sense_are_refused() {
    let parameters = FormulaParameters::default();
    let mut empty = nine_vehicles();
    empty.vehicles.clear();
    assert_eq!(greedy_baseline(&graph(&[]), &empty, &parameters, 1), Err(GreedyError::NoVehicles));
    let mut strange = nine_vehicles();
    strange.dependencies.push((0, 9));
    let error = GreedyError::UnknownVehicle { index: 9, vehicles: 9 };
    assert_eq!(greedy_baseline(&graph(&[]), &strange, &parameters, 1), Err(error));
}

#[test]
fn many_paths_need_few_orders() {
    let tried = |vehicles: &[(u32, u32, u32)], limit| {
        let cluster = cluster(vehicles, &[]);
        greedy_baseline(&model(&ORIGINAL), &cluster, &FormulaParameters::default(), limit)
    };
    // 9! = 362,880 paths. The original model fits into 4 GB on each of three vehicles; where the links differ,
    // that makes 9 * 8 * 7 orders, and where nothing differs one.
    let differ: [(u32, u32, u32); 9] = std::array::from_fn(|v| (4000, 1000, 1000 + v as u32));
    assert!(matches!(tried(&differ, 9 * 8 * 7), Ok(GreedyOutcome::Feasible(..))));
    assert_eq!(tried(&differ, 9 * 8 * 7 - 1), Err(GreedyError::TooManyOrders { limit: 503 }));
    assert!(matches!(tried(&[(4000, 1000, 1000); 9], 1), Ok(GreedyOutcome::Feasible(..))));
}
