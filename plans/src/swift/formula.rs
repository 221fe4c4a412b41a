//! The closed-form time of a vehicle path: a serial sum without micro-batches or overlap.
//!
//! For vehicle `v` with partitions `A(v)`, batch `B`, utilization `U` and overhead `O`:
//!
//! ```text
//! t_compute(v)  = sum_{p in A(v)} flops_p * B * O / (compute_v * U)              0 if A(v) is empty
//! t_transfer(v) = 2 * sum_{p in A(v)} volume_p * B * O / communication_v         2 = forward + backward
//! t(path)       = sum_v t_compute(v) + sum_{v not last of the path} t_transfer(v)
//! ```
//!
//! Source: pippyoldversion, branch CYH, `flad/vehicle.py` (its Eq. 2 and 3) and `flad/optimizer.py` (Eq. 5).
//! The products and the sum over the path are taken in the order of those files, so that results agree
//! to the last digits that the source prints. The last vehicle *of the path* pays no transfer even when
//! it holds nothing; a vehicle that holds nothing costs nothing wherever it stands.

use std::ops::RangeInclusive;

use steptime_clusters::{Vehicle, VehicleCluster};
use steptime_models::ComponentGraph;
use thiserror::Error;

use super::{PathPlan, PathPlanError};

/// What the formula takes besides the model, the cluster and the plan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FormulaParameters {
    /// Samples a step, all vehicles together.
    pub batch: u32,
    /// Share of a vehicle's FLOP/s that the model reaches.
    pub utilization: f64,
    /// Factor on compute and transfer time. It stretches time only: memory is compared without it.
    pub overhead: f64,
}

impl Default for FormulaParameters {
    /// Batch 32, utilization 0.5, overhead 1.2: the values of the source's command line
    /// (`flad/swift_example.py`).
    fn default() -> Self {
        Self { batch: 32, utilization: 0.5, overhead: 1.2 }
    }
}

/// A parameter with which the formula means nothing.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum FormulaParameterError {
    /// No samples.
    #[error("batch is 0; it must be at least 1 sample")]
    Batch,
    /// Not a share.
    #[error("utilization is {found}; it must be above 0 and at most 1 (the source documents 0.3 to 0.7)")]
    Utilization {
        /// Value given.
        found: f64,
    },
    /// Not a factor that stretches time.
    #[error("overhead is {found}; it must be a number of at least 1 (the source documents 1.1 to 1.5)")]
    Overhead {
        /// Value given.
        found: f64,
    },
}

impl FormulaParameters {
    /// Utilization that the source calls realistic (`flad/optimizer.py`); it does not enforce it.
    pub const DOCUMENTED_UTILIZATION: RangeInclusive<f64> = 0.3..=0.7;
    /// Overhead that the source calls realistic (`flad/optimizer.py`); it does not enforce it.
    pub const DOCUMENTED_OVERHEAD: RangeInclusive<f64> = 1.1..=1.5;

    /// Checks that the formula has a meaning with these parameters.
    ///
    /// # Errors
    /// The first parameter outside its mathematical range, which is wider than the documented one.
    pub fn validate(&self) -> Result<(), FormulaParameterError> {
        if self.batch == 0 {
            return Err(FormulaParameterError::Batch);
        }
        if !(self.utilization > 0.0 && self.utilization <= 1.0) {
            return Err(FormulaParameterError::Utilization { found: self.utilization });
        }
        if !(self.overhead >= 1.0 && self.overhead.is_finite()) {
            return Err(FormulaParameterError::Overhead { found: self.overhead });
        }
        Ok(())
    }

    /// Whether both factors lie in the ranges that the source documents.
    pub fn is_documented(&self) -> bool {
        Self::DOCUMENTED_UTILIZATION.contains(&self.utilization)
            && Self::DOCUMENTED_OVERHEAD.contains(&self.overhead)
    }
}

/// Result of the formula, seconds a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SerialTime {
    /// Compute and transfers, summed vehicle by vehicle along the path as the source does; equals
    /// `compute_s + communication_s` up to the rounding of that order.
    pub total_s: f64,
    /// All vehicles' compute.
    pub compute_s: f64,
    /// All transfers, forward and backward.
    pub communication_s: f64,
}

/// FLOPs a sample of these partitions, added in their order.
pub(super) fn flops(graph: &ComponentGraph, partitions: &[usize]) -> f64 {
    partitions.iter().fold(0.0, |sum, &p| sum + graph.partition_flops(p))
}

/// Bytes a sample that these partitions send, added in their order.
pub(super) fn volume(graph: &ComponentGraph, partitions: &[usize]) -> f64 {
    partitions.iter().fold(0.0, |sum, &p| sum + graph.partitions[p].communication_volume)
}

/// Seconds that `vehicle` computes `flops` a sample for one batch (the source's Eq. 2: one direction; it
/// knows no separate backward).
pub(super) fn compute_seconds(flops: f64, vehicle: &Vehicle, parameters: &FormulaParameters) -> f64 {
    let batch_flops = flops * f64::from(parameters.batch);
    (batch_flops * parameters.overhead) / (vehicle.compute * parameters.utilization)
}

/// Seconds that `volume` bytes a sample spend on `vehicle`'s link for one batch, both ways (the source's
/// Eq. 3).
pub(super) fn communication_seconds(volume: f64, vehicle: &Vehicle, parameters: &FormulaParameters) -> f64 {
    let bytes = 2.0 * volume * f64::from(parameters.batch) * parameters.overhead;
    bytes / vehicle.communication
}

impl PathPlan {
    /// Time of the plan by the source's formula.
    ///
    /// The plan need not be feasible: the source itself reports times of plans that leave partitions out or
    /// overfill a vehicle, and this reproduces them. Only its indices must exist.
    ///
    /// # Errors
    /// [`PathPlanError::AssignmentLength`], [`PathPlanError::UnknownVehicle`] or
    /// [`PathPlanError::UnknownPartition`] where the plan does not belong to this model and cluster.
    pub fn serial_time(
        &self,
        graph: &ComponentGraph,
        cluster: &VehicleCluster,
        parameters: &FormulaParameters,
    ) -> Result<SerialTime, PathPlanError> {
        self.check_indices(graph, cluster)?;
        let mut time = SerialTime { total_s: 0.0, compute_s: 0.0, communication_s: 0.0 };
        for (position, &v) in self.order.iter().enumerate() {
            let (vehicle, held) = (&cluster.vehicles[v], &self.assignment[v]);
            if held.is_empty() {
                continue;
            }
            let compute = compute_seconds(flops(graph, held), vehicle, parameters);
            time.compute_s += compute;
            time.total_s += compute;
            if position + 1 < self.order.len() {
                let transfer = communication_seconds(volume(graph, held), vehicle, parameters);
                time.communication_s += transfer;
                time.total_s += transfer;
            }
        }
        Ok(time)
    }
}
