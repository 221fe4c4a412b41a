//! Fits the coefficients of the kernel models to measured kernels.
//!
//! [`Rows`] reads measurements; [`gpu`] fits every kernel model that has enough of them on one GPU and returns a
//! [`Fit`]: coefficients, their errors on shapes that were held out ([`Fit::report`]), and the text of the
//! catalogue's `[calibration]` tables ([`Fit::to_toml`]). Which shapes are held out follows from the shape alone,
//! never from the time, so nothing about the outcome can steer it.
//!
//! What a benchmark adds around the kernel (its own start, a cast to fp8, the write of a key-value cache) is
//! fitted beside the kernel and left out of prices; [`as_measured`] adds it for comparisons with such rows.

pub(crate) mod levenberg_marquardt;
mod operations;
mod published;
mod report;
mod rows;
mod steps;
#[cfg(test)]
mod tests;
mod text;

use steptime_models::{Dtype, MemoryBoundKind};

pub use self::operations::{HandedOn, OperationPass, OperationScore, Operations};
pub use self::report::{Band, Errors, Report};
pub(crate) use self::rows::toml_text;
pub use self::rows::{AttentionRow, GemmRow, MemoryRow, Rows, RowsError};
pub use self::steps::{StepRow, StepsError, Trial, steps};
pub use self::text::MARKER;
use crate::catalogue::MEMORY_KINDS;
use crate::coefficients::{ATTENTION, AttentionCoefficients, Coefficient, GEMM, GemmCoefficients, MEMORY};
use crate::gpu::{FORMATS, Gpu};
use crate::price::attention::{pass_rate, seconds as attention_seconds};
use crate::price::gemm::Work;
use crate::price::memory::arithmetic_seconds;
use levenberg_marquardt::{Parameter, minimize};
use report::Measured;

/// Fewer rows than this cannot hold the coefficients of a matrix product: five for each.
const FEWEST_GEMM_ROWS: usize = 5 * GEMM.len();
/// Fewer than this cannot hold those of attention, of which the commonest values stand in for what few rows leave open.
const FEWEST_ATTENTION_ROWS: usize = 2 * ATTENTION.len();
/// Fewer than this cannot hold a share of bandwidth.
const FEWEST_MEMORY_ROWS: usize = 6;
/// At most this many rows steer a fit: more change nothing and only take time.
const MOST_ROWS: usize = 3000;

/// Bytes a value that casts to fp8 leave in the second-level cache: 16 bits of input and 32 bits in between.
const CAST_BYTES: f64 = 6.0;

/// One fitted table of the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct FittedTable {
    /// Path below `[calibration]`, e.g. `gemm.bf16`.
    pub path: String,
    /// Coefficients in order, rounded as the catalogue writes them.
    pub values: Vec<f64>,
    /// What they are.
    pub coefficients: &'static [Coefficient],
    /// Errors on held-out shapes, before (with the coefficients that the GPU had) and after.
    pub report: Report,
    /// Whose measurements, e.g. `aiconfigurator`.
    pub source: String,
    /// What was measured: `shapes` of kernels, or `steps`.
    pub rows: &'static str,
}

/// The outcome for one GPU.
#[derive(Clone, Debug, PartialEq)]
pub struct Fit {
    /// Catalogue name of the GPU.
    pub gpu: String,
    /// Fitted tables, in the order of the catalogue.
    pub tables: Vec<FittedTable>,
    /// Tables of which there are measurements, but too few for a fit.
    pub short: Vec<Short>,
}

/// A table with too few measurements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Short {
    /// Path below `[calibration]`, e.g. `gemm.bf16`.
    pub path: String,
    /// Shapes that the fit may see; about a third of all is kept to test it.
    pub rows: usize,
    /// How many it needs.
    pub needed: usize,
}

