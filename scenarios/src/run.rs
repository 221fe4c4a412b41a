//! Running a scenario: lower, play, report.

use steptime_clusters::{Basis, Cluster};
use steptime_core::{Outcome, RankOutcome, SimTime};
use steptime_models::{Model, Sample};
use steptime_plans::{
    Busiest, Execution, Lowered, Plan, PlanError, PlayedJob, PlayedRank, RankMemory, Task, Told, Traced,
    Varied, Workload, classes, lower, lower_times, memory_of, surely_short, trace_of,
};

use crate::cost::CostReport;
use crate::error::InputError;
use crate::host_memory::{self, Hosts};
use crate::loading::Loaded;
use crate::memory;
use crate::operations::operations_csv;
use crate::report::{Parameters, Provenance, REPORT_SCHEMA, Report, Stage, TimeBreakdown, Timeline, Verdict};
use crate::scenario::{Job, Scenario};
use crate::shared::Timed;
use crate::timeline::Recording;
use crate::variability::{Repetitions, Variability};
use crate::{interval, jobs, mixed, refusal, timeline, variability, vehicles};

/// A played scenario.
#[derive(Clone, Debug)]
pub struct RunResult {
    /// The numbers.
    pub report: Report,
    /// What happened when, if it was asked for.
    pub timeline: Option<Timeline>,
    /// What each stage's allocator did, if the timeline was asked for; of vehicles there is none.
    pub memory: Vec<Traced>,
    /// The same as the timeline, to the picosecond and unmerged.
    pub recording: Option<Recording>,
    /// The model's operations as a table, if the timeline was asked for ([`operations_csv`]).
    pub operations: Option<String>,
}

/// Plays a scenario; with `with_timeline` everything that happens is recorded too.
///
/// # Errors
/// The plan does not fit the model or the cluster, or the job is too large to be played; the error names the key
/// of the scenario.
pub fn run(scenario: &Scenario, with_timeline: bool) -> Result<RunResult, InputError> {
    let played = play(scenario, with_timeline)?;
    let operations = if with_timeline { operations_csv(scenario)? } else { None };
    Ok(RunResult { report: attach_interval(scenario, played.report), operations, ..played })
}

/// Most that the host's optimizer is off from published latencies (ZeRO-Offload, 1 to 10 billion parameters).
const OFFLOAD_ERROR: f64 = 0.18;

/// The report with its interval and what it costs. No measured run behind the tables offloads anything: what that takes is as uncertain
/// as its prices.
pub(crate) fn attach_interval(scenario: &Scenario, report: Report) -> Report {
    let offload = report.time_breakdown_s.offload;
    let report = interval::attach(scenario, report);
    let interval = report.step_time_interval_s;
    let wider = interval.map(|ends| host_memory::widened(ends, offload, OFFLOAD_ERROR));
    let report = Report { step_time_interval_s: if offload > 0.0 { wider } else { interval }, ..report };
    Report { cost: CostReport::of(scenario, &report), ..report }
}

/// The same without the interval of the step time.
pub(crate) fn play(scenario: &Scenario, with_timeline: bool) -> Result<RunResult, InputError> {
    play_with(scenario, with_timeline, Some(Told::Everything))
}

/// The same of whose memory only sizes are wanted: moments and names of tensors may be missing.
pub(crate) fn play_sizes(scenario: &Scenario) -> Result<Report, InputError> {
    Ok(play_with(scenario, false, Some(Told::Sizes))?.report)
}

/// The same for its times alone: the report knows nothing of memory.
pub(crate) fn play_time(scenario: &Scenario) -> Result<Report, InputError> {
    Ok(play_with(scenario, false, None)?.report)
}

