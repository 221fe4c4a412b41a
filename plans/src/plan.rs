//! A parallelism plan over the GPUs of a cluster.

use steptime_models::{TensorParallel, WorkShape};

use crate::schedule::{Schedule, ScheduleKind};
use crate::workload::Workload;
use crate::zero::ZeroStage;

/// How the job is spread over GPUs.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Data-parallel ranks.
    pub data: u64,
    /// Ranks that share each layer.
    pub tensor: u64,
    /// Whether what lies between the shared layers is divided along the sequence.
    pub sequence_parallel: bool,
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
    /// What is partitioned over the data-parallel ranks.
    pub zero: ZeroStage,
    /// Gradient bytes that are reduced together; the framework's default when absent.
    pub bucket_bytes: Option<u64>,
    /// Whether gradients live inside the reduction buckets (PyTorch DDP's option of that name; its default is
    /// false, and then every bucket is a second copy of its gradients).
    pub gradient_as_bucket_view: bool,
    /// Whether the collectives of tensor parallelism run beside the products of backward that do not need them.
    pub tensor_overlap: bool,
    /// Whether gradients are reduced while backward goes on; otherwise after all of it.
    pub gradient_overlap: bool,
    /// Play every rank, even those that do the same.
    pub explicit: bool,
}

impl Plan {
    /// Ranks of all dimensions together.
    pub fn ranks(&self) -> u64 {
        self.data.saturating_mul(self.tensor).saturating_mul(self.pipeline)
    }

    /// The work of one rank on a micro-batch, as the model is asked for it.
    pub fn shape(&self, workload: &Workload) -> WorkShape {
        let tensor = TensorParallel { size: self.tensor, sequence: self.sequence_parallel };
        WorkShape { tensor, ..workload.shape() }
    }

    /// Gradient bytes reduced together.
    ///
    /// Without ZeRO this is PyTorch DDP's `bucket_cap_mb` (25 MiB); with ZeRO 1 and 2 it is DeepSpeed's
    /// `reduce_bucket_size`, 5e8 values. ZeRO 3 reduces layer by layer. What does not run beside backward is reduced
    /// in one piece.
    pub fn bucket_cap(&self, workload: &Workload) -> u64 {
        self.bucket_bytes.unwrap_or(match self.zero {
            _ if !self.gradient_overlap => u64::MAX,
            ZeroStage::Zero => 25 << 20,
            _ => 500_000_000 * workload.gradients().bytes(),
        })
    }
}
