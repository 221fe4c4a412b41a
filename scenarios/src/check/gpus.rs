//! Plans of GPU jobs: a scenario, and what its author claims.

use super::vehicles::{self, Setting};
use super::{CheckReport, Claim, Compared, PlanVerdict, Repair, plan_in_words};
use crate::draft::Draft;
use crate::error::InputError;
use crate::files::Files;
use crate::parallelism::Placement;
use crate::remedy::remedies;
use crate::report::{Report, Verdict};
use crate::run::run;
use crate::scenario::Job;
use crate::search::{FoundPlan, search_around};

/// Memory that a claim may be short of the prediction by: what the published scores bear out at the median.
const MEMORY_SLACK: f64 = 0.08;

/// Checks the plan that a scenario is.
pub(super) fn check(
    draft: &Draft,
    files: &(dyn Files + Sync),
    claim: Claim,
    plays: u64,
) -> Result<CheckReport, InputError> {
    let scenario = match draft.scenario(files) {
        Ok(scenario) => scenario,
        Err(error) => return illegal(draft, claim, error),
    };
    if let (Job::Vehicles { cluster, placement, .. }, Some(setting)) = (&scenario.job, Setting::of(&scenario))
    {
        let _ = cluster;
        return match placement {
            Placement::Given(plan) => vehicles::check(&scenario, &scenario.name, setting, plan, claim),
            Placement::Greedy => Err(scenario
                .places
                .parallelism
                .conflict("has no plan to check: `placement` is a table with `path` and `assignment`")),
        };
    }
    let mut report = CheckReport::new(&scenario.name, plan_in_words(&scenario), claim);
    let played = match run(&scenario, false) {
        Ok(played) => played.report,
        Err(error @ InputError::Plan { .. }) => {
            report.violate("legal", error.reason());
            return Ok(report);
        }
        Err(error) => return Err(error),
    };
    report.step_time_s = played.step_time_s;
    report.step_time_interval_s = played.step_time_interval_s;
    report.peak_memory_bytes = Some(played.peak_memory.device_bytes);
    report.fits = Some(played.verdict == Verdict::Fits);
    report.bottleneck = bottleneck(&played);
    if let Some(oom) = &played.out_of_memory {
        let message = format!(
            "rank {} runs out of memory: {} asks for {} bytes, {} bytes short",
            oom.rank, oom.tensor, oom.requested_bytes, oom.short_by_bytes
        );
        report.violate("fits", message);
        let best = remedies(draft, files).into_iter().next();
        report.repair = best.map(|remedy| Repair { changes: remedy.set, step_time_s: remedy.step_time_s });
    }
    judge_claim(&mut report, &played);
    if plays > 0 {
        compare(&mut report, draft, files, plays);
    }
    Ok(report)
}

/// Below this share above the bound a plan counts as reaching it: what playing a step in part may be off by.
const REACHED: f64 = 1e-3;

/// How far the plan is from the best one that a search finds, and from the search's bound.
fn compare(report: &mut CheckReport, draft: &Draft, files: &(dyn Files + Sync), plays: u64) {
    let planner = "search".to_owned();
    let found = match search_around(draft, files, plays) {
        Ok(found) => found,
        Err(error) => {
            let plan = format!("not searched: {}", error.reason());
            report.compared.push(Compared { planner, step_time_s: None, plan });
            return;
        }
    };
    let best = found.best.as_ref();
    report.compared.push(Compared {
        planner,
        step_time_s: best.map(|best| best.step_time_s),
        plan: best.map_or_else(|| "no plan that was played fits".to_owned(), FoundPlan::words),
    });
    let own = report.step_time_s.filter(|_| report.fits == Some(true));
    // The bound is of the plans that the search looks at, of which this one need not be.
    report.bound_s = found.bound.filter(|bound| own.is_none_or(|own| own >= bound * (1.0 - REACHED)));
    report.proven = report.bound_s.is_some() && found.gap.is_some_and(|gap| gap <= REACHED);
}

/// Whether the claim is better than the prediction allows.
fn judge_claim(report: &mut CheckReport, played: &Report) {
    let step = played.step_time_s.unwrap_or(0.0);
    let low = played.step_time_interval_s.map_or(step, |ends| ends[0]);
    if let Some(claimed) = report.claimed.step_time_s
        && claimed < low
    {
        let interval = played
            .step_time_interval_s
            .map_or_else(String::new, |[low, high]| format!(" (80 % interval {low:.4} to {high:.4} s)"));
        report.violate("claim", format!("claims {claimed:.4} s a step, predicted are {step:.4} s{interval}"));
    }
    let memory = played.peak_memory.device_bytes as f64;
    if let Some(claimed) = report.claimed.peak_memory_bytes
        && claimed < memory * (1.0 - MEMORY_SLACK)
    {
        let message = format!("claims a peak of {claimed:.0} bytes, predicted are {memory:.0}");
        report.violate("claim", message);
    }
}

/// The largest part of the step, and its share.
fn bottleneck(report: &Report) -> Option<(String, f64)> {
    let step = report.step_time_s?;
    let parts = report.time_breakdown_s.entries();
    let (name, part) =
        parts.into_iter().fold(("compute", 0.0), |most, part| if part.1 > most.1 { part } else { most });
    Some((name.replace('_', " "), part / step))
}

/// A plan that model, cluster or schedule do not allow is rejected; a document that is none is an error.
fn illegal(draft: &Draft, claim: Claim, error: InputError) -> Result<CheckReport, InputError> {
    match &error {
        InputError::Conflict { key, .. } | InputError::Plan { key, .. } => {
            let rule = if key.ends_with("stages") { "complete" } else { "legal" };
            let name = draft.name().unwrap_or_else(|| "plan".to_owned());
            let mut report = CheckReport::new(&name, "not played".to_owned(), claim);
            report.violate(rule, error.reason());
            debug_assert_eq!(report.verdict, PlanVerdict::Rejected);
            Ok(report)
        }
        _ => Err(error),
    }
}
