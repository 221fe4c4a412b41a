//! What rows of measured steps say about the Python of a framework: the host's time beside launches.

use std::collections::BTreeMap;

use rayon::prelude::*;
use steptime_clusters::calibrate_host::{FRAMEWORK_COSTS, MOST_HOSTS, fit_framework};
use steptime_clusters::{ExecutionStyle, FrameworkCost, LaunchCost};
use steptime_plans::Execution;

use crate::calibrate_host::HostFitError;
use crate::run::play_time;
use crate::scenario::{Job, Scenario};
use crate::validate::{TimedRow, timed_rows};

/// A step that takes longer or shorter than this factor of what the first fit predicts is left out of the second: a fault
/// slowed it, or what its row says is not what ran.
const FAULTY: f64 = 1.67;
/// Fewest steps of a fit.
const FEWEST: usize = 12;

/// Errors of some steps, as shares of what was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepErrors {
    /// Steps.
    pub steps: usize,
    /// Median of the absolute errors.
    pub median: f64,
    /// Mean of the absolute errors.
    pub mean: f64,
    /// Mean of the errors.
    pub bias: f64,
}

/// A host with what its framework costs, and the errors of its steps.
#[derive(Clone, Debug, PartialEq)]
pub struct FrameworkHost {
    /// Preset of hosts, or the cluster that says its own costs.
    pub name: String,
    /// Fitted costs; what no step tells of is as it was.
    pub costs: FrameworkCost,
    /// Steps that the fit saw, with the host as it was and as fitted.
    pub seen: [StepErrors; 2],
    /// Steps that it never saw, likewise.
    pub held_out: [StepErrors; 2],
}

/// What rows say about hosts.
#[derive(Clone, Debug, PartialEq)]
pub struct FrameworkHosts {
    /// Hosts of the rows, those with the most steps first.
    pub hosts: Vec<FrameworkHost>,
    /// Steps left out as faulty, of those that the fit may see.
    pub faulty: usize,
    /// Keys that steps tell of.
    pub keys: Vec<&'static str>,
    /// Who measured.
    pub sources: Vec<String>,
    /// Errors of all steps that the fit never saw, before and after.
    pub held_out: [StepErrors; 2],
}

/// Fits what a framework's Python costs the hosts of measured rows; each table has the name that errors give it. A third of
/// the jobs is never seen by the fit: which, follows from what they train and on how many GPUs, so that a job on two hosts
/// is on one side.
///
/// # Errors
/// A table that does not follow the schema, or too few steps whose framework has such costs.
pub fn calibrate_framework(tables: &[(String, String)]) -> Result<FrameworkHosts, HostFitError> {
    let steps = steps_of(timed_rows(tables)?);
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for step in &steps {
        *counts.entry(&step.host).or_default() += 1;
    }
    let mut names: Vec<(&str, usize)> = counts.into_iter().collect();
    names.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    names.truncate(MOST_HOSTS);
    let names: Vec<String> = names.into_iter().map(|(name, _)| name.to_owned()).collect();
    let place = |step: &Step| names.iter().position(|name| *name == step.host);
    let steps: Vec<(usize, Step)> =
        steps.into_iter().filter_map(|step| place(&step).map(|at| (at, step))).collect();
    let mut seen: Vec<&(usize, Step)> = steps.iter().filter(|(_, step)| !step.held_out).collect();
    if seen.len() < FEWEST {
        return Err(HostFitError::TooFew { found: seen.len(), needed: FEWEST });
    }
    let first = |at: usize| steps.iter().find(|(host, _)| *host == at).map(|(_, step)| step.launch);
    let launches: Vec<LaunchCost> = (0..names.len()).filter_map(first).collect();
    let fit = |seen: &[&(usize, Step)]| {
        fit_framework(&launches, |costs, list| {
            list.par_extend(seen.par_iter().map(|(at, step)| libm::log1p(step.error(costs.get(*at)))));
        })
    };
    let before = seen.len();
    let rough = fit(&seen);
    seen.retain(|(at, step)| libm::log1p(step.error(rough.costs.get(*at))).abs() < libm::log(FAULTY));
    let faulty = before - seen.len();
    let fitted = fit(&seen);
    let costs = told(&fitted.costs, &fitted.seen, &steps);
    let errors = |keep: &(dyn Fn(&(usize, Step)) -> bool + Sync), after: bool| {
        let of = |it: &&(usize, Step)| it.1.error(costs.get(it.0).filter(|_| after));
        let kept: Vec<&(usize, Step)> = steps.iter().filter(|it| keep(it)).collect();
        StepErrors::of(kept.par_iter().map(of).collect())
    };
    let both = |keep: &(dyn Fn(&(usize, Step)) -> bool + Sync)| [errors(keep, false), errors(keep, true)];
    let hosts = names.iter().enumerate().zip(&costs).map(|((at, name), costs)| FrameworkHost {
        name: name.clone(),
        costs: *costs,
        seen: both(&|(host, step)| *host == at && !step.held_out),
        held_out: both(&|(host, step)| *host == at && step.held_out),
    });
    let hosts = hosts.collect();
    let held_out = both(&|(_, step)| step.held_out);
    // A source may name the file of each row behind its collection.
    let collection = |source: &str| source.split(':').next().unwrap_or(source).to_owned();
    let mut sources: Vec<String> = steps.iter().map(|(_, step)| collection(&step.source)).collect();
    sources.sort();
    sources.dedup();
    Ok(FrameworkHosts { hosts, faulty, keys: fitted.seen, sources, held_out })
}

