//! What a caching allocator makes of a job: every allocation and free of a rank in the order of its host, through
//! [`steptime_core::allocator`].
//!
//! A job is lowered once more, with every block by itself, and played for the moments at which the host asks for and
//! gives back memory and at which streams get there: a block that a collective has used is free when the collectives'
//! stream has passed it, and a host that runs far ahead of the device takes new memory meanwhile. Then each stage's rank
//! is replayed over two steps, in the first of which the optimizer makes its moments after backward: what is fragmented
//! by that stays so.
//!
//! Micro-batches in the middle of a step repeat each other. So many are played that every stage holds as many at once as
//! in the whole step, and a few more.

mod replay;
mod trace;

use rayon::prelude::*;
use steptime_clusters::Cluster;
use steptime_core::allocator::Config;
use steptime_core::{
    CATEGORIES, MemoryRequest, NoObserver, Observer, Outcome, Program, SimTime, Stream, TensorSpec, simulate,
};

use steptime_models::Model;

use crate::classes;
use crate::error::PlanError;
use crate::lower::{Lowered, lower_in_detail, lower_sizes, lower_times};
use crate::plan::Plan;
use crate::schedule::ScheduleKind;
use crate::variation::{Repetition, Variation};
use crate::workload::{Task, Workload};
use replay::Replay;

use trace::Blocks;
pub use trace::{BlockTrace, Traced};

/// Steps that are replayed: the second begins with the moments in place.
const STEPS: u32 = 2;
/// Requests of all stages from which on they are replayed on all threads of the current pool: some milliseconds.
pub(crate) const WORTH_THREADS: usize = 1 << 16;
/// Micro-batches beyond those that a stage holds at once.
const BEYOND: u64 = 3;

/// How the allocator is set, and what is outside of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AllocatorSettings {
    /// Its settings; the capacity follows from the GPU.
    pub config: Config,
    /// Part of the device that the process allows itself (`torch.cuda.set_per_process_memory_fraction`).
    pub memory_fraction: Option<f64>,
    /// Whether memory that collectives use is kept by their own references instead of `record_stream`
    /// (`TORCH_NCCL_AVOID_RECORD_STREAMS`): it is free as soon as the host gives it back.
    pub avoid_record_streams: bool,
}

/// A moment in a step that may be longer than the one that was played.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// Since the beginning of the step.
    pub since_begin: SimTime,
    /// Until its end; the better measure of the second half.
    pub until_end: Option<SimTime>,
}

impl Moment {
    /// In a step that ends at `end`, seconds.
    pub fn seconds(&self, end: SimTime) -> f64 {
        self.seconds_of(end.seconds())
    }

    /// In a step of so many seconds.
    fn seconds_of(&self, step: f64) -> f64 {
        let begin = self.since_begin.seconds();
        self.until_end.map_or(begin, |left| (step - left.seconds()).max(0.0))
    }
}

/// The first request that the device has no memory for.
#[derive(Clone, Debug, PartialEq)]
pub struct Shortage {
    /// The tensor, behind the name of its layer.
    pub tensor: String,
    /// Bytes asked for.
    pub requested: u64,
    /// Bytes of the segment that the device did not give.
    pub segment: u64,
    /// Bytes that the device had left.
    pub free: u64,
    /// Bytes reserved and not allocated, of which no block suffices.
    pub unusable: u64,
    /// Bytes allocated.
    pub allocated: u64,
    /// When.
    pub at: Moment,
    /// In which step, from 0.
    pub step: u32,
}

/// Memory of a rank; bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct RankMemory {
    /// Stage of the rank.
    pub stage: usize,
    /// Its number in the job.
    pub rank: u64,
    /// Most in blocks handed out.
    pub allocated: u64,
    /// When that was first so.
    pub at: Moment,
    /// Of that, by category.
    pub by_category: [u64; CATEGORIES],
    /// Most taken from the device.
    pub reserved: u64,
    /// In blocks handed out after the step.
    pub after_step: u64,
    /// CUDA context and loaded kernels.
    pub context: u64,
    /// Buffers of communicators.
    pub communicators: u64,
    /// Times that all cached memory was given back to serve a request.
    pub retries: u64,
    /// Whether the device suffices.
    pub shortage: Option<Shortage>,
}

