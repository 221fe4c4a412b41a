//! What enters and leaves a stage: input batches, activations and gradients between stages.

use steptime_clusters::point_to_point;
use steptime_core::Stream;
use steptime_models::{Bytes, Kernel, Pass};

use super::{Meeting, StageBuilder};
use crate::classes;
use crate::error::PlanError;
use crate::lower::cost::OpCost;

impl StageBuilder<'_> {
    /// Bytes of the activation that enters a layer.
    pub(super) fn boundary(&self, layer: usize) -> u64 {
        if layer == 0 { 0 } else { self.input.costs.layer(layer - 1).work.output.0 }
    }

    /// Copies a micro-batch of samples to the device, unless it is made there; a copy from pageable memory holds up the
    /// host.
    pub(super) fn load_input(&mut self, micro_batch: u32) -> Result<(), PlanError> {
        let samples = self.input.workload.micro_batch_size;
        let bytes = Bytes(samples * self.input.model.sample_bytes(&self.input.workload.shape()).0);
        if bytes.0 == 0 {
            return Ok(());
        }
        let cost = self.pricer.kernel(Kernel::HostCopy { bytes, pinned: false }, 1, Pass::Forward)?;
        let label = self.label("input", "copy", Some(micro_batch));
        let tensor_label = self.program.label("input batch");
        let tensor = self.program.tensor(bytes.0, classes::BUFFERS, tensor_label);
        self.program.alloc(self.streams.compute, tensor);
        self.batches[micro_batch as usize] = Some(tensor);
        if self.input.workload.synthetic_data {
            return Ok(());
        }
        self.kernel(classes::INPUT, label, OpCost { host_sync: true, ..cost })
    }

    pub(super) fn receive(
        &mut self,
        stream: Stream,
        meeting: Meeting,
        crosses: bool,
        bytes: u64,
        micro_batch: u32,
    ) -> Result<(), PlanError> {
        let label = self.label("receive", "send_receive", Some(micro_batch));
        let transfer = point_to_point(self.input.cluster, crosses, bytes);
        let buffer_label = self.program.label("pipeline receive buffer");
        let buffer = self.program.tensor(bytes, classes::BUFFERS, buffer_label);
        self.program.alloc(stream, buffer);
        self.meet(stream, meeting, (classes::TRANSFER, classes::TRANSFER_WAIT), label, transfer)?;
        self.order(stream, self.streams.compute);
        // From here on the first layer keeps what it needs of it.
        self.program.free(self.streams.compute, buffer);
        Ok(())
    }

    pub(super) fn send(
        &mut self,
        stream: Stream,
        meeting: Meeting,
        crosses: bool,
        bytes: u64,
        micro_batch: u32,
    ) -> Result<(), PlanError> {
        let label = self.label("send", "send_receive", Some(micro_batch));
        let transfer = point_to_point(self.input.cluster, crosses, bytes);
        let buffer_label = self.program.label("pipeline send buffer");
        let buffer = self.program.tensor(bytes, classes::BUFFERS, buffer_label);
        self.program.alloc(self.streams.compute, buffer);
        self.order(self.streams.compute, stream);
        self.meet(stream, meeting, (classes::TRANSFER, classes::TRANSFER_WAIT), label, transfer)?;
        // The buffer of the send before has been read by now; this one is in flight.
        let direction = usize::from(matches!(meeting, Meeting::BackwardOut(_)));
        if let Some(earlier) = self.sent[direction].replace(buffer) {
            self.program.free(stream, earlier);
        }
        Ok(())
    }
}
