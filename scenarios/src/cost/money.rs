//! The `[cost]` section, and what a step costs.

use serde::{Deserialize, Serialize};

use super::closed_form;
use super::failures::Failures;
use crate::error::InputError;
use crate::report::Report;
use crate::scenario::{Job, Scenario};
use crate::section::Section;

/// Most that an hour, a kilowatt-hour, or a watt can be given as.
const MOST: f64 = 1e9;
/// Most tokens, samples or steps of a run.
const MOST_WORK: f64 = 1e18;
/// Joules in a kilowatt-hour.
const KWH: f64 = 3.6e6;
/// Seconds in an hour.
const HOUR: f64 = 3600.0;

/// How much is to be done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Work {
    Tokens(f64),
    Samples(f64),
    Steps(f64),
}

/// Prices and powers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cost {
    /// Name of the money.
    pub(crate) currency: String,
    /// Money for one GPU and hour.
    gpu_hour: f64,
    /// Money for one node and hour, beside its GPUs.
    node_hour: f64,
    /// Money for a kilowatt-hour.
    kwh: f64,
    /// Power of a GPU at work, watts.
    gpu_watts: Option<f64>,
    /// Power of a GPU that waits, watts.
    gpu_idle_watts: Option<f64>,
    /// Power of a node beside its GPUs, watts.
    node_watts: f64,
    /// Power of the building over that of its machines (power usage effectiveness, ISO/IEC 30134-2).
    overhead: f64,
    /// What is to be done, if the scenario says.
    pub(crate) work: Option<Work>,
}

impl Cost {
    /// Reads the section.
    pub(crate) fn read(section: Section<'_>, samples: Option<u64>) -> Result<Option<Self>, InputError> {
        if !section.is_present() {
            return Ok(None);
        }
        let amount = |key| section.factor(key, 0.0, MOST);
        let currency = section.text("currency")?.map_or_else(|| "USD".to_owned(), |(text, _)| text);
        if currency.is_empty() || currency.chars().any(|c| c.is_control() || c == ',') {
            return Err(section.conflict("currency", "is the name of the money, such as \"USD\""));
        }
        let (gpu_hour, node_hour) = (amount("gpu_hour")?, amount("node_hour")?);
        let (gpu_watts, gpu_idle_watts) = (amount("gpu_watts")?, amount("gpu_idle_watts")?);
        let (node_watts, kwh) = (amount("node_watts")?, amount("kwh")?);
        for (key, given) in [("gpu_idle_watts", gpu_idle_watts), ("node_watts", node_watts), ("kwh", kwh)] {
            if given.is_some() && gpu_watts.is_none() {
                return Err(section.conflict(key, "needs gpu_watts, without which no energy can be told"));
            }
        }
        if gpu_hour.is_none() && node_hour.is_none() && gpu_watts.is_none() {
            return Err(section.missing(
                "gpu_hour",
                "a price of a GPU (gpu_hour) or node (node_hour), or a power (gpu_watts)",
            ));
        }
        let overhead = section.factor("power_usage_effectiveness", 1.0, 10.0)?;
        if overhead.is_some() && gpu_watts.is_none() {
            let why = "needs gpu_watts, without which no energy can be told";
            return Err(section.conflict("power_usage_effectiveness", why));
        }
        let cost = Self {
            currency,
            gpu_hour: gpu_hour.unwrap_or(0.0),
            node_hour: node_hour.unwrap_or(0.0),
            kwh: kwh.unwrap_or(0.0),
            gpu_watts,
            gpu_idle_watts,
            node_watts: node_watts.unwrap_or(0.0),
            overhead: overhead.unwrap_or(1.0),
            work: read_work(&section, samples)?,
        };
        section.finish()?;
        Ok(Some(cost))
    }

    /// Steps to do, at so many tokens and samples a step.
    pub(crate) fn steps(&self, tokens: Option<f64>, samples: f64) -> Option<f64> {
        match self.work? {
            Work::Steps(steps) => Some(steps),
            Work::Samples(all) => Some((all / samples).ceil()),
            Work::Tokens(all) => tokens.map(|tokens| (all / tokens).ceil()),
        }
    }

    /// Money that a step of at least so many seconds costs at least.
    pub(crate) fn least_money(&self, gpus: f64, nodes: f64, step: f64) -> f64 {
        let energy = self.least_energy(gpus, nodes, step);
        self.rent(gpus, nodes) * step / HOUR + energy / KWH * self.kwh
    }

    /// Joules that it takes at least: GPUs that only wait, or work where that takes less.
    pub(crate) fn least_energy(&self, gpus: f64, nodes: f64, step: f64) -> f64 {
        let watts = |busy: f64| self.watts(gpus, nodes, busy).unwrap_or(0.0);
        watts(0.0).min(watts(1.0)) * step
    }

    /// Money an hour for machines, without energy.
    fn rent(&self, gpus: f64, nodes: f64) -> f64 {
        gpus * self.gpu_hour + nodes * self.node_hour
    }

    /// Watts of the whole job while its GPUs work for a share of the time.
    fn watts(&self, gpus: f64, nodes: f64, busy: f64) -> Option<f64> {
        let working = self.gpu_watts?;
        let waiting = self.gpu_idle_watts.unwrap_or(working);
        Some((gpus * (waiting + (working - waiting) * busy) + nodes * self.node_watts) * self.overhead)
    }
}

