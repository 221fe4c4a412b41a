//! Vehicle paths: partitions of a component model placed on a chain of unequal vehicles.
//!
//! A plan says in which order a batch visits the vehicles and which partitions each of them holds. It can be
//! judged ([`PathPlan::violations`]), priced by the closed formula of the FLAD/SWIFT planner
//! ([`PathPlan::serial_time`]), found by that planner's greedy baseline ([`greedy_baseline`]) or its first phase
//! ([`swift_first_phase`]), by annealing ([`annealed`]), or as the proven optimum ([`exact_optimum`]), and lowered to
//! a world that the engine plays with micro-batches ([`lower_path`]).
//!
//! Dependencies order *vehicles* ("`s` must have finished before `t` starts"); the order of the model's
//! partitions is not constrained, as in the source (pippyoldversion, branch CYH, `flad/`).

mod annealing;
mod costs;
mod exact;
mod first_phase;
mod formula;
mod greedy;
mod mersenne;
mod order;
mod repair;
mod replay;
mod search;

#[cfg(test)]
mod tests;

use steptime_clusters::VehicleCluster;
use steptime_models::ComponentGraph;
use thiserror::Error;

pub use annealing::{ANNEALING_MOVES, annealed};
pub use exact::{EXACT_NODE_LIMIT, Exact, exact_optimum};
pub use first_phase::{FirstPhase, SWIFT_SEED, swift_first_phase};
pub use formula::{FormulaParameterError, FormulaParameters, SerialTime};
pub use greedy::{GREEDY_ORDER_LIMIT, GreedyError, GreedyOutcome, Infeasibility, greedy_baseline};
pub use repair::{PathRepair, smallest_repair};
pub use replay::{PathReplay, ReplayClasses, ReplayError, ReplayOptions, lower_path};

/// A path of vehicles and what each of them holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPlan {
    /// Indices into [`VehicleCluster::vehicles`] in the order in which a batch visits them. Every vehicle
    /// stands here once, also one that holds nothing.
    pub order: Vec<usize>,
    /// For each vehicle of the cluster, by its index, the indices into [`ComponentGraph::partitions`] that it
    /// holds, in the order in which it computes them.
    pub assignment: Vec<Vec<usize>>,
}

/// A rule that a plan breaks.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum PathPlanError {
    /// The plan was made for a cluster of another size.
    #[error("the plan assigns partitions to {found} vehicles, the cluster has {vehicles}")]
    AssignmentLength {
        /// Lists in the plan.
        found: usize,
        /// Vehicles of the cluster.
        vehicles: usize,
    },
    /// The path names a vehicle that the cluster does not have.
    #[error(
        "the path names vehicle number {index}, but the cluster has only {vehicles} vehicles (numbered from 0)"
    )]
    UnknownVehicle {
        /// Index in the path.
        index: usize,
        /// Vehicles of the cluster.
        vehicles: usize,
    },
    /// The plan names a partition that the model does not have.
    #[error(
        "vehicle {vehicle} is given partition number {index}, but the model has only {partitions} partitions (numbered from 0)"
    )]
    UnknownPartition {
        /// Vehicle's name.
        vehicle: String,
        /// Index in the plan.
        index: usize,
        /// Partitions of the model.
        partitions: usize,
    },
    /// A vehicle stands on the path more than once.
    #[error("vehicle {vehicle} stands on the path {count} times; each vehicle is visited once")]
    VehicleRepeated {
        /// Vehicle's name.
        vehicle: String,
        /// How often it stands there.
        count: usize,
    },
    /// A vehicle is not on the path.
    #[error(
        "vehicle {vehicle} is not on the path; each vehicle is visited once, also one that holds nothing"
    )]
    VehicleMissing {
        /// Vehicle's name.
        vehicle: String,
    },
    /// A vehicle comes before one that must have finished.
    #[error("vehicle {target} comes before {source_vehicle} on the path, but depends on it")]
    Dependency {
        /// Name of the vehicle that must come first.
        source_vehicle: String,
        /// Name of the vehicle that depends on it.
        target: String,
    },
    /// A partition is on no vehicle.
    #[error("partition {partition} is on no vehicle")]
    PartitionMissing {
        /// Partition's name.
        partition: String,
    },
    /// A partition is placed more than once.
    #[error("partition {partition} is placed {} times, on {}; it must be placed once", .vehicles.len(), .vehicles.join(", "))]
    PartitionRepeated {
        /// Partition's name.
        partition: String,
        /// Name of the vehicle of each placement.
        vehicles: Vec<String>,
    },
    /// A vehicle's partitions need more memory than it has.
    #[error(
        "vehicle {vehicle} is {short_by_bytes} bytes short: its partitions need {required_bytes} bytes of {available_bytes}, and {partition} is the first that does not fit"
    )]
    Memory {
        /// Vehicle's name.
        vehicle: String,
        /// Name of its first partition, in order, that no longer fits.
        partition: String,
        /// Sum of its partitions' capacities.
        required_bytes: f64,
        /// Its memory.
        available_bytes: f64,
        /// Difference of the two.
        short_by_bytes: f64,
    },
}

