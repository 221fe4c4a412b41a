//! Lowering: a model, a plan and a cluster become a world of programs that the engine can play.

mod checks;
mod cost;
mod host_ports;
mod least;
mod operations;
mod overlap;
mod pieces;
mod placement;
mod pricing;
mod rates;
mod routes;
mod schedule;
mod seats;
mod stage;
mod trace;
mod views;
mod world;

pub use least::{LayerTimes, layer_times};
pub use operations::{PricedOperation, operations};
pub use rates::stage_rates;

use std::cell::OnceCell;
use std::ops::Range;

use steptime_clusters::{Basis, Cluster, Gpu};
use steptime_core::World;
use steptime_models::{AttentionKind, ContextMethod, LayerWork, Model, Operation};

use self::cost::ModelCost;
use self::placement::Layout;
use self::pricing::{Priced, Pricing};
pub use self::stage::MemoryMarks;
use self::stage::{Chunk, StageInput, StageProgram};
pub use self::trace::{TraceNode, TraceWork, lower_trace};
use self::views::Views;
use crate::error::PlanError;
use crate::offload::{HostUse, Store};
use crate::partition::partition_layers;
use crate::plan::Plan;
use crate::router::Router;
use crate::schedule::{ChunkOrder, Schedule};
use crate::workload::{Task, Workload};
use crate::zero::{StateBytes, ZeroStage};

/// Ranks that one job may have when every rank is played.
const MOST_RANKS: u64 = 1 << 20;
/// Segments that the caching allocator takes from the device are multiples of this (PyTorch `kSmallBuffer`).
pub const SEGMENT: u64 = 2 << 20;
/// Micro-batches that a step may have.
pub const MOST_MICRO_BATCHES: u64 = 1 << 16;
/// Records that the programs of a job may have, at most 8 bytes each and twice as much for what they refer to.
const MOST_RECORDS: u64 = 1 << 25;
/// Records that all ranks together may play: some minutes.
const MOST_PLAYED: u64 = 1 << 33;

/// What programs say of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grain {
    /// Nothing.
    Times,
    /// What is held when, in few pieces.
    Curve,
    /// Every block that the framework asks its allocator for.
    Blocks,
    /// The same without the names of the layers that they belong to.
    Sizes,
}

impl Grain {
    /// Whether somebody may look at single spans.
    fn has_spans(self) -> bool {
        self == Self::Curve
    }
}

/// A world, and what its ranks and stages stand for.
#[derive(Debug)]
pub struct Lowered {
    /// What the engine plays.
    pub world: World,
    /// The ranks in the world, in its order.
    pub ranks: Vec<PlayedRank>,
    /// What each stage holds and does.
    pub stages: Vec<StageFacts>,
    /// The order of passes.
    pub schedule: Schedule,
    /// Whether one rank of each stage stands for all.
    pub folded: bool,
    /// FLOPs of forward and backward of the whole job, without recomputation
    /// ([`steptime_models::Kernel::model_flops`]).
    pub model_flops: f64,
    /// The same with recomputation.
    pub executed_flops: f64,
    /// The weakest basis among the prices used.
    pub basis: Basis,
    /// For each stage where its allocations and frees belong.
    pub marks: Vec<MemoryMarks>,
    /// For each stage the bytes that its ranks' communicators take outside the framework's allocator.
    pub communicators: Vec<u64>,
}

/// A rank that is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlayedRank {
    /// Its number in the job.
    pub rank: u64,
    /// Its pipeline stage.
    pub stage: usize,
    /// Ranks that it stands for.
    pub multiplicity: u64,
    /// The kind of its GPU ([`Cluster::kind`]).
    pub kind: usize,
    /// Samples of its micro-batches, where ranks differ in them.
    pub samples: Option<u64>,
    /// Its micro-batches, where ranks differ in their number.
    pub count: Option<u64>,
}

/// What a stage holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageFacts {
    /// Its layers, chunk by chunk.
    pub layers: Vec<Range<usize>>,
    /// Parameters of a rank before partitioning.
    pub parameters: u64,
    /// Model states that a rank holds on its GPU.
    pub states: StateBytes,
    /// What a rank holds in its host and on drives.
    pub host: HostUse,
    /// Most micro-batches between forward and backward.
    pub in_flight: u64,
}

/// Lowers a job to a world.
///
/// # Errors
/// The plan does not fit the model or the cluster, an operation has no price on the GPU, or a time leaves the
/// range of the clock.
pub fn lower(
    model: &Model,
    cluster: &Cluster,
    plan: &Plan,
    workload: &Workload,
) -> Result<Lowered, PlanError> {
    lower_with(model, cluster, plan, workload, (Grain::Curve, true))
}

