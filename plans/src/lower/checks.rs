//! What of a plan cannot be, beyond what does not divide.

use steptime_clusters::Cluster;

use crate::error::PlanError;
use crate::plan::Plan;
use crate::zero::ZeroStage;

/// Whether ranks with equal parameters divide into groups that partition them.
pub(super) fn sharding(plan: &Plan) -> Result<(), PlanError> {
    let (group, replicas) = (plan.shard_group(), plan.replicas());
    let whole = group == replicas;
    let copy = plan.expert.saturating_mul(plan.expert_tensor());
    let message = if group == 0 || !replicas.is_multiple_of(group) {
        Some(format!("groups of {group} ranks that partition the states do not divide {replicas} ranks"))
    } else if !whole && plan.zero == ZeroStage::Zero {
        Some("groups that partition the states need zero_stage 1, 2 or 3".to_owned())
    } else if !whole && plan.offload.acts() {
        Some("states in smaller groups than all ranks cannot be offloaded".to_owned())
    } else if plan.spreads_experts() && !group.saturating_mul(plan.tensor).is_multiple_of(copy) {
        Some(format!(
            "a group that partitions the states has {} ranks, among which {copy} that hold all experts once do not divide",
            group.saturating_mul(plan.tensor)
        ))
    } else {
        plan.sharding.secondary.and_then(|second| secondary(plan, second))
    };
    message.map_or(Ok(()), |message| Err(PlanError::Sharding { message }))
}

/// Why a second copy of the parameters cannot be kept by groups of so many ranks.
fn secondary(plan: &Plan, second: u64) -> Option<String> {
    let group = plan.shard_group();
    if plan.zero != ZeroStage::Three {
        return Some("a second copy of partitioned parameters needs zero_stage = 3".to_owned());
    }
    if second == 0 || !group.is_multiple_of(second) {
        return Some(format!(
            "{second} ranks that keep a second copy do not divide the {group} that partition the first"
        ));
    }
    let other = plan.spreads_experts() || plan.offload.acts();
    other.then(|| {
        "a second copy of partitioned parameters goes neither with expert groups nor with offloading"
            .to_owned()
    })
}

/// Whether products can run in pieces beside the transfers of their parts.
pub(super) fn pieces(cluster: &Cluster, plan: &Plan) -> Result<(), PlanError> {
    let inside = u64::from(cluster.gpus_per_node).is_multiple_of(plan.tensor);
    let message = match (plan.tensor_pieces && plan.tensor > 1, plan.sequence_parallel, inside) {
        (true, false, _) => "products in pieces need sequence_parallel = true",
        (true, true, false) => "products in pieces need ranks that share a layer on one node",
        _ => return Ok(()),
    };
    Err(PlanError::Tensor { message: message.to_owned() })
}
