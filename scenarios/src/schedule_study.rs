//! A schedule by itself, without model or cluster: passes of given times on equal stages.

use serde::{Deserialize, Serialize};
use steptime_core::SimTime;
use steptime_plans::{Action, PassCost, Pipeline, Schedule, ScheduleError, ScheduleKind, StageTimes};

use crate::error::nearest;
use crate::pipeline::SCHEDULES;
use crate::report::{TIMELINE_SCHEMA, Timeline, TimelineRank, TimelineSpan};

/// Schema of [`ScheduleReport`].
pub const SCHEDULE_SCHEMA: &str = "steptime.schedule/1";

/// Most passes that are laid out.
const MOST_PASSES: u64 = 1 << 20;

/// Longest pass: so many of them never overflow picoseconds.
const LONGEST_S: f64 = 1.0;

/// What is laid out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScheduleRequest<'a> {
    /// A name of `[parallelism] schedule`.
    pub name: &'a str,
    /// Stages.
    pub stages: usize,
    /// Chunks of layers on each stage; the schedule's own where absent.
    pub chunks: Option<u32>,
    /// Micro-batches.
    pub micro_batches: u32,
    /// Times of a stage's whole share of the layers, and of a transfer between neighbours.
    pub times: ScheduleTimes,
}

/// Times of the passes of one micro-batch on one stage, over all its chunks, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScheduleTimes {
    /// Forward.
    pub forward_s: f64,
    /// Gradients of inputs.
    pub input_s: f64,
    /// Gradients of weights.
    pub weight_s: f64,
    /// From the end of a pass to when the neighbour has its result.
    pub transfer_s: f64,
    /// Of a forward and a backward that are one, where the schedule has such: of one chunk each.
    pub pair_s: Option<f64>,
}

/// How a schedule spends the stages' time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScheduleReport {
    /// [`SCHEDULE_SCHEMA`].
    pub schema: String,
    /// Name.
    pub name: String,
    /// Stages.
    pub pipeline: u64,
    /// Chunks of layers on each stage.
    pub virtual_pipeline: u64,
    /// Micro-batches.
    pub micro_batches: u64,
    /// From the first pass to the last, seconds.
    pub step_time_s: f64,
    /// What a stage would take without any wait, seconds: the longest stage.
    pub ideal_time_s: f64,
    /// Share of the step in which the mean stage does nothing.
    pub bubble_fraction: f64,
    /// How much shorter the step would be if transfers took no time, seconds.
    pub exposed_communication_s: f64,
    /// By stage.
    pub stages: Vec<ScheduleStage>,
}

/// One stage of a [`ScheduleReport`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScheduleStage {
    /// Number, from 0.
    pub stage: u64,
    /// Seconds in passes.
    pub busy_s: f64,
    /// Seconds without any between the stage's first pass and its last.
    pub idle_s: f64,
    /// Most micro-batches whose activations are held, a chunk's counting as its share of the stage.
    pub in_flight_micro_batches: f64,
}

/// What a named schedule would be.
///
/// # Errors
/// In words: no such schedule, a size that it cannot have, or too many passes.
pub fn schedule_study(request: &ScheduleRequest<'_>) -> Result<(ScheduleReport, Timeline), String> {
    let schedule = named(request)?;
    study(request.name, &schedule, &request.times)
}

/// The same of a schedule written by the user.
///
/// # Errors
/// In words: the first line that is no schedule, or the first rule that it breaks.
pub fn written_schedule_study(
    name: &str,
    text: &str,
    times: &ScheduleTimes,
) -> Result<(ScheduleReport, Timeline), String> {
    let schedule = Schedule::parse(text).map_err(|error| error.to_string())?;
    study(name, &schedule, times)
}

fn named(request: &ScheduleRequest<'_>) -> Result<Schedule, String> {
    let ScheduleRequest { name, stages, micro_batches, times, .. } = *request;
    let known = SCHEDULES.iter().find(|(word, _)| *word == name);
    let &(_, kind) = known.ok_or_else(|| {
        let words = || SCHEDULES.iter().map(|(word, _)| *word);
        let hint = nearest(name, words()).map_or_else(String::new, |near| format!(" (did you mean {near}?)"));
        let allowed: Vec<&str> = words().collect();
        format!("no schedule is called {name}, allowed: {}, or a file{hint}", allowed.join(", "))
    })?;
    let chunks = request.chunks.unwrap_or(kind.usual_chunks());
    let passes = stages as u64 * u64::from(chunks) * u64::from(micro_batches);
    if passes > MOST_PASSES {
        return Err(format!("{passes} passes forward are too many to lay out, allowed: {MOST_PASSES}"));
    }
    let costs = vec![times.cost(chunks)?; stages];
    let pipeline = Pipeline {
        stages,
        chunks,
        micro_batches,
        group: None,
        costs: if kind == ScheduleKind::ZeroBubbleOne || kind == ScheduleKind::ZeroBubbleTwo {
            &costs
        } else {
            &[]
        },
        transfer: picos(times.transfer_s)?,
    };
    Schedule::of(kind, &pipeline).map_err(|error: ScheduleError| error.to_string())
}