/// The same without any account of memory. Times do not differ.
///
/// # Errors
/// As [`lower`].
pub fn lower_times(
    model: &Model,
    cluster: &Cluster,
    plan: &Plan,
    workload: &Workload,
) -> Result<Lowered, PlanError> {
    lower_with(model, cluster, plan, workload, (Grain::Times, true))
}

/// The same with every block by itself that the framework asks its allocator for. Times do not differ.
///
/// # Errors
/// As [`lower`].
pub fn lower_in_detail(
    model: &Model,
    cluster: &Cluster,
    plan: &Plan,
    workload: &Workload,
) -> Result<Lowered, PlanError> {
    lower_with(model, cluster, plan, workload, (Grain::Blocks, true))
}

/// The same in which tensors do not know their layers' names.
pub(crate) fn lower_sizes(
    model: &Model,
    cluster: &Cluster,
    plan: &Plan,
    workload: &Workload,
) -> Result<Lowered, PlanError> {
    lower_with(model, cluster, plan, workload, (Grain::Sizes, true))
}

/// The same with every pass written operation by operation.
#[cfg(test)]
pub(crate) fn lower_plainly(
    model: &Model,
    cluster: &Cluster,
    plan: &Plan,
    workload: &Workload,
    grain: Grain,
) -> Result<Lowered, PlanError> {
    lower_with(model, cluster, plan, workload, (grain, false))
}

fn lower_with(
    model: &Model,
    cluster: &Cluster,
    plan: &Plan,
    workload: &Workload,
    (grain, repeats): (Grain, bool),
) -> Result<Lowered, PlanError> {
    check_sizes(plan, workload)?;
    check_tensor(model, plan)?;
    check_groups(model, plan, workload)?;
    views::check(cluster, plan, workload)?;
    stage::check_offload(model, cluster, plan, workload)?;
    checks::sharding(plan)?;
    checks::pieces(cluster, plan)?;
    let seats = seats::Seats::of(plan)?;
    let layout = placement::layout(cluster, plan, seats.as_ref())?;
    let ranges = partition_layers(model, plan.layer_stages() as usize, plan.stages.as_deref())?;
    let stages = plan.pipeline as usize;
    let (experts, placements) = (model.experts(), layout.placements(0));
    let views = Views::of(cluster, plan, layout);
    let pricing = Pricing { model, cluster, plan, workload, experts, placements, chunks: &ranges };
    let priced = pricing.all(&views)?;
    let of_stages = priced.iter().filter_map(|views| views.first()).map(|it| &*it.costs).collect();
    let given = schedule::Given { cluster, plan, workload, layout, costs: of_stages, ranges: &ranges };
    let schedules = given.schedules()?;
    let (schedule, ranges) = (&schedules[0], &ranges);
    let Some(costs) = priced.iter().flatten().next().map(|it| &*it.costs) else {
        return Err(PlanError::TooLarge { what: "ranks", found: 0, limit: MOST_RANKS });
    };
    let job = Job {
        model,
        cluster,
        plan,
        workload,
        layout,
        schedule,
        schedules: &schedules,
        ranges,
        costs,
        views: &views,
        grain,
        repeats,
    };
    let records = job.records();
    if records > MOST_RECORDS {
        return Err(PlanError::TooManyRecords { records, limit: MOST_RECORDS });
    }
    let mut inputs: Vec<StageInput<'_>> = Vec::with_capacity(stages);
    let mut programs: Vec<Vec<StageProgram>> = Vec::with_capacity(stages);
    for (stage, views) in priced.iter().enumerate() {
        let of_stage: Vec<StageInput<'_>> = views.iter().map(|it| job.stage_input(stage, it)).collect();
        let built = views.iter().zip(&of_stage).map(|(it, input)| stage::build(input, pricing.pricer(it)));
        programs.push(built.collect::<Result<Vec<_>, PlanError>>()?);
        inputs.extend(of_stage.into_iter().next());
    }
    let folded = !plan.explicit
        && views.alike()
        && cluster.topology.is_none()
        && layout.symmetric()
        && host_ports::symmetric(cluster, plan, layout);
    let played = records.saturating_mul(if folded { 1 } else { plan.lanes() });
    if played > MOST_PLAYED {
        return Err(PlanError::TooManyPlayed { records: played, limit: MOST_PLAYED });
    }
    let firsts = || programs.iter().filter_map(|views| views.first());
    let hosts: Vec<HostUse> = firsts().map(|program| program.host.clone()).collect();
    let marks = firsts().map(|stage| stage.marks).collect();
    let (world, ranks) = job.world(programs, folded)?;
    let stages = inputs
        .iter()
        .zip(hosts)
        .map(|(input, host)| StageFacts {
            layers: input.chunks.iter().map(|chunk| chunk.layers.clone()).collect(),
            parameters: input.parameters(),
            states: input.device_states(),
            host,
            in_flight: input.schedule.in_flight(input.stage),
        })
        .collect();
    let (model_flops, executed_flops) = job.flops();
    Ok(Lowered {
        world,
        ranks,
        stages,
        folded,
        model_flops,
        executed_flops,
        basis: costs.basis(),
        communicators: inputs.iter().map(StageInput::communicators).collect(),
        marks,
        schedule: schedule.clone(),
    })
}

