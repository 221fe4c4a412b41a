//! The schedule of a job: named, automatic for the job's own times, or written by the user.

use std::ops::Range;

use steptime_clusters::{Placement, point_to_point};
use steptime_core::SimTime;

use super::cost::{Cost, LayerCost, ModelCost};
use super::placement::{Along, Layout};
use super::stage::deferred;
use crate::error::PlanError;
use crate::plan::Plan;
use crate::schedule::{Action, PassCost, Pipeline, Schedule, ScheduleError, ScheduleKind};
use crate::workload::{Task, Workload};

/// What the schedule is made from.
pub(super) struct Given<'a> {
    pub(super) cluster: &'a steptime_clusters::Cluster,
    pub(super) plan: &'a Plan,
    pub(super) workload: &'a Workload,
    pub(super) layout: Layout<'a>,
    /// By stage.
    pub(super) costs: Vec<&'a ModelCost>,
    pub(super) ranges: &'a [Range<usize>],
}

impl Given<'_> {
    /// The checked schedules: of the workload's micro-batches, and of every other number of them that data-parallel ranks
    /// have.
    pub(super) fn schedules(&self) -> Result<Vec<Schedule>, PlanError> {
        let mut all = vec![self.schedule(self.workload.accumulation)?];
        for &count in self.plan.micro_batch_counts.iter().flatten() {
            if all.iter().all(|known| u64::from(known.micro_batches) != count) {
                all.push(self.schedule(count)?);
            }
        }
        Ok(all)
    }

    fn schedule(&self, count: u64) -> Result<Schedule, PlanError> {
        let (stages, chunks) = (self.plan.pipeline as usize, self.plan.virtual_pipeline as u32);
        let micro_batches = count as u32;
        let schedule = match (self.workload.task, &self.plan.written) {
            // Forward alone needs no second copy of the layers.
            (Task::Inference, _) if self.plan.from_both_ends() => {
                Schedule::forward_only(stages, 1, micro_batches)
            }
            (Task::Inference, _) => Schedule::forward_only(stages, chunks, micro_batches),
            (Task::Training, Some(written)) => {
                let shapes = [
                    ("stages", written.stages.len() as u64, self.plan.pipeline),
                    ("chunks a stage", u64::from(written.chunks), self.plan.virtual_pipeline),
                    ("micro-batches", u64::from(written.micro_batches), count),
                ];
                if let Some(&(what, found, expected)) = shapes.iter().find(|(_, a, b)| a != b) {
                    return Err(ScheduleError::Shape { what, found, expected }.into());
                }
                // Forwards alone are a schedule, but one of inference.
                if written.stages.iter().flatten().all(|action| matches!(action, Action::Forward { .. })) {
                    let action = Action::Backward { chunk: 0, micro_batch: 0 }.to_string();
                    return Err(ScheduleError::Count { stage: 0, action, count: 0 }.into());
                }
                written.clone()
            }
            (Task::Training, None) => {
                let automatic =
                    matches!(self.plan.schedule, ScheduleKind::ZeroBubbleOne | ScheduleKind::ZeroBubbleTwo);
                let costs = if automatic { self.pass_costs() } else { Vec::new() };
                let transfer = if automatic { self.transfer()?.picos() } else { 0 };
                let group = self.plan.micro_batch_group;
                let pipeline = Pipeline { stages, chunks, micro_batches, group, costs: &costs, transfer };
                Schedule::of(self.plan.schedule, &pipeline)?
            }
        };
        schedule.check()?;
        Ok(schedule)
    }

    /// Device times in picoseconds and bytes of each stage's passes.
    fn pass_costs(&self) -> Vec<PassCost> {
        let none = PassCost { forward: 0, input: 0, weight: 0, saved: 0, kept: 0 };
        let of_stage = |(stage, layers): (usize, &Range<usize>)| {
            layers.clone().fold(none, |sum, layer| {
                let cost = self.costs[stage % self.costs.len()].layer(layer);
                let it = self.layer(cost);
                PassCost {
                    forward: sum.forward + it.forward,
                    input: sum.input + it.input,
                    weight: sum.weight + it.weight,
                    saved: sum.saved + it.saved,
                    kept: sum.kept + it.kept,
                }
            })
        };
        self.ranges.iter().enumerate().map(of_stage).collect()
    }

    fn layer(&self, cost: &LayerCost) -> PassCost {
        let late = &cost.work.weight_gradients;
        let sum = |costs: &mut dyn Iterator<Item = &Cost>| costs.map(|it| self.picos(it)).sum::<u64>();
        let backward = |wanted: bool| {
            let numbered = cost.backward.iter().enumerate();
            sum(&mut numbered.filter(|&(at, _)| deferred(cost, at) == wanted).map(|(_, it)| it))
        };
        let again = sum(&mut cost.recomputed.iter().filter_map(|&at| cost.forward.get(at)));
        let bytes = |wanted: &dyn Fn(usize) -> bool| {
            let numbered = cost.work.saved.iter().enumerate();
            numbered.filter(|&(at, _)| wanted(at)).map(|(_, tensor)| tensor.bytes.0).sum::<u64>()
        };
        PassCost {
            forward: sum(&mut cost.forward.iter()),
            input: again + backward(false),
            weight: backward(true),
            saved: bytes(&|at| cost.kept[at]),
            kept: bytes(&|at| late.saved.contains(&at)) + late.gradients.0,
        }
    }

    /// Device time of an operation; transfers have the links to themselves.
    fn picos(&self, cost: &Cost) -> u64 {
        match cost {
            Cost::Kernel(cost) => cost.first.0.picos() + cost.last.map_or(0, |(time, _)| time.picos()),
            Cost::Done => 0,
            Cost::Ring(ring) => {
                let placement = self.layout.placements(0)[Along::Tensor as usize];
                let hop = SimTime::from_seconds(ring.hop.alone_s(self.cluster, placement));
                ring.alone(hop.unwrap_or(SimTime::ZERO)).picos()
            }
            Cost::Exchange(exchange) => {
                let placement = self.layout.placements(0)[exchange.along as usize];
                let alone_s = exchange.transfer.alone_s(self.cluster, placement);
                SimTime::from_seconds(alone_s).map_or(0, SimTime::picos)
            }
        }
    }

    /// Time of the longest transfer of an activation between two stages.
    fn transfer(&self) -> Result<SimTime, PlanError> {
        let mut longest = 0.0_f64;
        for (boundary, range) in self.ranges.iter().enumerate().take(self.ranges.len().saturating_sub(1)) {
            let Some(last) = range.clone().next_back() else { continue };
            let crosses = self.layout.crosses(boundary as u32, boundary as u32 + 1, 0);
            let bytes = self.costs[0].layer(last).work.output.0.div_ceil(self.plan.senders());
            let transfer = point_to_point(self.cluster, crosses, bytes);
            let placement = Placement { ranks: 2, nodes: if crosses { 2 } else { 1 } };
            longest = longest.max(transfer.alone_s(self.cluster, placement));
        }
        Ok(SimTime::from_seconds(longest)?)
    }
}
