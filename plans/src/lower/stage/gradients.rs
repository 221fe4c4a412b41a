//! What is done to reduced gradients before the update: scaled back from a scaled loss, clipped.

use steptime_models::{Bytes, Kernel, MemoryBoundKind, Pass};

use super::StageBuilder;
use crate::classes;
use crate::clipping::Clipping;
use crate::error::PlanError;
use crate::workload::list_launches;
use crate::zero::ZeroStage;

impl StageBuilder<'_> {
    /// Divides gradients by the scale of the loss and looks for overflow, then clips them: passes over lists of
    /// tensors. The host reads whether there was an overflow before it starts the update, and the norm where it has
    /// the say.
    pub(super) fn prepare_gradients(&mut self, elements: u64) -> Result<(), PlanError> {
        let workload = self.input.workload;
        let kept = workload.updated_gradients().bytes();
        if workload.loss_scaling {
            self.over_gradients(elements * self.gradient, elements * kept, elements)?;
            self.await_device()?;
        }
        if workload.clipping == Clipping::None {
            return Ok(());
        }
        let kernel = self.reduction_kernel(elements * kept, elements)?;
        let label = self.label("gradient norm", "optimizer", None);
        self.kernel(classes::OPTIMIZER, label, kernel)?;
        if workload.clipping == Clipping::Host {
            self.await_device()?;
        }
        self.over_gradients(elements * kept, elements * kept, elements)
    }

    /// Bytes of the 32-bit copies that scaled gradients are divided into: of the rank's own part where the update is
    /// partitioned.
    pub(super) fn unscaled_gradients(&self) -> u64 {
        let input = self.input;
        // An offloaded optimizer scales the gradients that the host has.
        if input.workload.updated_gradients() == input.workload.gradients() || input.offloads_optimizer() {
            return 0;
        }
        let partitioned = input.plan.zero >= ZeroStage::One;
        let part =
            |share| input.held(share).trained.div_ceil(if partitioned { input.ranks(share) } else { 1 });
        4 * input.shares().map(part).sum::<u64>()
    }

    /// A pass that reads and writes gradients.
    fn over_gradients(&mut self, read: u64, written: u64, elements: u64) -> Result<(), PlanError> {
        let kind = MemoryBoundKind::Elementwise;
        let kernel = Kernel::memory(kind, Bytes(read), Bytes(written));
        let cost = self.pricer.kernel(kernel, self.lists(elements), Pass::Forward)?;
        let label = self.label("gradients", "optimizer", None);
        self.kernel(classes::OPTIMIZER, label, cost)
    }

    fn reduction_kernel(&self, read: u64, elements: u64) -> Result<super::OpCost, PlanError> {
        let kind = MemoryBoundKind::Reduction;
        let kernel = Kernel::memory(kind, Bytes(read), Bytes(4));
        self.pricer.kernel(kernel, self.lists(elements), Pass::Forward)
    }

    /// Launches of a pass over lists of tensors.
    fn lists(&self, elements: u64) -> u64 {
        list_launches(self.input.trained_tensors(), elements)
    }

    /// The host waits until the device has done everything, to read a value.
    fn await_device(&mut self) -> Result<(), PlanError> {
        let label = self.label("gradients", "host_sync", None);
        self.wait_for_device(label)
    }
}