/// One of `tokens`, `samples`, `steps` and `epochs`.
fn read_work(section: &Section<'_>, samples: Option<u64>) -> Result<Option<Work>, InputError> {
    let mut found = None;
    for (key, kind) in [
        ("tokens", Work::Tokens as fn(f64) -> Work),
        ("samples", Work::Samples as fn(f64) -> Work),
        ("steps", Work::Steps as fn(f64) -> Work),
    ] {
        let Some(amount) = section.factor(key, 1.0, MOST_WORK)? else { continue };
        if let Some((other, _)) = found {
            return Err(
                section.conflict(key, format!("says how much is to be done, as `{other}` does; keep one"))
            );
        }
        found = Some((key, kind(amount)));
    }
    if let Some(epochs) = section.factor("epochs", 1e-6, 1e9)? {
        if let Some((other, _)) = found {
            return Err(section
                .conflict("epochs", format!("says how much is to be done, as `{other}` does; keep one")));
        }
        let Some(samples) = samples else {
            return Err(section.conflict("epochs", "needs input.samples, the samples of an epoch"));
        };
        found = Some(("epochs", Work::Samples(epochs * samples as f64)));
    }
    Ok(found.map(|(_, work)| work))
}

/// What a step, and a run, cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CostReport {
    /// Name of the money.
    pub currency: String,
    /// Money an hour for all machines, energy included.
    pub per_hour: f64,
    /// Money for a step.
    pub per_step: f64,
    /// Money for a million tokens; null where samples are not made of tokens.
    pub per_million_tokens: Option<f64>,
    /// Tokens for one unit of money; null where nothing costs money.
    pub tokens_per_money: Option<f64>,
    /// Mean power of the job, watts; null if no power is given.
    pub power_w: Option<f64>,
    /// Joules of a step.
    pub energy_per_step_j: Option<f64>,
    /// Tokens a joule.
    pub tokens_per_joule: Option<f64>,
    /// Share of the time that goes into work that is kept, by the closed form; null without `[failures]`.
    pub goodput: Option<f64>,
    /// Time and money to the end, failures counted in; null if no amount of work is given.
    pub to_finish: Option<ToFinish>,
}

/// From the start to the end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToFinish {
    /// Optimizer steps.
    pub steps: f64,
    /// Seconds.
    pub time_s: f64,
    /// Money.
    pub money: f64,
    /// Joules; null if no power is given.
    pub energy_j: Option<f64>,
}

/// Tokens and samples of a step.
pub(super) fn work_of_step(report: &Report) -> Option<(Option<f64>, f64)> {
    let step = report.step_time_s?;
    Some((report.tokens_per_s.map(|rate| rate * step), report.samples_per_s? * step))
}

/// GPUs and nodes of a job.
pub(super) fn machines(scenario: &Scenario) -> Option<(u64, u64)> {
    match &scenario.job {
        Job::Gpus { cluster, plan, .. } => {
            Some((plan.ranks(), plan.ranks().div_ceil(u64::from(cluster.gpus_per_node).max(1))))
        }
        Job::Vehicles { .. } => None,
    }
}

impl CostReport {
    /// What the scenario's `[cost]` says of a played step; none without it, or where nothing runs.
    pub(crate) fn of(scenario: &Scenario, report: &Report) -> Option<Self> {
        let cost = scenario.cost.as_ref()?;
        let step = report.step_time_s?;
        let (gpus, nodes) = machines(scenario)?;
        let (gpus, nodes) = (gpus as f64, nodes as f64);
        let (tokens, samples) = work_of_step(report)?;
        let parts = report.time_breakdown_s;
        let busy = ((parts.compute + parts.optimizer) / step).clamp(0.0, 1.0);
        let power = cost.watts(gpus, nodes, busy);
        let per_hour = cost.rent(gpus, nodes) + power.unwrap_or(0.0) * HOUR / KWH * cost.kwh;
        let per_step = per_hour * step / HOUR;
        let energy = power.map(|watts| watts * step);
        let goodput = scenario.failures.as_ref().map(|failures| goodput(failures, scenario));
        let to_finish = cost.steps(tokens, samples).map(|steps| {
            let time_s = steps * step / goodput.unwrap_or(1.0);
            ToFinish {
                steps,
                time_s,
                money: per_hour * time_s / HOUR,
                energy_j: power.map(|watts| watts * time_s),
            }
        });
        Some(Self {
            currency: cost.currency.clone(),
            per_hour,
            per_step,
            per_million_tokens: tokens.map(|tokens| per_step / tokens * 1e6),
            tokens_per_money: tokens.filter(|_| per_step > 0.0).map(|tokens| tokens / per_step),
            power_w: power,
            energy_per_step_j: energy,
            tokens_per_joule: tokens
                .zip(energy)
                .filter(|(_, joules)| *joules > 0.0)
                .map(|(tokens, joules)| tokens / joules),
            goodput,
            to_finish,
        })
    }

    /// Money and joules for so many seconds, at the report's rates.
    pub(super) fn spend(&self, seconds: f64) -> (f64, Option<f64>) {
        (self.per_hour * seconds / HOUR, self.power_w.map(|watts| watts * seconds))
    }
}

/// The closed form with the scenario's checkpoints.
fn goodput(failures: &Failures, scenario: &Scenario) -> f64 {
    let (gpus, nodes) = machines(scenario).unwrap_or((1, 1));
    let mean = failures.mean_between(gpus, nodes);
    let costs = failures.checkpoint.costs(scenario);
    let interval = failures.checkpoint.interval(&costs, mean);
    let restart = failures.restart_s(&costs);
    closed_form::expected_goodput(interval, costs.blocks, restart, mean) * failures.maintenance_share()
}
