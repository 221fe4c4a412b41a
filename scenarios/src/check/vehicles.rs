//! Plans of vehicles: a path and what each vehicle holds.

use steptime_clusters::VehicleCluster;
use steptime_models::ComponentGraph;
use steptime_plans::{
    ANNEALING_MOVES, EXACT_NODE_LIMIT, Exact, FormulaParameters, GREEDY_ORDER_LIMIT, GreedyOutcome, PathPlan,
    PathPlanError, PlanError, SWIFT_SEED, annealed, exact_optimum, greedy_baseline, smallest_repair,
    swift_first_phase,
};

use super::{CheckReport, Claim, Compared, NamedPath, PlanVerdict, Repair};
use crate::error::InputError;
use crate::refusal;
use crate::scenario::{Job, Scenario};

/// A claim of a time is right within this share: prints have four decimals, or four digits.
const PRINTED: f64 = 1e-4;

/// A model, its vehicles, and the formula.
#[derive(Clone, Copy)]
pub(crate) struct Setting<'a> {
    pub(crate) graph: &'a ComponentGraph,
    pub(crate) cluster: &'a VehicleCluster,
    pub(crate) formula: &'a FormulaParameters,
}

impl<'a> Setting<'a> {
    pub(crate) fn of(scenario: &'a Scenario) -> Option<Self> {
        match (&scenario.job, scenario.model.components()) {
            (Job::Vehicles { cluster, formula, .. }, Some(graph)) => Some(Self { graph, cluster, formula }),
            _ => None,
        }
    }

    /// A plan in words: `v2 > v3: A, B > v1`.
    pub(crate) fn words(&self, plan: &PathPlan) -> String {
        let stop = |&v: &usize| {
            let id = self.cluster.vehicles.get(v).map_or("?", |vehicle| vehicle.id.as_str());
            let held = plan.assignment.get(v).map_or(&[][..], Vec::as_slice);
            let names: Vec<&str> =
                held.iter().filter_map(|&p| Some(self.graph.partitions.get(p)?.name.as_str())).collect();
            if names.is_empty() { id.to_owned() } else { format!("{id}: {}", names.join(", ")) }
        };
        plan.order.iter().map(stop).collect::<Vec<_>>().join(" > ")
    }

    /// The proven optimum, then the planners to compare with.
    pub(crate) fn compare(&self) -> Result<(Exact, Vec<Compared>), PlanError> {
        let Self { graph, cluster, formula } = *self;
        let exact = exact_optimum(graph, cluster, formula, EXACT_NODE_LIMIT)?;
        let entry = |planner: &str, found: Option<(&PathPlan, f64)>, why: &str| Compared {
            planner: planner.to_owned(),
            step_time_s: found.map(|(_, time)| time),
            plan: found.map_or_else(|| why.to_owned(), |(plan, _)| self.words(plan)),
        };
        let best = exact.best.as_ref().map(|(plan, time)| (plan, time.total_s));
        let why = exact.infeasible.clone().unwrap_or_else(|| "no plan was found".to_owned());
        let mut compared = vec![entry("optimum (branch and bound)", best, &why)];
        compared.push(match greedy_baseline(graph, cluster, formula, GREEDY_ORDER_LIMIT)? {
            GreedyOutcome::Feasible(plan, time) => entry("greedy baseline", Some((&plan, time.total_s)), ""),
            GreedyOutcome::Infeasible(infeasible) => entry("greedy baseline", None, &infeasible.reason),
        });
        let first = swift_first_phase(graph, cluster, formula, SWIFT_SEED)?;
        let complete = first.dropped.is_empty().then_some((&first.plan, first.time.total_s));
        let dropped = format!(
            "leaves out {}: its {:.4} s are not those of the model",
            first.dropped.join(", "),
            first.time.total_s
        );
        compared.push(entry("SWIFT, first phase", complete, &dropped));
        let cooled = annealed(graph, cluster, formula, SWIFT_SEED, ANNEALING_MOVES)?;
        let cooled = cooled.as_ref().map(|(plan, time)| (plan, time.total_s));
        compared.push(entry("simulated annealing", cooled, "met no plan that fits"));
        Ok((exact, compared))
    }
}

