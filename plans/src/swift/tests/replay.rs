//! The replay against the formula and against bounds that hold for every schedule.

use proptest::prelude::*;
use steptime_clusters::VehicleCluster;
use steptime_core::{NoObserver, Outcome, Recorder, SimTime, SpanKind, simulate};
use steptime_models::ComponentGraph;

use super::fixtures::{
    LARGE, MEDIUM, ORIGINAL, SMALL, cluster, five_vehicles, model, seven_vehicles, three_vehicles,
};
use crate::classes;
use crate::schedule::ScheduleKind;
use crate::swift::formula::{communication_seconds, compute_seconds, flops, volume};
use crate::swift::{
    FormulaParameterError, FormulaParameters, GREEDY_ORDER_LIMIT, GreedyOutcome, PathPlan, PathPlanError,
    PathReplay, ReplayClasses, ReplayError, ReplayOptions, greedy_baseline, lower_path,
};

const SCHEDULES: [ScheduleKind; 2] = [ScheduleKind::GPipe, ScheduleKind::OneForwardOneBackward];

fn options(micro_batches: u32, schedule: ScheduleKind) -> ReplayOptions {
    ReplayOptions { parameters: FormulaParameters::default(), micro_batches, schedule }
}

fn lower(
    graph: &ComponentGraph,
    cluster: &VehicleCluster,
    plan: &PathPlan,
    options: &ReplayOptions,
) -> PathReplay {
    lower_path(graph, cluster, plan, options, &ReplayClasses::default()).unwrap()
}

fn play(replay: &PathReplay) -> Outcome {
    simulate(&replay.world, &mut NoObserver).unwrap()
}

fn greedy_plan(graph: &ComponentGraph, cluster: &VehicleCluster) -> (PathPlan, f64) {
    match greedy_baseline(graph, cluster, &FormulaParameters::default(), GREEDY_ORDER_LIMIT).unwrap() {
        GreedyOutcome::Feasible(plan, time) => (plan, time.total_s),
        GreedyOutcome::Infeasible(why) => panic!("{}", why.reason),
    }
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * b.abs()
}

/// Seconds of compute and of transfers of each holder along the path; the last holder sends nothing.
fn terms(graph: &ComponentGraph, cluster: &VehicleCluster, plan: &PathPlan) -> Vec<(f64, f64)> {
    let parameters = FormulaParameters::default();
    let mut terms: Vec<(f64, f64)> = (plan.order.iter())
        .filter(|&&v| !plan.assignment[v].is_empty())
        .map(|&v| {
            let (vehicle, held) = (&cluster.vehicles[v], &plan.assignment[v]);
            let transfer = communication_seconds(volume(graph, held), vehicle, &parameters);
            (compute_seconds(flops(graph, held), vehicle, &parameters), transfer)
        })
        .collect();
    if let Some(last) = terms.last_mut() {
        last.1 = 0.0;
    }
    terms
}

#[test]
fn one_micro_batch_takes_the_time_of_the_formula() {
    let rows = [
        (&SMALL, three_vehicles()),
        (&ORIGINAL, three_vehicles()),
        (&SMALL, five_vehicles()),
        (&MEDIUM, five_vehicles()),
        (&ORIGINAL, five_vehicles()),
        (&LARGE, five_vehicles()),
        (&SMALL, seven_vehicles()),
        (&ORIGINAL, seven_vehicles()),
    ];
    for (sizes, cluster) in rows {
        let graph = model(sizes);
        let (plan, serial) = greedy_plan(&graph, &cluster);
        for schedule in SCHEDULES {
            let end = play(&lower(&graph, &cluster, &plan, &options(1, schedule))).end.seconds();
            assert!(close(end, serial), "{} on {}: {end} against {serial}", sizes.name, cluster.name);
        }
    }
}

#[test]
fn a_path_that_ends_with_an_empty_vehicle_is_shorter_by_one_transfer() {
    // v2 has the memory for everything and v1 must come first, so that v3 stands at the end with nothing.
    let graph = model(&SMALL);
    let cluster = cluster(&[(4000, 2000, 1000), (4000, 3000, 500), (1, 1000, 1000)], &[(1, 2), (2, 3)]);
    let plan = PathPlan { order: vec![0, 1, 2], assignment: vec![vec![0, 1, 2], (3..9).collect(), vec![]] };
    let serial = plan.serial_time(&graph, &cluster, &FormulaParameters::default()).unwrap().total_s;
    // v2: 2 * (0.25 + 0.2 + 0.2 + 0.25 + 0.2 + 0.12) GB * 32 * 1.2 / 0.5 GB/s = 187.392 s.
    let replay = lower(&graph, &cluster, &plan, &options(1, ScheduleKind::GPipe));
    assert_eq!(replay.vehicles, [0, 1]);
    let end = play(&replay).end.seconds();
    assert!(close(end, serial - 187.392), "{end} against {serial}");
}

