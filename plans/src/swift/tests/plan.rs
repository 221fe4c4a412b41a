//! Rules of a plan, and the formula worked by hand.

use steptime_clusters::VehicleCluster;
use steptime_models::{Component, ComponentGraph, Partition};

use super::fixtures::cluster;
use crate::swift::{FormulaParameterError, FormulaParameters, PathPlan, PathPlanError, SerialTime};

/// Partitions a, b, c: 2, 4, 6 MFLOP; 10, 20, 30 MB; 1, 2, 3 MB sent.
fn abc() -> ComponentGraph {
    let part = |(i, name): (usize, &str)| Partition {
        name: name.to_owned(),
        communication_volume: (i + 1) as f64 * 1e6,
        components: vec![i],
    };
    let component = |i: u32| Component {
        name: format!("component {i}"),
        flops_per_sample: f64::from(2 * i) * 1e6,
        capacity: f64::from(10 * i) * 1e6,
    };
    ComponentGraph {
        components: (1..=3).map(component).collect(),
        partitions: ["a", "b", "c"].into_iter().enumerate().map(part).collect(),
    }
}

fn two_vehicles() -> VehicleCluster {
    cluster(&[(30, 4, 2), (40, 8, 5)], &[(1, 2)])
}

fn plan(order: &[usize], assignment: &[&[usize]]) -> PathPlan {
    PathPlan { order: order.to_vec(), assignment: assignment.iter().map(|held| held.to_vec()).collect() }
}

#[test]
fn a_sound_plan_is_accepted() {
    assert_eq!(plan(&[0, 1], &[&[0, 1], &[2]]).validate(&abc(), &two_vehicles()), Ok(()));
}

#[test]
fn every_broken_rule_is_named() {
    let violations = |order: &[usize], assignment: &[&[usize]]| -> Vec<String> {
        let found = plan(order, assignment).violations(&abc(), &two_vehicles());
        found.iter().map(ToString::to_string).collect()
    };
    assert_eq!(
        violations(&[1, 0], &[&[0, 1], &[2]]),
        ["vehicle v2 comes before v1 on the path, but depends on it"]
    );
    assert_eq!(
        violations(&[1, 1], &[&[0, 1], &[2]]),
        [
            "vehicle v1 is not on the path; each vehicle is visited once, also one that holds nothing",
            "vehicle v2 stands on the path 2 times; each vehicle is visited once"
        ]
    );
    assert_eq!(
        violations(&[0, 1], &[&[0, 0], &[2, 0]]),
        [
            "partition a is placed 3 times, on v1, v1, v2; it must be placed once",
            "partition b is on no vehicle"
        ]
    );
    assert_eq!(
        violations(&[0, 1], &[&[], &[0, 1, 2]]),
        ["vehicle v2 is 20000000 bytes short: its partitions need 60000000 bytes of 40000000, and c is the \
          first that does not fit"]
    );
    assert_eq!(
        violations(&[0, 2], &[&[0, 1], &[2]]),
        ["the path names vehicle number 2, but the cluster has only 2 vehicles (numbered from 0)"]
    );
    assert_eq!(
        violations(&[0, 1], &[&[0, 1], &[3]]),
        ["vehicle v2 is given partition number 3, but the model has only 3 partitions (numbered from 0)"]
    );
    assert_eq!(
        violations(&[0, 1], &[&[0, 1, 2]]),
        ["the plan assigns partitions to 1 vehicles, the cluster has 2"]
    );
}

#[test]
fn memory_errors_carry_the_bytes() {
    let error = plan(&[0, 1], &[&[1, 0, 2], &[]]).validate(&abc(), &two_vehicles()).unwrap_err();
    let expected = PathPlanError::Memory {
        vehicle: "v1".to_owned(),
        partition: "c".to_owned(),
        required_bytes: 6e7,
        available_bytes: 3e7,
        short_by_bytes: 3e7,
    };
    assert_eq!(error, expected);
}

#[test]
fn the_formula_by_hand() {
    let parameters = FormulaParameters { batch: 10, utilization: 0.5, overhead: 1.5 };
    // v1: (2 + 4) MFLOP * 10 * 1.5 / (4 MFLOP/s * 0.5) = 45 s, and 2 * (1 + 2) MB * 10 * 1.5 / 2 MB/s = 45 s;
    // v2: 6 * 10 * 1.5 / (8 * 0.5) = 22.5 s, and last of the path, so that its 3 MB stay where they are.
    let time = plan(&[0, 1], &[&[0, 1], &[2]]).serial_time(&abc(), &two_vehicles(), &parameters);
    assert_eq!(time, Ok(SerialTime { total_s: 112.5, compute_s: 67.5, communication_s: 45.0 }));
    // Nothing on the last vehicle: v1 still pays for its link, 2 * 6 * 10 * 1.5 / 2 = 90 s.
    let time = plan(&[0, 1], &[&[0, 1, 2], &[]]).serial_time(&abc(), &two_vehicles(), &parameters);
    assert_eq!(time, Ok(SerialTime { total_s: 180.0, compute_s: 90.0, communication_s: 90.0 }));
    // Nothing on the first: it costs nothing.
    let time = plan(&[0, 1], &[&[], &[0, 1, 2]]).serial_time(&abc(), &two_vehicles(), &parameters);
    assert_eq!(time, Ok(SerialTime { total_s: 45.0, compute_s: 45.0, communication_s: 0.0 }));
}

#[test]
fn the_formula_needs_a_plan_of_this_cluster() {
    let time = plan(&[0], &[&[0]]).serial_time(&abc(), &two_vehicles(), &FormulaParameters::default());
    assert_eq!(time, Err(PathPlanError::AssignmentLength { found: 1, vehicles: 2 }));
}

#[test]
fn parameters_without_a_meaning_are_refused() {
    let defaults = FormulaParameters::default();
    assert_eq!(defaults, FormulaParameters { batch: 32, utilization: 0.5, overhead: 1.2 });
    assert_eq!(defaults.validate(), Ok(()));
    assert!(defaults.is_documented());
    assert!(!FormulaParameters { utilization: 0.8, ..defaults }.is_documented());
    assert!(!FormulaParameters { overhead: 1.0, ..defaults }.is_documented());
    let refused = [
        (FormulaParameters { batch: 0, ..defaults }, FormulaParameterError::Batch),
        (
            FormulaParameters { utilization: 0.0, ..defaults },
            FormulaParameterError::Utilization { found: 0.0 },
        ),
        (
            FormulaParameters { utilization: 1.1, ..defaults },
            FormulaParameterError::Utilization { found: 1.1 },
        ),
        (FormulaParameters { overhead: 0.9, ..defaults }, FormulaParameterError::Overhead { found: 0.9 }),
    ];
    for (parameters, error) in refused {
        assert_eq!(parameters.validate(), Err(error));
    }
    assert!(FormulaParameters { utilization: f64::NAN, ..defaults }.validate().is_err());
    assert!(FormulaParameters { overhead: f64::INFINITY, ..defaults }.validate().is_err());
}
