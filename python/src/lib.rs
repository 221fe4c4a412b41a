//! What the Python package `steptime` calls: scenarios as text in, JSON text out.
//!
//! Everything that Python sees is in `steptime/*.py`; this module is private to the package. Each call computes without
//! Python's global lock.
#![expect(clippy::needless_pass_by_value, reason = "Python's arguments arrive by value")]

mod files;
mod sweep;

use pyo3::create_exception;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use serde::Serialize;
use steptime_scenarios::{self as scenarios, Claim, Draft, InputError};

use files::Known;

create_exception!(
    steptime,
    Error,
    PyValueError,
    "What is wrong with a scenario or a sweep, in the words of the program: file, line, key, what was found, what is allowed."
);

/// An error as Python gets it.
fn raised(error: impl std::fmt::Display) -> PyErr {
    Error::new_err(error.to_string())
}

/// A result as JSON.
fn json<T: Serialize>(value: &T) -> PyResult<String> {
    serde_json::to_string(value).map_err(raised)
}

/// A scenario as Python hands it over.
#[derive(FromPyObject)]
struct Source {
    /// How errors name it.
    name: String,
    /// TOML.
    text: String,
    /// Where files are that it names.
    folder: String,
    /// `section.key=value`, in order.
    overrides: Vec<String>,
}

impl Source {
    fn draft(&self) -> Result<(Draft, Known), InputError> {
        let draft = Draft::read(&self.name, &self.text, &self.overrides)?;
        Ok((draft, Known::beside(&self.folder)))
    }
}

/// Calls a function with the scenario, without Python's lock, on its own threads where a number of them is given.
fn with<T: Send + Serialize>(
    py: Python<'_>,
    source: &Source,
    jobs: Option<usize>,
    call: impl Fn(&Draft, &Known) -> Result<T, InputError> + Sync,
) -> PyResult<String> {
    let found = py.detach(|| -> PyResult<T> {
        let (draft, files) = source.draft().map_err(raised)?;
        pool(jobs)?.install(|| call(&draft, &files)).map_err(raised)
    })?;
    json(&found)
}

/// Threads for a call; 0 and none are one for each processor.
fn pool(jobs: Option<usize>) -> PyResult<rayon::ThreadPool> {
    rayon::ThreadPoolBuilder::new().num_threads(jobs.unwrap_or(0)).build().map_err(raised)
}

/// The report of a scenario.
#[pyfunction]
fn run(py: Python<'_>, source: Source) -> PyResult<String> {
    with(py, &source, Some(1), |draft, files| {
        let mut report = scenarios::run(&draft.scenario(files)?, false)?.report;
        report.scenario_hash = Some(draft.digest(files));
        if report.verdict == scenarios::Verdict::OutOfMemory {
            report.remedies = scenarios::remedies(draft, files);
        }
        Ok(report)
    })
}

/// What a search finds.
#[pyfunction]
fn search(py: Python<'_>, source: Source, plays: u64, jobs: Option<usize>) -> PyResult<String> {
    with(py, &source, jobs, |draft, files| scenarios::search(draft, files, plays))
}

/// The largest micro-batch that fits.
#[pyfunction]
fn max_batch(py: Python<'_>, source: Source) -> PyResult<String> {
    with(py, &source, Some(1), |draft, files| scenarios::max_batch(draft, files, 1))
}

/// The verdict on the plan that a scenario is.
#[pyfunction]
fn check(
    py: Python<'_>,
    source: Source,
    claim_time: Option<f64>,
    claim_memory_bytes: Option<f64>,
    plays: u64,
) -> PyResult<String> {
    let claim = Claim { step_time_s: claim_time, peak_memory_bytes: claim_memory_bytes };
    with(py, &source, None, |draft, files| scenarios::check_scenario(draft, files, claim, plays))
}

#[pymodule]
fn _steptime(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("Error", module.py().get_type::<Error>())?;
    module.add_function(wrap_pyfunction!(run, module)?)?;
    module.add_function(wrap_pyfunction!(search, module)?)?;
    module.add_function(wrap_pyfunction!(max_batch, module)?)?;
    module.add_function(wrap_pyfunction!(check, module)?)?;
    module.add_class::<sweep::Sweep>()?;
    module.add_class::<sweep::Journal>()?;
    Ok(())
}
