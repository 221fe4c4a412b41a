//! The first phase of the SWIFT planner: vehicles by a stability score, filled one after the other.
//!
//! The rule (pippyoldversion, branch CYH, `flad/swift_optimizer.py`), for vehicles without a history:
//!
//! 1. each gets a score of `0.2 + 0.75 x`, `x` from NumPy's `RandomState(seed)` in the order of the cluster;
//! 2. the path is the vehicles by falling score, or, where that breaks a dependency, the topological order that always
//!    takes the one with the highest score next;
//! 3. each vehicle of the path takes every partition that still fits, the largest first.
//!
//! **Partitions that fit nowhere are left out, and the time is that of the others**: the source prints such plans as
//! results. Here they are named.

use steptime_clusters::VehicleCluster;
use steptime_models::ComponentGraph;

use super::mersenne::Mersenne;
use super::order::Precedence;
use super::{FormulaParameters, GreedyError, PathPlan, SerialTime};

/// Seed of the source's command line (`flad/swift_example.py`).
pub const SWIFT_SEED: u32 = 42;

/// A plan of the first phase.
#[derive(Clone, Debug, PartialEq)]
pub struct FirstPhase {
    /// The path and what its vehicles hold.
    pub plan: PathPlan,
    /// The time that the source prints: without the partitions that were left out.
    pub time: SerialTime,
    /// Names of the partitions that were left out. A plan that has some is none.
    pub dropped: Vec<String>,
}

/// Plays the first phase.
///
/// # Errors
/// No vehicles, dependencies in a cycle, or parameters with which the formula means nothing.
pub fn swift_first_phase(
    graph: &ComponentGraph,
    cluster: &VehicleCluster,
    parameters: &FormulaParameters,
    seed: u32,
) -> Result<FirstPhase, GreedyError> {
    parameters.validate()?;
    if cluster.vehicles.is_empty() {
        return Err(GreedyError::NoVehicles);
    }
    let precedence = Precedence::new(cluster)?;
    let order = path(&scores(cluster, seed), &precedence);
    let mut left: Vec<usize> = (0..graph.partitions.len()).collect();
    left.sort_by(|&p, &q| graph.partition_capacity(q).total_cmp(&graph.partition_capacity(p)));
    let mut assignment = vec![Vec::new(); cluster.vehicles.len()];
    for &v in &order {
        let mut room = cluster.vehicles[v].memory;
        left.retain(|&p| {
            let fits = graph.partition_capacity(p) <= room;
            if fits {
                room -= graph.partition_capacity(p);
                assignment[v].push(p);
            }
            !fits
        });
    }
    let plan = PathPlan { order, assignment };
    let time = plan.serial_time(graph, cluster, parameters)?;
    left.sort_unstable();
    let dropped = left.into_iter().map(|p| graph.partitions[p].name.clone()).collect();
    Ok(FirstPhase { plan, time, dropped })
}

/// Stability of each vehicle.
pub(super) fn scores(cluster: &VehicleCluster, seed: u32) -> Vec<f64> {
    let mut random = Mersenne::new(seed);
    cluster.vehicles.iter().map(|_| 0.2 + 0.75 * random.sample()).collect()
}

fn path(scores: &[f64], precedence: &Precedence) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&u, &v| scores[v].total_cmp(&scores[u]));
    let place = |v: usize| order.iter().position(|&other| other == v);
    let vehicles = 0..scores.len();
    let breaks = |u: usize, v: usize| precedence.leads_to(u, v) && place(u) > place(v);
    if !vehicles.clone().any(|u| vehicles.clone().any(|v| breaks(u, v))) {
        return order;
    }
    let mut path: Vec<usize> = Vec::with_capacity(order.len());
    while let Some(&next) = order.iter().find(|&&v| {
        !path.contains(&v) && vehicles.clone().all(|u| !precedence.leads_to(u, v) || path.contains(&u))
    }) {
        path.push(next);
    }
    path
}
