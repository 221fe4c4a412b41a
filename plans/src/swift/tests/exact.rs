//! The optimum against enumeration, and the baselines against the optimum.

use proptest::prelude::*;
use steptime_clusters::VehicleCluster;
use steptime_models::ComponentGraph;

use super::fixtures::{
    LARGE, MEDIUM, ORIGINAL, SMALL, XLARGE, cluster, five_vehicles, model, nine_vehicles, seven_vehicles,
    three_vehicles,
};
use super::greedy::graph;
use crate::swift::{
    ANNEALING_MOVES, EXACT_NODE_LIMIT, Exact, FormulaParameters, GREEDY_ORDER_LIMIT, GreedyOutcome,
    SWIFT_SEED, annealed, exact_optimum, greedy_baseline, swift_first_phase,
};

fn optimum(graph: &ComponentGraph, cluster: &VehicleCluster) -> Exact {
    exact_optimum(graph, cluster, &FormulaParameters::default(), EXACT_NODE_LIMIT).unwrap()
}

/// The least time over all placements that fit and all vehicles that can be last.
fn enumerated(graph: &ComponentGraph, cluster: &VehicleCluster) -> Option<f64> {
    let (partitions, vehicles) = (graph.partitions.len(), cluster.vehicles.len());
    let mut least: Option<f64> = None;
    for number in 0..vehicles.pow(partitions as u32) {
        let mut rest = number;
        let mut assignment = vec![Vec::new(); vehicles];
        for p in 0..partitions {
            assignment[rest % vehicles].push(p);
            rest /= vehicles;
        }
        for last in 0..vehicles {
            if cluster.dependencies.iter().any(|&(source, _)| source == last) {
                continue;
            }
            // Any order does for the time; dependencies only say who can be last.
            let order = (0..vehicles).filter(|&v| v != last).chain([last]).collect();
            let plan = crate::swift::PathPlan { order, assignment: assignment.clone() };
            let fits = assignment.iter().zip(&cluster.vehicles).all(|(held, vehicle)| {
                held.iter().map(|&p| graph.partition_capacity(p)).sum::<f64>() <= vehicle.memory
            });
            if fits {
                let time = plan.serial_time(graph, cluster, &FormulaParameters::default()).unwrap().total_s;
                least = Some(least.map_or(time, |least| least.min(time)));
            }
        }
    }
    least
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_optimum_is_the_least_of_all(
        partitions in prop::collection::vec((1_u32..2000, 1_u32..1000, 0_u32..500), 1..6),
        vehicles in prop::collection::vec((300_u32..2000, 500_u32..4000, 100_u32..1500), 1..5),
        ordered in any::<bool>(),
    ) {
        let graph = graph(&partitions);
        let dependencies: Vec<(usize, usize)> =
            if ordered { (1..vehicles.len()).map(|v| (v, v + 1)).collect() } else { Vec::new() };
        let cluster = cluster(&vehicles, &dependencies);
        let found = optimum(&graph, &cluster);
        prop_assert!(found.proven);
        match (enumerated(&graph, &cluster), found.best) {
            (None, None) => prop_assert!(found.infeasible.is_some() && found.bound_s.is_infinite()),
            (Some(least), Some((plan, time))) => {
                prop_assert_eq!(plan.validate(&graph, &cluster), Ok(()));
                prop_assert!((time.total_s - least).abs() <= 1e-9 * least, "{} against {}", time.total_s, least);
            }
            (least, best) => prop_assert!(false, "{:?} against {:?}", least, best),
        }
    }
}

/// Optima of the source's clusters and models, seconds: recomputed by enumeration with the source's formula; none where no
/// placement has room.
#[test]
fn optima_of_the_sources_models() {
    let rows = [
        (three_vehicles(), [Some("525.5680"), Some("765.3908"), Some("1035.6775"), None, None]),
        (five_vehicles(), [Some("908.6375"), Some("1328.0102"), Some("1768.5568"), Some("2441.6414"), None]),
    ];
    for (cluster, expected) in rows {
        for (sizes, expected) in [&SMALL, &MEDIUM, &ORIGINAL, &LARGE, &XLARGE].into_iter().zip(expected) {
            let found = optimum(&model(sizes), &cluster);
            assert!(found.proven, "{} on {}: {} nodes", sizes.name, cluster.name, found.nodes);
            let time = found.best.map(|(_, time)| format!("{:.4}", time.total_s));
            assert_eq!(time.as_deref(), expected, "{} on {}", sizes.name, cluster.name);
        }
    }
}

