//! What measured steps say about their host: the cost of an operation with which the predicted steps take as long.

use steptime_clusters::calibrate_host::HostFit;
use steptime_clusters::{ExecutionStyle, LaunchCost};
use steptime_plans::Execution;
use thiserror::Error;

use crate::error::InputError;
use crate::run::play_time;
use crate::scenario::{Job, Scenario};

/// A scenario and how long its step was measured to take.
#[derive(Clone, Debug)]
pub struct MeasuredStep {
    /// The run.
    pub scenario: Scenario,
    /// Its step, seconds.
    pub seconds: f64,
}

/// A measured step beside its predictions.
#[derive(Clone, Debug, PartialEq)]
pub struct StepFit {
    /// Name of the scenario.
    pub name: String,
    /// Measured, seconds.
    pub measured_s: f64,
    /// With the host that the cluster had, seconds.
    pub before_s: f64,
    /// With the fitted one, seconds.
    pub after_s: f64,
    /// The factor on the cost of a launch with which this step alone would be met.
    pub factor: f64,
}

/// What measured steps say about their host.
#[derive(Clone, Debug, PartialEq)]
pub struct StepsFit {
    /// Each step.
    pub steps: Vec<StepFit>,
    /// The middle of their factors.
    pub factor: f64,
    /// The host's constants.
    pub host: HostFit,
}

/// Measured steps that say nothing about their host.
#[derive(Debug, Error)]
pub enum HostFitError {
    /// A scenario cannot be played.
    #[error(transparent)]
    Input(#[from] InputError),
    /// Nothing was given.
    #[error("no measured step was given")]
    Empty,
    /// Too few rows of frameworks whose Python is fitted.
    #[error(
        "{found} timed rows are of frameworks with host times of their own (Megatron-LM, nanotron) in eager execution, and \
         {needed} are needed"
    )]
    TooFew {
        /// Rows.
        found: usize,
        /// Rows needed.
        needed: usize,
    },
    /// Vehicles have no host that launches kernels.
    #[error("{0}: runs on vehicles, which launch no kernels")]
    Vehicles(String),
    /// Two hosts, or two styles of execution.
    #[error("{second}: another {what} than {first}; fit each by itself")]
    Different {
        /// First scenario.
        first: String,
        /// The one that differs.
        second: String,
        /// What differs.
        what: &'static str,
    },
    /// The step is not the host's.
    #[error(
        "{name}: measured {measured_s:.6} s, and {least_s:.6} s of it are predicted even if launches cost next to nothing: \
         too little is left to tell the host from errors of the rest; measure a smaller batch"
    )]
    DeviceBound {
        /// Scenario.
        name: String,
        /// Measured, seconds.
        measured_s: f64,
        /// Predicted without the host, seconds.
        least_s: f64,
    },
    /// The step moves too little with the host.
    #[error(
        "{name}: a launch that costs 10 % more makes the step {percent:.1} % longer, and 5 % are needed to see the host \
         behind the device; measure a smaller batch"
    )]
    Insensitive {
        /// Scenario.
        name: String,
        /// Growth of the step, percent.
        percent: f64,
    },
    /// No sensible cost explains the step.
    #[error(
        "{name}: measured {measured_s:.6} s, and {most_s:.6} s are predicted even at {MOST} times the cost of a launch"
    )]
    TooLong {
        /// Scenario.
        name: String,
        /// Measured, seconds.
        measured_s: f64,
        /// Predicted with the slowest host, seconds.
        most_s: f64,
    },
}

/// Least and most factor on the cost of a launch that is searched.
const LEAST: f64 = 1.0 / 64.0;
const MOST: f64 = 64.0;
/// Most of the measured step that may be predicted without a host: what is left must be more than the error of prices.
const DEVICE: f64 = 0.8;
/// A step that the host bounds grows by at least this share where its launches cost 10 % more.
const SENSITIVE: f64 = 0.05;

