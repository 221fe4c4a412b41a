//! Single published facts that the program carries along: what `steptime validate` scores without tables.

use rayon::prelude::*;
use serde::Deserialize;

use super::{Predictions, ValidatedRow, predicted};
use crate::error::InputError;
use crate::estimate::estimate;
use crate::files::Files;
use crate::origin::Origin;
use crate::scenario::Scenario;

const FILE: &str = include_str!("published.toml");
const NAME: &str = "published.toml";

/// One fact: a number that somebody measured or derived and printed, and the scenario that it is about.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishedFact {
    /// Its name.
    pub id: String,
    /// What it is about, in a few words.
    pub what: String,
    /// The number as it was printed, with its unit.
    pub stated: String,
    /// Where, and how the numbers below follow from what was printed.
    pub source: String,
    /// Seconds a step.
    pub step_time_s: Option<f64>,
    /// Memory in use on the device as `nvidia-smi` shows it, GiB.
    pub device_gib: Option<f64>,
    /// Parameters, gradients and optimizer states of a rank, GiB.
    pub states_gib: Option<f64>,
    /// The scenario.
    scenario: String,
}

impl PublishedFact {
    /// The scenario file.
    pub fn scenario(&self) -> &str {
        &self.scenario
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    fact: Vec<PublishedFact>,
}

/// Scenarios of facts refer to no other files.
struct NoFiles;

impl Files for NoFiles {
    fn read(&self, name: &str) -> Result<String, String> {
        Err(format!("{name} is not part of the fact"))
    }
}

/// The facts with the predictions for their scenarios, in the suite `published`. Memory of
/// the device stands in the columns of reserved memory, model states in those of memory after the step.
///
/// # Errors
/// A fact whose scenario is wrong; a test plays them all.
pub fn published() -> Result<(Vec<PublishedFact>, Predictions), InputError> {
    let document: Document = toml::from_str(FILE)
        .map_err(|error| InputError::Syntax { origin: Origin::at(NAME, 1, 1), message: error.to_string() })?;
    let rows = document.fact.par_iter().map(row).collect::<Result<Vec<_>, InputError>>()?;
    Ok((document.fact, Predictions { rows }))
}

fn row(fact: &PublishedFact) -> Result<super::Prediction, InputError> {
    let scenario = Scenario::read(&fact.id, &fact.scenario, &[], &NoFiles)?;
    let report = estimate(&scenario)?;
    let measured = ValidatedRow {
        run_id: fact.id.clone(),
        suite: "published".to_owned(),
        measured_step_time_s: fact.step_time_s,
        measured_peak_reserved_gib: fact.device_gib,
        measured_static_allocated_gib: fact.states_gib,
        ..ValidatedRow::default()
    };
    let mut prediction = predicted(measured, &scenario, &report);
    let memory = &report.peak_memory;
    let gib = |bytes: u64| bytes as f64 / super::GIB;
    let row = &mut prediction.row;
    row.predicted_peak_reserved_gib = fact.device_gib.map(|_| gib(memory.device_bytes));
    row.predicted_static_allocated_gib = fact.states_gib.map(|_| gib(states(&report)));
    row.predicted_peak_allocated_gib = None;
    Ok(prediction)
}

/// Parameters, gradients and optimizer states at the peak.
fn states(report: &crate::report::Report) -> u64 {
    let held = |name: &str| report.peak_memory.breakdown_bytes.get(name).copied().unwrap_or(0);
    ["parameters", "gradients", "optimizer_states"].map(held).iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fact_is_played_and_has_one_number_and_a_source() {
        let (facts, predictions) = published().unwrap();
        assert!(facts.len() >= 12);
        assert!(
            facts.iter().any(|it| it.states_gib.is_some()) && facts.iter().any(|it| it.step_time_s.is_some())
        );
        for (fact, prediction) in facts.iter().zip(&predictions.rows) {
            let numbers = [fact.step_time_s, fact.device_gib, fact.states_gib];
            assert!(numbers.iter().flatten().count() >= 1 && !fact.source.is_empty(), "{}", fact.id);
            assert!(prediction.row.skipped.is_none(), "{}", fact.id);
        }
    }

    /// Narayanan et al. 2021, equation 3: F = 96 B s l h^2 (1 + s / 6h + V / 16lh), V = 51,200.
    #[test]
    fn step_times_follow_from_the_rates_of_narayanan() {
        let (facts, _) = published().unwrap();
        // Layers, hidden, batch, GPUs, TFLOP/s a GPU: table 1.
        let rows = [
            ("narayanan-2021-18b", 40.0, 6144.0, 1024.0, 256.0, 135.0),
            ("narayanan-2021-145b", 80.0, 12288.0, 2304.0, 1536.0, 148.0),
        ];
        for (id, l, h, b, gpus, rate) in rows {
            let flops: f64 =
                96.0 * b * 2048.0 * l * h * h * (1.0 + 2048.0 / (6.0 * h) + 51200.0 / (16.0 * l * h));
            let step = flops / (gpus * rate * 1e12);
            let fact = facts.iter().find(|it| it.id == id).unwrap();
            assert!((fact.step_time_s.unwrap() / step - 1.0).abs() < 1e-3, "{id}: {step}");
        }
    }
}