/// The same with what its memory may still depend on; not of vehicles.
pub(crate) fn timed(scenario: &Scenario) -> Result<Timed, InputError> {
    let Job::Gpus { cluster, plan, workload } = &scenario.job else {
        return Ok(Timed { report: play_time(scenario)?, end: SimTime::ZERO, in_flight: Vec::new() });
    };
    let run = GpuRun { scenario, cluster, plan, workload };
    let timed = || {
        let played = run.play(false, None)?;
        let (report, PlayedJob { lowered, outcome, .. }) = (run.told(&played, false)?, &played.job);
        let in_flight = lowered.stages.iter().map(|stage| stage.in_flight).collect();
        Ok(Timed { report, end: outcome.end, in_flight })
    };
    timed().map_err(|source| refusal::explain(scenario, source))
}

/// The report without the interval, of a scenario that does not surely run out of memory.
pub(crate) fn run_if_it_may_fit(scenario: &Scenario) -> Result<Option<Report>, InputError> {
    if let Job::Gpus { cluster, plan, workload } = &scenario.job
        && !cluster.is_mixed()
        && !plan.has_uneven_batches()
    {
        let (model, settings) = (&scenario.model, &scenario.allocator);
        let sure = surely_short(model, cluster, plan, workload, settings);
        if sure.map_err(|source| refusal::explain(scenario, source))? {
            return Ok(None);
        }
    }
    Ok(Some(play(scenario, false)?.report))
}

fn play_with(
    scenario: &Scenario,
    with_timeline: bool,
    with_memory: Option<Told>,
) -> Result<RunResult, InputError> {
    let refuse = |source: PlanError| refusal::explain(scenario, source);
    match &scenario.job {
        Job::Gpus { cluster, plan, workload } => {
            GpuRun { scenario, cluster, plan, workload }.run(with_timeline, with_memory).map_err(refuse)
        }
        Job::Vehicles { cluster, placement, formula, replay } => {
            vehicles::run(scenario, cluster, placement, formula, *replay, with_timeline).map_err(refuse)
        }
    }
}

struct GpuRun<'a> {
    scenario: &'a Scenario,
    cluster: &'a Cluster,
    plan: &'a Plan,
    workload: &'a Workload,
}

/// What was played.
struct Played {
    job: PlayedJob,
    timeline: Option<(Timeline, Recording)>,
    /// Steps that differ, if they do.
    repetitions: Option<Repetitions>,
}

