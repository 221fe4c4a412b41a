//! Convolutions and memory-bound kernels from whole steps, where nobody has measured them one by one.
//!
//! The caller plays the steps: this module says with which coefficients, and looks for those that explain the times.

use thiserror::Error;

use super::levenberg_marquardt::{Parameter, minimize};
use super::report::{Measured, Report};
use super::rows::{held_out_bytes, source_names};
use super::{Fit, FittedTable, text};
use crate::catalogue::MEMORY_KINDS;
use crate::coefficients::{CONVOLUTION, Coefficient, ConvolutionCoefficients, MEMORY};
use crate::gpu::Gpu;

/// Coefficients of convolutions, then a share of the bandwidth for each kind of memory-bound kernel.
const COUNT: usize = CONVOLUTION.len() + MEMORY_KINDS.len();
/// A coefficient is fitted if at least so many of the steps that steer move with it.
const FEWEST_MOVED: usize = 4;
/// A step moves with a coefficient if half of its spread changes the step by more than this.
const MOVES: f64 = 0.002;
/// Steps are sums of many kernels, in which one coefficient does what another does not: so much closer to the common
/// values do they lie than those of kernels that are measured one by one.
const LEANING: f64 = 0.3;
/// The path of the convolutions' table.
const CONVOLUTIONS: &str = "convolution";

/// A measured step.
#[derive(Clone, Debug, PartialEq)]
pub struct StepRow {
    /// The model: a third of the models is held out, or of the runs where there are fewer than three.
    pub model: String,
    /// The run.
    pub run: String,
    /// Who published it.
    pub source: String,
    /// Measured time.
    pub seconds: f64,
}

/// Why steps say nothing about a GPU.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StepsError {
    /// A table that steps cannot tell.
    #[error("unknown table `{found}`; allowed: {allowed}")]
    Unknown {
        /// The word.
        found: String,
        /// All that there are, separated by commas.
        allowed: String,
    },
    /// Too few rows move with what should be fitted.
    #[error("{rows} steps move with {tables}; at least {FEWEST_MOVED} that are not held out are needed")]
    Few {
        /// Steps that move.
        rows: usize,
        /// What should be fitted.
        tables: String,
    },
}

/// Coefficients to play steps with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trial {
    values: [f64; COUNT],
    /// Which of them are tried.
    wanted: [bool; COUNT],
}

impl Trial {
    /// Those that a GPU has.
    fn of(gpu: &Gpu, wanted: [bool; COUNT]) -> Self {
        let ConvolutionCoefficients {
            forward,
            backward,
            grouped,
            depthwise_bandwidth,
            depthwise_arithmetic,
            layout_forward,
            layout_backward,
            layout_tf32,
        } = gpu.achievable.convolution.coefficients;
        let mut values = [0.0; COUNT];
        let convolution = [
            forward,
            backward,
            grouped,
            depthwise_bandwidth,
            depthwise_arithmetic,
            layout_forward,
            layout_backward,
            layout_tf32,
        ];
        let shares = MEMORY_KINDS.map(|(_, kind)| gpu.achievable.memory.of(kind).share.value);
        for (place, value) in values.iter_mut().zip(convolution.into_iter().chain(shares)) {
            *place = value;
        }
        Self { values, wanted }
    }

    /// Gives them to a GPU, whose other coefficients stay.
    pub fn put(&self, gpu: &mut Gpu) {
        if self.wanted[0] {
            let mut convolution = [0.0; CONVOLUTION.len()];
            convolution.copy_from_slice(&self.values[..CONVOLUTION.len()]);
            gpu.achievable.convolution.coefficients = ConvolutionCoefficients::from_values(&convolution);
        }
        let shares = self.values.iter().zip(&self.wanted).skip(CONVOLUTION.len());
        for (place, (share, wanted)) in gpu.achievable.memory.each_mut().into_iter().zip(shares) {
            if *wanted {
                place.share.value = *share;
            }
        }
    }
}

/// The table of a coefficient.
fn table_of(index: usize) -> &'static str {
    match index.checked_sub(CONVOLUTION.len()) {
        None => CONVOLUTIONS,
        Some(kind) => MEMORY_KINDS.get(kind).map_or("", |(name, _)| name),
    }
}

fn coefficient(index: usize) -> Coefficient {
    CONVOLUTION.get(index).copied().unwrap_or(MEMORY[0])
}