impl Fit {
    /// Errors by table: path and report.
    pub fn report(&self) -> impl Iterator<Item = (&str, &Report)> {
        self.tables.iter().map(|table| (table.path.as_str(), &table.report))
    }
}

/// Fits all kernel models of a GPU that have enough rows.
pub fn gpu(gpu: &Gpu, rows: &Rows) -> Fit {
    let mut outcomes = Vec::new();
    for (format, dtype) in FORMATS {
        outcomes.extend(gemm(gpu, format, dtype, rows));
    }
    outcomes.extend(attention(gpu, rows));
    for (name, kind) in MEMORY_KINDS {
        outcomes.push(memory(gpu, name, kind, rows));
    }
    let mut fit = Fit { gpu: gpu.name.clone(), tables: Vec::new(), short: Vec::new() };
    for outcome in outcomes {
        match outcome {
            Ok(table) => fit.tables.push(table),
            Err(short) if short.rows > 0 => fit.short.push(short),
            Err(_) => {}
        }
    }
    fit
}

/// Matrix products that took less time than the peak of the data sheet allows: another format than the table says, another
/// GPU, or times that nobody measured.
pub fn faster_than_peak(gpu: &Gpu, rows: &Rows) -> usize {
    let own = rows.gemm.iter().filter(|row| row.gpu == gpu.name);
    own.filter(|row| gpu.peak(row.shape.dtype).is_some_and(|peak| row.shape.flops() / row.seconds > peak))
        .count()
}

/// A table, or that there are too few rows for it.
type Outcome = Result<FittedTable, Short>;

/// The GPU as it would be known if nothing had been measured on it and it borrowed the coefficients of another one:
/// what the other has of kernel models, on this GPU's multiprocessors, clock, bandwidth and cache.
pub fn borrowing(gpu: &Gpu, lender: &Gpu) -> Gpu {
    let mut borrower = gpu.clone();
    for arithmetic in &mut borrower.arithmetic {
        if let Some(lent) = lender.arithmetic(arithmetic.dtype) {
            // What the measurement adds belongs to the measurement and not to the GPU.
            let own = arithmetic.model.coefficients;
            arithmetic.model.coefficients = GemmCoefficients {
                measured_start_s: own.measured_start_s,
                measured_cast: own.measured_cast,
                ..lent.model.coefficients
            };
        }
    }
    let own = gpu.achievable.attention.coefficients;
    borrower.achievable.attention.coefficients = AttentionCoefficients {
        measured_start_s: own.measured_start_s,
        measured_cache_s: own.measured_cache_s,
        measured_cache_heads: own.measured_cache_heads,
        ..lender.achievable.attention.coefficients
    };
    let mut lent = lender.achievable.memory;
    for (place, lent) in borrower.achievable.memory.each_mut().into_iter().zip(lent.each_mut()) {
        place.share.value = lent.share.value;
    }
    borrower
}

/// A measured time as the model predicts it, seconds: the price and what the benchmark adds to it.
pub mod as_measured {
    use super::{AttentionRow, GemmRow, Gpu, MemoryRow, attention_of, gemm_of, memory_of};

    /// Of a matrix product; `None` when the GPU does not compute in the format.
    pub fn gemm(gpu: &Gpu, row: &GemmRow) -> Option<f64> {
        Some(gemm_of(gpu, row)?(&gpu.arithmetic(row.shape.dtype)?.model.coefficients))
    }

    /// Of fused attention; `None` when the GPU does not compute in the format.
    pub fn attention(gpu: &Gpu, row: &AttentionRow) -> Option<f64> {
        Some(attention_of(gpu, row)?(&gpu.achievable.attention.coefficients))
    }

    /// Of a memory-bound kernel.
    pub fn memory(gpu: &Gpu, row: &MemoryRow) -> f64 {
        let share = gpu.achievable.memory.of(row.kind);
        memory_of(gpu, row)(&[share.share.value, share.measured_start_s])
    }
}

