//! Running a component model on a path of vehicles.

use indexmap::IndexMap;
use steptime_clusters::VehicleCluster;
use steptime_core::Outcome;
use steptime_models::ComponentGraph;
use steptime_plans::{
    FormulaParameters, GREEDY_ORDER_LIMIT, GreedyOutcome, PathPlan, PathPlanError, PathReplay, PlanError,
    PlayedRank, ReplayClasses, ReplayOptions, greedy_baseline, lower_path,
};

use crate::parallelism::Placement;
use crate::report::{
    Infeasible, OutOfMemory, Parameters, PeakMemory, Provenance, REPORT_SCHEMA, Report, Stage, TimeBreakdown,
    VehiclePath, Verdict,
};
use crate::run::{RunResult, breakdown, rank_shares};
use crate::scenario::{Replay, Scenario};
use crate::{memory, timeline};

struct VehicleRun<'a> {
    scenario: &'a Scenario,
    graph: &'a ComponentGraph,
    cluster: &'a VehicleCluster,
    placement: &'a Placement,
    formula: &'a FormulaParameters,
    replay: Replay,
}

/// Places the partitions and replays the path.
pub(crate) fn run(
    scenario: &Scenario,
    cluster: &VehicleCluster,
    placement: &Placement,
    formula: &FormulaParameters,
    replay: Replay,
    with_timeline: bool,
) -> Result<RunResult, PlanError> {
    let empty = ComponentGraph { components: Vec::new(), partitions: Vec::new() };
    let graph = scenario.model.components().unwrap_or(&empty);
    let run = VehicleRun { scenario, graph, cluster, placement, formula, replay };
    match run.place()? {
        Ok(plan) => run.play(&plan, with_timeline),
        Err(infeasible) => {
            let report = run.refused(infeasible);
            Ok(RunResult { report, timeline: None, memory: Vec::new(), recording: None, operations: None })
        }
    }
}

