//! The smallest change that makes a plan of vehicles complete and fit.

use steptime_clusters::VehicleCluster;
use steptime_models::ComponentGraph;

use super::costs::Costs;
use super::exact::{EXACT_NODE_LIMIT, solve};
use super::{FormulaParameters, GreedyError, PathPlan, PathPlanError, SerialTime};

/// A plan made right.
#[derive(Clone, Debug, PartialEq)]
pub struct PathRepair {
    /// The plan.
    pub plan: PathPlan,
    /// Its time.
    pub time: SerialTime,
    /// Partitions that are elsewhere than before, and the vehicle that takes each.
    pub moved: Vec<(usize, usize)>,
}

/// Among all plans that are complete and fit, the fastest of those in which the fewest partitions are elsewhere than the
/// given plan has them. Its path stays where it is legal. None where no plan fits, or none was found within the limit.
///
/// # Errors
/// No vehicles, dependencies in a cycle, or parameters with which the formula means nothing.
pub fn smallest_repair(
    graph: &ComponentGraph,
    cluster: &VehicleCluster,
    parameters: &FormulaParameters,
    given: &PathPlan,
) -> Result<Option<PathRepair>, GreedyError> {
    let mut costs = Costs::new(graph, cluster, parameters)?;
    let about_path = |error: &PathPlanError| {
        !matches!(
            error,
            PathPlanError::PartitionMissing { .. }
                | PathPlanError::PartitionRepeated { .. }
                | PathPlanError::Memory { .. }
        )
    };
    let keeps_path = !given.violations(graph, cluster).iter().any(about_path);
    if keeps_path && let Some(&last) = given.order.last() {
        costs.enders = vec![last];
    }
    // A move costs 1; all times together less than half of that.
    let slowest =
        |table: &[Vec<f64>]| -> f64 { table.iter().map(|of| of.iter().copied().fold(0.0, f64::max)).sum() };
    let unit = 2.0 * (slowest(&costs.compute) + slowest(&costs.transfer)).max(f64::MIN_POSITIVE);
    for table in [&mut costs.compute, &mut costs.transfer] {
        table.iter_mut().flatten().for_each(|seconds| *seconds /= unit);
    }
    for (p, of) in costs.compute.iter_mut().enumerate() {
        for (v, cost) in of.iter_mut().enumerate() {
            if given.assignment.get(v).is_none_or(|held| !held.contains(&p)) {
                *cost += 1.0;
            }
        }
    }
    let Some((vehicle_of, last)) = solve(&costs, EXACT_NODE_LIMIT).best else { return Ok(None) };
    let mut plan = costs.plan(&vehicle_of, last);
    if keeps_path {
        plan.order.clone_from(&given.order);
    }
    let time = plan.serial_time(graph, cluster, parameters)?;
    let holds = |v: usize, p: usize| given.assignment.get(v).is_some_and(|held| held.contains(&p));
    let moved = vehicle_of.iter().enumerate().filter(|&(p, &v)| !holds(v, p)).map(|(p, &v)| (p, v)).collect();
    Ok(Some(PathRepair { plan, time, moved }))
}
