//! States that groups smaller than all ranks partition: sums over the groups, and second copies within one.

use steptime_clusters::CollectiveKind;

use super::passes::Turn;
use super::{Along, StageBuilder, StageInput};
use crate::error::PlanError;

impl StageInput<'_> {
    /// Bytes of a rank's part of the second copy of the parameters.
    pub(super) fn second_copy(&self) -> u64 {
        let Some(ranks) = self.plan.sharding.secondary.filter(|_| self.training()) else { return 0 };
        let storage = self.workload.parameter_format().bytes();
        self.layers().map(|layer| self.count(layer, |it| self.owns(it)).div_ceil(ranks) * storage).sum()
    }
}

impl StageBuilder<'_> {
    /// After gradients have been scattered within a group: each rank sums its part of `elements` values with those that
    /// have the same part in the other groups. Sums run beside what the groups do next.
    pub(super) fn sum_over_replicas(
        &mut self,
        name: &str,
        elements: u64,
        format: u64,
        (micro_batch, turn): (Option<u32>, Turn),
    ) -> Result<(), PlanError> {
        let sharding = self.input.plan.sharding;
        if self.input.plan.shard_copies() < 2 || sharding.sums_once && !turn.last {
            return Ok(());
        }
        // What has been added up over micro-batches has the format in which it is kept.
        let format = if sharding.sums_once { self.gradient } else { format };
        self.order(self.streams.collective, self.streams.replicas);
        let way = (self.streams.replicas, Along::Replicas);
        self.collective_along(
            way,
            CollectiveKind::AllReduce,
            (name, "all_reduce"),
            elements * format,
            micro_batch,
        )
    }
}
