//! `steptime calibrate`.

mod catalogue;
mod fabric;
mod framework;
mod gpu;
mod host;
mod operations;
mod steps;

use std::fmt::Display;
use std::path::Path;

use serde_json::Value;

use crate::cli::{Calibrate, CalibrateArguments, CalibrateOutput};
use crate::failure::{Answer, Failure};
use crate::output::{self, Output};
use crate::present::trimmed;

/// Identifies the JSON document.
const SCHEMA: &str = "steptime.calibration/1";
/// First line of a calibration file.
const HEAD: &str =
    "# Written by `steptime calibrate`. A scenario takes it with `calibration` in its section [cluster].\n";

/// Fits what the arguments say.
pub(crate) fn calibrate(arguments: &CalibrateArguments) -> Result<Answer, Failure> {
    match &arguments.what {
        Calibrate::Gpu(arguments) => gpu::calibrate(arguments),
        Calibrate::Fabric(arguments) => fabric::calibrate(arguments),
        Calibrate::Host(arguments) => host::calibrate(arguments),
        Calibrate::Steps(arguments) => steps::calibrate(arguments),
        Calibrate::Catalogue(arguments) => catalogue::calibrate(arguments),
        Calibrate::Operations(arguments) => operations::calibrate(arguments),
    }
}

/// A fit as it is shown.
struct Shown {
    /// Errors before and after, for a person.
    errors: String,
    /// What was left out, for a person; empty or whole lines.
    notes: String,
    /// The calibration file without its first line.
    toml: String,
    /// What the document holds besides.
    document: Value,
}

/// Writes the calibration file, or prints it; the errors go where the file does not.
fn show(shown: Shown, to: &CalibrateOutput) -> Result<Answer, Failure> {
    let Shown { errors, notes, toml, mut document } = shown;
    let file = format!("{HEAD}{toml}");
    if let Some(path) = &to.out {
        output::write_all(&[Output::new(path.clone(), file.as_str())])?;
    }
    if to.json {
        document["schema"] = SCHEMA.into();
        document["toml"] = file.into();
        output::print(&output::json(&document)?)?;
        return Ok(Answer::Yes);
    }
    let errors = trimmed(&errors);
    if to.out.is_some() {
        output::print(&errors)?;
    } else {
        output::remark(&format!("{errors}\n"))?;
        output::print(&file)?;
    }
    output::remark(&notes)?;
    Ok(Answer::Yes)
}

/// A file's error with the file's name before it.
fn in_file(path: &Path, error: impl Display) -> Failure {
    Failure::File { path: path.to_owned(), message: error.to_string() }
}

/// The bytes of a file.
fn bytes(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::File::open(path).and_then(output::all_of).map_err(|error| in_file(path, error))
}

/// Whether an option names a file rather than an entry of the catalogue.
fn is_file(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension.eq_ignore_ascii_case("toml"))
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}