fn gemm_of(gpu: &Gpu, row: &GemmRow) -> Option<impl Fn(&GemmCoefficients) -> f64> {
    let peak = gpu.peak(row.shape.dtype)?;
    let work = Work::new(gpu, peak, &row.shape, row.shape.operands(row.turns()));
    let inputs = row.shape.batch as f64 * row.shape.m as f64 * row.shape.k as f64;
    let (start, bandwidth) = (gpu.kernel_latency_s, gpu.memory_bandwidth);
    Some(move |c: &GemmCoefficients| {
        let cast = c.measured_cast * inputs / bandwidth * work.slowness(c, CAST_BYTES * inputs);
        start + work.seconds(c) + c.measured_start_s + cast
    })
}

fn attention_of<'a>(
    gpu: &'a Gpu,
    row: &'a AttentionRow,
) -> Option<impl Fn(&AttentionCoefficients) -> f64 + 'a> {
    let peak = gpu.peak(row.shape.dtype)? * pass_rate(gpu, row.shape.pass);
    let heads = row.shape.kv_heads as f64;
    let tokens = row.shape.batch as f64 * row.shape.key_length as f64;
    Some(move |c: &AttentionCoefficients| {
        let cache = c.measured_cache_s * tokens * heads / (heads + c.measured_cache_heads);
        gpu.kernel_latency_s + attention_seconds(gpu, peak, &row.shape, c) + c.measured_start_s + cache
    })
}

fn memory_of(gpu: &Gpu, row: &MemoryRow) -> impl Fn(&[f64; 2]) -> f64 {
    let (start, unhindered) = (gpu.kernel_latency_s, row.memory_bytes(gpu) / gpu.memory_bandwidth);
    let arithmetic = arithmetic_seconds(gpu, row.instructions);
    move |[share, measured_start]| start + measured_start + (unhindered / share).max(arithmetic)
}

fn gemm(gpu: &Gpu, format: &str, dtype: Dtype, rows: &Rows) -> Option<Outcome> {
    let rows = rows.gemm_of(&gpu.name, dtype);
    // Kernels alone are timed in 16-bit formats by aiconfigurator; fp8 there casts the left input first.
    let alone = rows.iter().all(|row| row.source.starts_with("aiconfigurator")) && dtype != Dtype::Fp8;
    let parameters = GEMM.map(|coefficient| match coefficient.key {
        "measured_start" if alone => Parameter::Fixed(0.0),
        "measured_cast" if dtype != Dtype::Fp8 => Parameter::Fixed(0.0),
        _ => Parameter::Free(coefficient),
    });
    let before = gpu.arithmetic(dtype)?.model.coefficients;
    let mut cases = Vec::new();
    for row in &rows {
        let seconds = gemm_of(gpu, row)?;
        let before = seconds(&before);
        cases.push(Case {
            measured: Measured { seconds: row.seconds, flops: row.shape.flops(), held_out: row.held_out() },
            before,
            predict: Box::new(move |v: &[f64; GEMM.len()]| seconds(&GemmCoefficients::from_values(v))),
        });
    }
    let sources = rows.iter().map(|row| row.source.as_str());
    // Tiles that end in groups and tiles that end by themselves are two valleys.
    let together = GEMM.iter().position(|coefficient| coefficient.key == "together");
    let starts: Vec<_> = together.into_iter().map(|index| (index, 0.0)).collect();
    Some(fit(&format!("gemm.{format}"), &cases, (&parameters, &starts), &GEMM, FEWEST_GEMM_ROWS, sources))
}