/// A step that differs from others.
pub type Varied<'a> = (&'a Variation, Repetition);

/// A job with its times, and with what the allocator of a rank of each stage makes of it.
#[derive(Debug)]
pub struct PlayedJob {
    /// What was played; its programs may or may not keep account of memory.
    pub lowered: Lowered,
    /// When everything happened.
    pub outcome: Outcome,
    /// By stage.
    pub memories: Vec<RankMemory>,
}

/// What is wanted of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// How much, when, and of what.
    Everything,
    /// How much; moments and names may be missing.
    Sizes,
}

/// Plays a job and its allocators: in one go, where the step that the allocators need is the whole one.
///
/// # Errors
/// As [`crate::lower`] and [`simulate`].
pub fn play(
    model: &Model,
    cluster: &Cluster,
    plan: &Plan,
    workload: &Workload,
    settings: &AllocatorSettings,
    told: Told,
) -> Result<PlayedJob, PlanError> {
    if !plan.explicit && micro_batches(plan, workload) == workload.accumulation {
        let played = Played::of(model, cluster, plan, workload, None)?;
        let memories = played.replay_all(cluster, settings)?;
        let Played { lowered, outcome, .. } = played;
        return Ok(PlayedJob { lowered, outcome, memories });
    }
    let lowered = lower_times(model, cluster, plan, workload)?;
    let outcome = simulate(&lowered.world, &mut NoObserver)?;
    let in_flight: Vec<u64> = lowered.stages.iter().map(|stage| stage.in_flight).collect();
    let job = (model, cluster, plan, workload);
    let memories = memory_told(job, settings, &in_flight, told)?;
    Ok(PlayedJob { lowered, outcome, memories })
}

/// Whether some rank's tensors alone, without what an allocator loses, are more than its device has.
///
/// The second of the replayed steps begins with all states in place, as programs do, and holds at every request what the
/// program then holds: where that is too much a request fails, in that step or before.
///
/// # Errors
/// As [`crate::lower`].
pub fn surely_short(
    model: &Model,
    cluster: &Cluster,
    plan: &Plan,
    workload: &Workload,
    settings: &AllocatorSettings,
) -> Result<bool, PlanError> {
    let few = Workload { accumulation: micro_batches(plan, workload), ..workload.clone() };
    let lowered = lower_sizes(model, cluster, &folded(plan), &few)?;
    let short = |stage: usize| {
        let context = |spec: &TensorSpec| spec.category == classes::CONTEXT;
        let held = program_of(&lowered, stage).map_or(0, |it| it.most_held(|spec| !context(spec)));
        held > room(&lowered, cluster, settings, stage)
    };
    Ok((0..lowered.stages.len()).any(short))
}

/// The program of the first rank of a stage.
fn program_of(lowered: &Lowered, stage: usize) -> Option<&Program> {
    let rank = lowered.ranks.iter().position(|rank| rank.stage == stage)?;
    lowered.world.programs().get(lowered.world.ranks().get(rank)?.program as usize)
}

/// The plan with one rank of each stage for all.
fn folded(plan: &Plan) -> Plan {
    Plan { explicit: false, ..plan.clone() }
}

/// Bytes of the device that the allocator of a stage's rank may take.
fn room(lowered: &Lowered, cluster: &Cluster, settings: &AllocatorSettings, stage: usize) -> u64 {
    let outside = cluster.gpu.context.0 + lowered.communicators.get(stage).copied().unwrap_or(0);
    let allowed = settings.memory_fraction.map(|part| (part * cluster.gpu.memory.0 as f64) as u64);
    cluster.gpu.memory.0.saturating_sub(outside).min(allowed.unwrap_or(u64::MAX))
}

