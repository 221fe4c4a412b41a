//! A parallelism plan over the GPUs of a cluster.

use steptime_clusters::Framework;
use steptime_models::{
    ContextMethod, ContextParallel, Division, Dtype, ExpertParallel, TensorParallel, WorkShape,
};

use crate::fetch::Fetch;
use crate::offload::Offload;
use crate::rank_order::RankOrder;
use crate::schedule::{ChunkOrder, Schedule, ScheduleKind};
use crate::sharding::Sharding;
use crate::workload::Workload;
use crate::zero::ZeroStage;

/// Formats in which ZeRO 3 exchanges what it has partitioned (`MixedPrecision` of PyTorch's FSDP: `param_dtype`,
/// `reduce_dtype`); absent ones are that of the parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExchangeFormats {
    /// Of gathered parameters, which operations find in it and whose gradients have it.
    pub gather: Option<Dtype>,
    /// Of gradients on their way to their owners; that of the gathered parameters when absent.
    pub reduce: Option<Dtype>,
}

/// How the job is spread over GPUs.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Data-parallel ranks.
    pub data: u64,
    /// Ranks that share each layer.
    pub tensor: u64,
    /// Whether what lies between the shared layers is divided along the sequence.
    pub sequence_parallel: bool,
    /// Ranks that share each sequence.
    pub context: u64,
    /// How they attend to each other's tokens.
    pub context_method: ContextMethod,
    /// Ranks over which the routed experts are spread. They are taken from those of the other dimensions on a stage:
    /// `data * context * tensor` ranks are `expert_tensor` times `expert` times the copies of all experts.
    pub expert: u64,
    /// Ranks that share each expert; as many as share a layer, or what is left of them, when absent.
    pub expert_tensor: Option<u64>,
    /// Pipeline stages.
    pub pipeline: u64,
    /// Chunks of layers on each stage.
    pub virtual_pipeline: u64,
    /// Order of forwards and backwards on the stages.
    pub schedule: ScheduleKind,
    /// A schedule written by the user, instead of the named one.
    pub written: Option<Schedule>,
    /// Micro-batches that interleaved 1F1B takes through a chunk before the next one; as many as stages when absent
    /// (Megatron-LM's `microbatch_group_size_per_virtual_pipeline_stage`).
    pub micro_batch_group: Option<u32>,
    /// Blocks on each stage, or with several chunks on each virtual stage; spread evenly when absent.
    pub stages: Option<Vec<u64>>,
    /// Samples of a micro-batch on each data-parallel rank, which add up to those of equal ones; equal when absent.
    pub micro_batches: Option<Vec<u64>>,
    /// Micro-batches a step of each data-parallel rank, which add up to those of equal ones; equal when absent.
    pub micro_batch_counts: Option<Vec<u64>>,
    /// What is partitioned over the data-parallel ranks.
    pub zero: ZeroStage,
    /// Over which of these ranks.
    pub sharding: Sharding,
    /// How ranks are counted and on which GPUs they sit.
    pub rank_order: RankOrder,
    /// Formats in which ZeRO 3 gathers and reduces.
    pub exchange: ExchangeFormats,
    /// How ZeRO 3 fetches parameters.
    pub fetch: Fetch,
    /// Bytes of parameters that ZeRO 1 and 2 gather at a time after the update; all when absent (DeepSpeed's
    /// `allgather_bucket_size`).
    pub gather_bucket_bytes: Option<u64>,
    /// Gradient bytes that are reduced together; the framework's default when absent.
    pub bucket_bytes: Option<u64>,
    /// Whether gradients live inside the reduction buckets (PyTorch DDP's option of that name; its default is
    /// false, and then every bucket is a second copy of its gradients).
    pub gradient_as_bucket_view: bool,
    /// Whether the collectives of tensor parallelism run beside the products of backward that do not need them.
    pub tensor_overlap: bool,
    /// Whether products run in pieces beside the gathers and scattered sums of tensor parallelism.
    pub tensor_pieces: bool,
    /// Whether the exchanges of a forward that DualPipe puts next to a backward run beside that one's kernels, and the other
    /// way round.
    pub pair_overlap: bool,
    /// Whether the ranks that share a layer send a part each of what goes from stage to stage, and gather it after it has
    /// arrived, instead of all sending all of it (Narayanan et al. 2021, section 4.1).
    pub scatter_gather: bool,
    /// Whether gradients are reduced while backward goes on; otherwise after all of it.
    pub gradient_overlap: bool,
    /// What is kept off the GPUs.
    pub offload: Offload,
    /// Play every rank, even those that do the same.
    pub explicit: bool,
}

impl Plan {
    /// Whether data-parallel ranks differ in their micro-batches.
    pub fn has_uneven_batches(&self) -> bool {
        self.micro_batches.is_some() || self.micro_batch_counts.is_some()
    }

    /// Ranks of all dimensions together.
    pub fn ranks(&self) -> u64 {
        self.lanes().saturating_mul(self.pipeline)
    }

    /// Ranks of a stage.
    pub fn lanes(&self) -> u64 {
        self.replicas().saturating_mul(self.tensor)
    }

    /// Ranks that have the same part of the layers and different tokens: they reduce gradients together, and ZeRO
    /// partitions over them.
    pub fn replicas(&self) -> u64 {
        self.data.saturating_mul(self.context)
    }

