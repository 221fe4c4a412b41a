//! `steptime calibrate steps`.

use steptime_clusters::gpu_from_catalogue;
use steptime_scenarios::SingleGpuSteps;

use super::gpu::{document, errors};
use super::{Shown, show};
use crate::cli::CalibrateSteps;
use crate::failure::{Answer, Failure};
use crate::output;

/// Fits convolutions and shares of the bandwidth to measured steps.
pub(super) fn calibrate(arguments: &CalibrateSteps) -> Result<Answer, Failure> {
    let known = |name: &str| gpu_from_catalogue(name).map_err(|error| Failure::Message(error.to_string()));
    let gpu = known(&arguments.gpu)?;
    let mut names = vec![gpu.name.as_str()];
    for name in &arguments.relative {
        known(name)?;
        names.push(name);
    }
    let mut tables = Vec::new();
    for path in &arguments.data {
        tables.push((path.display().to_string(), output::read(path)?));
    }
    let steps = SingleGpuSteps::of(&tables, &names).map_err(|error| Failure::Message(error.to_string()))?;
    let fit = steps.fit(&gpu, &arguments.fit).map_err(|error| {
        Failure::Message(format!("{error} ({} steps of {})", steps.count(), names.join(", ")))
    })?;
    let shown = Shown {
        errors: errors(&fit),
        notes: String::new(),
        toml: fit.to_calibration(),
        document: document(&fit),
    };
    show(shown, &arguments.to)
}
