//! Predictions against measured training steps: rows of published runs become scenarios, are played, and scored suite
//! by suite.
//!
//! No row is special: what a row says is all that its scenario is made of, but for numbers that its publication
//! contradicts (`corrections.rs`); and a row that cannot be played is skipped
//! with its reason and counted.

mod baseline;
mod choice;
mod corrections;
mod fine_tuning;
mod measurement;
mod memory_filling;
mod mosaic;
mod pipeline;
mod published;
mod rows_csv;
mod score;
mod steps;
mod translate;
mod unsaid;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::InputError;
use crate::estimate::in_part_sizes;
use crate::interval::{Intervals, Jobs, Residual, Traits};
use crate::report::{Report, TimeBreakdown};
use crate::scenario::{Job, Scenario};

pub use self::baseline::{Baseline, Change};
pub use self::choice::ChoiceScore;
use self::measurement::Measurement;
pub use self::published::{PublishedFact, published};
pub use self::rows_csv::validation_csv;
pub use self::score::{ErrorScore, OutcomeScore, SuiteScore, score_rows};
pub use self::steps::SingleGpuSteps;

/// Schema of a validation's JSON document.
pub const VALIDATION_SCHEMA: &str = "steptime.validation/1";

/// A row's name with its scenario, or why it has none.
pub type RowScenario = (String, Result<String, String>);

const GIB: f64 = 1_073_741_824.0;

/// Scores of all suites and what was predicted for every row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// [`VALIDATION_SCHEMA`].
    pub schema: String,
    /// Scores, suite by suite in the order of first appearance.
    pub suites: Vec<SuiteScore>,
    /// Rows in the order of the files.
    pub rows: Vec<ValidatedRow>,
    /// Version of the program.
    pub version: String,
}

/// A row with what was measured and what is predicted. Absent numbers were not measured or not predicted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ValidatedRow {
    /// The row's name.
    pub run_id: String,
    /// The suite it is scored in.
    pub suite: String,
    /// What it has in common with the rows that differ from it by their plan alone; null where the table does not say.
    pub job: Option<String>,
    /// The GPU: its catalogue name, or as the table names one that is not in the catalogue.
    pub gpu: String,
    /// GPUs of the run.
    pub gpus: u64,
    /// Seconds a step, predicted.
    pub predicted_step_time_s: Option<f64>,
    /// The 80 % interval of the prediction.
    pub predicted_step_time_interval_s: Option<[f64; 2]>,
    /// Seconds a step, measured.
    pub measured_step_time_s: Option<f64>,
    /// Most memory in tensors, GiB, predicted.
    pub predicted_peak_allocated_gib: Option<f64>,
    /// Most memory in tensors, GiB, measured.
    pub measured_peak_allocated_gib: Option<f64>,
    /// Most memory held by the allocator, GiB, predicted.
    pub predicted_peak_reserved_gib: Option<f64>,
    /// Most memory held by the allocator, GiB, measured.
    pub measured_peak_reserved_gib: Option<f64>,
    /// Memory in tensors after the step, GiB, predicted.
    pub predicted_static_allocated_gib: Option<f64>,
    /// Memory in tensors after the step, GiB, measured.
    pub measured_static_allocated_gib: Option<f64>,
    /// `ok` or `out_of_memory`, predicted.
    pub predicted_outcome: Option<String>,
    /// `ok` or `out_of_memory`, measured.
    pub measured_outcome: Option<String>,
    /// Where the predicted step goes.
    pub predicted_time_breakdown_s: Option<TimeBreakdown>,
    /// Why the row is not predicted.
    pub skipped: Option<String>,
}

/// Every row of some tables with what is predicted for it, before intervals and scores.
#[derive(Clone, Debug)]
pub struct Predictions {
    rows: Vec<Prediction>,
}

#[derive(Clone, Debug)]
struct Prediction {
    row: ValidatedRow,
    /// Absent where the row is skipped.
    traits: Option<Traits>,
    /// What the network of other jobs makes of the step.
    jobs: Option<Jobs>,
}

impl Predictions {
    /// Predicts every row of some tables, each with the name that errors give it.
    ///
    /// # Errors
    /// A table that does not follow the schema: the file, the line, the column, what was found and what is allowed.
    pub fn of(tables: &[(String, String)]) -> Result<Self, InputError> {
        let mut measurements = Vec::new();
        for (name, text) in tables {
            measurements.extend(measurement::read(name, text)?);
        }
        // Rows are independent, and collected in their order: the result does not depend on the number of threads.
        Ok(Self { rows: measurements.par_iter().map(predict).collect() })
    }

    /// Tables of intervals fitted to the residuals of these rows.
    pub fn intervals(&self) -> Intervals {
        let residual = |it: &Prediction| {
            let ratio = it.row.measured_step_time_s? / it.row.predicted_step_time_s?;
            Some(Residual { run_id: it.row.run_id.clone(), traits: it.traits.clone()?, ratio, jobs: it.jobs })
        };
        Intervals::fit(&self.rows.iter().filter_map(residual).collect::<Vec<_>>())
    }

    /// The rows with their intervals, each from the table that it had no hand in, and the scores.
    pub fn scored(self, intervals: &Intervals) -> Validation {
        let with_interval = |Prediction { row, traits, jobs }: Prediction| {
            let factors = traits.and_then(|traits| intervals.without(&row.run_id, &traits, jobs));
            let interval = row.predicted_step_time_s.zip(factors);
            let ends = interval.map(|(step, factors)| [step * factors.low, step * factors.high]);
            ValidatedRow { predicted_step_time_interval_s: ends, ..row }
        };
        Validation::new(self.rows.into_iter().map(with_interval).collect())
    }
}

