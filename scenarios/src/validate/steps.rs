//! Coefficients of kernels from the steps of published runs.

use rayon::prelude::*;
use steptime_clusters::Gpu;
use steptime_clusters::calibrate::{self, Fit, StepRow, StepsError, Trial};

use super::measurement::{self, Measurement};
use super::translate;
use crate::error::InputError;
use crate::run::play_time;
use crate::scenario::{Job, Scenario};

/// Measured steps of single GPUs.
#[derive(Clone, Debug, Default)]
pub struct SingleGpuSteps {
    rows: Vec<StepRow>,
    scenarios: Vec<Scenario>,
}

impl SingleGpuSteps {
    /// The steps of some tables, each with the name that errors give it, that ran on one of these GPUs, alone. Rows that
    /// cannot be played, or have no time, are left out.
    ///
    /// # Errors
    /// A table that does not follow the schema: the file, the line, the column, what was found and what is allowed.
    pub fn of(tables: &[(String, String)], gpus: &[&str]) -> Result<Self, InputError> {
        let mut measurements = Vec::new();
        for (name, text) in tables {
            measurements.extend(measurement::read(name, text)?);
        }
        let single = measurements.iter().filter(|row| (row.nodes, row.gpus_per_node) == (1, 1));
        let (rows, scenarios) = single.filter_map(|row| step(row, gpus)).unzip();
        Ok(Self { rows, scenarios })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.rows.len()
    }

    /// Fits tables of a GPU's calibration, see [`calibrate::steps`].
    ///
    /// # Errors
    /// [`StepsError`].
    pub fn fit(&self, gpu: &Gpu, tables: &[String]) -> Result<Fit, StepsError> {
        calibrate::steps(gpu, tables, &self.rows, |trial| {
            self.scenarios.par_iter().map(|scenario| played(scenario, trial)).collect()
        })
    }
}

/// A row with its scenario, if it can be played on one of these GPUs.
fn step(row: &Measurement, gpus: &[&str]) -> Option<(StepRow, Scenario)> {
    let seconds = row.step_time_s?;
    let translated = translate::scenario(row).ok()?;
    let scenario = Scenario::read(&row.run_id, &translated.scenario, &[], &translated).ok()?;
    let Job::Gpus { cluster, .. } = &scenario.job else { return None };
    if !gpus.contains(&cluster.gpu.name.as_str()) || play_time(&scenario).is_err() {
        return None;
    }
    let (model, run, source) = (row.model.clone(), row.run_id.clone(), row.source.clone());
    Some((StepRow { model, run, source, seconds }, scenario))
}

/// Seconds of a step with these coefficients; infinite if it could not be played.
fn played(scenario: &Scenario, trial: &Trial) -> f64 {
    let mut scenario = scenario.clone();
    if let Job::Gpus { cluster, .. } = &mut scenario.job {
        trial.put(&mut cluster.gpu);
    }
    play_time(&scenario).ok().and_then(|report| report.step_time_s).unwrap_or(f64::INFINITY)
}
