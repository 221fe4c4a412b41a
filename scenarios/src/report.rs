//! The result of a run, as saved and as printed: `steptime.report/1`, and its timeline, `steptime.timeline/1`.
//!
//! Field names and their order are the contract of the JSON document. Nothing here differs between two runs
//! of the same input.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::cost::CostReport;
use crate::remedy::Remedy;

/// Identifies the form of [`Report`].
pub const REPORT_SCHEMA: &str = "steptime.report/1";
/// Identifies the form of [`Timeline`].
pub const TIMELINE_SCHEMA: &str = "steptime.timeline/1";

/// Whether the run fits into memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every allocation of every rank fits.
    Fits,
    /// Some allocation does not fit: see [`Report::out_of_memory`]; for a path of vehicles, some partition:
    /// see [`Report::infeasible`].
    OutOfMemory,
}

/// One predicted step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`REPORT_SCHEMA`].
    pub schema: String,
    /// The scenario's name.
    pub name: String,
    /// Whether it fits.
    pub verdict: Verdict,
    /// Seconds per optimizer step; null when nothing can run.
    pub step_time_s: Option<f64>,
    /// 80 % interval of the step time, seconds.
    pub step_time_interval_s: Option<[f64; 2]>,
    /// How steps differ; there if the scenario says that they do. The other numbers are those of the median step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variability: Option<VariabilityReport>,
    /// Samples a second over all GPUs.
    pub samples_per_s: Option<f64>,
    /// Tokens a second over all GPUs; null where samples are not made of tokens.
    pub tokens_per_s: Option<f64>,
    /// Tokens a second and GPU.
    pub tokens_per_s_per_gpu: Option<f64>,
    /// Model FLOPs over peak (recomputation left out; PaLM, appendix B).
    pub model_flops_utilization: Option<f64>,
    /// Executed FLOPs over peak (recomputation counted).
    pub hardware_flops_utilization: Option<f64>,
    /// Where the step goes, mean over ranks; sums to the step time.
    pub time_breakdown_s: TimeBreakdown,
    /// Seconds of an epoch, from the start of the loader's workers to their end; there if the scenario says how many
    /// samples an epoch has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_to_end_s: Option<f64>,
    /// What the loader does; there if the scenario has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<InputReport>,
    /// The fullest rank at its fullest moment.
    pub peak_memory: PeakMemory,
    /// The first allocation that does not fit.
    pub out_of_memory: Option<OutOfMemory>,
    /// Changes under which the job fits, where it does not and they were looked for.
    #[serde(default)]
    pub remedies: Vec<Remedy>,
    /// Why a component model cannot be placed.
    pub infeasible: Option<Infeasible>,
    /// One entry a pipeline stage (or vehicle).
    pub stages: Vec<Stage>,
    /// The placement on a path of vehicles, and its time by the serial formula.
    pub vehicle_path: Option<VehiclePath>,
    /// GPUs (or vehicles) of the job.
    pub gpus: u64,
    /// Parameters of the model.
    pub parameters: Parameters,
    /// FLOPs of one step over all GPUs, recomputation included.
    pub flops_per_step: f64,
    /// Money and energy; there if the scenario has prices or powers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<CostReport>,
    /// What the prediction rests on.
    pub provenance: Vec<Provenance>,
    /// Version of the program.
    pub version: String,
    /// Names the scenario by all that it says, its files included ([`crate::Draft::digest`]); null where it was not read
    /// from a document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scenario_hash: Option<String>,
}

impl Report {
    /// The seed of the steps that differ, if they do.
    pub fn seed(&self) -> Option<u64> {
        self.variability.map(|it| it.seed)
    }

    /// What makes it again, for files that are made from it: pairs of a name and a text.
    pub fn facts(&self) -> Vec<(String, String)> {
        let seed = self.seed().map_or_else(|| "none".to_owned(), |seed| seed.to_string());
        let hash = self.scenario_hash.clone().unwrap_or_else(|| "unknown".to_owned());
        [
            ("steptime", self.version.clone()),
            ("scenario", self.name.clone()),
            ("scenario_hash", hash),
            ("seed", seed),
        ]
        .map(|(name, text)| (name.to_owned(), text))
        .to_vec()
    }