/// A plan by names. Names that model or cluster do not have are violations.
pub(super) fn check_named(scenario: &Scenario, path: &NamedPath) -> Result<CheckReport, InputError> {
    let Some(setting) = Setting::of(scenario) else {
        return Err(scenario.places.cluster.conflict("is no cluster of vehicles, which the plan is for"));
    };
    let mut unknown = Vec::new();
    let mut index = |id: &str| {
        let found = setting.cluster.index(id);
        if found.is_none() {
            unknown.push((
                "legal",
                format!("the plan names vehicle {id}, which {} does not have", setting.cluster.name),
            ));
        }
        found
    };
    let order: Vec<usize> = path.path.iter().filter_map(|id| index(id)).collect();
    let mut assignment = vec![Vec::new(); setting.cluster.vehicles.len()];
    for (id, partitions) in &path.assignment {
        let Some(v) = index(id) else { continue };
        for name in partitions {
            match setting.graph.partitions.iter().position(|partition| partition.name == *name) {
                Some(p) => assignment[v].push(p),
                None => assignment[v].extend(None::<usize>),
            }
        }
    }
    for name in path.assignment.values().flatten() {
        if !setting.graph.partitions.iter().any(|partition| partition.name == *name) {
            let message =
                format!("the plan places partition {name}, which {} does not have", scenario.model.name);
            unknown.push(("complete", message));
        }
    }
    let plan = PathPlan { order, assignment };
    let mut report = check(scenario, &path.name, setting, &plan, path.claim)?;
    for (rule, message) in unknown {
        report.violate(rule, message);
    }
    Ok(report)
}

/// A plan by numbers.
pub(super) fn check(
    scenario: &Scenario,
    name: &str,
    setting: Setting<'_>,
    plan: &PathPlan,
    claim: Claim,
) -> Result<CheckReport, InputError> {
    let refuse = |error: PlanError| refusal::explain(scenario, error);
    let Setting { graph, cluster, formula } = setting;
    let mut report = CheckReport::new(name, setting.words(plan), claim);
    report.fits = Some(true);
    for violation in plan.violations(graph, cluster) {
        report.violate(rule_of(&violation), violation.to_string());
    }
    let time = plan.serial_time(graph, cluster, formula).map_err(|error| refuse(error.into()))?;
    report.step_time_s = Some(time.total_s);
    judge_claim(&mut report, time.total_s);
    describe(&mut report, setting, plan);
    let (exact, compared) = setting.compare().map_err(refuse)?;
    report.compared = compared;
    report.proven = exact.proven;
    report.bound_s = Some(exact.bound_s).filter(|bound| bound.is_finite());
    if report.verdict == PlanVerdict::Rejected
        && let Some(repair) =
            smallest_repair(graph, cluster, formula, plan).map_err(|error| refuse(error.into()))?
    {
        let mut changes: Vec<String> = repair
            .moved
            .iter()
            .map(|&(p, v)| format!("put {} on {}", graph.partitions[p].name, cluster.vehicles[v].id))
            .collect();
        if repair.plan.order != plan.order {
            let ids: Vec<&str> = repair.plan.order.iter().map(|&v| cluster.vehicles[v].id.as_str()).collect();
            changes.push(format!("take the path {}", ids.join(" > ")));
        }
        if changes.is_empty() {
            changes.push("keep the plan; only its claim is wrong".to_owned());
        }
        report.repair = Some(Repair { changes, step_time_s: repair.time.total_s });
    }
    Ok(report)
}

fn rule_of(violation: &PathPlanError) -> &'static str {
    match violation {
        PathPlanError::PartitionMissing { .. } | PathPlanError::PartitionRepeated { .. } => "complete",
        PathPlanError::Memory { .. } => "fits",
        _ => "legal",
    }
}

/// A time that the formula does not give is no claim of this model on these vehicles.
fn judge_claim(report: &mut CheckReport, predicted: f64) {
    let Some(claimed) = report.claimed.step_time_s else { return };
    if (claimed - predicted).abs() <= PRINTED * predicted + 5e-5 {
        return;
    }
    let message = format!("claims {claimed:.4} s, the formula gives {predicted:.4} s");
    if claimed < predicted {
        report.violate("claim", message);
    }
}

/// The vehicle that takes most of the time, and the fullest one's memory.
fn describe(report: &mut CheckReport, setting: Setting<'_>, plan: &PathPlan) {
    let Setting { graph, cluster, formula } = setting;
    let total = report.step_time_s.unwrap_or(0.0);
    let mut slowest: Option<(String, f64)> = None;
    let mut fullest: f64 = 0.0;
    for (v, vehicle) in cluster.vehicles.iter().enumerate() {
        let mut alone =
            PathPlan { order: plan.order.clone(), assignment: vec![Vec::new(); cluster.vehicles.len()] };
        alone.assignment[v].clone_from(&plan.assignment[v]);
        let Ok(time) = alone.serial_time(graph, cluster, formula) else { continue };
        let what = if time.compute_s >= time.communication_s { "compute" } else { "transfers" };
        if total > 0.0 && slowest.as_ref().is_none_or(|(_, share)| time.total_s / total > *share) {
            slowest = Some((format!("{what} of {}", vehicle.id), time.total_s / total));
        }
        fullest = fullest.max(plan.assignment[v].iter().map(|&p| graph.partition_capacity(p)).sum());
    }
    report.bottleneck = slowest;
    report.peak_memory_bytes = Some(fullest as u64);
}