impl ScheduleTimes {
    /// Of one of so many chunks; half of what a forward keeps is for the weights.
    fn cost(&self, chunks: u32) -> Result<PassCost, String> {
        let share = |seconds| picos(seconds).map(|time| time / u64::from(chunks.max(1)));
        Ok(PassCost {
            forward: share(self.forward_s)?,
            input: share(self.input_s)?,
            weight: share(self.weight_s)?,
            ..PassCost::EQUAL
        })
    }
}

fn picos(seconds: f64) -> Result<u64, String> {
    if !(0.0..=LONGEST_S).contains(&seconds) {
        return Err(format!("found a pass of {seconds} s, allowed: 0 to {LONGEST_S} s"));
    }
    SimTime::from_seconds(seconds).map(SimTime::picos).map_err(|error| error.to_string())
}

fn study(
    name: &str,
    schedule: &Schedule,
    times: &ScheduleTimes,
) -> Result<(ScheduleReport, Timeline), String> {
    schedule.check().map_err(|error| error.to_string())?;
    // Times are of a stage's share of all layers, once: stages that hold two shares have passes of both.
    let whole = (schedule.layer_stages() / schedule.stages.len().max(1)) as u32;
    let cost = times.cost(whole)?;
    let pair = times.pair_s.map(picos).transpose()?;
    let pairs = |order: &Vec<Action>, stage| (0..order.len()).any(|at| schedule.joined(stage, at));
    if pair.is_some() && !schedule.stages.iter().enumerate().any(|(stage, order)| pairs(order, stage)) {
        return Err("has no forward and backward that are one: leave the time of a pair out".to_owned());
    }
    let timed = schedule.timed_in_pairs(|_| cost, picos(times.transfer_s)?, pair);
    let alone = schedule.timed_in_pairs(|_| cost, 0, pair);
    let seconds = |picos: u64| SimTime(picos).seconds();
    let end = |stages: &[Vec<_>]| stages.iter().map(|passes| StageTimes::of(passes).end).max().unwrap_or(0);
    let step = end(&timed);
    let each: Vec<StageTimes> = timed.iter().map(|passes| StageTimes::of(passes)).collect();
    let busy: u64 = each.iter().map(|it| it.busy).sum();
    let stage = |(stage, it): (usize, &StageTimes)| ScheduleStage {
        stage: stage as u64,
        busy_s: seconds(it.busy),
        idle_s: seconds(it.idle()),
        in_flight_micro_batches: schedule.in_flight(stage) as f64 / f64::from(whole),
    };
    let all = step as f64 * each.len() as f64;
    let report = ScheduleReport {
        schema: SCHEDULE_SCHEMA.to_owned(),
        name: name.to_owned(),
        pipeline: schedule.stages.len() as u64,
        virtual_pipeline: u64::from(schedule.chunks),
        micro_batches: u64::from(schedule.micro_batches),
        step_time_s: seconds(step),
        ideal_time_s: seconds(each.iter().map(|it| it.busy).max().unwrap_or(0)),
        bubble_fraction: if all > 0.0 { 1.0 - busy as f64 / all } else { 0.0 },
        exposed_communication_s: seconds(step.saturating_sub(end(&alone))),
        stages: each.iter().enumerate().map(stage).collect(),
    };
    let ranks = timed.iter().enumerate().map(|(stage, passes)| {
        let spans = passes.iter().filter(|pass| pass.end > pass.start).map(|pass| TimelineSpan {
            stream: 0,
            start_s: seconds(pass.start),
            end_s: seconds(pass.end),
            kind: match pass.action {
                Action::Forward { .. } => "forward",
                Action::BackwardWeight { .. } => "weights",
                Action::Backward { .. } | Action::BackwardInput { .. } => "backward",
            }
            .to_owned(),
            name: format!("chunk {}", pass.action.chunk()),
            micro_batch: Some(u64::from(pass.action.micro_batch())),
            chunk: (schedule.chunks > 1).then(|| u64::from(pass.action.chunk())),
        });
        TimelineRank {
            rank: stage as u64,
            stage: stage as u64,
            multiplicity: 1,
            device: String::new(),
            streams: vec!["compute".to_owned()],
            spans: spans.collect(),
            memory: Vec::new(),
            memory_categories: Vec::new(),
            reserved: Vec::new(),
            failed_request: None,
            capacity_bytes: 0,
        }
    });
    let timeline = Timeline {
        schema: TIMELINE_SCHEMA.to_owned(),
        name: name.to_owned(),
        step_time_s: seconds(step),
        ranks: ranks.collect(),
    };
    Ok((report, timeline))
}
