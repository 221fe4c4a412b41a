//! What the catalogue says of its own accuracy.

use steptime_clusters::{Basis, Gpu, fabric_from_catalogue, fabric_names, gpu_from_catalogue, gpu_names};

use super::tables::markdown;
use crate::failure::Failure;

/// Held-out errors of every fitted kernel model.
pub(super) fn kernels() -> Result<String, Failure> {
    let mut rows: Vec<[String; 3]> = Vec::new();
    for name in gpu_names() {
        let gpu = gpu_from_catalogue(name).map_err(|error| Failure::cluster(&error))?;
        for fact in gpu.facts.iter().filter(|fact| fact.basis == Basis::Fitted) {
            let kind = fact.what.strip_prefix("calibration.").and_then(|what| what.rsplit_once('.'));
            let (Some((kind, _)), Some((fitted, held_out))) = (kind, fact.source.split_once("; on ")) else {
                continue;
            };
            let row = [name.to_owned(), kind.replace('.', " "), format!("{fitted}; on {held_out}")];
            if rows.last() != Some(&row) {
                rows.push(row);
            }
        }
    }
    Ok(markdown(&["GPU", "kernels", "fit and held-out shapes"], 3, rows))
}

/// Which fabrics' collectives were fitted, and to what.
pub(super) fn fabrics() -> Result<String, Failure> {
    let mut rows: Vec<[String; 2]> = Vec::new();
    for name in fabric_names() {
        let fabric = fabric_from_catalogue(name).map_err(|error| Failure::cluster(&error))?;
        for fact in fabric.facts.iter().filter(|fact| fact.basis == Basis::Fitted) {
            let row = [name.to_owned(), fact.source.clone()];
            if !rows.contains(&row) {
                rows.push(row);
            }
        }
    }
    Ok(markdown(&["fabric", "curves of its collectives"], 2, rows))
}

/// Number formats whose matrix products were fitted on the GPU itself.
pub(super) fn fitted_formats(name: &str) -> String {
    let Ok(gpu) = gpu_from_catalogue(name) else { return "-".to_owned() };
    let formats: Vec<String> = fitted(&gpu);
    if formats.is_empty() { "none (P0)".to_owned() } else { formats.join(", ") }
}

fn fitted(gpu: &Gpu) -> Vec<String> {
    let own = gpu.arithmetic.iter().filter(|it| it.model.ground.basis <= Basis::Fitted);
    own.map(|it| format!("{:?}", it.dtype).to_ascii_lowercase()).collect()
}