#[test]
fn vehicles_without_partitions_are_stepped_over() {
    let graph = model(&SMALL);
    let cluster = three_vehicles();
    let (plan, _) = greedy_plan(&graph, &cluster);
    assert_eq!((plan.order.as_slice(), plan.assignment[2].len()), (&[1, 2, 0][..], 0));
    let replay = lower(&graph, &cluster, &plan, &options(4, ScheduleKind::GPipe));
    assert_eq!(replay.vehicles, [1, 0]);
    let programs: Vec<&str> = replay.world.programs().iter().map(steptime_core::Program::name).collect();
    assert_eq!(programs, ["v2", "v1"]);
    assert_eq!(replay.world.links().len(), 1);
    assert_eq!(
        (replay.world.links()[0].name.as_str(), replay.world.links()[0].bytes_per_second),
        ("v2", 1.2e9)
    );
}

#[test]
fn two_vehicles_by_hand() {
    // Batch 4 without overhead, full utilization, 2 micro-batches: on both vehicles a forward takes 1 s and a
    // backward 2 s, transfers take 1 s. v1 runs F0 0-1 and F1 1-2; their activations arrive at 2 and 3; v2 runs
    // F0 2-3, F1 3-4, B0 4-6, B1 6-8; the gradients arrive at 7 and 9; v1 runs B0 7-9 and B1 9-11.
    let component = |name: &str| steptime_models::Component {
        name: name.to_owned(),
        flops_per_sample: 3e6,
        capacity: 1e6,
    };
    let partition = |i: usize, name: &str| steptime_models::Partition {
        name: name.to_owned(),
        communication_volume: 1e6,
        components: vec![i],
    };
    let graph = ComponentGraph {
        components: vec![component("x"), component("y")],
        partitions: vec![partition(0, "first|part"), partition(1, "second")],
    };
    let cluster = cluster(&[(1, 2, 2), (1, 2, 2)], &[(1, 2)]);
    let plan = PathPlan { order: vec![0, 1], assignment: vec![vec![0], vec![1]] };
    let parameters = FormulaParameters { batch: 4, utilization: 1.0, overhead: 1.0 };
    let options = ReplayOptions { parameters, micro_batches: 2, schedule: ScheduleKind::GPipe };
    let replay = lower(&graph, &cluster, &plan, &options);
    let mut recorder = Recorder::new();
    let outcome = simulate(&replay.world, &mut recorder).unwrap();
    let kernels: Vec<(String, u32, u32)> = (recorder.spans().iter())
        .filter(|span| span.kind == SpanKind::Kernel)
        .map(|span| {
            let label = replay.world.programs()[span.rank as usize].label(span.label).to_owned();
            (label, span.start.seconds() as u32, span.end.seconds() as u32)
        })
        .collect();
    let expected = [
        ("first/part|forward|0", 0, 1),
        ("first/part|forward|1", 1, 2),
        ("first/part|backward|0", 7, 9),
        ("first/part|backward|1", 9, 11),
        ("second|forward|0", 2, 3),
        ("second|forward|1", 3, 4),
        ("second|backward|0", 4, 6),
        ("second|backward|1", 6, 8),
    ];
    assert_eq!(kernels, expected.map(|(label, start, end)| (label.to_owned(), start, end)));
    assert!(close(outcome.end.seconds(), 11.0));
    let transfers: Vec<&str> = (recorder.spans().iter())
        .filter(|span| span.kind == SpanKind::Transfer && span.rank == 0)
        .map(|span| replay.world.programs()[0].label(span.label))
        .collect();
    assert_eq!(
        transfers,
        ["v1>v2|send_receive|0", "v1>v2|send_receive|1", "v2>v1|send_receive|0", "v2>v1|send_receive|1"]
    );
}

#[test]
fn memory_is_the_sum_of_capacities() {
    let (graph, cluster) = (model(&ORIGINAL), five_vehicles());
    let (plan, _) = greedy_plan(&graph, &cluster);
    let replay = lower(&graph, &cluster, &plan, &options(8, ScheduleKind::OneForwardOneBackward));
    let outcome = play(&replay);
    for (rank, &v) in outcome.ranks.iter().zip(&replay.vehicles) {
        let held: f64 = plan.assignment[v].iter().map(|&p| graph.partition_capacity(p)).sum();
        assert_eq!(rank.memory.peak, held as u64);
        assert_eq!(rank.memory.peak_by_category[usize::from(classes::PARAMETERS.0)], held as u64);
        assert_eq!(rank.memory.capacity, Some(cluster.vehicles[v].memory as u64));
        assert_eq!(rank.memory.failure, None);
    }
}