/// What the allocator of a rank of each stage makes of a job (its model, cluster, plan and workload), of whose stages
/// `in_flight` says how many micro-batches they hold at most, in a step that differs from others as `varied` says, if it does.
///
/// # Errors
/// As [`crate::lower`] and [`simulate`].
pub fn memory_of(
    job: (&Model, &Cluster, &Plan, &Workload),
    settings: &AllocatorSettings,
    in_flight: &[u64],
    varied: Option<Varied<'_>>,
) -> Result<Vec<RankMemory>, PlanError> {
    Played::shortest(job, in_flight, varied, (settings, Told::Everything))?.replay_all(job.1, settings)
}

/// The same of a step like all others, with no more than is asked for.
///
/// # Errors
/// As [`memory_of`].
pub fn memory_told(
    job: (&Model, &Cluster, &Plan, &Workload),
    settings: &AllocatorSettings,
    in_flight: &[u64],
    told: Told,
) -> Result<Vec<RankMemory>, PlanError> {
    Played::shortest(job, in_flight, None, (settings, told))?.replay_all(job.1, settings)
}

/// Micro-batches of the step that is replayed for memory: what further ones ask for is what these did. Where ranks still hold fewer
/// of these at once than of all, all are replayed.
pub fn replayed_micro_batches(plan: &Plan, workload: &Workload) -> u64 {
    micro_batches(plan, workload)
}

/// The same with everything that the allocators did.
///
/// # Errors
/// As [`memory_of`].
pub fn trace_of(
    job: (&Model, &Cluster, &Plan, &Workload),
    settings: &AllocatorSettings,
    in_flight: &[u64],
    varied: Option<Varied<'_>>,
) -> Result<Vec<Traced>, PlanError> {
    let played = Played::shortest(job, in_flight, varied, (settings, Told::Everything))?;
    let stages = 0..played.lowered.stages.len();
    stages
        .map(|stage| {
            let (memory, blocks) = played.replay_with(job.1, settings, stage, true)?;
            Ok(Traced::new(&played, stage, memory, blocks))
        })
        .collect()
}

/// Most micro-batches of the replayed step, and the whole of it.
fn micro_batches(plan: &Plan, workload: &Workload) -> u64 {
    let all = workload.accumulation;
    let group = plan.micro_batch_group.map_or(plan.pipeline, u64::from).max(1);
    let few = match (workload.task, plan.schedule) {
        (Task::Inference, _) => 2,
        _ if plan.written.is_some() => all,
        // Every micro-batch is held before the first goes back.
        (_, ScheduleKind::GPipe | ScheduleKind::LoopedBreadthFirst) if plan.pipeline > 1 => all,
        (_, ScheduleKind::GPipe) => BEYOND,
        (_, ScheduleKind::OneForwardOneBackward) if plan.virtual_pipeline == 1 => plan.pipeline + BEYOND,
        // Interleaved: whole groups, and as many in the last.
        (_, ScheduleKind::OneForwardOneBackward) => 2 * group + all % group,
        // An even number.
        _ if plan.from_both_ends() => (3 * plan.pipeline + BEYOND).next_multiple_of(2),
        _ => 3 * plan.pipeline + BEYOND,
    };
    few.min(all)
}

/// A job in detail, and when its ranks asked for memory.
struct Played {
    lowered: Lowered,
    outcome: Outcome,
    requests: Requests,
}

