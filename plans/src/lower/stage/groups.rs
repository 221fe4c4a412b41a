//! What a stage does in groups other than the data-parallel one: whose parameters have copies where, and transfers
//! within layers.

use steptime_clusters::{communicator_bytes, pair_bytes};
use steptime_core::Label;

use super::{Along, Meeting};
use super::{Chunk, StageBuilder, StageInput};
use crate::bucket::{Bucket, Holding, Share, buckets};
use crate::classes;
use crate::error::PlanError;
use crate::lower::cost::Exchange;
use crate::zero::{Held, ZeroStage};

impl StageInput<'_> {
    /// The parts of the parameters that have their copies on different ranks.
    pub(super) fn shares(&self) -> impl Iterator<Item = Share> + Clone + use<> {
        let experts = self.plan.spreads_experts().then_some(Share::Experts);
        std::iter::once(Share::Common).chain(experts)
    }

    /// The group whose members hold copies of a part, or partition it.
    pub(super) const fn copies(share: Share) -> Along {
        match share {
            Share::Common => Along::Data,
            Share::Experts => Along::ExpertData,
        }
    }

    /// Ranks in that group.
    pub(super) fn ranks(&self, share: Share) -> u64 {
        u64::from(self.placements[Self::copies(share) as usize].ranks)
    }

    /// Values of a part that a rank would hold if nothing were partitioned.
    pub(super) fn held(&self, share: Share) -> Held {
        *self.held[usize::from(share == Share::Experts)].get_or_init(|| self.count_held(share))
    }

    fn count_held(&self, share: Share) -> Held {
        let mut held = Held::default();
        for layer in self.layers() {
            held.parameters += self.count_in(share, layer, |it| self.owns(it));
            held.trained += self.count_in(share, layer, |it| it.trainable && self.owns(it));
            held.persistent += self.count_in(share, layer, |it| self.owns(it) && self.persists(it));
        }
        held.matrices = self.layers().map(|layer| self.matrices(share, layer)).sum();
        held
    }

    /// Trained values of the matrices of a block.
    fn matrices(&self, share: Share, layer: usize) -> u64 {
        if self.model.layers[layer].role != steptime_models::LayerRole::Block {
            return 0;
        }
        self.count_in(share, layer, |it| it.trainable && it.dimensions.len() == 2)
    }

    /// This rank's values of a part in those parameters of a layer that are wanted.
    pub(super) fn count_in(
        &self,
        share: Share,
        layer: usize,
        wanted: impl Fn(&steptime_models::Parameter) -> bool,
    ) -> u64 {
        let division = self.plan.division();
        self.count(layer, |it| share.contains(it, &division) && wanted(it))
    }

    /// Trained values of a layer that a rank keeps gradients of where these are partitioned.
    pub(super) fn partitioned_trained(&self, layer: usize) -> u64 {
        let part = |share| {
            let trained = self.count_in(share, layer, |it| it.trainable && self.owns(it));
            trained.div_ceil(self.ranks(share))
        };
        self.shares().map(part).sum()
    }

    /// Whether other ranks hold or partition a part of the parameters as well.
    pub(super) fn shared(&self, share: Share) -> bool {
        self.ranks(share) > 1 || self.plan.shard_copies() > 1
    }

    /// Trained values of a layer whose gradients are reduced: those that other ranks hold as well.
    pub(super) fn reduced_trained(&self, layer: usize) -> u64 {
        let reduced = self.shares().filter(|&share| self.shared(share));
        reduced.map(|share| self.count_in(share, layer, |it| it.trainable && self.owns(it))).sum()
    }

    /// Gradient buckets of all chunks and parts.
    pub(super) fn buckets(&self, storage: u64, caps: [u64; 2]) -> Vec<(Share, Bucket)> {
        let division = self.plan.division();
        let of_share = |chunk: &Chunk, share| {
            let holds = Holding { embedding: self.holds_embedding(), division, share };
            buckets(self.model, chunk.layers.clone(), holds, storage, caps)
        };
        let of_chunk = |chunk| {
            let shares = self.shares();
            shares
                .flat_map(move |share| of_share(chunk, share).into_iter().map(move |bucket| (share, bucket)))
        };
        self.chunks.iter().flat_map(of_chunk).collect()
    }
}