    /// How virtual stages are laid over the stages.
    pub fn chunk_order(&self) -> ChunkOrder {
        self.written.as_ref().map_or(self.schedule.chunk_order(), |written| written.chunk_order)
    }

    /// Whether each stage holds its layers and those of the stage opposite to it.
    pub fn from_both_ends(&self) -> bool {
        self.chunk_order() == ChunkOrder::FromBothEnds
    }

    /// Virtual stages among which all layers are divided.
    pub fn layer_stages(&self) -> u64 {
        let chunks = if self.from_both_ends() { 1 } else { self.virtual_pipeline };
        self.pipeline.saturating_mul(chunks)
    }

    /// Ranks over which ZeRO partitions: of [`Plan::replicas`] all, or those of a group.
    pub fn shard_group(&self) -> u64 {
        self.sharding.group.unwrap_or_else(|| self.replicas())
    }

    /// Groups that hold all states once each.
    pub fn shard_copies(&self) -> u64 {
        self.replicas() / self.shard_group().max(1)
    }

    /// Ranks over which an activation between stages is divided while it is sent. Sequence parallelism has divided it
    /// already.
    pub fn senders(&self) -> u64 {
        if self.scatter_gather && !self.sequence_parallel { self.tensor.max(1) } else { 1 }
    }

    /// Ranks that share each expert: as given, or the most of [`Plan::tensor`] that leave room for [`Plan::expert`]
    /// (Megatron-LM's default is the tensor-parallel size).
    pub fn expert_tensor(&self) -> u64 {
        let fits = |ways: &u64| {
            self.tensor.is_multiple_of(*ways)
                && self.lanes().is_multiple_of(ways.saturating_mul(self.expert.max(1)))
        };
        self.expert_tensor.unwrap_or_else(|| (1..=self.tensor).rev().find(fits).unwrap_or(1))
    }

    /// Whether experts have groups of their own.
    pub fn spreads_experts(&self) -> bool {
        self.expert > 1 || self.expert_tensor.is_some_and(|ways| ways != self.tensor)
    }

    /// How the ranks of a stage divide the parameters.
    pub fn division(&self) -> Division {
        let load_millionths = ExpertParallel::BALANCED;
        let spread = ExpertParallel { size: self.expert, tensor: self.expert_tensor(), load_millionths };
        Division { tensor: self.tensor, expert: self.spreads_experts().then_some(spread) }
    }

    /// The work of one rank on a micro-batch in a layer, as a model with so many routed experts is asked for it: of the rank
    /// whose experts get the most tokens, unless the router has been drawn.
    pub fn shape(&self, workload: &Workload, experts: u64, layer: usize) -> WorkShape {
        let load_millionths = workload.router.layer_load_millionths(layer, experts, self.expert);
        let expert = self.division().expert.map(|it| ExpertParallel { load_millionths, ..it });
        WorkShape { expert, ..self.balanced_shape(workload) }
    }

    /// The same with as many tokens for every expert.
    pub fn balanced_shape(&self, workload: &Workload) -> WorkShape {
        let tensor = TensorParallel { size: self.tensor, sequence: self.sequence_parallel };
        let context = ContextParallel { size: self.context, method: self.context_method };
        let sequence_length = context.part(workload.sequence_length);
        let expert = self.division().expert;
        let formats = workload.formats(self.gathered_format(workload));
        WorkShape { tensor, context, sequence_length, expert, formats, ..workload.shape() }
    }

    /// Format of parameters as operations find them.
    pub fn gathered_format(&self, workload: &Workload) -> Dtype {
        if workload.wide_parameters {
            return workload.precision.storage();
        }
        let given = self.exchange.gather.filter(|_| self.zero == ZeroStage::Three && self.replicas() > 1);
        given.unwrap_or(workload.parameter_format())
    }

    /// Format in which ZeRO 3 reduces gradients.
    pub fn reduced_format(&self, workload: &Workload) -> Dtype {
        let kept = if workload.wide_gradients { Dtype::Fp32 } else { self.gathered_format(workload) };
        self.exchange.reduce.unwrap_or(kept)
    }

    /// Gradient bytes reduced together.
    ///
    /// Without ZeRO this is PyTorch DDP's `bucket_cap_mb` (25 MiB); with ZeRO 1 and 2 it is DeepSpeed's
    /// `reduce_bucket_size`, 5e8 values. Megatron-LM's, with and without its distributed optimizer, is the larger of 4e7
    /// values and 1e6 for each data-parallel rank (`DistributedDataParallelConfig.bucket_size`). nanotron reduces in PyTorch
    /// DDP's buckets with ZeRO 1 as well. ZeRO 3 reduces layer by layer. What does not run beside backward is reduced
    /// in one piece.
    pub fn bucket_cap(&self, workload: &Workload) -> u64 {
        self.bucket_bytes.unwrap_or(match self.zero {
            _ if !self.gradient_overlap => u64::MAX,
            ZeroStage::Zero | ZeroStage::One if workload.framework == Framework::Megatron => {
                let values = self.replicas().saturating_mul(1_000_000).max(40_000_000);
                values.saturating_mul(workload.gradients().bytes())
            }
            // Of gradients as they are made, which are reduced in the format in which they are kept.
            ZeroStage::Zero | ZeroStage::One if workload.framework == Framework::Nanotron => {
                (25 << 20) / workload.parameter_format().bytes() * workload.gradients().bytes()
            }
            ZeroStage::Zero => 25 << 20,
            _ => 500_000_000 * workload.gradients().bytes(),
        })
    }
}