impl Validation {
    /// Scores rows, suite by suite in the order of first appearance.
    pub fn new(rows: Vec<ValidatedRow>) -> Self {
        Self {
            schema: VALIDATION_SCHEMA.to_owned(),
            suites: score::suites(&rows),
            rows,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// The scenarios of a table as a user would write them, or why a row has none, each with its name.
///
/// # Errors
/// A table that does not follow the schema.
pub fn scenarios_of(name: &str, text: &str) -> Result<Vec<RowScenario>, InputError> {
    let all = measurement::read(name, text)?;
    let shown = |row: &Measurement| (row.run_id.clone(), translate::scenario(row).map(|it| it.shown()));
    Ok(all.iter().map(shown).collect())
}

/// A row whose step was timed, as a scenario.
pub(crate) struct TimedRow {
    pub(crate) scenario: Scenario,
    pub(crate) measured_s: f64,
    /// What it trains, whatever it ran on: the same for rows that differ by hardware or plan.
    pub(crate) job: String,
    /// Who measured.
    pub(crate) source: String,
}

/// The timed rows of some tables that have a scenario, each table with the name that errors give it.
///
/// # Errors
/// A table that does not follow the schema.
pub(crate) fn timed_rows(tables: &[(String, String)]) -> Result<Vec<TimedRow>, InputError> {
    let mut rows = Vec::new();
    for (name, text) in tables {
        for row in measurement::read(name, text)? {
            let Some(measured_s) = row.step_time_s else { continue };
            let Ok(translated) = translate::scenario(&row) else { continue };
            let Ok(scenario) = Scenario::read(&row.run_id, &translated.scenario, &[], &translated) else {
                continue;
            };
            let shape = [row.layers, row.hidden, row.heads, row.experts, row.seq_len, row.global_batch];
            let shape: Vec<String> = shape.iter().map(|size| size.unwrap_or(0).to_string()).collect();
            let job = format!("{} {}", row.model, shape.join("/"));
            rows.push(TimedRow { scenario, measured_s, job, source: row.source });
        }
    }
    Ok(rows)
}

fn predict(row: &Measurement) -> Prediction {
    let measured = ValidatedRow {
        run_id: row.run_id.clone(),
        suite: row.suite.clone(),
        job: choice::job(row),
        gpu: row.gpu.clone(),
        gpus: row.nodes.saturating_mul(row.gpus_per_node),
        measured_step_time_s: row.step_time_s,
        measured_peak_allocated_gib: row.peak_allocated_gib,
        measured_peak_reserved_gib: row.peak_reserved_gib,
        measured_static_allocated_gib: row.static_allocated_gib,
        measured_outcome: row.outcome.clone(),
        ..ValidatedRow::default()
    };
    let played = translate::scenario(row).and_then(|translated| {
        let scenario = Scenario::read(&row.run_id, &translated.scenario, &[], &translated);
        scenario.and_then(|it| in_part_sizes(&it).map(|report| (it, report))).map_err(|error| error.reason())
    });
    match played {
        Ok((scenario, report)) => {
            let mut prediction = predicted(measured, &scenario, &report);
            if row.notes.contains("last pipeline stage") {
                of_last_stage(&mut prediction.row, &report);
            }
            prediction
        }
        Err(reason) => {
            Prediction { row: ValidatedRow { skipped: Some(reason), ..measured }, traits: None, jobs: None }
        }
    }
}

/// Some sources print the memory of the last stage's ranks, not that of the fullest.
fn of_last_stage(row: &mut ValidatedRow, report: &Report) {
    if let Some(last) = report.stages.last() {
        let gib = |bytes: u64| Some(bytes as f64 / GIB);
        row.predicted_peak_allocated_gib = gib(last.peak_allocated_bytes);
        row.predicted_peak_reserved_gib = gib(last.peak_reserved_bytes);
        row.predicted_static_allocated_gib = gib(last.after_step_bytes);
    }
}

/// The row with what a report says of it.
fn predicted(measured: ValidatedRow, scenario: &Scenario, report: &Report) -> Prediction {
    let memory = &report.peak_memory;
    let gib = |bytes: u64| Some(bytes as f64 / GIB);
    let gpu = match &scenario.job {
        Job::Gpus { cluster, .. } => cluster.gpu.name.clone(),
        Job::Vehicles { .. } => measured.gpu.clone(),
    };
    let row = ValidatedRow {
        gpu,
        gpus: report.gpus,
        predicted_step_time_s: report.step_time_s,
        predicted_peak_allocated_gib: gib(memory.allocated_bytes),
        predicted_peak_reserved_gib: gib(memory.reserved_bytes),
        predicted_static_allocated_gib: gib(memory.after_step_bytes),
        predicted_outcome: Some(
            if report.out_of_memory.is_some() { "out_of_memory" } else { "ok" }.to_owned(),
        ),
        predicted_time_breakdown_s: Some(report.time_breakdown_s),
        ..measured
    };
    // Rows without a measured time are not compared with an interval.
    let jobs = row.measured_step_time_s.and_then(|_| Jobs::of(scenario, report));
    Prediction { row, traits: Traits::of(scenario, report), jobs }
}
