//! Times and bytes that no schedule, overlap or network can undercut: the kernels of a layer on one rank, in a row, and what its
//! forward keeps for backward.
//!
//! Kernels of a rank run on one stream, and neither contention nor waiting makes one shorter; a sum of their prices is
//! a lower bound of the time that any play takes. Transfers, updates and the host only add to it.

use steptime_clusters::Cluster;
use steptime_core::SimTime;
use steptime_models::Model;

use super::cost::Cost;
use super::pricing::costs_of_first_rank;
use crate::error::PlanError;
use crate::plan::Plan;
use crate::workload::{Task, Workload};

/// Kernels of a layer on one micro-batch, and what it keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerTimes {
    /// Of forward.
    pub forward: SimTime,
    /// Of backward, with what checkpointing runs again; zero in inference.
    pub backward: SimTime,
    /// Bytes that forward keeps for backward, until that begins: the saved tensors that are not recomputed; zero in inference.
    pub kept: u64,
}

/// Kernel times of every layer, where all GPUs and micro-batches are alike (else those of the first rank). Of the plan only what changes a layer's work counts: tensor, sequence, context and expert
/// parallelism, and the formats of exchange.
///
/// # Errors
/// The plan does not fit the cluster, an operation has no price on the GPU, or a time leaves the range of the clock.
pub fn layer_times(
    model: &Model,
    cluster: &Cluster,
    plan: &Plan,
    workload: &Workload,
) -> Result<Vec<LayerTimes>, PlanError> {
    let Some(costs) = costs_of_first_rank(model, cluster, plan, workload)? else { return Ok(Vec::new()) };
    let of_layer = |layer: usize| {
        let cost = costs.layer(layer);
        let forward = sum(cost.forward.iter())?;
        let again = sum(cost.recomputed.iter().filter_map(|&index| cost.forward.get(index)))?;
        let backward = sum(cost.backward.iter())?.checked_add(again)?;
        let trains = workload.task == Task::Training;
        let saved = cost.work.saved.iter().zip(&cost.kept).filter(|(_, kept)| **kept);
        let kept = saved.fold(0_u64, |sum, (tensor, _)| sum.saturating_add(tensor.bytes.0));
        let (backward, kept) = if trains { (backward, kept) } else { (SimTime::ZERO, 0) };
        Ok(LayerTimes { forward, backward, kept })
    };
    (0..model.layers.len()).map(of_layer).collect()
}

/// Kernels in a row; transfers are left out.
fn sum<'a>(operations: impl Iterator<Item = &'a Cost>) -> Result<SimTime, PlanError> {
    let mut sum = SimTime::ZERO;
    for cost in operations {
        if let Cost::Kernel(kernel) = cost {
            let last = kernel.last.map_or(SimTime::ZERO, |(device, _)| device);
            sum = sum.checked_add(kernel.first.0)?.checked_add(last)?;
        }
    }
    Ok(sum)
}