#[test]
fn every_vehicle_spends_its_compute() {
    let (graph, cluster) = (model(&ORIGINAL), five_vehicles());
    let (plan, _) = greedy_plan(&graph, &cluster);
    let outcome = play(&lower(&graph, &cluster, &plan, &options(16, ScheduleKind::OneForwardOneBackward)));
    for (rank, (compute, _)) in outcome.ranks.iter().zip(terms(&graph, &cluster, &plan)) {
        let busy = |class: steptime_core::Class| rank.streams[0].busy[usize::from(class.0)].seconds();
        assert!(close(busy(classes::FORWARD), compute / 3.0));
        assert!(close(busy(classes::BACKWARD), compute * 2.0 / 3.0));
    }
}

#[test]
fn micro_batches_overlap() {
    let (graph, cluster) = (model(&ORIGINAL), seven_vehicles());
    let (plan, serial) = greedy_plan(&graph, &cluster);
    for schedule in SCHEDULES {
        let end = play(&lower(&graph, &cluster, &plan, &options(8, schedule))).end.seconds();
        assert!(end < 0.5 * serial, "{end} against {serial}");
    }
}

#[test]
fn an_empty_model_takes_no_time() {
    let (graph, cluster) = (ComponentGraph { components: vec![], partitions: vec![] }, three_vehicles());
    let plan = PathPlan { order: vec![0, 1, 2], assignment: vec![vec![]; 3] };
    let replay = lower(&graph, &cluster, &plan, &options(4, ScheduleKind::OneForwardOneBackward));
    assert!(replay.vehicles.is_empty());
    assert_eq!(play(&replay).end, SimTime::ZERO);
}

#[test]
fn what_cannot_be_replayed_is_refused() {
    let (graph, cluster) = (model(&SMALL), three_vehicles());
    let (plan, _) = greedy_plan(&graph, &cluster);
    let error = |plan: &PathPlan, options: ReplayOptions| {
        lower_path(&graph, &cluster, plan, &options, &ReplayClasses::default()).unwrap_err()
    };
    for micro_batches in [0, 5, 64] {
        let expected = ReplayError::MicroBatches { micro_batches, batch: 32 };
        assert_eq!(error(&plan, options(micro_batches, ScheduleKind::GPipe)), expected);
    }
    let mut short = plan.clone();
    short.assignment[0].pop();
    let missing = PathPlanError::PartitionMissing { partition: "RGB_DeepProcessing".to_owned() };
    assert_eq!(error(&short, options(1, ScheduleKind::GPipe)), ReplayError::Plan(missing));
    let mut nonsense = options(1, ScheduleKind::GPipe);
    nonsense.parameters.overhead = 0.0;
    let overhead = FormulaParameterError::Overhead { found: 0.0 };
    assert_eq!(error(&plan, nonsense), ReplayError::Parameter(overhead));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_end_keeps_within_its_bounds(
        vehicles in prop::collection::vec((1_u32..9, 1_u32..9), 1..=5),
        places in prop::collection::vec(0_usize..5, 9),
        exponent in 0_u32..=5,
        one_forward_one_backward in any::<bool>(),
    ) {
        let graph = model(&SMALL);
        let n = vehicles.len();
        let roomy: Vec<(u32, u32, u32)> = vehicles.iter().map(|&(f, b)| (6000, 500 * f, 100 * b)).collect();
        let cluster = cluster(&roomy, &[]);
        let mut plan = PathPlan { order: (0..n).rev().collect(), assignment: vec![Vec::new(); n] };
        for (p, place) in places.into_iter().enumerate() {
            plan.assignment[place % n].push(p);
        }
        let micro_batches = 1 << exponent;
        let schedule = SCHEDULES[usize::from(one_forward_one_backward)];
        let end = play(&lower(&graph, &cluster, &plan, &options(micro_batches, schedule))).end.seconds();

        let terms = terms(&graph, &cluster, &plan);
        let serial: f64 = terms.iter().map(|(compute, transfer)| compute + transfer).sum();
        let tolerance = 1e-9 * serial;
        // All work in a row; a lower bound is any vehicle's or link's own work, and the way of one
        // micro-batch down the path and back.
        prop_assert!(end <= serial + tolerance);
        prop_assert!(end >= serial / f64::from(micro_batches) - tolerance);
        for (compute, transfer) in terms {
            prop_assert!(end >= compute.max(transfer) - tolerance);
        }
        let formula = plan.serial_time(&graph, &cluster, &FormulaParameters::default()).unwrap().total_s;
        prop_assert!(serial <= formula + tolerance);
        if plan.order.last().is_some_and(|&last| !plan.assignment[last].is_empty()) {
            prop_assert!(close(serial, formula));
        }
        if micro_batches == 1 {
            prop_assert!(close(end, serial));
        }
    }
}