/// What the allocator takes from the device are whole segments beside the context; bytes.
fn capacity(gpu: &Gpu) -> u64 {
    let segments = gpu.memory.0.saturating_sub(gpu.context.0) / SEGMENT;
    gpu.context.0 + segments * SEGMENT
}

fn check_sizes(plan: &Plan, workload: &Workload) -> Result<(), PlanError> {
    let limits =
        [("ranks", plan.ranks(), MOST_RANKS), ("micro-batches", workload.accumulation, MOST_MICRO_BATCHES)];
    for (what, found, limit) in limits {
        if found > limit {
            return Err(PlanError::TooLarge { what, found, limit });
        }
    }
    Ok(())
}

/// Whether the model's layers divide among the tensor-parallel ranks.
fn check_tensor(model: &Model, plan: &Plan) -> Result<(), PlanError> {
    match model.tensor_parallel_fault(plan.tensor) {
        Some(message) => Err(PlanError::Tensor { message }),
        None => Ok(()),
    }
}

/// Whether sequences and experts divide among the ranks that share them.
fn check_groups(model: &Model, plan: &Plan, workload: &Workload) -> Result<(), PlanError> {
    if plan.context > 1 {
        let eager = workload.attention == AttentionKind::Eager && plan.context_method == ContextMethod::Ring;
        let heads = model.tensor_parallel_heads().unwrap_or(0) / plan.tensor.max(1);
        let message = match model.context_parallel_fault() {
            Some(message) => Some(message),
            None if eager => {
                Some("a ring of context-parallel ranks needs fused attention (flash)".to_owned())
            }
            None if plan.context_method == ContextMethod::AllToAll && !heads.is_multiple_of(plan.context) => {
                let context = plan.context;
                Some(format!("{heads} heads of a rank do not divide among {context} context-parallel ranks"))
            }
            None => None,
        };
        if let Some(message) = message {
            return Err(PlanError::Context { message });
        }
    }
    if !plan.spreads_experts() {
        return Ok(());
    }
    let (lanes, expert, tensor) = (plan.lanes(), plan.expert, plan.expert_tensor());
    let message = match model.expert_parallel_fault(expert) {
        Some(message) => Some(message),
        None if !lanes.is_multiple_of(expert.saturating_mul(tensor)) => Some(format!(
            "{expert} expert-parallel ranks x {tensor} that share each expert do not divide the {lanes} ranks of a stage"
        )),
        None if plan.tensor > 1 && !plan.sequence_parallel => Some(
            "experts with groups of their own beside tensor parallelism need sequence_parallel = true: else every \
             rank would send the same tokens"
                .to_owned(),
        ),
        None => None,
    };
    message.map_or(Ok(()), |message| Err(PlanError::Expert { message }))
}

struct Job<'a> {
    model: &'a Model,
    cluster: &'a Cluster,
    plan: &'a Plan,
    workload: &'a Workload,
    layout: Layout<'a>,
    /// Of the usual number of micro-batches.
    schedule: &'a Schedule,
    /// Of every number that ranks have, the usual one first.
    schedules: &'a [Schedule],
    ranges: &'a [Range<usize>],
    /// Of the first rank.
    costs: &'a ModelCost,
    views: &'a Views,
    grain: Grain,
    repeats: bool,
}

