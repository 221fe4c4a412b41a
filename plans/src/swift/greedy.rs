//! The greedy baseline of the FLAD/SWIFT planner: the best of first-fit placements over all paths.
//!
//! The rule (pippyoldversion, branch CYH, `flad/optimizer.py`): for every topological order of the vehicles
//! sort the vehicles by compute, fastest first, equal ones as on the path; sort the partitions by FLOPs,
//! largest first, equal ones as in the model; put each partition on the first vehicle with room for it;
//! drop the path if one fits nowhere; keep the path of least [`PathPlan::serial_time`]. Among paths of equal
//! time this keeps the first in lexicographic order of vehicle indices.
//!
//! The search behind it does not enumerate the paths; see `search.rs`.

use steptime_clusters::VehicleCluster;
use steptime_models::ComponentGraph;
use thiserror::Error;

use super::search::Search;
use super::{FormulaParameterError, FormulaParameters, PathPlan, PathPlanError, SerialTime};

/// A reasonable limit for [`greedy_baseline`]: enough for ten vehicles of equal compute (10! = 3,628,800
/// filling orders), about a second of search.
pub const GREEDY_ORDER_LIMIT: u64 = 4_000_000;

/// Result of the greedy baseline.
#[derive(Clone, Debug, PartialEq)]
pub enum GreedyOutcome {
    /// The best path, and its time by the formula.
    Feasible(PathPlan, SerialTime),
    /// No path has room for all partitions.
    Infeasible(Infeasibility),
}

/// Why no path has room for all partitions: the path that placed the most before it failed (the first of
/// them in lexicographic order).
#[derive(Clone, Debug, PartialEq)]
pub struct Infeasibility {
    /// Name of the first partition that found no room.
    pub partition: String,
    /// Its capacity.
    pub required_bytes: f64,
    /// Name of the vehicle with the most room left at that moment (the first of several).
    pub vehicle: String,
    /// Room left on that vehicle.
    pub available_bytes: f64,
    /// What it lacks.
    pub short_by_bytes: f64,
    /// Partitions that had found a place.
    pub placed: usize,
    /// Names of the vehicles along the path.
    pub path: Vec<String>,
    /// All of this in a sentence.
    pub reason: String,
}

/// Why the baseline has no answer.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum GreedyError {
    /// Nothing to place partitions on.
    #[error("the cluster has no vehicles")]
    NoVehicles,
    /// Vehicles that wait for each other.
    #[error("the dependencies form a cycle: {} > {}", .vehicles.join(" > "), .vehicles.first().map_or("", String::as_str))]
    Cycle {
        /// Names along the cycle, each a dependency of the next and the last of the first; begins with the
        /// first of them in the cluster.
        vehicles: Vec<String>,
    },
    /// A dependency names a vehicle that the cluster does not have.
    #[error(
        "a dependency names vehicle number {index}, but the cluster has only {vehicles} vehicles (numbered from 0)"
    )]
    UnknownVehicle {
        /// Index in the dependency.
        index: usize,
        /// Vehicles of the cluster.
        vehicles: usize,
    },
    /// Too many vehicles of equal compute.
    #[error(
        "more than {limit} orders of vehicles with equal compute to try; add dependencies between them or raise the limit"
    )]
    TooManyOrders {
        /// Limit given.
        limit: u64,
    },
    /// A parameter with which the formula means nothing.
    #[error(transparent)]
    Parameter(#[from] FormulaParameterError),
    /// The plan found does not belong to its own cluster.
    #[error("internal: {0}")]
    Plan(#[from] PathPlanError),
}

/// Finds the greedy baseline's plan, or says what does not fit.
///
/// At most `order_limit` filling orders are tried ([`GREEDY_ORDER_LIMIT`] suits); there is one unless
/// vehicles have equal compute.
///
/// # Errors
/// [`GreedyError`]: no vehicles, dependencies in a cycle, more filling orders than the limit, or parameters
/// with which the formula means nothing. A model that fits nowhere is not an error but
/// [`GreedyOutcome::Infeasible`].
pub fn greedy_baseline(
    graph: &ComponentGraph,
    cluster: &VehicleCluster,
    parameters: &FormulaParameters,
    order_limit: u64,
) -> Result<GreedyOutcome, GreedyError> {
    parameters.validate()?;
    let mut search = Search::new(graph, cluster, parameters, order_limit)?;
    search.run()?;
    if let Some(plan) = search.best_plan() {
        let time = plan.serial_time(graph, cluster, parameters)?;
        return Ok(GreedyOutcome::Feasible(plan, time));
    }
    // An acyclic cluster with vehicles has a path, and a path either fits or fails.
    search.explain_failure().map(GreedyOutcome::Infeasible).ok_or(GreedyError::NoVehicles)
}