impl GpuRun<'_> {
    fn run(&self, with_timeline: bool, with_memory: Option<Told>) -> Result<RunResult, PlanError> {
        let played = self.play(with_timeline, with_memory)?;
        let report = self.told(&played, with_memory.is_some())?;
        let Played { job: PlayedJob { lowered, .. }, timeline, repetitions } = played;
        let varied = self.median(repetitions.as_ref());
        let memory = if with_timeline { self.traces(&lowered, varied)? } else { Vec::new() };
        let (mut timeline, recording) = timeline.unzip();
        if let Some(timeline) = &mut timeline {
            memory::lay_over(timeline, &memory);
        }
        Ok(RunResult { report, timeline, memory, recording, operations: None })
    }

    /// What a report says of what was played.
    fn told(&self, played: &Played, with_memory: bool) -> Result<Report, PlanError> {
        let Played { job: PlayedJob { lowered, outcome, memories }, repetitions, .. } = played;
        let variability = self.scenario.variability.as_ref();
        let mut report = self.report(lowered, outcome, memories);
        if let (Some(variability), Some(repetitions), true) = (variability, repetitions, with_memory) {
            self.spread(&mut report, variability, repetitions, lowered)?;
            report.provenance.push(variability::provenance(variability));
        }
        if !self.scenario.jobs.is_empty() {
            report.provenance.push(jobs::provenance(self.scenario));
        }
        if let Some(hosts) = Hosts::of(self.cluster, self.plan, lowered) {
            report.peak_memory.host = Some(hosts.memory());
            report.out_of_memory = host_memory::earlier(report.out_of_memory.take(), hosts.failure()?);
            if report.out_of_memory.is_some() {
                report.verdict = Verdict::OutOfMemory;
            }
        }
        let report = match &self.scenario.input {
            None => report,
            Some(input) => {
                let Self { scenario, cluster, plan, workload } = *self;
                Loaded { scenario, input, cluster, plan, workload }.apply(report, outcome)?
            }
        };
        Ok(match self.scenario.benchmark {
            None => report,
            Some(benchmark) => benchmark.mean(report),
        })
    }

    /// Whether ranks of a stage differ in their GPUs or in their micro-batches.
    fn mixed(&self) -> bool {
        self.cluster.is_mixed() || self.plan.has_uneven_batches()
    }

    /// The step that is reported, of those that differ.
    fn median(&self, repetitions: Option<&Repetitions>) -> Option<Varied<'_>> {
        let step = self.scenario.variability.as_ref().zip(repetitions.map(Repetitions::median));
        step.map(|(it, at)| (&it.variation, at))
    }

    /// The workload of a step whose routing differs.
    fn routed(&self, lowered: &Lowered, busiest: Busiest, varied: Option<Varied<'_>>) -> Option<Workload> {
        let (variation, at) = varied?;
        let job = (&self.scenario.model, self.plan, self.workload);
        variation.routed(job, &lowered.stages, busiest, at)
    }

    /// The job of a step whose routing differs; `lowered` is that of any.
    fn lowered_as_routed(
        &self,
        lowered: &Lowered,
        varied: Option<Varied<'_>>,
    ) -> Result<Option<Lowered>, PlanError> {
        let routed = self.routed(lowered, Busiest::InEachLayer, varied);
        routed.map(|it| lower(&self.scenario.model, self.cluster, self.plan, &it)).transpose()
    }

    /// Plays the job with what is asked for.
    fn play(&self, with_timeline: bool, with_memory: Option<Told>) -> Result<Played, PlanError> {
        let Self { scenario, cluster, plan, workload } = *self;
        let (model, settings) = (&scenario.model, &scenario.allocator);
        let variability = scenario.variability.as_ref();
        let equal = !self.mixed() && variability.is_none() && scenario.jobs.is_empty();
        let plain = !with_timeline && equal;
        if let (true, Some(told)) = (plain, with_memory) {
            let job = steptime_plans::play(model, cluster, plan, workload, settings, told)?;
            return Ok(Played { job, timeline: None, repetitions: None });
        }
        let lowered = if plain {
            lower_times(model, cluster, plan, workload)
        } else {
            lower(model, cluster, plan, workload)
        }?;
        let routed = |at| self.lowered_as_routed(&lowered, variability.map(|it| (&it.variation, at)));
        let repetitions = variability.map(|it| Repetitions::play(it, &lowered, routed)).transpose()?;
        let varied = self.median(repetitions.as_ref());
        let lowered = self.lowered_as_routed(&lowered, varied)?.unwrap_or(lowered);
        let places = lowered.ranks.iter().map(|played| timeline::Place {
            rank: played.rank,
            stage: played.stage as u64,
            multiplicity: played.multiplicity,
            device: cluster.kind(played.kind).gpu.name.clone(),
            capacity_bytes: cluster.kind(played.kind).gpu.memory.0,
        });
        let world = varied.map(|(variation, at)| variation.world(&lowered, at)).transpose()?;
        let beside = !scenario.jobs.is_empty();
        let world = if beside { Some(jobs::together(scenario, &lowered)?) } else { world };
        let world = (world.as_ref().unwrap_or(&lowered.world), lowered.ranks.len());
        let (outcome, timeline) = timeline::play(&scenario.name, world, places, with_timeline)?;
        let memories = if with_memory.is_some() { self.memories(&lowered, varied)? } else { Vec::new() };
        Ok(Played { job: PlayedJob { lowered, outcome, memories }, timeline, repetitions })
    }

    /// How steps differ. A run ends with the first step whose memory does not suffice, though the median one may fit.
    fn spread(
        &self,
        report: &mut Report,
        variability: &Variability,
        repetitions: &Repetitions,
        lowered: &Lowered,
    ) -> Result<(), PlanError> {
        let of_step = |at| self.memories(lowered, Some((&variability.variation, at)));
        let spread = repetitions.report(variability, |at| {
            let memories = of_step(at)?;
            let most = memories.iter().map(memory::device_bytes).max().unwrap_or(0);
            Ok((most, memories.iter().any(|memory| memory.shortage.is_some())))
        })?;
        let Some((spread, short)) = spread else { return Ok(()) };
        report.variability = Some(spread);
        if let (Verdict::Fits, Some((at, end))) = (report.verdict, repetitions.first(&short)) {
            report.verdict = Verdict::OutOfMemory;
            report.out_of_memory = memory::first_shortage(&self.scenario.model, &of_step(at)?, end);
        }
        Ok(())
    }

    /// What each stage's allocator makes of the job.
    fn memories(&self, lowered: &Lowered, varied: Option<Varied<'_>>) -> Result<Vec<RankMemory>, PlanError> {
        let in_flight: Vec<u64> = lowered.stages.iter().map(|stage| stage.in_flight).collect();
        let Self { scenario, cluster, plan, workload } = *self;
        let routed = self.routed(lowered, Busiest::OfStages, varied);
        let workload = routed.as_ref().unwrap_or(workload);
        if self.mixed() {
            return mixed::memories(scenario, (cluster, plan, workload), lowered, varied);
        }
        memory_of((&scenario.model, cluster, plan, workload), &scenario.allocator, &in_flight, varied)
    }

    /// The same with everything that they did.
    fn traces(&self, lowered: &Lowered, varied: Option<Varied<'_>>) -> Result<Vec<Traced>, PlanError> {
        let in_flight: Vec<u64> = lowered.stages.iter().map(|stage| stage.in_flight).collect();
        let Self { scenario, cluster, plan, workload } = *self;
        let routed = self.routed(lowered, Busiest::OfStages, varied);
        let workload = routed.as_ref().unwrap_or(workload);
        if self.mixed() {
            return mixed::traces(scenario, (cluster, plan, workload), lowered, varied);
        }
        trace_of((&scenario.model, cluster, plan, workload), &scenario.allocator, &in_flight, varied)
    }

    fn report(&self, lowered: &Lowered, outcome: &Outcome, memories: &[RankMemory]) -> Report {
        let model = &self.scenario.model;
        let step = outcome.end.seconds();
        let gpus = self.plan.ranks();
        let global = self.scenario.batch.global as f64;
        let tokens = tokens_per_sample(model, self.workload).map(|tokens| global * tokens as f64 / step);
        let most = mixed::most_flops(self.cluster, self.workload.precision.compute(), step);
        let utilization = |flops: f64| most.map(|most| flops / most);
        let out_of_memory = memory::first_shortage(model, memories, outcome.end);
        Report {
            schema: REPORT_SCHEMA.to_owned(),
            name: self.scenario.name.clone(),
            verdict: if out_of_memory.is_some() { Verdict::OutOfMemory } else { Verdict::Fits },
            step_time_s: Some(step),
            step_time_interval_s: None,
            variability: None,
            samples_per_s: Some(global / step),
            tokens_per_s: tokens,
            tokens_per_s_per_gpu: tokens.map(|tokens| tokens / gpus as f64),
            model_flops_utilization: utilization(lowered.model_flops),
            hardware_flops_utilization: utilization(lowered.executed_flops),
            time_breakdown_s: breakdown(&lowered.ranks, outcome, self.plan.pipeline > 1),
            end_to_end_s: None,
            input: None,
            peak_memory: memory::peak(
                memories,
                &|rank| mixed::capacity(self.cluster, lowered, rank),
                outcome.end,
            ),
            out_of_memory,
            remedies: Vec::new(),
            infeasible: None,
            cost: None,
            stages: self.stages(lowered, outcome, memories),
            vehicle_path: None,
            gpus,
            parameters: Parameters {
                total: model.parameters(),
                trainable: if self.workload.task == Task::Training {
                    model.trainable_parameters()
                } else {
                    0
                },
                active: model.active_parameters(),
            },
            flops_per_step: lowered.executed_flops,
            provenance: self.provenance(lowered),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            scenario_hash: None,
        }
    }

    fn stages(&self, lowered: &Lowered, outcome: &Outcome, memories: &[RankMemory]) -> Vec<Stage> {
        let stage = |(number, facts): (usize, &steptime_plans::StageFacts)| {
            let of_stage = lowered.ranks.iter().zip(&outcome.ranks).filter(|(rank, _)| rank.stage == number);
            let played: Vec<&RankOutcome> = of_stage.map(|(_, result)| result).collect();
            let memory = memories.iter().filter(|memory| memory.stage == number).max_by_key(|it| it.reserved);
            let (busy_fraction, bubble_fraction, communication_fraction) = rank_shares(&played, outcome.end);
            let lanes = self.plan.lanes();
            let first = number as u64 * lanes;
            Stage {
                stage: number as u64,
                device: mixed::devices(self.cluster, lowered, number),
                ranks: (first..first + lanes).collect(),
                layers: facts
                    .layers
                    .iter()
                    .flat_map(Clone::clone)
                    .map(|layer| self.scenario.model.layers[layer].name.clone())
                    .collect(),
                parameters: facts.parameters,
                peak_allocated_bytes: memory.map_or(0, |memory| memory.allocated),
                peak_reserved_bytes: memory.map_or(0, |memory| memory.reserved),
                after_step_bytes: memory.map_or(0, |memory| memory.after_step),
                in_flight_micro_batches: facts.in_flight,
                busy_fraction,
                bubble_fraction,
                communication_fraction,
            }
        };
        lowered.stages.iter().enumerate().map(stage).collect()
    }

    fn provenance(&self, lowered: &Lowered) -> Vec<Provenance> {
        let entry = |what: &str, kind: &str, source: String, error: &str| Provenance {
            what: what.to_owned(),
            kind: kind.to_owned(),
            source,
            error: error.to_owned(),
        };
        let kernels = match lowered.basis {
            Basis::Measured => "measured",
            Basis::Fitted => "fitted",
            Basis::DataSheet => "data_sheet",
        };
        let style = match self.workload.execution {
            Execution::Eager => "eager",
            Execution::Compiled => "compiled",
            Execution::CudaGraphs => "cuda-graphs",
        };
        let mut list = vec![
            entry("model", "formula", self.scenario.model.source.clone(), ""),
            entry(
                "kernel prices",
                kernels,
                format!("coefficients of {} in its catalogue entry", self.cluster.gpu.name),
                "by kind and format in the catalogue entry",
            ),
            entry(
                "links and collectives",
                "formula",
                format!("algorithms and protocols over {}: {}", self.cluster.name, self.cluster.source),
                "by fabric in the catalogue; see docs/limits.md",
            ),
            entry(
                "host",
                "assumption",
                format!("launch cost of {style} execution from the cluster's catalogue entry"),
                "one cost a launch; the CPU model is not looked at",
            ),
            entry(
                "reserved memory",
                "formula",
                "allocations and frees of two steps through a caching allocator by PyTorch's rules".to_owned(),
                "by suite in docs/fidelity.md",
            ),
            entry(
                "memory outside the allocator",
                "assumption",
                "CUDA context from the GPU's catalogue entry; a communicator's channels x buffers of its protocols"
                    .to_owned(),
                "libraries choose channels by topology; workspaces beside cuBLAS's are not counted",
            ),
        ];
        if self.plan.offload.acts() {
            list.push(entry(
                "offload",
                "data_sheet",
                format!("copies, memory, processors and drives of the hosts of {}", self.cluster.name),
                "host Adam within 18 % of ZeRO-Offload's published latencies; drives and shared ports unmeasured",
            ));
        }
        for file in &self.scenario.calibration {
            list.push(entry(
                "calibration",
                "fitted",
                format!("{file}: its tables take the place of the catalogue's"),
                "stated by table in the file",
            ));
        }
        if self.scenario.model.components().is_some() {
            list.push(entry(
                "component memory",
                "assumption",
                "each component's stated memory requirement is held all the time and counted under parameters; \
                 backward costs twice the stated FLOPs of forward"
                    .to_owned(),
                "the source gives no split into parameters, states and activations",
            ));
        }
        list
    }
}