/// Fits the tables named, `convolution` or a kind of memory-bound kernel, to steps; `predict` plays them all with given
/// coefficients, seconds. What hardly any step moves with stays as the GPU has it.
///
/// # Errors
/// [`StepsError`] for names that are none, and where too few steps move.
pub fn steps(
    gpu: &Gpu,
    tables: &[String],
    rows: &[StepRow],
    predict: impl Fn(&Trial) -> Vec<f64>,
) -> Result<Fit, StepsError> {
    let wanted = wanted(tables)?;
    let own = Trial::of(gpu, wanted);
    let before = predict(&own);
    let moved: Vec<Vec<bool>> = (0..COUNT)
        .map(
            |index| {
                if wanted[index] { moved(&own, index, &before, &predict) } else { vec![false; rows.len()] }
            },
        )
        .collect();
    let telling: Vec<bool> = (0..rows.len()).map(|row| moved.iter().any(|moved| moved[row])).collect();
    let held = held_out(rows, &telling);
    let steers = |row: usize| telling[row] && !held[row];
    let count = (0..rows.len()).filter(|&row| steers(row)).count();
    if count < FEWEST_MOVED {
        let rows = telling.iter().filter(|telling| **telling).count();
        return Err(StepsError::Few { rows, tables: tables.join(", ") });
    }
    let mut parameters = own.values.map(Parameter::Fixed);
    for (index, place) in parameters.iter_mut().enumerate() {
        if moved[index].iter().enumerate().filter(|(row, moved)| **moved && steers(*row)).count()
            >= FEWEST_MOVED
        {
            let own = coefficient(index);
            *place = Parameter::Free(Coefficient { spread: LEANING * own.spread, ..own });
        }
    }
    let mut values = minimize(&parameters, &[], |values, out| {
        let predicted = predict(&Trial { values: *values, wanted });
        let ratio = |(row, seconds): (usize, &f64)| libm::log(seconds / rows[row].seconds);
        out.clear();
        out.extend(predicted.iter().enumerate().filter(|(row, _)| steers(*row)).map(ratio));
    });
    for (index, value) in values.iter_mut().enumerate() {
        *value = text::rounded(&coefficient(index), *value);
    }
    let after = predict(&Trial { values, wanted });
    let pairs = |seconds: &[f64]| -> Vec<(Measured, f64)> {
        let row = |(row, seconds): (usize, &f64)| {
            (Measured { seconds: rows[row].seconds, flops: 0.0, held_out: held[row] }, *seconds)
        };
        seconds.iter().enumerate().filter(|(row, _)| telling[*row]).map(row).collect()
    };
    let report = Report::new(count, &pairs(&before), &pairs(&after));
    let sources = rows.iter().zip(&telling).filter(|(_, telling)| **telling);
    let source = source_names(sources.map(|(row, _)| row.source.as_str()));
    let tables = fitted(&values, &wanted, &report, &source);
    Ok(Fit { gpu: gpu.name.clone(), tables, short: Vec::new() })
}

/// Which coefficients are of the tables named.
fn wanted(tables: &[String]) -> Result<[bool; COUNT], StepsError> {
    let mut wanted = [false; COUNT];
    for table in tables {
        let mut found = false;
        for (index, place) in wanted.iter_mut().enumerate().filter(|(index, _)| table_of(*index) == table) {
            *place = true;
            found = index < COUNT;
        }
        if !found {
            let kinds = MEMORY_KINDS.map(|(name, _)| name).join(", ");
            return Err(StepsError::Unknown {
                found: table.clone(),
                allowed: format!("{CONVOLUTIONS}, {kinds}"),
            });
        }
    }
    Ok(wanted)
}

/// Which steps move with a coefficient.
fn moved(own: &Trial, index: usize, before: &[f64], predict: &impl Fn(&Trial) -> Vec<f64>) -> Vec<bool> {
    let Coefficient { spread, most, .. } = coefficient(index);
    let mut trial = *own;
    let half = spread / 2.0;
    trial.values[index] += if trial.values[index] + half <= most { half } else { -half };
    let after = predict(&trial);
    before.iter().zip(&after).map(|(before, after)| (after / before - 1.0).abs() > MOVES).collect()
}