impl StageInput<'_> {
    /// Bytes that a rank's communicators take, outside the framework's allocator: those of the groups of the stage, and of
    /// its neighbours in the pipeline. Of groups with the same ranks there is one.
    pub(in crate::lower) fn communicators(&self) -> u64 {
        let used = |along: &Along| match along {
            Along::Data => self.training() || self.plan.zero == ZeroStage::Three,
            Along::Tensor | Along::Context => true,
            Along::Replicas | Along::Secondary => self.training(),
            Along::ExpertData => self.training() && self.plan.spreads_experts(),
            Along::Expert | Along::ExpertTensor => self.plan.spreads_experts(),
        };
        // Plain data parallelism sums gradients everywhere, tensor parallelism activations unless it divides them.
        let all_reduces = |along: Along| match along {
            Along::Data | Along::ExpertData => self.training() && self.plan.zero == ZeroStage::Zero,
            Along::Tensor => !self.plan.sequence_parallel,
            // Copies of shards are summed.
            Along::Replicas => true,
            Along::Secondary | Along::Context | Along::Expert | Along::ExpertTensor => false,
        };
        let bytes = |along: Along| {
            communicator_bytes(self.cluster, self.placements[along as usize], all_reduces(along)).0
        };
        let of_groups: u64 = Along::ALL.into_iter().filter(used).map(bytes).sum();
        let sides = self.chunks.iter().flat_map(|chunk| chunk.crosses).flatten();
        let mut pairs: Vec<bool> = sides.collect();
        pairs.truncate(2);
        pairs.extend(self.opposite.filter(|_| self.training()));
        let tied = self.tied_embedding.filter(|_| self.holds_embedding() || self.holds_head());
        of_groups + pairs.into_iter().chain(tied).map(|crosses| pair_bytes(crosses).0).sum::<u64>()
    }
}

impl StageBuilder<'_> {
    /// Whether a part of the gradients has anybody to be reduced with.
    pub(super) fn reduces_share(&self, share: Share) -> bool {
        self.input.training() && self.input.shared(share)
    }

    /// The parts that have.
    pub(super) fn reducing_shares(&self) -> Vec<Share> {
        self.input.shares().filter(|share| self.reduces_share(*share)).collect()
    }

    /// Those buckets that are reduced.
    pub(super) fn reduced_buckets(&self) -> impl Iterator<Item = Bucket> + '_ {
        self.buckets.iter().filter(|(share, _)| self.reduces_share(*share)).map(|(_, bucket)| *bucket)
    }

    /// A transfer among the ranks of a group, for which the compute waits: at once, or after the operation that follows.
    pub(super) fn exchange(&mut self, label: Label, exchange: Exchange) -> Result<(), PlanError> {
        let kinds = (classes::COLLECTIVE, classes::COLLECTIVE_WAIT);
        let meeting = Meeting::Group(exchange.along);
        if !exchange.beside && self.pairs.has_pass() {
            return self.exchange_in_pair(label, exchange);
        }
        if !exchange.beside {
            return self.meet(self.streams.compute, meeting, kinds, label, exchange.transfer);
        }
        // Sends of a ring follow each other; what was computed so far is what is sent.
        self.await_ring();
        self.order(self.streams.compute, self.streams.ring);
        self.meet(self.streams.ring, meeting, kinds, label, exchange.transfer)?;
        self.beside = Some((self.program.record(self.streams.ring), false));
        Ok(())
    }

    /// Another operation is about to be issued: the first after a send runs beside it, the second waits for it.
    pub(super) fn pass_ring(&mut self) {
        match &mut self.beside {
            Some((_, issued @ false)) => *issued = true,
            Some((_, true)) => self.await_ring(),
            None => {}
        }
    }

    /// The compute waits for what is on the ring.
    pub(super) fn await_ring(&mut self) {
        if let Some((arrived, _)) = self.beside.take() {
            self.program.wait(self.streams.compute, arrived);
        }
    }
}