impl VehicleRun<'_> {
    /// The plan, or why no placement fits into memory.
    fn place(&self) -> Result<Result<PathPlan, Infeasible>, PlanError> {
        match self.placement {
            Placement::Greedy => {
                match greedy_baseline(self.graph, self.cluster, self.formula, GREEDY_ORDER_LIMIT)? {
                    GreedyOutcome::Feasible(plan, _) => Ok(Ok(plan)),
                    GreedyOutcome::Infeasible(why) => Ok(Err(Infeasible {
                        partition: why.partition,
                        required_bytes: why.required_bytes.round() as u64,
                        device: why.vehicle,
                        available_bytes: why.available_bytes.max(0.0).round() as u64,
                        short_by_bytes: why.short_by_bytes.round() as u64,
                        reason: why.reason,
                    })),
                }
            }
            Placement::Given(plan) => match plan.validate(self.graph, self.cluster) {
                Ok(()) => Ok(Ok(plan.clone())),
                Err(error) => {
                    let reason = error.to_string();
                    let PathPlanError::Memory {
                        vehicle,
                        partition,
                        required_bytes,
                        available_bytes,
                        short_by_bytes,
                    } = error
                    else {
                        return Err(error.into());
                    };
                    Ok(Err(Infeasible {
                        partition,
                        required_bytes: required_bytes.round() as u64,
                        device: vehicle,
                        available_bytes: available_bytes.round() as u64,
                        short_by_bytes: short_by_bytes.round() as u64,
                        reason,
                    }))
                }
            },
        }
    }

    fn play(&self, plan: &PathPlan, with_timeline: bool) -> Result<RunResult, PlanError> {
        let options = ReplayOptions {
            parameters: *self.formula,
            micro_batches: self.replay.micro_batches,
            schedule: self.replay.schedule,
        };
        let path = lower_path(self.graph, self.cluster, plan, &options, &ReplayClasses::default())?;
        let places = path.vehicles.iter().enumerate().map(|(rank, &vehicle)| timeline::Place {
            rank: rank as u64,
            stage: rank as u64,
            multiplicity: 1,
            device: self.cluster.vehicles[vehicle].id.clone(),
            capacity_bytes: self.cluster.vehicles[vehicle].memory as u64,
        });
        let (outcome, timeline) = timeline::play(
            &self.scenario.name,
            (&path.world, path.world.ranks().len()),
            places,
            with_timeline,
        )?;
        let report = self.report(plan, &path, &outcome)?;
        let (timeline, recording) = timeline.unzip();
        Ok(RunResult { report, timeline, memory: Vec::new(), recording, operations: None })
    }

    fn report(&self, plan: &PathPlan, path: &PathReplay, outcome: &Outcome) -> Result<Report, PlanError> {
        let serial = plan.serial_time(self.graph, self.cluster, self.formula)?;
        let ids = |order: &[usize]| order.iter().map(|&v| self.cluster.vehicles[v].id.clone()).collect();
        let names = |held: &[usize]| held.iter().map(|&p| self.graph.partitions[p].name.clone()).collect();
        let assignment: IndexMap<String, Vec<String>> = plan
            .order
            .iter()
            .map(|&vehicle| (self.cluster.vehicles[vehicle].id.clone(), names(&plan.assignment[vehicle])))
            .collect();
        let ranks: Vec<PlayedRank> = (0..path.vehicles.len())
            .map(|stage| PlayedRank {
                rank: stage as u64,
                stage,
                multiplicity: 1,
                kind: 0,
                samples: None,
                count: None,
            })
            .collect();
        let stages = self.stages(plan, path, outcome);
        let step = outcome.end.seconds();
        let mut report = self.empty();
        report.verdict = Verdict::Fits;
        report.step_time_s = Some(step);
        // The formula is exact for its own toy capabilities; how far vehicles are from them nobody has stated.
        report.step_time_interval_s = None;
        report.samples_per_s = Some(self.scenario.batch.global as f64 / step);
        report.time_breakdown_s = breakdown(&ranks, outcome, true);
        report.peak_memory = self.peak(path, outcome);
        report.stages = stages;
        report.vehicle_path = Some(VehiclePath {
            placement: match self.placement {
                Placement::Greedy => "greedy".to_owned(),
                Placement::Given(_) => "given".to_owned(),
            },
            path: ids(&plan.order),
            assignment,
            serial_time_s: serial.total_s,
            serial_compute_s: serial.compute_s,
            serial_communication_s: serial.communication_s,
        });
        Ok(report)
    }

    fn stages(&self, plan: &PathPlan, path: &PathReplay, outcome: &Outcome) -> Vec<Stage> {
        let in_flight = &path.in_flight;
        let stage = |(stage, &vehicle): (usize, &usize)| {
            let (busy_fraction, bubble_fraction, communication_fraction) =
                rank_shares(&[&outcome.ranks[stage]], outcome.end);
            let memory = outcome.ranks[stage].memory.peak;
            let held = &plan.assignment[vehicle];
            Stage {
                stage: stage as u64,
                device: self.cluster.vehicles[vehicle].id.clone(),
                ranks: vec![stage as u64],
                layers: held.iter().map(|&p| self.graph.partitions[p].name.clone()).collect(),
                parameters: 0,
                peak_allocated_bytes: memory,
                peak_reserved_bytes: memory,
                after_step_bytes: memory,
                in_flight_micro_batches: in_flight[stage],
                busy_fraction,
                bubble_fraction,
                communication_fraction,
            }
        };
        path.vehicles.iter().enumerate().map(stage).collect()
    }

    /// The vehicle with the least room left, in proportion to what it has.
    fn peak(&self, path: &PathReplay, outcome: &Outcome) -> PeakMemory {
        let capacity = |rank: usize| self.cluster.vehicles[path.vehicles[rank]].memory;
        let fill = |rank: usize| outcome.ranks[rank].memory.peak as f64 / capacity(rank);
        let mut fullest = 0;
        for rank in 1..path.vehicles.len() {
            if fill(rank) > fill(fullest) {
                fullest = rank;
            }
        }
        let Some(rank) = outcome.ranks.get(fullest) else { return memory::none() };
        let bytes = rank.memory.peak;
        let mut peak = memory::none();
        peak.allocated_bytes = bytes;
        peak.reserved_bytes = bytes;
        peak.device_bytes = bytes;
        peak.capacity_bytes = capacity(fullest) as u64;
        peak.after_step_bytes = rank.memory.end_by_category.iter().sum();
        peak.rank = fullest as u64;
        peak.at_s = rank.memory.peak_at.seconds();
        peak.breakdown_bytes.insert("parameters".to_owned(), bytes);
        peak
    }

    /// The report of a model that cannot be placed.
    fn refused(&self, infeasible: Infeasible) -> Report {
        let mut report = self.empty();
        report.peak_memory.capacity_bytes = infeasible.available_bytes;
        // What would have to be held, had the device room for it.
        report.peak_memory.allocated_bytes = infeasible.required_bytes;
        report.peak_memory.reserved_bytes = infeasible.required_bytes;
        report.peak_memory.device_bytes = infeasible.required_bytes;
        report.peak_memory.breakdown_bytes.insert("parameters".to_owned(), infeasible.required_bytes);
        report.out_of_memory = Some(OutOfMemory {
            rank: self.cluster.index(&infeasible.device).unwrap_or(0) as u64,
            at_s: 0.0,
            tensor: infeasible.partition.clone(),
            requested_bytes: infeasible.required_bytes,
            short_by_bytes: infeasible.short_by_bytes,
            layer: None,
            unusable_bytes: 0,
            allocated_bytes: 0,
            step: 0,
        });
        report.infeasible = Some(infeasible);
        report
    }

    fn empty(&self) -> Report {
        let components = &self.graph.components;
        let flops: f64 = components.iter().map(|component| component.flops_per_sample).sum();
        Report {
            schema: REPORT_SCHEMA.to_owned(),
            name: self.scenario.name.clone(),
            verdict: Verdict::OutOfMemory,
            step_time_s: None,
            step_time_interval_s: None,
            variability: None,
            samples_per_s: None,
            tokens_per_s: None,
            tokens_per_s_per_gpu: None,
            model_flops_utilization: None,
            hardware_flops_utilization: None,
            time_breakdown_s: TimeBreakdown::default(),
            end_to_end_s: None,
            input: None,
            peak_memory: memory::none(),
            out_of_memory: None,
            remedies: Vec::new(),
            infeasible: None,
            cost: None,
            stages: Vec::new(),
            vehicle_path: None,
            gpus: self.cluster.vehicles.len() as u64,
            parameters: Parameters { total: 0, trainable: 0, active: 0 },
            flops_per_step: flops * self.scenario.batch.global as f64,
            provenance: self.provenance(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            scenario_hash: None,
        }
    }

    fn provenance(&self) -> Vec<Provenance> {
        let entry = |what: &str, kind: &str, source: &str, error: &str| Provenance {
            what: what.to_owned(),
            kind: kind.to_owned(),
            source: source.to_owned(),
            error: error.to_owned(),
        };
        vec![
            entry("model", "data_sheet", &self.scenario.model.source, ""),
            entry("vehicles", "data_sheet", &self.cluster.source, "capabilities are stated, not measured"),
            entry(
                "step time",
                "formula",
                "event-driven replay of the placement with the cost terms of the SWIFT serial formula; with one \
                 micro-batch it equals the formula wherever the last vehicle of the path holds a partition",
                "",
            ),
            entry(
                "memory",
                "formula",
                "sum of the stated component capacities; batch and overhead do not enter, as in the source",
                "",
            ),
        ]
    }
}