/// On every cluster no baseline beats the optimum, and what the first phase leaves out is named.
#[test]
fn baselines_are_no_better() {
    let parameters = FormulaParameters::default();
    for cluster in [three_vehicles(), five_vehicles(), seven_vehicles(), nine_vehicles()] {
        for sizes in [&SMALL, &MEDIUM, &ORIGINAL, &LARGE, &XLARGE] {
            let graph = model(sizes);
            let found = optimum(&graph, &cluster);
            assert!(found.proven, "{} on {}: {} nodes", sizes.name, cluster.name, found.nodes);
            let least = found.best.as_ref().map_or(f64::INFINITY, |(_, time)| time.total_s);
            let greedy = match greedy_baseline(&graph, &cluster, &parameters, GREEDY_ORDER_LIMIT).unwrap() {
                GreedyOutcome::Feasible(_, time) => time.total_s,
                GreedyOutcome::Infeasible(_) => f64::INFINITY,
            };
            let cooled = annealed(&graph, &cluster, &parameters, 1, ANNEALING_MOVES).unwrap();
            let cooled = cooled.map_or(f64::INFINITY, |(_, time)| time.total_s);
            let first = swift_first_phase(&graph, &cluster, &parameters, SWIFT_SEED).unwrap();
            let named: Vec<String> = first
                .plan
                .violations(&graph, &cluster)
                .iter()
                .map(|violation| {
                    violation.to_string().replace("partition ", "").replace(" is on no vehicle", "")
                })
                .collect();
            assert_eq!(named, first.dropped, "nothing but dropped partitions is wrong with it");
            let complete = if first.dropped.is_empty() { first.time.total_s } else { f64::INFINITY };
            for (what, time) in [("greedy", greedy), ("annealing", cooled), ("first phase", complete)] {
                assert!(time >= least * (1.0 - 1e-12), "{what} on {}: {time} below {least}", cluster.name);
            }
            assert_eq!(
                cooled.is_finite(),
                least.is_finite(),
                "annealing finds room: {} on {}",
                sizes.name,
                cluster.name
            );
            assert!(cooled <= least * 1.02 || least.is_infinite(), "{cooled} against {least}");
        }
    }
}

/// Published times of the planner (`flad/plot/bar.py`) that are those of plans with partitions left out.
#[test]
fn published_plans_that_drop_partitions() {
    let first = |sizes, cluster: &VehicleCluster| {
        swift_first_phase(&model(sizes), cluster, &FormulaParameters::default(), SWIFT_SEED).unwrap()
    };
    let nine = first(&ORIGINAL, &nine_vehicles());
    assert_eq!(format!("{:.4}", nine.time.total_s), "901.1903");
    assert_eq!(nine.dropped, ["ShallowFeatureExtraction", "Lidar_DeepProcessing"]);
    let five = first(&XLARGE, &five_vehicles());
    assert_eq!(format!("{:.4}", five.time.total_s), "2944.5439");
    assert_eq!(five.dropped, ["ShallowFeatureExtraction"]);
    let three = first(&ORIGINAL, &three_vehicles());
    assert_eq!((format!("{:.4}", three.time.total_s).as_str(), three.dropped.len()), ("1064.1329", 0));
}

/// Ten unequal vehicles: the tree that bounds leave is small. Nodes, unlike seconds, repeat exactly.
#[test]
fn ten_vehicles_are_solved_in_few_nodes() {
    let mut random = crate::swift::mersenne::Mersenne::new(3);
    let mut most = 0;
    for case in 0..30 {
        let mut draw = |from: f64, to: f64| (from + (to - from) * random.sample()) as u32;
        let vehicles: Vec<(u32, u32, u32)> =
            (0..10).map(|_| (draw(600.0, 3200.0), draw(800.0, 4000.0), draw(100.0, 1500.0))).collect();
        let dependencies: Vec<(usize, usize)> =
            if case % 2 == 0 { vec![(1, 4), (2, 5), (5, 8)] } else { Vec::new() };
        let cluster = cluster(&vehicles, &dependencies);
        for sizes in [&SMALL, &ORIGINAL, &XLARGE] {
            let found = optimum(&model(sizes), &cluster);
            assert!(found.proven, "case {case}: {} nodes", found.nodes);
            most = most.max(found.nodes);
        }
    }
    assert!(most < 400_000, "{most}");
}

/// Scores of v1 to v9 under seed 42, as the source prints them.
#[test]
fn scores_are_the_sources() {
    let expected = [0.4809, 0.9130, 0.7490, 0.6490, 0.3170, 0.3170, 0.2436, 0.8496, 0.6508];
    for (found, expected) in
        crate::swift::first_phase::scores(&nine_vehicles(), SWIFT_SEED).into_iter().zip(expected)
    {
        assert!((found - expected).abs() < 5e-5, "{found} for {expected}");
    }
}