impl Played {
    /// Plays a job of few micro-batches that hold as much as all.
    fn shortest(
        (model, cluster, plan, workload): (&Model, &Cluster, &Plan, &Workload),
        in_flight: &[u64],
        varied: Option<Varied<'_>>,
        (settings, told): (&AllocatorSettings, Told),
    ) -> Result<Self, PlanError> {
        let of = |workload: &Workload| {
            if told == Told::Sizes && varied.is_none() {
                let lowered = lower_sizes(model, cluster, &folded(plan), workload)?;
                return match Requests::of_programs(&lowered, settings) {
                    Some(requests) => Ok(Self { lowered, outcome: Outcome::default(), requests }),
                    None => Self::simulated(lowered),
                };
            }
            Self::of(model, cluster, plan, workload, varied)
        };
        let few = micro_batches(plan, workload);
        if few < workload.accumulation {
            let short = Workload { accumulation: few, ..workload.clone() };
            let played = of(&short)?;
            let held = played.lowered.stages.iter().map(|stage| stage.in_flight);
            if held.eq(in_flight.iter().copied()) {
                return Ok(played);
            }
        }
        of(workload)
    }

    fn of(
        model: &Model,
        cluster: &Cluster,
        plan: &Plan,
        workload: &Workload,
        varied: Option<Varied<'_>>,
    ) -> Result<Self, PlanError> {
        let folded = Plan { explicit: plan.explicit && varied.is_some(), ..plan.clone() };
        let mut lowered = lower_in_detail(model, cluster, &folded, workload)?;
        if let Some((variation, repetition)) = varied {
            lowered.world = variation.world(&lowered, repetition)?;
        }
        Self::simulated(lowered)
    }

    fn simulated(lowered: Lowered) -> Result<Self, PlanError> {
        let stages = 0..lowered.stages.len();
        let first = |stage| lowered.ranks.iter().position(|rank| rank.stage == stage);
        let mut collected = Collected::default();
        collected.of_rank.resize_with(lowered.ranks.len(), || None);
        for (stage, rank) in stages.clone().filter_map(|stage| Some((stage, first(stage)?))) {
            // Most tensors come and go once.
            let most = program_of(&lowered, stage).map_or(0, |program| 2 * program.tensors());
            collected.of_rank[rank] = Some(Vec::with_capacity(most));
        }
        let outcome = simulate(&lowered.world, &mut collected)?;
        let mut of = |stage| collected.of_rank.get_mut(first(stage)?)?.take();
        let of_stage = stages.map(|stage| of(stage).unwrap_or_default()).collect();
        Ok(Self { lowered, outcome, requests: Requests { of_stage } })
    }

    /// Replays a rank of each stage.
    fn replay_all(
        &self,
        cluster: &Cluster,
        settings: &AllocatorSettings,
    ) -> Result<Vec<RankMemory>, PlanError> {
        let stages = 0..self.lowered.stages.len();
        let one = |stage| Ok(self.replay_with(cluster, settings, stage, false)?.0);
        let requests: usize = self.requests.of_stage.iter().map(Vec::len).sum();
        if requests < WORTH_THREADS {
            return stages.map(one).collect();
        }
        // Stages know nothing of each other: whichever thread replays one, and when, is the same.
        let memories: Vec<Result<RankMemory, PlanError>> = stages.into_par_iter().map(one).collect();
        memories.into_iter().collect()
    }

    /// Replays the rank of a stage: on a device without end, and if it is too small for that, on the device itself.
    fn replay_with(
        &self,
        cluster: &Cluster,
        settings: &AllocatorSettings,
        stage: usize,
        traces: bool,
    ) -> Result<(RankMemory, Blocks), PlanError> {
        let communicators = self.lowered.communicators.get(stage).copied().unwrap_or(0);
        let context = cluster.gpu.context.0;
        let room = cluster.gpu.memory.0.saturating_sub(context + communicators);
        let allowed = settings.memory_fraction.map(|part| (part * cluster.gpu.memory.0 as f64) as u64);
        let run = |capacity: Option<u64>| -> Result<Replay<'_>, PlanError> {
            let config = Config { capacity, allowed: capacity.and(allowed), ..settings.config.clone() };
            Replay::new(self, stage, config, settings.avoid_record_streams, traces)
        };
        let mut limited = run(Some(room))?;
        let turns = limited.turns(STEPS);
        let outside = (context, communicators);
        if !traces && limited.can_tell_first_failure() {
            // Up to the first request that the device has nothing left for, a device without end does the same.
            let Some(rest) = limited.play_at_once(&turns) else { return Ok(limited.finish(outside)) };
            let mut unlimited = limited.without_limits();
            unlimited.play(&rest);
            limited.play(&rest);
            return Ok(joined(unlimited, limited, outside));
        }
        let mut unlimited = run(None)?;
        unlimited.play(&turns);
        let collects = settings.config.garbage_collection_threshold.is_some();
        if unlimited.most_reserved() <= room.min(allowed.unwrap_or(room)) && !collects {
            return Ok(unlimited.finish(outside));
        }
        limited.play(&turns);
        Ok(joined(unlimited, limited, outside))
    }
}