fn tokens_per_sample(model: &Model, workload: &Workload) -> Option<u64> {
    match model.sample {
        // An image without tokens counts as one inside the model, which is no rate of tokens.
        Sample::Opaque | Sample::Image { tokens: 0 | 1, .. } => None,
        Sample::Image { .. } | Sample::Tokens { .. } => Some(model.tokens_per_sample(&workload.shape())),
    }
}

fn ratio(part: u128, whole: u128) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// A rank's step by cause, in picoseconds.
struct Times {
    compute: u64,
    optimizer: u64,
    communication: u64,
    bubble: u64,
    host: u64,
    offload: u64,
    input: u64,
    tail: u64,
    total: u64,
}

impl Times {
    fn of(rank: &RankOutcome) -> Self {
        let picos = |time: &SimTime| time.picos();
        let busy: Vec<u64> = rank.streams[0].busy.iter().map(picos).collect();
        let idle: Vec<u64> = rank.idle.iter().map(picos).collect();
        let at = |class: steptime_core::Class| usize::from(class.0);
        let both = |class| busy[at(class)] + idle[at(class)];
        // Idle time charged to a compute class is time spent waiting for an event of the stream itself.
        let compute = [classes::FORWARD, classes::BACKWARD, classes::RECOMPUTE].map(both).iter().sum();
        Self {
            compute,
            optimizer: both(classes::OPTIMIZER),
            communication: both(classes::COLLECTIVE)
                + both(classes::COLLECTIVE_WAIT)
                + both(classes::TRANSFER),
            bubble: both(classes::TRANSFER_WAIT),
            host: both(classes::HOST),
            offload: both(classes::OFFLOAD),
            input: both(classes::INPUT),
            tail: both(classes::TAIL),
            total: busy.iter().sum::<u64>() + idle.iter().sum::<u64>(),
        }
    }

