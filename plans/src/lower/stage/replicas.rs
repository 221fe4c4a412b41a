//! States that groups smaller than all ranks partition: sums over the groups, and second copies within one.

use steptime_clusters::{CollectiveKind, Placement, collective};

use super::passes::Turn;
use super::{Along, Meeting, StageBuilder, StageInput};
use crate::classes;
use crate::error::PlanError;
use crate::zero::ZeroStage;

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

    /// Where every layer is on two stages, both sum what gradients they have once they are reduced.
    pub(super) fn sum_with_opposite(&mut self) -> Result<(), PlanError> {
        let Some(crosses) = self.input.opposite else { return Ok(()) };
        let partitioned = self.input.plan.zero >= ZeroStage::One;
        let part = |share| {
            self.input.held(share).trained.div_ceil(if partitioned { self.input.ranks(share) } else { 1 })
        };
        let elements: u64 = self.input.shares().map(part).sum();
        let placement = Placement { ranks: 2, nodes: if crosses { 2 } else { 1 } };
        let bytes = elements * self.gradient;
        let transfer = collective(self.input.with_opposite(), CollectiveKind::AllReduce, placement, bytes);
        let label = self.label("copies on the opposite stage", "all_reduce", None);
        self.order(self.streams.compute, self.streams.collective);
        let kinds = (classes::COLLECTIVE, classes::TRANSFER_WAIT);
        self.meet(self.streams.collective, Meeting::Opposite, kinds, label, transfer)?;
        self.order(self.streams.collective, self.streams.compute);
        Ok(())
    }
}