/// What the device gives, if it suffices; else what it would have to give, and what fails first.
fn joined(unlimited: Replay<'_>, limited: Replay<'_>, outside: (u64, u64)) -> (RankMemory, Blocks) {
    let Some(shortage) = limited.shortage().cloned() else { return limited.finish(outside) };
    let (memory, _) = unlimited.finish(outside);
    let (_, blocks) = limited.finish(outside);
    (RankMemory { shortage: Some(shortage), ..memory }, blocks)
}

/// What a rank asks of its allocator; times in picoseconds. It shows on the curve of memory when the streams have reached
/// it and all requests before it.
#[derive(Clone, Copy, Debug)]
struct Asked {
    /// When the host asks.
    host: u64,
    /// When the stream had done what was issued to it before.
    reached: u64,
    tensor: u32,
    stream: Stream,
    frees: bool,
}

/// Whether the allocator gets to know of a tensor: contexts are not its own, and nothing is asked for no bytes.
fn counts(spec: &TensorSpec) -> bool {
    spec.category != classes::CONTEXT && spec.bytes > 0
}

/// What a rank of each stage asks of its allocator.
struct Requests {
    of_stage: Vec<Vec<Asked>>,
}

impl Requests {
    /// The requests of each stage's program in its order, without their moments; `None` where these matter: where memory
    /// is free only when another stream gets past its free.
    fn of_programs(lowered: &Lowered, settings: &AllocatorSettings) -> Option<Self> {
        let mut of_stage = Vec::with_capacity(lowered.stages.len());
        for stage in 0..lowered.stages.len() {
            let program = program_of(lowered, stage)?;
            let mut own = vec![Stream(0); program.tensors()];
            let mut requests = Vec::with_capacity(2 * program.tensors());
            for (tensor, stream, frees) in program.memory_requests() {
                let own = &mut own[tensor.0 as usize];
                if !frees {
                    *own = stream;
                } else if replay::waits(stream, *own, settings.avoid_record_streams) {
                    return None;
                }
                requests.push(Asked { host: 0, reached: 0, tensor: tensor.0, stream, frees });
            }
            of_stage.push(requests);
        }
        Some(Self { of_stage })
    }
}

/// Collects what ranks ask of their allocators.
#[derive(Default)]
struct Collected {
    /// By rank of the world: what it asks, if that is wanted.
    of_rank: Vec<Option<Vec<Asked>>>,
}

impl Observer for Collected {
    const REQUESTS: bool = true;

    #[inline]
    fn asked(&mut self, request: &MemoryRequest) {
        if let Some(Some(requests)) = self.of_rank.get_mut(request.rank as usize) {
            let MemoryRequest { host, stream, tensor, frees, .. } = *request;
            requests.push(Asked { host: host.picos(), reached: 0, tensor: tensor.0, stream, frees });
        }
    }

    #[inline]
    fn reached(&mut self, rank: u32, number: u32, at: SimTime) {
        if let Some(Some(requests)) = self.of_rank.get_mut(rank as usize)
            && let Some(asked) = requests.get_mut(number as usize)
        {
            asked.reached = at.picos();
        }
    }
}
