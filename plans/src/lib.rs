//! Parallelism plans of steptime: who holds what, who does what when, and the lowering of a model, a plan and
//! a cluster to programs that the engine plays.

mod bucket;
pub mod classes;
mod clipping;
mod error;
mod fetch;
mod input;
mod lower;
mod memory;
mod offload;
mod partition;
mod plan;
mod rank_order;
mod recompute;
mod router;
mod schedule;
mod sharding;
mod swift;
mod variation;
mod workload;
mod zero;

#[cfg(test)]
mod tests;

pub use bucket::{Bucket, Holding, Share, buckets};
pub use clipping::Clipping;
pub use error::PlanError;
pub use fetch::{BackwardPrefetch, ByValues, Fetch, FsdpVersion};
pub use input::{BatchTime, Epoch, Loader, Loading, MOST_WORKERS};
pub use lower::{
    LayerTimes, Lowered, MOST_MICRO_BATCHES, MemoryMarks, PlayedRank, PricedOperation, SEGMENT, StageFacts,
    TraceNode, TraceWork, layer_times, lower, lower_in_detail, lower_times, lower_trace, operations,
    stage_rates,
};
pub use memory::{
    AllocatorSettings, BlockTrace, Moment, PlayedJob, RankMemory, Shortage, Told, Traced, Varied, memory_of,
    memory_told, play, replayed_micro_batches, surely_short, trace_of,
};
pub use offload::{HostTensor, HostUse, Offload, Stashed, Store, page_locked};
pub use partition::{balanced_stages, partition_layers};
pub use plan::{ExchangeFormats, Plan};
pub use rank_order::{Dimension, RankOrder};
pub use recompute::{CheckpointedBlocks, Checkpointing, RecomputedModule, RecomputedModules};
pub use router::Router;
pub use schedule::{
    Action, ChunkOrder, PassCost, Pipeline, Schedule, ScheduleError, ScheduleKind, StageTimes, TimedPass,
    WrittenScheduleError,
};
pub use sharding::Sharding;
pub use swift::*;
pub use variation::{Busiest, LinkOwner, Quantiles, Repetition, SlowLink, Straggler, Stragglers, Variation};
pub use workload::{Execution, OptimizerImplementation, OptimizerKind, Precision, Task, Workload};
pub use zero::{Held, StateBytes, ZeroStage, state_bytes};