/// Finds the factor on the cost of a launch that explains measured steps; of several the middle one. All must run on one
/// kind of host with one style of execution.
///
/// # Errors
/// [`HostFitError`] when a step cannot be played, or is not bound by its host.
pub fn calibrate_host(steps: &[MeasuredStep]) -> Result<StepsFit, HostFitError> {
    let first = steps.first().ok_or(HostFitError::Empty)?;
    let (launch, style) = host(&first.scenario)?;
    let mut fits = Vec::new();
    for step in steps {
        let (other, other_style) = host(&step.scenario)?;
        let what = if other_style == style { "host" } else { "style of execution" };
        if (other, other_style) != (launch, style) {
            let (first, second) = (first.scenario.name.clone(), step.scenario.name.clone());
            return Err(HostFitError::Different { first, second, what });
        }
        let factor = factor_of(step, style)?;
        let before_s = predicted(&step.scenario, style, 1.0)?;
        let name = step.scenario.name.clone();
        fits.push(StepFit { name, measured_s: step.seconds, before_s, after_s: 0.0, factor });
    }
    let mut factors: Vec<f64> = fits.iter().map(|fit| fit.factor).collect();
    factors.sort_by(f64::total_cmp);
    let at = |index: usize| factors.get(index).copied().unwrap_or(1.0);
    let factor = f64::midpoint(at((factors.len() - 1) / 2), at(factors.len() / 2));
    for (fit, step) in fits.iter_mut().zip(steps) {
        fit.after_s = predicted(&step.scenario, style, factor)?;
    }
    let noun = if fits.len() == 1 { "step" } else { "steps" };
    let names = fits.iter().map(|fit| fit.name.as_str()).collect::<Vec<_>>().join("; ");
    let source =
        format!("{factor:.3} times the cost of the catalogue, from {} measured {noun}: {names}", fits.len());
    Ok(StepsFit { steps: fits, factor, host: HostFit::scaled(&launch, style, factor, &source) })
}

/// The launches of a scenario's host and how the scenario issues them.
fn host(scenario: &Scenario) -> Result<(LaunchCost, ExecutionStyle), HostFitError> {
    let Job::Gpus { cluster, workload, .. } = &scenario.job else {
        return Err(HostFitError::Vehicles(scenario.name.clone()));
    };
    let style = match workload.execution {
        Execution::Eager => ExecutionStyle::Eager,
        Execution::Compiled => ExecutionStyle::Compiled,
        Execution::CudaGraphs => ExecutionStyle::CudaGraphs,
    };
    Ok((cluster.host.launch, style))
}

/// The step with launches that cost `factor` times as much, seconds.
fn predicted(scenario: &Scenario, style: ExecutionStyle, factor: f64) -> Result<f64, InputError> {
    let mut scenario = scenario.clone();
    if let Job::Gpus { cluster, .. } = &mut scenario.job {
        cluster.host.launch = cluster.host.launch.scaled(style, factor);
        cluster.host.megatron = cluster.host.megatron.scaled(factor);
    }
    Ok(play_time(&scenario)?.step_time_s.unwrap_or_default())
}

/// The factor with which the predicted step takes as long as measured. The step grows with it, so halving finds it.
fn factor_of(step: &MeasuredStep, style: ExecutionStyle) -> Result<f64, HostFitError> {
    let at = |factor| predicted(&step.scenario, style, factor);
    let (name, measured_s) = (step.scenario.name.clone(), step.seconds);
    let (least_s, most_s) = (at(LEAST)?, at(MOST)?);
    if least_s > DEVICE * measured_s {
        return Err(HostFitError::DeviceBound { name, measured_s, least_s });
    }
    if most_s < measured_s {
        return Err(HostFitError::TooLong { name, measured_s, most_s });
    }
    let (mut low, mut high) = (LEAST, MOST);
    for _ in 0..40 {
        let middle = (low * high).sqrt();
        if at(middle)? < measured_s { low = middle } else { high = middle }
    }
    let growth = at(1.1 * high)? / at(high)? - 1.0;
    if growth < SENSITIVE {
        return Err(HostFitError::Insensitive { name, percent: 100.0 * growth });
    }
    Ok(high)
}
