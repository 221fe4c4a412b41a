//! `steptime calibrate gpu`.

use std::path::Path;

use serde_json::{Value, json};
use steptime_clusters::calibrate::{self, Errors, Fit, FittedTable, Rows};
use steptime_clusters::{Gpu, gpu_from_catalogue, gpu_from_toml};

use super::{Shown, bytes, in_file, is_file, percent, show};
use crate::cli::CalibrateGpu;
use crate::failure::{Answer, Failure};
use crate::output;
use crate::present::{right_align, table};

/// Fits a GPU to tables of measured kernels.
pub(super) fn calibrate(arguments: &CalibrateGpu) -> Result<Answer, Failure> {
    let mut gpu = gpu(&arguments.gpu)?;
    if let Some(lender) = &arguments.like {
        gpu = calibrate::borrowing(&gpu, &self::gpu(lender)?);
    }
    let mut rows = Rows::default();
    for path in &arguments.data {
        rows.read(&bytes(path)?).map_err(|error| in_file(path, error))?;
    }
    let known = rows.gpus();
    if !known.contains(&gpu.name.as_str()) {
        let known = known.join(", ");
        return Err(Failure::Message(format!(
            "no row is of the GPU `{}`; the tables have {known}",
            gpu.name
        )));
    }
    let fit = calibrate::gpu(&gpu, &rows);
    let mut notes = String::new();
    for short in &fit.short {
        notes +=
            &format!("not fitted: {}: {} rows to fit, {} are needed\n", short.path, short.rows, short.needed);
    }
    let impossible = calibrate::faster_than_peak(&gpu, &rows);
    if impossible > 0 {
        notes += &format!(
            "beware: {impossible} matrix products are faster than the peak of `{}` in their format allows\n",
            gpu.name
        );
    }
    if rows.skipped > 0 {
        notes += &format!(
            "not used: {} rows of memory-bound kernels: operations that no model knows, or shorter than 5 us\n",
            rows.skipped
        );
    }
    if rows.skipped_entries > 0 {
        notes += &format!(
            "not used: {} entries of system files: products that add to a gradient, attention of scattered operands\n",
            rows.skipped_entries
        );
    }
    if fit.tables.is_empty() {
        return Err(Failure::Message(format!(
            "nothing could be fitted for `{}`\n{}",
            gpu.name,
            notes.trim_end()
        )));
    }
    let shown = Shown { errors: errors(&fit), notes, toml: fit.to_calibration(), document: document(&fit) };
    show(shown, &arguments.to)
}

/// A GPU of the catalogue or of a file.
fn gpu(name: &str) -> Result<Gpu, Failure> {
    if is_file(name) {
        let path = Path::new(name);
        return gpu_from_toml(&output::read(path)?).map_err(|error| in_file(path, error));
    }
    gpu_from_catalogue(name).map_err(|error| Failure::Message(error.to_string()))
}

/// Errors on held-out shapes by table and size.
pub(super) fn errors(fit: &Fit) -> String {
    let mut list = table(&[
        "fit",
        "shapes",
        "rows",
        "median",
        "mean",
        "80 %",
        "90 %",
        "bias",
        "median before",
        "mean before",
    ]);
    list.set_width(120);
    for fitted in &fit.tables {
        for (index, band) in fitted.report.bands.iter().enumerate() {
            let Errors { rows, median, mean, p80, p90, bias } = band.after;
            list.add_row([
                if index == 0 { fitted.path.clone() } else { String::new() },
                band.name.to_owned(),
                rows.to_string(),
                percent(median),
                percent(mean),
                percent(p80),
                percent(p90),
                format!("{:+.1} %", 100.0 * bias),
                percent(band.before.median),
                percent(band.before.mean),
            ]);
        }
    }
    right_align(&mut list, 2);
    let rows = fit.tables.first().map_or("shapes", |table| table.rows);
    format!("{}: errors on held-out {rows}\n{list}\n", fit.gpu)
}

/// The fit for scripts.
pub(super) fn document(fit: &Fit) -> Value {
    let tables: Vec<Value> = fit.tables.iter().map(table_document).collect();
    let short: Vec<Value> = fit
        .short
        .iter()
        .map(|short| json!({ "path": short.path, "rows": short.rows, "needed": short.needed }))
        .collect();
    json!({ "kind": "gpu", "gpu": fit.gpu, "tables": tables, "not_fitted": short })
}

fn table_document(table: &FittedTable) -> Value {
    let coefficients: serde_json::Map<String, Value> = table
        .coefficients
        .iter()
        .zip(&table.values)
        .map(|(coefficient, value)| (coefficient.key.to_owned(), json!(value)))
        .collect();
    let bands: Vec<Value> = table
        .report
        .bands
        .iter()
        .map(|band| json!({ "shapes": band.name, "before": errors_document(&band.before), "after": errors_document(&band.after) }))
        .collect();
    json!({
        "path": table.path,
        "source": table.source,
        "fitted_rows": table.report.fitted_rows,
        "error": table.error(),
        "coefficients": coefficients,
        "held_out": bands,
    })
}

fn errors_document(errors: &Errors) -> Value {
    let Errors { rows, median, mean, p80, p90, bias } = errors;
    json!({ "rows": rows, "median": median, "mean": mean, "p80": p80, "p90": p90, "bias": bias })
}