impl PathPlan {
    /// Every rule that the plan breaks: all vehicles on the path once, dependencies respected, all partitions
    /// placed once, and on each vehicle the sum of capacities within its memory. As in the source, neither
    /// the overhead factor nor the batch enters the memory.
    ///
    /// Where indices do not exist only these are listed: nothing else can be judged.
    pub fn violations(&self, graph: &ComponentGraph, cluster: &VehicleCluster) -> Vec<PathPlanError> {
        if let Err(error) = self.check_indices(graph, cluster) {
            return vec![error];
        }
        let mut found = Vec::new();
        self.path_violations(cluster, &mut found);
        self.placement_violations(graph, cluster, &mut found);
        self.memory_violations(graph, cluster, &mut found);
        found
    }

    /// Accepts the plan or names the first rule that it breaks.
    ///
    /// # Errors
    /// The first of [`Self::violations`].
    pub fn validate(&self, graph: &ComponentGraph, cluster: &VehicleCluster) -> Result<(), PathPlanError> {
        self.violations(graph, cluster).into_iter().next().map_or(Ok(()), Err)
    }

    fn check_indices(&self, graph: &ComponentGraph, cluster: &VehicleCluster) -> Result<(), PathPlanError> {
        let vehicles = cluster.vehicles.len();
        let partitions = graph.partitions.len();
        if self.assignment.len() != vehicles {
            return Err(PathPlanError::AssignmentLength { found: self.assignment.len(), vehicles });
        }
        if let Some(&index) = self.order.iter().find(|&&v| v >= vehicles) {
            return Err(PathPlanError::UnknownVehicle { index, vehicles });
        }
        for (held, vehicle) in self.assignment.iter().zip(&cluster.vehicles) {
            if let Some(&index) = held.iter().find(|&&p| p >= partitions) {
                let vehicle = vehicle.id.clone();
                return Err(PathPlanError::UnknownPartition { vehicle, index, partitions });
            }
        }
        Ok(())
    }

    fn path_violations(&self, cluster: &VehicleCluster, found: &mut Vec<PathPlanError>) {
        for (v, vehicle) in cluster.vehicles.iter().enumerate() {
            let vehicle = vehicle.id.clone();
            match self.order.iter().filter(|&&visited| visited == v).count() {
                0 => found.push(PathPlanError::VehicleMissing { vehicle }),
                1 => {}
                count => found.push(PathPlanError::VehicleRepeated { vehicle, count }),
            }
        }
        for &(source, target) in &cluster.dependencies {
            let position = |v: usize| self.order.iter().position(|&visited| visited == v);
            if let (Some(first), Some(second)) = (position(source), position(target))
                && first >= second
            {
                let source_vehicle = cluster.vehicles[source].id.clone();
                found.push(PathPlanError::Dependency {
                    source_vehicle,
                    target: cluster.vehicles[target].id.clone(),
                });
            }
        }
    }

    fn placement_violations(
        &self,
        graph: &ComponentGraph,
        cluster: &VehicleCluster,
        found: &mut Vec<PathPlanError>,
    ) {
        for (p, partition) in graph.partitions.iter().enumerate() {
            let vehicles: Vec<String> = (self.assignment.iter().zip(&cluster.vehicles))
                .flat_map(|(held, vehicle)| held.iter().filter(|&&q| q == p).map(|_| vehicle.id.clone()))
                .collect();
            let partition = partition.name.clone();
            match vehicles.len() {
                0 => found.push(PathPlanError::PartitionMissing { partition }),
                1 => {}
                _ => found.push(PathPlanError::PartitionRepeated { partition, vehicles }),
            }
        }
    }

    fn memory_violations(
        &self,
        graph: &ComponentGraph,
        cluster: &VehicleCluster,
        found: &mut Vec<PathPlanError>,
    ) {
        for (held, vehicle) in self.assignment.iter().zip(&cluster.vehicles) {
            let mut required = 0.0;
            let mut first_over = None;
            for &p in held {
                required += graph.partition_capacity(p);
                if required > vehicle.memory && first_over.is_none() {
                    first_over = Some(p);
                }
            }
            if let Some(p) = first_over {
                found.push(PathPlanError::Memory {
                    vehicle: vehicle.id.clone(),
                    partition: graph.partitions[p].name.clone(),
                    required_bytes: required,
                    available_bytes: vehicle.memory,
                    short_by_bytes: required - vehicle.memory,
                });
            }
        }
    }
}