/// The fitted costs where steps tell of them, and what the hosts of the steps had elsewhere.
fn told(fitted: &[FrameworkCost], keys: &[&str], steps: &[(usize, Step)]) -> Vec<FrameworkCost> {
    let of_host = |(at, costs): (usize, &FrameworkCost)| {
        let own = steps.iter().find(|(host, _)| *host == at).map(|(_, step)| step.framework.values());
        let own = own.unwrap_or_else(|| costs.values());
        let mut values = costs.values();
        for ((value, own), (key, _)) in values.iter_mut().zip(own).zip(FRAMEWORK_COSTS) {
            if !keys.contains(&key) {
                *value = own;
            }
        }
        FrameworkCost::from_values(values)
    };
    fitted.iter().enumerate().map(of_host).collect()
}

/// A measured step whose framework has host costs.
struct Step {
    scenario: Scenario,
    measured_s: f64,
    host: String,
    launch: LaunchCost,
    framework: FrameworkCost,
    source: String,
    held_out: bool,
}

fn steps_of(rows: Vec<TimedRow>) -> Vec<Step> {
    let step = |row: TimedRow| {
        let Job::Gpus { cluster, workload, .. } = &row.scenario.job else { return None };
        let host = &cluster.host;
        let eager = workload.execution == Execution::Eager;
        let costs = host.framework(workload.framework, ExecutionStyle::Eager);
        if !eager || costs == FrameworkCost::default() {
            return None;
        }
        Some(Step {
            host: host.framework_from.clone(),
            launch: host.launch,
            framework: host.megatron,
            held_out: third(&row.job),
            measured_s: row.measured_s,
            source: row.source,
            scenario: row.scenario,
        })
    };
    let steps: Vec<Step> = rows.into_iter().filter_map(step).collect();
    // What cannot be played says nothing.
    let played: Vec<bool> = steps.par_iter().map(|step| step.error(None).is_finite()).collect();
    steps.into_iter().zip(played).filter(|(_, played)| *played).map(|(step, _)| step).collect()
}

impl Step {
    /// Error of the predicted step, as a share of the measured one, with these costs or those that the host has.
    fn error(&self, costs: Option<&FrameworkCost>) -> f64 {
        let report = match costs {
            None => play_time(&self.scenario),
            Some(costs) => {
                let mut scenario = self.scenario.clone();
                if let Job::Gpus { cluster, .. } = &mut scenario.job {
                    cluster.host.megatron = *costs;
                }
                play_time(&scenario)
            }
        };
        let predicted = report.ok().and_then(|report| report.step_time_s).filter(|step| *step > 0.0);
        predicted.map_or(f64::NAN, |step| step / self.measured_s - 1.0)
    }
}

impl StepErrors {
    fn of(mut errors: Vec<f64>) -> Self {
        let steps = errors.len();
        if steps == 0 {
            return Self::default();
        }
        let mean = |list: &[f64]| list.iter().sum::<f64>() / steps as f64;
        let bias = mean(&errors);
        for error in &mut errors {
            *error = error.abs();
        }
        errors.sort_by(f64::total_cmp);
        let median = f64::midpoint(errors[(steps - 1) / 2], errors[steps / 2]);
        Self { steps, median, mean: mean(&errors), bias }
    }
}

/// Whether a job is of the third that fits do not see (FNV-1a).
fn third(job: &str) -> bool {
    let hash = job.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash ^ (hash >> 32)).is_multiple_of(3)
}