    /// The same with rates `factor` times as high.
    pub(crate) fn with_rates(self, factor: f64) -> Self {
        let rate = |value: Option<f64>| value.map(|value| value * factor);
        Self {
            samples_per_s: rate(self.samples_per_s),
            tokens_per_s: rate(self.tokens_per_s),
            tokens_per_s_per_gpu: rate(self.tokens_per_s_per_gpu),
            model_flops_utilization: rate(self.model_flops_utilization),
            hardware_flops_utilization: rate(self.hardware_flops_utilization),
            ..self
        }
    }

    /// The same with the stages' shares of the step `factor` times as large.
    pub(crate) fn with_shares(mut self, factor: f64) -> Self {
        for stage in &mut self.stages {
            stage.busy_fraction *= factor;
            stage.bubble_fraction *= factor;
            stage.communication_fraction *= factor;
        }
        self
    }
}

/// Seconds of the step by cause, mean over ranks; see `docs/report.md` for the definition of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TimeBreakdown {
    /// Kernels of forward and backward.
    pub compute: f64,
    /// Waiting for collectives or transfers in flight.
    pub exposed_communication: f64,
    /// Waiting for another pipeline stage to produce.
    pub pipeline_bubble: f64,
    /// Waiting for the host to issue work.
    pub host: f64,
    /// Waiting for input samples.
    pub data_loading: f64,
    /// Parameter update and gradient norm.
    pub optimizer: f64,
    /// Waiting for what is offloaded, on its way or updated by the host.
    pub offload: f64,
    /// Anything else.
    pub other: f64,
}

impl TimeBreakdown {
    /// Part by part with another.
    pub(crate) fn with(&self, other: &Self, combine: impl Fn(f64, f64) -> f64) -> Self {
        Self {
            compute: combine(self.compute, other.compute),
            exposed_communication: combine(self.exposed_communication, other.exposed_communication),
            pipeline_bubble: combine(self.pipeline_bubble, other.pipeline_bubble),
            host: combine(self.host, other.host),
            data_loading: combine(self.data_loading, other.data_loading),
            optimizer: combine(self.optimizer, other.optimizer),
            offload: combine(self.offload, other.offload),
            other: combine(self.other, other.other),
        }
    }

    /// Names and values in the order of the document.
    pub fn entries(&self) -> [(&'static str, f64); 8] {
        [
            ("compute", self.compute),
            ("exposed_communication", self.exposed_communication),
            ("pipeline_bubble", self.pipeline_bubble),
            ("host", self.host),
            ("data_loading", self.data_loading),
            ("optimizer", self.optimizer),
            ("offload", self.offload),
            ("other", self.other),
        ]
    }
}

/// Order statistics over the played steps: the smallest value that a tenth, half or nine tenths do not exceed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread<T> {
    /// A tenth of the values are at most this.
    pub p10: T,
    /// Half of them.
    pub median: T,
    /// Nine tenths of them.
    pub p90: T,
}

impl<T> From<[T; 3]> for Spread<T> {
    fn from([p10, median, p90]: [T; 3]) -> Self {
        Self { p10, median, p90 }
    }
}

/// Steps that differ from each other.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct VariabilityReport {
    /// Steps that were played.
    pub repetitions: u32,
    /// What chose their random numbers.
    pub seed: u64,
    /// Seconds a step.
    pub step_time_s: Spread<f64>,
    /// Most bytes in use on a device in a step: reserved plus what lives outside the allocator.
    pub peak_device_bytes: Spread<u64>,
    /// Share of the steps in which a device's memory does not suffice.
    #[serde(default)]
    pub out_of_memory_fraction: f64,
}

/// What the loader of samples does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct InputReport {
    /// Seconds from the start of an epoch until the training process holds its first batch: nothing overlaps them.
    pub first_batch_s: f64,
    /// Samples a second that all loaders together could deliver; null if loading takes no time.
    pub loader_samples_per_s: Option<f64>,
}