    fn busy(&self) -> u64 {
        self.compute + self.optimizer + self.input
    }
}

/// Busy, bubble and communication share of the step over some ranks.
pub(crate) fn rank_shares(ranks: &[&RankOutcome], end: SimTime) -> (f64, f64, f64) {
    let share = |of: fn(&Times) -> u64| {
        // Many ranks of long steps leave 64 bits.
        let total: u128 = ranks.iter().map(|rank| u128::from(of(&Times::of(rank)))).sum();
        ratio(total, u128::from(end.picos()) * ranks.len() as u128)
    };
    (share(Times::busy), share(|times| times.bubble + times.tail), share(|times| times.communication))
}

/// The step by cause, mean over all ranks.
pub(crate) fn breakdown(ranks: &[PlayedRank], outcome: &Outcome, pipelined: bool) -> TimeBreakdown {
    let all: u64 = ranks.iter().map(|rank| rank.multiplicity).sum();
    let mean = |of: fn(&Times) -> u64| {
        let total: u128 = ranks
            .iter()
            .zip(&outcome.ranks)
            .map(|(played, rank)| u128::from(of(&Times::of(rank))) * u128::from(played.multiplicity))
            .sum();
        // Picoseconds to seconds after the mean, so that the parts add up to the step.
        total as f64 / all.max(1) as f64 / 1e12
    };
    let tail = mean(|times| times.tail);
    let parts = TimeBreakdown {
        compute: mean(|times| times.compute),
        exposed_communication: mean(|times| times.communication),
        pipeline_bubble: mean(|times| times.bubble) + if pipelined { tail } else { 0.0 },
        host: mean(|times| times.host),
        data_loading: mean(|times| times.input),
        optimizer: mean(|times| times.optimizer),
        offload: mean(|times| times.offload),
        other: if pipelined { 0.0 } else { tail },
    };
    let known: f64 = parts.entries().iter().map(|(_, seconds)| seconds).sum();
    let rest = mean(|times| times.total) - known;
    TimeBreakdown { other: (parts.other + rest).max(0.0), ..parts }
}
