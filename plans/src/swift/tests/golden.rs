//! The source's published baseline times, and a recomputation of its plans.

use std::path::Path;

use serde_json::Value;
use steptime_clusters::VehicleCluster;
use steptime_models::ComponentGraph;

use super::fixtures::{
    LARGE, MEDIUM, ORIGINAL, SMALL, Sizes, XLARGE, five_vehicles, model, nine_vehicles, seven_vehicles,
    three_vehicles,
};
use crate::swift::{
    FormulaParameters, GREEDY_ORDER_LIMIT, GreedyOutcome, PathPlan, SerialTime, greedy_baseline,
};

fn baseline(sizes: &Sizes, cluster: &VehicleCluster) -> GreedyOutcome {
    greedy_baseline(&model(sizes), cluster, &FormulaParameters::default(), GREEDY_ORDER_LIMIT).unwrap()
}

fn four_decimals(seconds: f64) -> String {
    format!("{seconds:.4}")
}

/// Seconds of the source's baseline (`flad/plot/bar.py`, which prints 0 for "no plan"), or none.
#[test]
fn published_baselines() {
    let rows = [
        (&ORIGINAL, three_vehicles(), Some("1081.6197")),
        (&ORIGINAL, five_vehicles(), Some("2494.7078")),
        (&ORIGINAL, seven_vehicles(), Some("910.5060")),
        (&ORIGINAL, nine_vehicles(), None),
        (&SMALL, five_vehicles(), Some("1390.7427")),
        (&LARGE, five_vehicles(), Some("2998.2761")),
        (&XLARGE, five_vehicles(), None),
    ];
    for (sizes, cluster, published) in rows {
        let time = match baseline(sizes, &cluster) {
            GreedyOutcome::Feasible(plan, time) => {
                assert_eq!(plan.validate(&model(sizes), &cluster), Ok(()));
                Some(four_decimals(time.total_s))
            }
            GreedyOutcome::Infeasible(_) => None,
        };
        assert_eq!(time.as_deref(), published, "{} on {}", sizes.name, cluster.name);
    }
}

#[test]
fn nothing_has_room_for_the_largest_model() {
    // Its shallow feature extraction needs 1.5 + 1.8 GB, more than any vehicle of three of these clusters has.
    let roomiest =
        [(five_vehicles(), "v3", 3.2e9), (seven_vehicles(), "v5", 2.8e9), (nine_vehicles(), "v1", 1.67e9)];
    for (cluster, vehicle, room) in roomiest {
        let GreedyOutcome::Infeasible(why) = baseline(&XLARGE, &cluster) else { panic!("{}", cluster.name) };
        assert_eq!(
            (why.partition.as_str(), why.vehicle.as_str(), why.placed),
            ("ShallowFeatureExtraction", vehicle, 0)
        );
        assert_eq!(
            (why.required_bytes, why.available_bytes, why.short_by_bytes),
            (3.3e9, room, 3.3e9 - room)
        );
    }
    // On three vehicles it gets as far as its fourth partition: v1 holds 3.3 of 3.5 GB, v2 2.7 of 2.9, v3 2.3 of
    // 3.6, and two decoder layers need 1.8.
    let GreedyOutcome::Infeasible(why) = baseline(&XLARGE, &three_vehicles()) else { panic!("it fits") };
    assert_eq!(
        why.reason,
        "DecoderProcessing_Late needs 1800000000 bytes, but v3, the vehicle with the most room left, has \
         1300000000: 500000000 bytes short, with 3 of 9 partitions placed on the path v1 > v2 > v3"
    );
}

#[test]
fn paths_of_equal_time_go_to_the_first_in_lexicographic_order() {
    // The time depends only on which vehicle is last. Those before it stand in their least order.
    let path = |sizes, cluster: &VehicleCluster| match baseline(sizes, cluster) {
        GreedyOutcome::Feasible(plan, _) => plan.order.iter().map(|v| v + 1).collect::<Vec<_>>(),
        GreedyOutcome::Infeasible(why) => panic!("{}", why.reason),
    };
    assert_eq!(path(&MEDIUM, &three_vehicles()), [2, 3, 1]);
    assert_eq!(path(&SMALL, &five_vehicles()), [1, 2, 3, 5, 4]);
    assert_eq!(path(&LARGE, &five_vehicles()), [1, 2, 3, 4, 5]);
    assert_eq!(path(&ORIGINAL, &seven_vehicles()), [2, 1, 4, 5, 6, 7, 3]);
}

