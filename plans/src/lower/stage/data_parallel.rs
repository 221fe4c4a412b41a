//! What data-parallel ranks do together: gathering parameters, reducing gradients, updating.

use steptime_clusters::{CollectiveKind, Framework, Placement, collective};
use steptime_core::{Class, Label, ProgramBuilder, Stream, Tensor};
use steptime_models::{Bytes, Kernel, MemoryBoundKind, Pass};

use super::passes::Turn;
use super::{Meeting, StageBuilder};
use crate::bucket::{Bucket, Share};
use crate::classes;
use crate::error::PlanError;
use crate::lower::cost::OpCost;
use crate::zero::ZeroStage;

/// Most pieces in which updated parameters are gathered.
const MOST_PIECES: u64 = 1 << 16;

impl StageBuilder<'_> {
    /// Adds the micro-batch's gradients to those of the micro-batches before: one addition a tensor. The first
    /// micro-batch's gradients are taken over as they are (PyTorch `AccumulateGrad`), unless they are kept in a wider
    /// format than they are made in: then each micro-batch is added to a buffer of zeros.
    pub(super) fn accumulate(
        &mut self,
        layer: usize,
        micro_batch: u32,
        first: bool,
    ) -> Result<(), PlanError> {
        let wider = self.gradient > self.storage;
        if self.input.workload.accumulation_fusion || first && !wider {
            return Ok(());
        }
        if self.trained(layer) == 0 {
            return Ok(());
        }
        let slot = self.input.slot(layer);
        let cost = match self.of_layers[slot].accumulation {
            Some(cost) => cost,
            None => self.accumulation(layer)?,
        };
        self.of_layers[slot].accumulation = Some(cost);
        let label = self.layer_label(layer, "backward", micro_batch);
        self.kernel(classes::BACKWARD, label, cost)
    }

    /// Price of adding a layer's gradients to those of earlier micro-batches.
    fn accumulation(&self, layer: usize) -> Result<OpCost, PlanError> {
        let partitioned = self.input.plan.zero >= ZeroStage::Two;
        let share = if partitioned { self.input.partitioned_trained(layer) } else { self.trained(layer) };
        let made = if partitioned { self.gradient } else { self.storage };
        let tensors = self.input.layer_trained_tensors(layer);
        let kernel = copied(share * (made + self.gradient), share * self.gradient);
        self.pricer.kernel(kernel, tensors, Pass::Backward)
    }

    /// Whether gradients are tensors that the first backward of a step makes and that go when the parameters have been
    /// updated (PyTorch's `zero_grad(set_to_none=True)`, the default since 2.0). Flat buffers stay: those of Megatron-LM,
    /// nanotron and ZeRO 1 and 2, those of a wider format, and DDP's buckets whose views gradients are.
    pub(super) fn grows_gradients(&self) -> bool {
        let (plan, workload) = (self.input.plan, self.input.workload);
        let flat = self.gradient > self.storage || workload.accumulation_fusion;
        let views = plan.gradient_as_bucket_view && self.reduces();
        // DeepSpeed, which offloads, flattens those of ZeRO 3 as well.
        let whole = plan.zero == ZeroStage::Zero;
        let apart = whole || plan.zero == ZeroStage::Three && !self.input.offloads_optimizer();
        workload.framework == Framework::PyTorch && apart && !flat && !views
    }

    /// A layer's gradients as backward leaves them.
    pub(super) fn grow_gradients(&mut self, layer: usize) {
        if !self.grows_gradients() {
            return;
        }
        let partitioned = self.input.plan.zero == ZeroStage::Three;
        for elements in self.input.gradient_pieces(layer, partitioned) {
            let label = self.tensor_label(layer, "gradients");
            let tensor = self.program.tensor(elements * self.gradient, classes::GRADIENTS, label);
            self.program.alloc(self.streams.compute, tensor);
            self.grown.push(tensor);
        }
    }

    /// With ZeRO 2 and 3 a layer's whole gradients live only until they are reduced to their owners.
    pub(super) fn transient_gradients(&mut self, layer: usize) -> Option<Tensor> {
        let offloaded = self.input.offloads_optimizer();
        if self.input.plan.zero < ZeroStage::Two || !self.reduces() && !offloaded {
            return None;
        }
        let format = self.input.plan.gathered_format(self.input.workload).bytes();
        // Where the parts go to the host, whole gradients are all that the device has of them.
        let made = if offloaded { self.trained(layer) } else { self.input.reduced_trained(layer) };
        let bytes = made * format;
        if bytes == 0 {
            return None;
        }
        Some(self.whole_gradient(layer, bytes))
    }

    /// In detail, the same from the first product on that makes a gradient of the layer's weights.
    pub(super) fn make_whole(&mut self, layer: usize) {
        if std::mem::take(&mut self.whole_due) {
            self.whole = self.transient_gradients(layer);
        }
    }

    /// What [`Self::make_whole`] made of the layer, which has been through its backward.
    pub(super) fn whole_made(&mut self, layer: usize) -> Option<Tensor> {
        self.make_whole(layer);
        self.whole.take()
    }

    fn whole_gradient(&mut self, layer: usize, bytes: u64) -> Tensor {
        let label = self.tensor_label(layer, "whole gradients");
        let tensor = self.program.tensor(bytes, classes::BUFFERS, label);
        self.program.alloc(self.streams.compute, tensor);
        tensor
    }

    /// With ZeRO 2 and 3 the head's gradient of an embedding that it shares lives until the embedding's backward
    /// has added its own to it; that sum is what the embedding's layer reduces.
    pub(super) fn join_tied_gradient(&mut self, layer: usize) {
        let input = self.input;
        if input.plan.zero < ZeroStage::Two || !self.reduces() || !input.holds_embedding() {
            return;
        }
        let tied = input.used_trained(layer) - input.layer_trained(layer);
        if tied > 0 {
            let format = input.plan.gathered_format(input.workload).bytes();
            self.tied_gradient = Some(self.whole_gradient(layer, tied * format));
        } else if layer == 0 {
            let joined = self.tied_gradient.take();
            self.free(joined);
        }
    }

    /// Starts the reductions that the layer's backward makes ready.
    pub(super) fn reduce(
        &mut self,
        layer: usize,
        micro_batch: u32,
        turn: Turn,
        gradients: Option<Tensor>,
        pending: &mut Pending,
    ) -> Result<(), PlanError> {
        if !self.reduces() && !self.input.offloads_optimizer() {
            return Ok(());
        }
        pending.waiting.extend(gradients);
        let number = Some(micro_batch);
        match self.input.plan.zero {
            ZeroStage::Three => self.reduce_units(layer, (number, turn), pending),
            // Whole gradients cannot be added up where they are not kept: every micro-batch reduces.
            ZeroStage::Two => {
                self.reduce_buckets(layer, (number, turn), CollectiveKind::ReduceScatter, pending)
            }
            ZeroStage::Zero | ZeroStage::One if turn.last && self.input.plan.gradient_overlap => {
                self.reduce_buckets(layer, (number, turn), self.reduction(), pending)
            }
            ZeroStage::Zero | ZeroStage::One => Ok(()),
        }
    }

    /// How whole gradients are reduced: to everybody, or each part to its owner.
    fn reduction(&self) -> CollectiveKind {
        match self.input.plan.zero {
            ZeroStage::Zero => CollectiveKind::AllReduce,
            _ => CollectiveKind::ReduceScatter,
        }
    }

    /// Reduces all whole gradients after backward, where they are not reduced beside it.
    fn reduce_late(&mut self) -> Result<(), PlanError> {
        let plan = self.input.plan;
        let acts = self.reduces() || self.input.offloads_optimizer();
        if plan.gradient_overlap || !acts || plan.zero >= ZeroStage::Two {
            return Ok(());
        }
        let turn = Turn { first: self.input.schedule.micro_batches == 1, last: true };
        let mut pending = Pending::default();
        for layer in self.input.layers().collect::<Vec<_>>().into_iter().rev() {
            self.reduce_buckets(layer, (None, turn), self.reduction(), &mut pending)?;
        }
        Ok(())
    }

    /// An element-wise kernel on the stream of the collectives.
    pub(super) fn pass_over(&mut self, label: Label, read: u64, written: u64) -> Result<(), PlanError> {
        let cost = self.pricer.kernel(copied(read, written), 1, Pass::Backward)?;
        self.kernel_on(self.streams.collective, classes::COLLECTIVE, label, cost);
        Ok(())
    }

    pub(super) fn reduce_buckets(
        &mut self,
        layer: usize,
        (micro_batch, turn): (Option<u32>, Turn),
        kind: CollectiveKind,
        pending: &mut Pending,
    ) -> Result<(), PlanError> {
        let word = if kind == CollectiveKind::AllReduce { "all_reduce" } else { "reduce_scatter" };
        let reduced = |share| self.reduces_share(share) || self.input.offloads_optimizer();
        let ready = |(share, bucket): &&(Share, Bucket)| bucket.ready_after == layer && reduced(*share);
        let ready: Vec<(Share, Bucket)> = self.buckets.iter().filter(ready).copied().collect();
        for (share, bucket) in ready {
            self.hook_bucket(bucket)?;
            if self.copies_buckets() {
                self.copy_bucket(bucket, micro_batch)?;
            }
            if self.moves_parts() {
                let label = self.label("gradient buckets", "backward", micro_batch);
                // Each rank's parts are joined, and copied again by PyTorch.
                let launches = 2 * self.input.plan.shard_group();
                self.move_parts(classes::BACKWARD, label, launches, bucket.elements * self.gradient)?;
            }
            self.order(self.streams.compute, self.streams.collective);
            let bytes = bucket.elements * self.gradient;
            let inline = self.input.plan.zero == ZeroStage::Two && !self.input.plan.gradient_overlap;
            self.collective(share, kind, "gradients", word, bytes, micro_batch)?;
            let part = bucket.elements.div_ceil(self.input.ranks(share));
            self.sum_over_replicas("gradients", part, self.gradient, (micro_batch, turn))?;
            self.part_to_host("gradients", part, micro_batch, turn)?;
            pending.sent(&mut self.program, self.streams.collective);
            if inline {
                self.order(self.streams.collective, self.streams.compute);
            }
            if self.moves_parts() {
                // The copies of what arrives are issued at once, on a stream that waits for the collective. All streams
                // share one queue of the device (`CUDA_DEVICE_MAX_CONNECTIONS=1`, which nanotron's tensor
                // parallelism asks for): what backward issues next waits behind them.
                self.order(self.streams.collective, self.streams.compute);
                let label = self.label("gradient buckets", "backward", micro_batch);
                let part = (bucket.elements * self.gradient).div_ceil(self.input.plan.shard_group());
                self.move_parts(classes::BACKWARD, label, bucket.tensors, part)?;
            }
        }
        Ok(())
    }

    /// Whether each tensor's parts for the ranks are moved one by one into the buffers of collectives and out of them
    /// (PyTorch's coalesced collectives of lists, as nanotron calls them with ZeRO 1).
    fn moves_parts(&self) -> bool {
        let nanotron = self.input.workload.framework == Framework::Nanotron;
        nanotron && self.reduces() && self.input.plan.zero == ZeroStage::One
    }

    /// Copies `bytes` with so many kernels.
    fn move_parts(&mut self, class: Class, label: Label, launches: u64, bytes: u64) -> Result<(), PlanError> {
        let cost = self.pricer.kernel(copied(bytes, bytes), launches, Pass::Forward)?;
        self.kernel(class, label, cost)
    }

    /// Copies gradients into their bucket, or back: one kernel a tensor.
    pub(super) fn copy_bucket(&mut self, bucket: Bucket, micro_batch: Option<u32>) -> Result<(), PlanError> {
        let (bytes, size) = (bucket.elements * self.gradient, (bucket.elements, bucket.tensors));
        let cost = match self.bucket_copies.get(&size) {
            Some(cost) => *cost,
            None => self.pricer.kernel(copied(bytes, bytes), bucket.tensors, Pass::Backward)?,
        };
        self.bucket_copies.insert(size, cost);
        let label = self.label("gradient buckets", "backward", micro_batch);
        self.kernel(classes::BACKWARD, label, cost)
    }

    /// After the last backward: gradients arrive, the shard is updated, parameters are gathered again.
    pub(super) fn update(&mut self) -> Result<(), PlanError> {
        let input = self.input;
        let parameters = input.trained_parameters();
        if parameters == 0 {
            return Ok(());
        }
        self.reduce_late()?;
        self.reduce_shared_embedding()?;
        if self.reduces() {
            self.order(self.streams.collective, self.streams.compute);
            if input.plan.shard_copies() > 1 {
                self.order(self.streams.replicas, self.streams.compute);
            }
            if self.copies_buckets() {
                for bucket in self.reduced_buckets().collect::<Vec<_>>() {
                    self.copy_bucket(bucket, None)?;
                }
            }
        }
        self.sum_with_opposite()?;
        if input.offloads_optimizer() {
            return self.update_on_host();
        }
        let partitioned = input.plan.zero >= ZeroStage::One;
        let part = |share| input.held(share).trained.div_ceil(input.ranks(share));
        let share = if partitioned { input.shares().map(part).sum() } else { parameters };
        let tensors = input.trained_tensors();
        let tensors = if partitioned { tensors.div_ceil(input.plan.shard_group()) } else { tensors };
        self.loop_over(tensors)?;
        self.prepare_gradients(share)?;
        self.count_zeros(share, tensors)?;
        let kernel = Kernel::Optimizer {
            parameters: share,
            bytes_per_parameter: input.workload.update_traffic_per_parameter(),
        };
        let launches = input.workload.update_launches(tensors, share);
        let cost = self.pricer.kernel(kernel, launches, Pass::Forward)?;
        let label = self.label("optimizer", "optimizer", None);
        let lists = self.optimizer_lists(share);
        self.hold_wide_gradients(share);
        self.kernel(classes::OPTIMIZER, label, cost)?;
        self.orthogonalize(label)?;
        for list in lists {
            self.program.free(self.streams.compute, list);
        }
        self.gather_updated(label)?;
        self.after_update(share, tensors)
    }

    /// Every rank gets the parameters that the others have updated.
    pub(super) fn gather_updated(&mut self, label: Label) -> Result<(), PlanError> {
        let input = self.input;
        if self.reduces() && matches!(input.plan.zero, ZeroStage::One | ZeroStage::Two) {
            self.order(self.streams.compute, self.streams.collective);
            let whole = |share| input.held(share).trained * self.storage;
            let bytes: u64 = self.reducing_shares().into_iter().map(whole).sum();
            if self.moves_parts() {
                // The buffers of all ranks' parts and of the rank's own are still there when the step ends.
                self.hold("gathered parameters", bytes, classes::BUFFERS);
                self.hold(
                    "own part of parameters",
                    bytes.div_ceil(input.plan.shard_group()),
                    classes::BUFFERS,
                );
            }
            for share in self.reducing_shares() {
                let bytes = input.held(share).trained * self.storage;
                let kind = CollectiveKind::AllGather;
                // A piece at a time, as the buckets allow.
                let most = input.plan.gather_bucket_bytes.unwrap_or(u64::MAX).max(1);
                let pieces = (bytes / most).clamp(1, MOST_PIECES);
                for piece in 0..pieces {
                    let part = bytes / pieces + u64::from(piece < bytes % pieces);
                    self.collective(share, kind, "parameters", "all_gather", part, None)?;
                }
            }
            self.order(self.streams.collective, self.streams.compute);
            if self.moves_parts() {
                let launches = input.trained_tensors().saturating_mul(input.plan.shard_group());
                self.move_parts(classes::OPTIMIZER, label, launches, bytes)?;
            }
        }
        self.gather_persistent()?;
        for tensor in std::mem::take(&mut self.grown) {
            self.program.free(self.streams.compute, tensor);
        }
        self.convert_weights(label)
    }

    /// Lists that the update makes, for `share` values.
    fn optimizer_lists(&mut self, share: u64) -> Vec<Tensor> {
        let each = self.input.workload.update_temporary_per_parameter();
        let pieces = if self.detailed() { self.update_pieces(each) } else { vec![share * each] };
        let label = self.program.label("optimizer temporaries");
        let made = pieces.into_iter().filter(|bytes| *bytes > 0).map(|bytes| {
            let tensor = self.program.tensor(bytes, classes::WORKSPACE, label);
            self.program.alloc(self.streams.compute, tensor);
            tensor
        });
        made.collect()
    }

    /// First and last stage add up the gradients of an embedding that both hold (Megatron-LM).
    pub(super) fn reduce_shared_embedding(&mut self) -> Result<(), PlanError> {
        let Some(crosses) = self.input.tied_embedding else { return Ok(()) };
        if self.channel(Meeting::Embedding).is_none() {
            return Ok(());
        }
        let division = self.input.plan.division();
        let tied = self.input.model.layers.iter().flat_map(|layer| layer.parameters.iter());
        let elements: u64 = tied
            .filter(|parameter| parameter.tied && parameter.trainable)
            .map(|parameter| parameter.held_in(&division))
            .sum();
        // Where gradients are partitioned a rank has its share of them only.
        let partitioned = self.input.plan.zero >= ZeroStage::Two;
        let elements = if partitioned { elements.div_ceil(self.input.plan.shard_group()) } else { elements };
        let nodes = if crosses { 2 } else { 1 };
        let placement = Placement { ranks: 2, nodes };
        let bytes = elements * self.gradient;
        let transfer = collective(self.input.over_stages(), CollectiveKind::AllReduce, placement, bytes);
        let label = self.label("shared embedding", "all_reduce", None);
        self.order(self.streams.compute, self.streams.collective);
        // The last stage is done long before the first: it waits for the pipeline to drain.
        let kinds = (classes::COLLECTIVE, classes::TRANSFER_WAIT);
        self.meet(self.streams.collective, Meeting::Embedding, kinds, label, transfer)?;
        self.order(self.streams.collective, self.streams.compute);
        Ok(())
    }
}

/// A kernel that reads and writes each value once.
pub(super) const fn copied(read: u64, written: u64) -> Kernel {
    Kernel::memory(MemoryBoundKind::Elementwise, Bytes(read), Bytes(written))
}

/// Whole gradients on their way to their owners: a set is freed when the next one has been sent, so that at
/// most two are alive beside the one that backward is making.
#[derive(Default)]
pub(super) struct Pending {
    /// Made, not sent.
    waiting: Vec<Tensor>,
    /// Sent, not known to have arrived.
    in_flight: Vec<Tensor>,
}

impl Pending {
    pub(super) fn sent(&mut self, program: &mut ProgramBuilder, stream: Stream) {
        for tensor in self.in_flight.drain(..) {
            program.free(stream, tensor);
        }
        self.in_flight.append(&mut self.waiting);
    }

    pub(super) fn free_all(&mut self, program: &mut ProgramBuilder, stream: Stream) {
        for tensor in self.in_flight.drain(..).chain(self.waiting.drain(..)) {
            program.free(stream, tensor);
        }
    }
}