/// Memory of the fullest rank.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeakMemory {
    /// Bytes in live tensors at the peak.
    pub allocated_bytes: u64,
    /// Bytes that the allocator holds at the peak.
    pub reserved_bytes: u64,
    /// Bytes in use on the device: reserved plus what lives outside the allocator.
    pub device_bytes: u64,
    /// Bytes that the device has for the job.
    pub capacity_bytes: u64,
    /// Bytes in live tensors after the step.
    pub after_step_bytes: u64,
    /// Rank that this is about.
    pub rank: u64,
    /// Seconds into the step.
    pub at_s: f64,
    /// Bytes by category at that moment: parameters, gradients, `optimizer_states`, activations, buffers,
    /// workspace, context, fragmentation.
    pub breakdown_bytes: IndexMap<String, u64>,
    /// What hosts hold; there if anything is offloaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostMemory>,
}

/// Memory of the node whose host holds the most, over its ranks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostMemory {
    /// Number of the node.
    pub node: u64,
    /// Bytes at the fullest moment.
    pub peak_bytes: u64,
    /// Bytes of memory that the node has.
    pub capacity_bytes: u64,
    /// Bytes of the peak that are page-locked.
    pub pinned_bytes: u64,
    /// Bytes by what they are.
    pub breakdown_bytes: IndexMap<String, u64>,
    /// Bytes on the drives of the fullest node; there if any are used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nvme_bytes: Option<u64>,
    /// Bytes that its drives have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nvme_capacity_bytes: Option<u64>,
}

/// The first allocation that does not fit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutOfMemory {
    /// Rank that runs out.
    pub rank: u64,
    /// Seconds into the step.
    pub at_s: f64,
    /// Tensor that was asked for.
    pub tensor: String,
    /// Its size.
    pub requested_bytes: u64,
    /// How much was missing.
    pub short_by_bytes: u64,
    /// The layer that the tensor belongs to; null of what belongs to none.
    #[serde(default)]
    pub layer: Option<String>,
    /// Bytes that the allocator holds and cannot give: cached in blocks that are too small, or still in use by streams.
    #[serde(default)]
    pub unusable_bytes: u64,
    /// Bytes in live tensors at that moment.
    #[serde(default)]
    pub allocated_bytes: u64,
    /// Step of the job, from 0: the optimizer's states are there from the end of the first one on.
    #[serde(default)]
    pub step: u64,
}

/// A partition that fits on no device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Infeasible {
    /// Partition that cannot be placed.
    pub partition: String,
    /// What it needs.
    pub required_bytes: u64,
    /// The device with the most room left, when the partition was tried.
    pub device: String,
    /// The room left there.
    pub available_bytes: u64,
    /// The difference.
    pub short_by_bytes: u64,
    /// The whole story in words.
    pub reason: String,
}

/// Partitions on a path of vehicles, and what the source's serial formula says of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VehiclePath {
    /// Who placed the partitions: `greedy` or `given`.
    pub placement: String,
    /// Vehicles in the order of the path.
    pub path: Vec<String>,
    /// Partitions of each vehicle, in the order of the path.
    pub assignment: IndexMap<String, Vec<String>>,
    /// Seconds by the serial formula: nothing overlaps, one batch.
    pub serial_time_s: f64,
    /// Its compute.
    pub serial_compute_s: f64,
    /// Its communication.
    pub serial_communication_s: f64,
}

/// One pipeline stage, or one vehicle of a path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// Number of the stage, from 0.
    pub stage: u64,
    /// What plays it: GPU name or vehicle.
    pub device: String,
    /// Ranks of the stage.
    pub ranks: Vec<u64>,
    /// Layers, as `first..last` names or partition names.
    pub layers: Vec<String>,
    /// Parameters held by one rank before any partitioning.
    pub parameters: u64,
    /// Peak bytes in live tensors.
    pub peak_allocated_bytes: u64,
    /// Peak bytes held by the allocator.
    pub peak_reserved_bytes: u64,
    /// Bytes in live tensors when the step has ended.
    pub after_step_bytes: u64,
    /// Most micro-batches in flight (forward done, backward not).
    pub in_flight_micro_batches: u64,
    /// Share of the step in kernels.
    pub busy_fraction: f64,
    /// Share of the step waiting for other stages.
    pub bubble_fraction: f64,
    /// Share of the step waiting for communication.
    pub communication_fraction: f64,
}