fn attention(gpu: &Gpu, rows: &Rows) -> Option<Outcome> {
    let rows = rows.attention_of(&gpu.name);
    let before = gpu.achievable.attention.coefficients;
    let mut cases = Vec::new();
    for row in &rows {
        let seconds = attention_of(gpu, row)?;
        let before = seconds(&before);
        let flops = row.shape.flops().0 as f64;
        cases.push(Case {
            measured: Measured { seconds: row.seconds, flops, held_out: row.held_out() },
            before,
            predict: Box::new(move |v: &[f64; ATTENTION.len()]| {
                seconds(&AttentionCoefficients::from_values(v))
            }),
        });
    }
    // Serving frameworks write a cache of keys and values beside the kernel; shares of a peak are of kernels alone.
    let alone = rows.iter().all(|row| row.source.starts_with(published::SOURCE));
    let parameters = ATTENTION.map(|coefficient| match coefficient.key {
        key if alone && key.starts_with("measured") => Parameter::Fixed(match key {
            "measured_cache_heads" => coefficient.prior,
            _ => 0.0,
        }),
        _ => Parameter::Free(coefficient),
    });
    let sources = rows.iter().map(|row| row.source.as_str());
    Some(fit("attention", &cases, (&parameters, &[]), &ATTENTION, FEWEST_ATTENTION_ROWS, sources))
}

fn memory(gpu: &Gpu, name: &str, kind: MemoryBoundKind, rows: &Rows) -> Outcome {
    let ceiling = rows.ceiling(gpu, kind);
    let rows = rows.memory_of(gpu, kind);
    let cases: Vec<_> = rows
        .iter()
        .map(|row| Case {
            measured: Measured { seconds: row.seconds, flops: 0.0, held_out: row.held_out() },
            before: as_measured::memory(gpu, row),
            predict: Box::new(memory_of(gpu, row)),
        })
        .collect();
    let sources = rows.iter().map(|row| row.source.as_str());
    let [share, start] = MEMORY;
    let most = ceiling.map_or(share.most, |ceiling| ceiling.clamp(share.least, share.most));
    let parameters = [Coefficient { most, ..share }, start].map(Parameter::Free);
    fit(&format!("memory.{name}"), &cases, (&parameters, &[]), &MEMORY, FEWEST_MEMORY_ROWS, sources)
}

/// Seconds of a row with given coefficients.
type Predict<'a, const N: usize> = dyn Fn(&[f64; N]) -> f64 + 'a;

/// One measured row, and what a model says of it.
struct Case<'a, const N: usize> {
    measured: Measured,
    /// Prediction with the coefficients that the GPU had.
    before: f64,
    /// Prediction with given coefficients, seconds.
    predict: Box<Predict<'a, N>>,
}

fn fit<'a, const N: usize>(
    path: &str,
    cases: &[Case<'_, N>],
    (parameters, starts): (&[Parameter; N], &[(usize, f64)]),
    coefficients: &'static [Coefficient],
    fewest: usize,
    sources: impl Iterator<Item = &'a str>,
) -> Outcome {
    let fitted: Vec<_> = cases.iter().filter(|case| !case.measured.held_out).collect();
    if fitted.len() < fewest || fitted.len() == cases.len() {
        return Err(Short { path: path.to_owned(), rows: fitted.len(), needed: fewest });
    }
    let stride = fitted.len().div_ceil(MOST_ROWS);
    let steering: Vec<_> = fitted.iter().step_by(stride).collect();
    let residuals = |values: &[f64; N], out: &mut Vec<f64>| {
        out.clear();
        out.extend(steering.iter().map(|case| libm::log((case.predict)(values) / case.measured.seconds)));
    };
    let mut values = minimize(parameters, starts, residuals);
    for (value, coefficient) in values.iter_mut().zip(coefficients) {
        *value = text::rounded(coefficient, *value);
    }
    let after: Vec<_> = cases.iter().map(|case| (case.measured, (case.predict)(&values))).collect();
    let before: Vec<_> = cases.iter().map(|case| (case.measured, case.before)).collect();
    Ok(FittedTable {
        path: path.to_owned(),
        values: values.to_vec(),
        coefficients,
        report: Report::new(fitted.len(), &before, &after),
        source: rows::source_names(sources),
        rows: "shapes",
    })
}
