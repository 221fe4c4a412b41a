//! What enters and leaves a stage: input batches, activations and gradients between stages.

use steptime_clusters::{Cluster, CollectiveKind, Framework, Transfer, collective, point_to_point};
use steptime_core::{ProgramBuilder, Stream, Tensor};
use steptime_models::{Bytes, Kernel, Pass};

use super::{Meeting, StageBuilder, StageInput};
use crate::classes;
use crate::error::PlanError;
use crate::lower::cost::OpCost;
use crate::lower::placement::Along;
use crate::schedule::ChunkOrder;

/// The streams on which a chunk receives and sends.
#[derive(Clone, Copy)]
pub(super) struct Transfers {
    pub(super) forward_in: Stream,
    pub(super) forward_out: Stream,
    pub(super) backward_in: Stream,
    pub(super) backward_out: Stream,
}

/// The streams of every chunk. Where chunks go round the stages, all activations of a stage go one way and share their
/// streams, as in Megatron-LM. Elsewhere a transfer to one side could queue behind one to the other side that waits for
/// it, and each chunk has its own.
pub(super) fn transfers(program: &mut ProgramBuilder, input: &StageInput<'_>) -> Vec<Transfers> {
    let chunks = input.chunks.len();
    let own = input.schedule.chunk_order != ChunkOrder::Around || input.plan.written.is_some();
    let mut of_chunk = |chunk: usize| {
        let mut stream = |what: &str| {
            let name = if chunk == 0 { what.to_owned() } else { format!("{what} {chunk}") };
            program.stream(&name)
        };
        Transfers {
            forward_in: stream("receive activations"),
            forward_out: stream("send activations"),
            backward_in: stream("receive gradients"),
            backward_out: stream("send gradients"),
        }
    };
    if own { (0..chunks).map(of_chunk).collect() } else { vec![of_chunk(0); chunks] }
}

impl StageInput<'_> {
    /// The cluster by which a transfer to or from the stage beside a chunk is priced.
    pub(super) fn beside(&self, meeting: Meeting) -> &Cluster {
        let (chunk, side) = match meeting {
            Meeting::ForwardIn(chunk) | Meeting::BackwardOut(chunk) => (chunk, 0),
            Meeting::ForwardOut(chunk) | Meeting::BackwardIn(chunk) => (chunk, 1),
            _ => return self.cluster,
        };
        self.chunks.get(chunk).map_or(self.cluster, |chunk| self.links.with_stage(chunk.neighbours[side]))
    }

    /// The same of what a stage shares with the one opposite to it.
    pub(super) fn with_opposite(&self) -> &Cluster {
        self.links.with_stage((self.plan.pipeline as usize).saturating_sub(self.stage + 1))
    }

    /// The same of what the first stage and the last share.
    pub(super) fn over_stages(&self) -> &Cluster {
        self.links.with_stage(if self.stage == 0 { self.head_stage } else { 0 })
    }
}

impl StageBuilder<'_> {
    /// Bytes of the activation that enters a layer.
    pub(super) fn boundary(&self, layer: usize, micro_batch: u32) -> u64 {
        if layer == 0 { 0 } else { self.input.cost(layer - 1, micro_batch).work.output.0 }
    }

    /// Copies a micro-batch of samples to the device, unless it is made there; a copy from pageable memory holds up the
    /// host.
    pub(super) fn load_input(&mut self, micro_batch: u32) -> Result<(), PlanError> {
        let samples = self.input.samples(micro_batch);
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

    /// A transfer to or from the stage beside a chunk. The same few come in every micro-batch.
    fn sent_beside(&mut self, meeting: Meeting, crosses: bool, bytes: u64) -> Transfer {
        let same = |it: &&(Meeting, u64, Transfer)| (it.0, it.1) == (meeting, bytes);
        if let Some((.., transfer)) = self.sends.iter().find(same) {
            return *transfer;
        }
        let transfer = point_to_point(self.input.beside(meeting), crosses, bytes);
        self.sends.push((meeting, bytes, transfer));
        transfer
    }

    pub(super) fn receive(
        &mut self,
        stream: Stream,
        meeting: Meeting,
        crosses: bool,
        bytes: u64,
        micro_batch: u32,
    ) -> Result<(), PlanError> {
        let label = self.fixed_label("receive", "send_receive", micro_batch);
        let part = bytes.div_ceil(self.input.plan.senders());
        let transfer = self.sent_beside(meeting, crosses, part);
        let buffer_label = self.buffer_label("pipeline receive buffer");
        let buffer = self.program.tensor(part, classes::BUFFERS, buffer_label);
        // The framework allocates on the stream of the computation.
        let of = if self.detailed() { self.streams.compute } else { stream };
        self.program.alloc(of, buffer);
        self.meet(stream, meeting, (classes::TRANSFER, classes::TRANSFER_WAIT), label, transfer)?;
        self.order(stream, self.streams.compute);
        if self.input.workload.framework != Framework::PyTorch {
            // Megatron-LM waits for the device after sends and receives (`batch_p2p_sync`), nanotron for the sizes that
            // it receives first: the host does not run ahead of a stage's inputs.
            let arrived = self.program.record(stream);
            self.program.host_wait(arrived);
        }
        if part < bytes {
            return self.gather_received(buffer, bytes, micro_batch);
        }
        // From here on the first layer keeps what it needs of it.
        if self.detailed() && self.input.training() && matches!(meeting, Meeting::ForwardIn(_)) {
            self.handed = Some(buffer);
        } else {
            self.program.free(self.streams.compute, buffer);
        }
        Ok(())
    }

    /// The ranks that share the stage's layers put together what each has received a part of.
    fn gather_received(&mut self, part: Tensor, bytes: u64, micro_batch: u32) -> Result<(), PlanError> {
        let label = self.fixed_label("receive", "all_gather", micro_batch);
        let buffer_label = self.buffer_label("gathered from the stage beside");
        let whole = self.program.tensor(bytes, classes::BUFFERS, buffer_label);
        self.program.alloc(self.streams.compute, whole);
        let placement = self.input.placements[Along::Tensor as usize];
        let transfer =
            collective(self.input.links.along(Along::Tensor), CollectiveKind::AllGather, placement, bytes);
        let kinds = (classes::COLLECTIVE, classes::COLLECTIVE_WAIT);
        self.meet(self.streams.compute, Meeting::Group(Along::Tensor), kinds, label, transfer)?;
        for buffer in [part, whole] {
            self.program.free(self.streams.compute, buffer);
        }
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
        let label = self.fixed_label("send", "send_receive", micro_batch);
        let bytes = bytes.div_ceil(self.input.plan.senders());
        let transfer = self.sent_beside(meeting, crosses, bytes);
        let buffer_label = self.buffer_label("pipeline send buffer");
        let buffer = self.program.tensor(bytes, classes::BUFFERS, buffer_label);
        self.program.alloc(self.streams.compute, buffer);
        self.order(self.streams.compute, stream);
        self.meet(stream, meeting, (classes::TRANSFER, classes::TRANSFER_WAIT), label, transfer)?;
        // The buffer of the send before has been read by now; this one is in flight.
        if let Some((_, earlier)) = self.sent.iter_mut().find(|(of, _)| *of == stream) {
            let earlier = std::mem::replace(earlier, buffer);
            self.program.free(stream, earlier);
        } else {
            self.sent.push((stream, buffer));
        }
        Ok(())
    }
}
