//! How fast the stages of a job are, where its GPUs are not all alike.

use steptime_clusters::Cluster;

use super::placement::layout;
use super::seats::Seats;
use crate::error::PlanError;
use crate::plan::Plan;
use crate::workload::Precision;

/// FLOP/s of the slowest GPU of each virtual stage that has layers of its own, in the format of the products: what a stage
/// takes for a layer is in proportion to one over it. Where a stage opposite holds the same layers, the slower one counts.
///
/// # Errors
/// Ranks that do not fill the cluster, or cannot sit where they should; a GPU that does not compute in the format.
pub fn stage_rates(cluster: &Cluster, plan: &Plan, precision: Precision) -> Result<Vec<f64>, PlanError> {
    let seats = Seats::of(plan)?;
    let layout = layout(cluster, plan, seats.as_ref())?;
    let rate = |stage: u32| {
        let of_gpu = |lane| {
            let kind = cluster.kind(cluster.kind_of(u64::from(layout.rank(stage, lane))));
            kind.gpu.peak(precision.compute()).unwrap_or(0.0)
        };
        (0..layout.lanes()).map(of_gpu).fold(f64::INFINITY, f64::min)
    };
    let of_stage: Vec<f64> = (0..layout.pipeline).map(rate).collect();
    let stages = of_stage.len();
    let order = plan.chunk_order();
    Ok((0..plan.layer_stages() as usize)
        .map(|at| {
            let [stage, opposite] = [at % stages, stages - 1 - at % stages];
            match order {
                crate::ChunkOrder::Around => of_stage[stage],
                crate::ChunkOrder::BackAndForth if (at / stages).is_multiple_of(2) => of_stage[stage],
                crate::ChunkOrder::BackAndForth => of_stage[opposite],
                crate::ChunkOrder::FromBothEnds => of_stage[stage].min(of_stage[opposite]),
            }
        })
        .collect())
}