impl<'a> Job<'a> {
    fn stage_input(&self, stage: usize, priced: &'a Priced<'a>) -> StageInput<'a> {
        let number = stage as u32;
        // Transfers are priced as the first lane sees them; when others cross nodes elsewhere, their flows cross
        // other links, and only the fixed latency is the first lane's.
        // The stage next to a virtual stage, unless it is this one.
        let crosses = |neighbour: Option<usize>| {
            let other = self.schedule.place(neighbour?).0 as u32;
            (other != number).then(|| self.layout.crosses(number.min(other), number.max(other), 0))
        };
        let chunk = |chunk: u32| {
            let at = self.schedule.virtual_stage(stage, chunk);
            let neighbour = |other: Option<usize>| other.map_or(stage, |it| self.schedule.place(it).0);
            Chunk {
                layers: self.ranges[at % self.ranges.len()].clone(),
                neighbours: [neighbour(self.schedule.before(at)), neighbour(self.schedule.after(at))],
                crosses: [crosses(self.schedule.before(at)), crosses(self.schedule.after(at))],
            }
        };
        let chunks = (0..self.schedule.chunks).map(chunk).collect();
        let tied =
            self.model.layers.iter().any(|layer| layer.parameters.iter().any(|p| p.tied && p.trainable));
        StageInput {
            model: self.model,
            cluster: priced.links.own(),
            links: priced.links,
            plan: self.plan,
            workload: &priced.workload,
            costs: &priced.costs,
            short: priced.short.as_deref(),
            grain: self.grain,
            repeats: self.repeats,
            schedule: self.schedule_of(priced.count),
            stage,
            chunks,
            placements: self.layout.placements(number),
            head_stage: self.head_stage() as usize,
            tied_embedding: (tied && self.head_stage() > 0 && !self.twofold())
                .then(|| self.layout.crosses(0, self.head_stage(), 0)),
            opposite: self.twofold().then(|| {
                let opposite = self.layout.pipeline - 1 - number;
                self.layout.crosses(number.min(opposite), number.max(opposite), 0)
            }),
            held: Default::default(),
            owned: OnceCell::default(),
        }
    }

    /// The order of so many micro-batches.
    fn schedule_of(&self, count: u32) -> &'a Schedule {
        self.schedules.iter().find(|it| it.micro_batches == count).unwrap_or(self.schedule)
    }

    /// Whether every layer is there twice, on stages opposite to each other.
    fn twofold(&self) -> bool {
        self.schedule.chunk_order == ChunkOrder::FromBothEnds
    }

    /// Stage of the last layer.
    fn head_stage(&self) -> u32 {
        self.schedule.place(self.ranges.len() - 1).0 as u32
    }

    /// FLOPs of a step over all ranks: without and with recomputation. A step of a large model has more than
    /// 64 bits of them. Where the rank that is played has more than its share of the tokens, others have less.
    fn flops(&self) -> (f64, f64) {
        let shape = self.plan.balanced_shape(self.workload);
        let uneven = self.workload.router != Router::Uniform;
        let mut model = 0_u128;
        let mut again = 0_u128;
        let mut balanced: Option<(u32, LayerWork)> = None;
        for (layer, facts) in self.model.layers.iter().enumerate() {
            let cost = self.costs.layer(layer);
            let work = if uneven {
                if balanced.as_ref().is_none_or(|(signature, _)| *signature != facts.signature) {
                    balanced = Some((facts.signature, self.model.work(layer, &shape)));
                }
                balanced.as_ref().map_or(&cost.work, |(_, work)| work)
            } else {
                &cost.work
            };
            let one = |operation: &Operation| u128::from(operation.kernel.model_flops().0);
            model += work.forward.iter().map(one).sum::<u128>();
            if self.workload.task == Task::Training {
                model += work.backward.iter().map(one).sum::<u128>();
                again += cost.recomputed.iter().filter_map(|&op| work.forward.get(op)).map(one).sum::<u128>();
            }
        }
        let samples = u128::from(self.workload.samples()) * u128::from(self.plan.lanes());
        let first = self.views.of_stage.first().and_then(|views| views.first()?.samples);
        let each = u128::from(first.unwrap_or(self.workload.micro_batch_size).max(1));
        ((model * samples / each) as f64, ((model + again) * samples / each) as f64)
    }

    /// Records of all programs, about: kernels, and a birth and a death of every saved tensor, a micro-batch.
    fn records(&self) -> u64 {
        let of_layer = |layer: usize| {
            let cost = self.costs.layer(layer);
            let kernels = cost.forward.len() + cost.backward.len() + cost.recomputed.len();
            (kernels + 2 * cost.work.saved.len() + 16) as u64
        };
        let layers: u64 = (0..self.model.layers.len()).map(of_layer).sum();
        layers.saturating_mul(self.workload.accumulation).saturating_add(self.host_updates())
    }

    /// Records of the host's updates, at most: copies, conversions, drives and waits of each group of tensors.
    fn host_updates(&self) -> u64 {
        let offload = &self.plan.offload;
        if offload.optimizer == Store::Device || self.plan.zero != ZeroStage::Three {
            return 0;
        }
        let tensors: usize = self.model.layers.iter().map(|layer| layer.parameters.len()).sum();
        let full = self.model.parameters() / offload.sub_group.max(1);
        32 * full.saturating_add(2).min(tensors as u64)
    }
}