/// Rows of `seeds/data/swift/golden.json`, which sums compute and transfers apart.
#[test]
fn recomputed_plans() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/seeds/data/swift/golden.json");
    let Ok(text) = std::fs::read_to_string(&file) else {
        assert!(std::env::var_os("CI").is_none(), "{} is missing", file.display());
        eprintln!("SKIPPED: {} is missing", file.display());
        return;
    };
    let rows: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(rows.len(), 10);
    for row in &rows {
        let cluster = match row["cluster"].as_str().unwrap() {
            "clusterwith3member" => three_vehicles(),
            "clusterwith5member" => five_vehicles(),
            other => panic!("no cluster {other}"),
        };
        let name = row["model"].as_str().unwrap();
        let sizes =
            [&SMALL, &MEDIUM, &ORIGINAL, &LARGE, &XLARGE].into_iter().find(|sizes| sizes.name == name);
        let sizes = sizes.unwrap();
        check_baseline(&row["baseline_greedy"], sizes, &cluster);
        check_first_phase(&row["swift_phase1_seed42"], &model(sizes), &cluster);
        check_optimum(&row["exact_optimum"], &model(sizes), &cluster);
    }
}

fn check_baseline(expected: &Value, sizes: &Sizes, cluster: &VehicleCluster) {
    let (graph, what) = (model(sizes), format!("{} on {}", sizes.name, cluster.name));
    match baseline(sizes, cluster) {
        GreedyOutcome::Infeasible(why) => assert!(expected.is_null(), "{what}: {}", why.reason),
        GreedyOutcome::Feasible(plan, time) => {
            check_time(expected, time, &what);
            let golden = read_plan(expected, &graph, cluster);
            assert_eq!(plan.assignment, golden.assignment, "{what}");
            // The file breaks ties between paths by rounding noise; the vehicle at the end is what counts.
            assert_eq!(plan.order.last(), golden.order.last(), "{what}");
            let same = golden.serial_time(&graph, cluster, &FormulaParameters::default()).unwrap();
            assert!((time.total_s - same.total_s).abs() < 1e-9, "{what}");
        }
    }
}

/// Plans of the source's first phase, some of which leave partitions out: the formula prices them all.
fn check_first_phase(expected: &Value, graph: &ComponentGraph, cluster: &VehicleCluster) {
    let plan = read_plan(expected, graph, cluster);
    let time = plan.serial_time(graph, cluster, &FormulaParameters::default()).unwrap();
    check_time(expected, time, "first phase");
    let dropped: Vec<String> = (expected["unassigned"].as_array().unwrap().iter())
        .map(|name| format!("partition {} is on no vehicle", name.as_str().unwrap()))
        .collect();
    let mut found: Vec<String> = plan.violations(graph, cluster).iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), dropped.len());
    found.retain(|violation| !dropped.contains(violation));
    assert_eq!(found, [""; 0]);
}

fn check_optimum(expected: &Value, graph: &ComponentGraph, cluster: &VehicleCluster) {
    let Some(placed) = expected["assignment"].as_object() else {
        assert!(expected.is_null());
        return;
    };
    let vehicle =
        |id: &Value| cluster.vehicles.iter().position(|v| Some(v.id.as_str()) == id.as_str()).unwrap();
    let mut assignment = vec![Vec::new(); cluster.vehicles.len()];
    for (p, partition) in graph.partitions.iter().enumerate() {
        assignment[vehicle(&placed[&partition.name])].push(p);
    }
    let last = vehicle(&expected["last_vehicle"]);
    let order = (0..cluster.vehicles.len()).filter(|&v| v != last).chain([last]).collect();
    let plan = PathPlan { order, assignment };
    let time = plan.serial_time(graph, cluster, &FormulaParameters::default()).unwrap();
    assert_eq!(four_decimals(time.total_s), four_decimals(expected["time_s"].as_f64().unwrap()));
    if let GreedyOutcome::Feasible(_, greedy) =
        greedy_baseline(graph, cluster, &FormulaParameters::default(), GREEDY_ORDER_LIMIT).unwrap()
    {
        assert!(greedy.total_s >= time.total_s);
    }
}

fn check_time(expected: &Value, time: SerialTime, what: &str) {
    let fields = [("time_s", time.total_s), ("compute_s", time.compute_s), ("comm_s", time.communication_s)];
    for (key, found) in fields {
        assert_eq!(four_decimals(found), four_decimals(expected[key].as_f64().unwrap()), "{key} of {what}");
    }
}

fn read_plan(value: &Value, graph: &ComponentGraph, cluster: &VehicleCluster) -> PathPlan {
    let vehicle =
        |id: &Value| cluster.vehicles.iter().position(|v| Some(v.id.as_str()) == id.as_str()).unwrap();
    let partition =
        |name: &Value| graph.partitions.iter().position(|p| Some(p.name.as_str()) == name.as_str());
    let held =
        |id: &str| value["assignment"][id].as_array().unwrap().iter().map(|name| partition(name).unwrap());
    PathPlan {
        order: value["path"].as_array().unwrap().iter().map(vehicle).collect(),
        assignment: cluster.vehicles.iter().map(|v| held(&v.id).collect()).collect(),
    }
}
