//! What a step looks at beside training: norms and zeros of gradients and parameters, losses that are not numbers; and the
//! host's own work around the update.

use steptime_clusters::{CollectiveKind, collective};
use steptime_core::{Label, SimTime};
use steptime_models::{Bytes, Kernel, MemoryBoundKind, Pass};

use super::{Meeting, StageBuilder};
use crate::classes;
use crate::error::PlanError;
use crate::lower::cost::OpCost;
use crate::lower::placement::Along;
use crate::workload::list_launches;
use crate::zero::ZeroStage;

/// Kernels that count a tensor's zeros: compared with zero, summed, subtracted from the number of values, added to the
/// count so far (`torch.count_nonzero` and what Megatron-LM's `count_zeros_fp32` does with it).
const COUNTING: u64 = 4;

impl StageBuilder<'_> {
    /// What the optimizer's Python takes for so many tensors.
    pub(super) fn loop_over(&mut self, tensors: u64) -> Result<(), PlanError> {
        self.take("optimizer loops", tensors as f64 * self.pricer.framework().tensor_s)
    }

    /// Counts the zeros among the `values` of gradients in `tensors` that the rank updates.
    pub(super) fn count_zeros(&mut self, values: u64, tensors: u64) -> Result<(), PlanError> {
        if !self.input.workload.log_num_zeros_in_grad {
            return Ok(());
        }
        let label = self.label("zeros in gradients", "optimizer", None);
        // One byte a value between comparison and sum.
        let read = values.saturating_mul(self.gradient + 1);
        let kernel = memory_bound(MemoryBoundKind::Reduction, read, values);
        let cost = self.pricer.kernel(kernel, COUNTING * tensors.max(1), Pass::Forward)?;
        self.kernel(classes::OPTIMIZER, label, cost)?;
        self.agree(label)
    }

    /// After the update.
    pub(super) fn after_update(&mut self, values: u64, tensors: u64) -> Result<(), PlanError> {
        let workload = self.input.workload;
        if workload.log_params_norm {
            let label = self.label("norm of parameters", "optimizer", None);
            // The 32-bit copy, where there is one, is what the rank has of the parameters.
            let kernel = memory_bound(MemoryBoundKind::Reduction, values.saturating_mul(4), 4);
            let cost = self.pricer.kernel(kernel, list_launches(tensors, values), Pass::Forward)?;
            self.kernel(classes::OPTIMIZER, label, cost)?;
            self.agree(label)?;
        }
        self.take("end of step", self.pricer.framework().step_s)
    }

    /// The host reads the loss of a micro-batch, to stop at one that is not a number.
    pub(super) fn check_loss(&mut self, label: Label) -> Result<(), PlanError> {
        if !(self.input.training() && self.input.workload.check_for_nan) {
            return Ok(());
        }
        let cost = self.pricer.kernel(memory_bound(MemoryBoundKind::Elementwise, 4, 1), 1, Pass::Forward)?;
        self.kernel(classes::FORWARD, label, OpCost { host_sync: true, ..cost })
    }

    /// What the framework's Python takes around a micro-batch's pass through a chunk.
    pub(super) fn issue_chunk(&mut self) -> Result<(), PlanError> {
        self.take("chunk", self.pricer.framework().chunk_pass_s)
    }

    /// Time of the host.
    pub(super) fn take(&mut self, name: &str, seconds: f64) -> Result<(), PlanError> {
        if seconds > 0.0 {
            let label = self.label(name, "host", None);
            self.program.host(SimTime::from_seconds(seconds)?, classes::HOST, label);
        }
        Ok(())
    }

    /// The ranks that share the model add up one value, which the host waits for. Stages are not waited for: the first
    /// one, whose backward is the last, has nobody to wait for.
    fn agree(&mut self, label: Label) -> Result<(), PlanError> {
        let partitioned = self.input.plan.zero >= ZeroStage::One;
        for (along, wanted) in [(Along::Tensor, true), (Along::Data, partitioned)] {
            if !wanted || self.channel(Meeting::Group(along)).is_none() {
                continue;
            }
            let placement = self.input.placements[along as usize];
            let transfer = collective(self.input.links.along(along), CollectiveKind::AllReduce, placement, 4);
            self.order(self.streams.compute, self.streams.collective);
            let kinds = (classes::COLLECTIVE, classes::COLLECTIVE_WAIT);
            self.meet(self.streams.collective, Meeting::Group(along), kinds, label, transfer)?;
            self.order(self.streams.collective, self.streams.compute);
        }
        let cost = self.pricer.kernel(memory_bound(MemoryBoundKind::Elementwise, 4, 4), 1, Pass::Forward)?;
        self.kernel(classes::OPTIMIZER, label, OpCost { host_sync: true, ..cost })
    }
}

/// A kernel of so much traffic.
const fn memory_bound(kind: MemoryBoundKind, read: u64, written: u64) -> Kernel {
    Kernel::memory(kind, Bytes(read), Bytes(written))
}
