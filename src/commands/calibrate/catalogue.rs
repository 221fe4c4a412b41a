//! `steptime calibrate catalogue`: all that the catalogue ships.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use steptime_clusters::calibrate::{self, MARKER as GPU_MARKER, Rows};
use steptime_clusters::calibrate_fabric::{
    self, MARKER as FABRIC_MARKER, MULTINODE_BYTES, MULTINODE_SOURCE, read_collectives, read_spread,
    rows_of_preset,
};
use steptime_clusters::{Cluster, fabric_names, gpu_from_catalogue, gpu_names};

use super::{SCHEMA, bytes, fabric, gpu, in_file};
use crate::cli::CalibrateCatalogue;
use crate::failure::{Answer, Failure};
use crate::output::{self, Output};
use crate::present::trimmed;

/// What was fitted so far.
#[derive(Default)]
struct Fits {
    text: String,
    documents: Vec<Value>,
    files: Vec<Output>,
    /// Files whose text differs from what is on the disk.
    changed: Vec<String>,
    /// Files with a fit to what the folder does not hold, which stays.
    kept: Vec<String>,
}

impl Fits {
    /// Puts a fit below its marker into a file of the catalogue.
    fn put(&mut self, file: &Path, marker: &str, fitted: &str) -> Result<(), Failure> {
        let text = output::read(file)?;
        let (kept, _) = text
            .split_once(marker)
            .ok_or_else(|| in_file(file, format!("has no line `{}` to write below", marker.trim_end())))?;
        if fitted.is_empty() && text.len() > kept.len() + marker.len() {
            self.kept.push(file.display().to_string());
            return Ok(());
        }
        let new = format!("{kept}{marker}{fitted}");
        if new != text {
            self.changed.push(file.display().to_string());
            self.files.push(Output::new(file.to_owned(), new));
        }
        Ok(())
    }
}

/// Fits every GPU, fabric and network that has measurements.
pub(super) fn calibrate(arguments: &CalibrateCatalogue) -> Result<Answer, Failure> {
    let mut fits = Fits::default();
    gpus(&arguments.data, &arguments.catalogue, &mut fits)?;
    fabrics(&arguments.data, &arguments.catalogue, &mut fits)?;
    network(&arguments.data, &arguments.catalogue, &mut fits)?;
    if !arguments.check {
        output::write_all(&fits.files)?;
    }
    if arguments.json {
        let document = json!({ "schema": SCHEMA, "kind": "catalogue", "fits": fits.documents, "changed": fits.changed, "kept": fits.kept });
        output::print(&output::json(&document)?)?;
    } else {
        output::print(&trimmed(&fits.text))?;
        for file in &fits.kept {
            output::print(&format!("kept, as nothing in the folder is of it: {file}\n"))?;
        }
        let verb = if arguments.check { "would change" } else { "changed" };
        for file in &fits.changed {
            output::print(&format!("{verb}: {file}\n"))?;
        }
        if fits.changed.is_empty() {
            output::print("every file is as the measurements say\n")?;
        } else if !arguments.check {
            output::remark(
                "build again, so that the program holds the new catalogue; repeat until no file changes\n",
            )?;
        }
    }
    Ok(if arguments.check && !fits.changed.is_empty() { Answer::No } else { Answer::Yes })
}

fn gpus(data: &Path, catalogue: &Path, fits: &mut Fits) -> Result<(), Failure> {
    let mut rows = Rows::default();
    for name in ["gemm.csv", "attention.csv", "memory_bound.csv"] {
        let path = data.join(name);
        rows.read(&bytes(&path)?).map_err(|error| in_file(&path, error))?;
    }
    for path in systems(data)? {
        rows.read_system(&bytes(&path)?).map_err(|error| in_file(&path, error))?;
    }
    for name in gpu_names() {
        let gpu = gpu_from_catalogue(name).map_err(|error| Failure::Message(error.to_string()))?;
        let fit = calibrate::gpu(&gpu, &rows);
        if !fit.tables.is_empty() {
            fits.text += &format!("{}\n", gpu::errors(&fit));
            fits.documents.push(gpu::document(&fit));
        }
        fits.put(&catalogue.join("gpus").join(format!("{name}.toml")), GPU_MARKER, &fit.to_toml())?;
    }
    Ok(())
}

/// The system files of a folder, sorted by name.
fn systems(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = std::fs::read_dir(folder).map_err(|error| in_file(folder, error))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut paths: Vec<PathBuf> = paths.collect::<Result<_, _>>().map_err(|error| in_file(folder, error))?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json")));
    paths.sort();
    Ok(paths)
}

fn fabrics(data: &Path, catalogue: &Path, fits: &mut Fits) -> Result<(), Failure> {
    let path = data.join("collectives.csv");
    let rows = read_collectives(bytes(&path)?.as_slice()).map_err(|error| in_file(&path, error))?;
    for name in fabric_names() {
        let rows = rows_of_preset(name, &rows);
        if rows.is_empty() {
            continue;
        }
        // The GPU does not matter: collectives are fitted to the fabric alone.
        let cluster = Cluster::assemble("h100-80gb-sxm", name, None, 1, 8)
            .map_err(|error| Failure::Message(error.to_string()))?;
        let fit = calibrate_fabric::fit(&cluster, &rows);
        fits.text += &format!("{}\n", fabric::errors(&fit));
        fits.documents.push(fabric::document(&fit));
        fits.put(&catalogue.join("fabrics").join(format!("{name}.toml")), FABRIC_MARKER, &fit.to_toml())?;
    }
    Ok(())
}

fn network(data: &Path, catalogue: &Path, fits: &mut Fits) -> Result<(), Failure> {
    let path = data.join("collectives_multinode.csv");
    let rows = read_spread(bytes(&path)?.as_slice(), MULTINODE_BYTES, MULTINODE_SOURCE)
        .map_err(|error| in_file(&path, error))?;
    let cluster = Cluster::assemble("h100-80gb-sxm", "nvswitch-4", Some(("efa", 3200.0)), 2, 8)
        .map_err(|error| Failure::Message(error.to_string()))?;
    let fit = calibrate_fabric::fit_jobs(&cluster, &rows)
        .ok_or_else(|| in_file(&path, "holds no rows of several nodes"))?;
    fits.text += &fabric::jobs(&fit, "efa");
    fits.documents.push(json!({
        "kind": "network",
        "network": "efa",
        "message_s": fit.message_s,
        "seen": fit.seen,
        "within_jobs": fit.within_jobs,
        "several_nodes": { "before": fabric::errors_document(&fit.before), "after": fabric::errors_document(&fit.after) },
    }));
    fits.put(&catalogue.join("networks").join("efa.toml"), FABRIC_MARKER, &fit.to_toml())
}