/// A third of the models, or of the runs where there are fewer than three, by their names.
fn held_out(rows: &[StepRow], telling: &[bool]) -> Vec<bool> {
    let telling = || rows.iter().zip(telling).filter(|(_, telling)| **telling).map(|(row, _)| row);
    let mut models: Vec<&str> = telling().map(|row| row.model.as_str()).collect();
    models.sort_unstable();
    models.dedup();
    let by_model = models.len() >= 3;
    rows.iter().map(|row| held_out_bytes(if by_model { &row.model } else { &row.run }.bytes())).collect()
}

/// A table for each that was named.
fn fitted(values: &[f64; COUNT], wanted: &[bool; COUNT], report: &Report, source: &str) -> Vec<FittedTable> {
    let table = |path: String, values: Vec<f64>, coefficients: &'static [Coefficient]| FittedTable {
        path,
        values,
        coefficients,
        report: report.clone(),
        source: source.to_owned(),
        rows: "steps",
    };
    let mut tables = Vec::new();
    if wanted[0] {
        let values = values[..CONVOLUTION.len()].to_vec();
        tables.push(table(CONVOLUTIONS.to_owned(), values, &CONVOLUTION));
    }
    for (kind, (name, _)) in MEMORY_KINDS.iter().enumerate() {
        let index = CONVOLUTION.len() + kind;
        if wanted[index] {
            tables.push(table(format!("memory.{name}"), vec![values[index], 0.0], &MEMORY));
        }
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu_from_catalogue;

    /// Steps of which convolutions are a part that differs from step to step, BatchNorm another, and the rest is fixed.
    fn played(share: impl Fn(usize) -> f64, trial: &Trial) -> Vec<f64> {
        let mut gpu = gpu_from_catalogue("rtx-3090").unwrap();
        trial.put(&mut gpu);
        let forward = gpu.achievable.convolution.coefficients.forward;
        let norm = gpu.achievable.memory.batch_norm.share.value;
        (0..30).map(|row| share(row) / forward + (1.0 - share(row)) * 0.5 / norm + 0.1).collect()
    }

    fn rows(seconds: &[f64]) -> Vec<StepRow> {
        let row = |(index, seconds): (usize, &f64)| StepRow {
            model: format!("model {index}"),
            run: index.to_string(),
            source: "somebody: a table".to_owned(),
            seconds: *seconds,
        };
        seconds.iter().enumerate().map(row).collect()
    }

    #[test]
    fn what_made_the_steps_is_found_and_the_rest_stays() {
        let gpu = gpu_from_catalogue("rtx-3090").unwrap();
        let tables = ["convolution".to_owned(), "batch_norm".to_owned()];
        let mut truth = Trial::of(&gpu, wanted(&tables).unwrap());
        truth.values[0] = 1.2;
        truth.values[COUNT - 1] = 0.6;
        let share = |row: usize| 0.1 + 0.025 * row as f64;
        let measured = rows(&played(share, &truth));
        let fit = steps(&gpu, &tables, &measured, |trial| played(share, trial)).unwrap();
        let [convolution, norm] = fit.tables.as_slice() else { panic!("{:?}", fit.tables) };
        assert_eq!((convolution.path.as_str(), norm.path.as_str()), ("convolution", "memory.batch_norm"));
        assert!((convolution.values[0] / 1.2 - 1.0).abs() < 0.03, "{:?}", convolution.values);
        assert!((norm.values[0] / 0.6 - 1.0).abs() < 0.03, "{:?}", norm.values);
        let own = gpu.achievable.convolution.coefficients;
        assert_eq!(convolution.values[1..3], [own.backward, own.grouped], "no step moves with them");
        let after = fit.tables[0].report.after();
        assert!(after.rows > 3 && after.rows < 20 && after.mean < 0.02, "{after:?}");
        assert!(fit.to_toml().contains("steps of somebody; on"));
    }

    #[test]
    fn steps_that_do_not_move_say_nothing() {
        let gpu = gpu_from_catalogue("rtx-3090").unwrap();
        let measured = rows(&[1.0; 30]);
        let error = |table: &str| {
            steps(&gpu, &[table.to_owned()], &measured, |_| vec![1.0; 30]).unwrap_err().to_string()
        };
        assert_eq!(
            error("batch_norm"),
            "0 steps move with batch_norm; at least 4 that are not held out are needed"
        );
        assert!(
            error("norms").starts_with("unknown table `norms`; allowed: convolution, elementwise, norm,")
        );
    }
}
