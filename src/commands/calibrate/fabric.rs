//! `steptime calibrate fabric`.

use std::path::Path;

use serde_json::{Value, json};
use steptime_clusters::calibrate_fabric::{
    self, CollectiveErrors, CollectiveRow, CollectiveRowsError, FabricFit, Operation, read_collectives,
    read_nccl_tests,
};
use steptime_clusters::{Cluster, ClusterEntry, cluster_from_catalogue, cluster_from_toml};

use super::{Shown, bytes, in_file, is_file, percent, show};
use crate::cli::CalibrateFabric;
use crate::failure::{Answer, Failure};
use crate::output;
use crate::present::{right_align, table};

/// Fits the links inside a node to measured collectives.
pub(super) fn calibrate(arguments: &CalibrateFabric) -> Result<Answer, Failure> {
    let cluster = cluster(&arguments.cluster)?;
    let mut rows = Vec::new();
    for path in &arguments.data {
        rows.extend(read_collectives(bytes(path)?.as_slice()).map_err(|error| in_file(path, error))?);
    }
    if !arguments.data.is_empty() {
        rows = of_cluster(rows, &cluster, arguments.topology.as_deref())?;
    }
    let operation = arguments.operation.as_deref().map(operation).transpose()?;
    for path in &arguments.nccl_tests {
        rows.extend(output_of(path, operation)?);
    }
    if let Some(row) = rows.iter().find(|row| row.placement.members_per_node() > cluster.gpus_per_node) {
        let (ranks, most) = (row.placement.members_per_node(), cluster.gpus_per_node);
        return Err(Failure::Message(format!(
            "a row has {ranks} GPUs in a node, but a node of `{}` has {most}",
            cluster.name
        )));
    }
    let (inside, across): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.placement.nodes == 1);
    let fit = calibrate_fabric::fit(&cluster, &inside);
    if fit.fitted.is_empty() && fit.fitted_pair.is_empty() {
        return Err(Failure::Message(format!(
            "nothing could be fitted to {} rows within one node: a curve needs at least 4 that it may see (about a third is \
             kept to test it)",
            inside.len()
        )));
    }
    let mut document = document(&fit);
    let mut notes = String::new();
    if !across.is_empty() {
        let with = Cluster { fabric: fit.fabric.clone(), ..cluster.clone() };
        if cluster.network.is_none() {
            notes = format!("not used: {} rows of several nodes: the cluster has no network\n", across.len());
        } else {
            let errors = CollectiveErrors::of(&with, &across);
            document["several_nodes"] = errors_document(&errors);
            notes = format!(
                "not fitted: {} rows of several nodes, predicted with median error {}, mean {}\n",
                errors.rows,
                percent(errors.median),
                percent(errors.mean)
            );
        }
    }
    let shown = Shown { errors: errors(&fit), notes, toml: fit.to_calibration(), document };
    show(shown, &arguments.to)
}

/// A cluster of GPU nodes, of the catalogue or of a file.
fn cluster(name: &str) -> Result<Cluster, Failure> {
    let entry = if is_file(name) {
        let path = Path::new(name);
        cluster_from_toml(&output::read(path)?).map_err(|error| in_file(path, error))?
    } else {
        cluster_from_catalogue(name).map_err(|error| Failure::cluster(&error))?
    };
    match entry {
        ClusterEntry::Nodes(cluster) => Ok(cluster),
        ClusterEntry::Vehicles(cluster) => {
            Err(Failure::Message(format!("`{}` is made of vehicles, which have no fabric", cluster.name)))
        }
    }
}

/// The rows of the cluster's GPU, all of one topology.
fn of_cluster(
    rows: Vec<CollectiveRow>,
    cluster: &Cluster,
    topology: Option<&str>,
) -> Result<Vec<CollectiveRow>, Failure> {
    let names = |of: fn(&CollectiveRow) -> &str, rows: &[CollectiveRow]| {
        let mut names: Vec<String> = rows.iter().map(|row| of(row).to_owned()).collect();
        names.sort_unstable();
        names.dedup();
        names
    };
    let gpu = &cluster.gpu.name;
    let gpus = names(|row| &row.gpu, &rows).join(", ");
    let rows: Vec<_> = rows.into_iter().filter(|row| row.gpu == *gpu || row.gpu.is_empty()).collect();
    if rows.is_empty() {
        return Err(Failure::Message(format!("no row is of the GPU `{gpu}`; the tables have {gpus}")));
    }
    let topologies = names(|row| &row.topology, &rows);
    let known = topologies.join(", ");
    match topology {
        Some(topology) if !topologies.iter().any(|name| name == topology) => Err(Failure::Message(format!(
            "no row of `{gpu}` has the topology `{topology}`; the tables have {known}"
        ))),
        None if topologies.len() > 1 => Err(Failure::Message(format!(
            "the rows of `{gpu}` have several topologies: {known}; choose one with --topology"
        ))),
        Some(topology) => Ok(rows.into_iter().filter(|row| row.topology == topology).collect()),
        None => Ok(rows),
    }
}

fn operation(name: &str) -> Result<Operation, Failure> {
    Operation::named(name).ok_or_else(|| {
        let known = Operation::names().collect::<Vec<_>>().join(", ");
        Failure::Message(format!("--operation: unknown `{name}`; known: {known}"))
    })
}

/// Rows of the output of nccl-tests. What it is of stands in the output, or in the file's name.
fn output_of(path: &Path, operation: Option<Operation>) -> Result<Vec<CollectiveRow>, Failure> {
    let file = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let text = output::read(path)?;
    let by_name = Operation::names().find(|name| file.contains(name)).and_then(Operation::named);
    let rows = read_nccl_tests(&text, by_name.or(operation), "nccl-tests");
    rows.map_err(|error| match error {
        CollectiveRowsError::NoOperation => in_file(
            path,
            format!("{error} with --operation, or name the file after it, e.g. all_reduce_perf.txt"),
        ),
        other => in_file(path, other),
    })
}

/// Errors on held-out rows by operation and size.
pub(super) fn errors(fit: &FabricFit) -> String {
    let mut list =
        table(&["operation", "bytes", "rows", "median", "mean", "most", "median before", "mean before"]);
    list.set_width(110);
    let mut last = None;
    for band in &fit.errors {
        let operation = band.operation.map_or("all", Operation::name);
        list.add_row([
            if last.replace(operation) == Some(operation) { String::new() } else { operation.to_owned() },
            band.band.to_owned(),
            band.after.rows.to_string(),
            percent(band.after.median),
            percent(band.after.mean),
            percent(band.after.most),
            percent(band.before.median),
            percent(band.before.mean),
        ]);
    }
    right_align(&mut list, 2);
    format!("{}: errors on held-out rows\n{list}\n", fit.fabric.name)
}

/// The fit for scripts.
pub(super) fn document(fit: &FabricFit) -> Value {
    let bands: Vec<Value> = fit
        .errors
        .iter()
        .map(|band| {
            json!({
                "operation": band.operation.map_or("all", Operation::name),
                "bytes": band.band,
                "before": errors_document(&band.before),
                "after": errors_document(&band.after),
            })
        })
        .collect();
    json!({
        "kind": "fabric",
        "fabric": fit.fabric.name,
        "source": fit.source,
        "fitted": fit.fitted,
        "fitted_pair": fit.fitted_pair,
        "held_out": bands,
    })
}

pub(super) fn errors_document(errors: &CollectiveErrors) -> Value {
    let CollectiveErrors { rows, median, mean, most } = errors;
    json!({ "rows": rows, "median": median, "mean": mean, "most": most })
}