/// Parameter counts of the whole model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameters {
    /// All of them; tied ones once. Zero for component models, whose inside is not known.
    pub total: u64,
    /// Those with gradients.
    pub trainable: u64,
    /// Those that a token uses.
    pub active: u64,
}

/// What one part of the prediction rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// Part of the prediction.
    pub what: String,
    /// `measured`, `fitted`, `data_sheet`, `formula` or `assumption`.
    pub kind: String,
    /// Where it comes from.
    pub source: String,
    /// Known error of that source, in words; empty where none is known.
    pub error: String,
}

/// Everything that happened in the step: what timelines, Gantt charts and memory curves are drawn from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timeline {
    /// [`TIMELINE_SCHEMA`].
    pub schema: String,
    /// The scenario's name.
    pub name: String,
    /// Seconds.
    pub step_time_s: f64,
    /// The ranks that were played (one for each kind of rank when folded).
    pub ranks: Vec<TimelineRank>,
}

/// One rank of a [`Timeline`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TimelineRank {
    /// Rank number.
    pub rank: u64,
    /// Pipeline stage.
    pub stage: u64,
    /// Ranks that it stands for, itself among them: those that do the same at the same time are played once.
    #[serde(default = "alone")]
    pub multiplicity: u64,
    /// Device name (GPU or vehicle).
    pub device: String,
    /// Names of the streams; `host` is the last one.
    pub streams: Vec<String>,
    /// What the streams did, sorted by stream, then start. Consecutive kernels of one layer and pass are one
    /// span.
    pub spans: Vec<TimelineSpan>,
    /// Bytes by category over time; categories in the order of `memory_categories`.
    pub memory: Vec<MemoryPoint>,
    /// Names of the memory categories.
    pub memory_categories: Vec<String>,
    /// Bytes of the device that are taken, over a settled step: by the allocator's cache, the context and communicators.
    /// Empty where no allocator was replayed.
    #[serde(default)]
    pub reserved: Vec<LevelPoint>,
    /// The request that the device has no memory for; null where there is none.
    #[serde(default)]
    pub failed_request: Option<FailedRequest>,
    /// Bytes that the device has for the job.
    pub capacity_bytes: u64,
}

/// A rank that stands for itself.
fn alone() -> u64 {
    1
}

/// One stretch of activity on a stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TimelineSpan {
    /// Index into [`TimelineRank::streams`].
    pub stream: u32,
    /// Seconds.
    pub start_s: f64,
    /// Seconds.
    pub end_s: f64,
    /// `forward`, `backward`, `recompute`, `optimizer`, `all_reduce`, `all_gather`, `reduce_scatter`,
    /// `collective` (of a layer, on a stream of its own), `send_receive`, `to_host`, `to_device`, `drive_read`, `drive_write`, `host_optimizer`, `convert`, `waiting`, `host`, `host_sync`, `data_loading`, `copy`, `other`.
    pub kind: String,
    /// What it is, e.g. `block.3`.
    pub name: String,
    /// Micro-batch number from 0; null where it belongs to none.
    pub micro_batch: Option<u64>,
    /// Of a pass on a stage with several chunks of layers, the chunk's number from 0; absent elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunk: Option<u64>,
}

/// Memory of a rank from this moment on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemoryPoint {
    /// Seconds.
    pub at_s: f64,
    /// Bytes by category.
    pub bytes: Vec<u64>,
}

impl MemoryPoint {
    /// Bytes of all categories, or the largest number where no number holds them: documents may say anything.
    pub fn total(&self) -> u64 {
        total(&self.bytes)
    }
}

/// Bytes of all categories, or the largest number.
pub(crate) fn total(bytes: &[u64]) -> u64 {
    bytes.iter().fold(0, |sum, &bytes| sum.saturating_add(bytes))
}

/// A level from this moment on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LevelPoint {
    /// Seconds.
    pub at_s: f64,
    /// Bytes.
    pub bytes: u64,
}

/// A request that the device has no memory for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FailedRequest {
    /// The step, from 0; in the first one the optimizer has no moments yet.
    pub step: u64,
    /// Seconds into it.
    pub at_s: f64,
    /// The tensor.
    pub tensor: String,
    /// Bytes asked for.
    pub requested_bytes: u64,
    /// Bytes that the device would hold with the segment that it did not give.
    pub needed_bytes: u64,
}
