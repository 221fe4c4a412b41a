//! `steptime calibrate fabric`.

use std::path::Path;

use serde_json::{Value, json};
use steptime_clusters::calibrate_fabric::{
    self, BandErrors, CollectiveErrors, CollectiveRow, CollectiveRowsError, FabricFit, JobsFit,
    MULTINODE_BYTES, MULTINODE_SOURCE, NetworkFit, Operation, SpreadRow, is_spread, read_collectives,
    read_nccl_tests, read_spread,
};
use steptime_clusters::{Cluster, ClusterEntry, cluster_from_catalogue, cluster_from_toml};

use super::{Shown, bytes, in_file, is_file, percent, show};
use crate::cli::CalibrateFabric;
use crate::failure::{Answer, Failure};
use crate::output;
use crate::present::{right_align, table};

/// Fits the links inside a node and between nodes to measured collectives.
pub(super) fn calibrate(arguments: &CalibrateFabric) -> Result<Answer, Failure> {
    let cluster = cluster(&arguments.cluster)?;
    let (mut rows, mut jobs) = (Vec::new(), Vec::new());
    for path in &arguments.data {
        let table = bytes(path)?;
        if is_spread(&table) {
            let read = read_spread(table.as_slice(), MULTINODE_BYTES, &spread_source(path));
            jobs.extend(read.map_err(|error| in_file(path, error))?);
        } else {
            rows.extend(read_collectives(table.as_slice()).map_err(|error| in_file(path, error))?);
        }
    }
    let topology = arguments.topology.as_deref();
    if !rows.is_empty() {
        rows = of_cluster(rows, |row| row, &cluster, topology)?;
    }
    if !jobs.is_empty() {
        jobs = of_cluster(jobs, |job| &job.median, &cluster, topology)?;
    }
    let operation = arguments.operation.as_deref().map(operation).transpose()?;
    for path in &arguments.nccl_tests {
        rows.extend(output_of(path, operation)?);
    }
    let all = rows.iter().chain(jobs.iter().map(|job| &job.median));
    if let Some(row) = all.into_iter().find(|row| row.placement.members_per_node() > cluster.gpus_per_node) {
        let (ranks, most) = (row.placement.members_per_node(), cluster.gpus_per_node);
        return Err(Failure::Message(format!(
            "a row has {ranks} GPUs in a node, but a node of `{}` has {most}",
            cluster.name
        )));
    }
    let (inside, across): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.placement.nodes == 1);
    show(fitted(&cluster, &inside, &across, &jobs)?, &arguments.to)
}

/// The fits that the rows allow: of single nodes, and between nodes with the links inside as they are then.
fn fitted(
    cluster: &Cluster,
    inside: &[CollectiveRow],
    across: &[CollectiveRow],
    jobs: &[SpreadRow],
) -> Result<Shown, Failure> {
    let fit = calibrate_fabric::fit(cluster, inside);
    let fabric_fitted = !(fit.fitted.is_empty() && fit.fitted_pair.is_empty());
    let with = Cluster { fabric: fit.fabric.clone(), ..cluster.clone() };
    let between = calibrate_fabric::fit_network(&with, across, jobs);
    if !fabric_fitted && between.is_none() {
        let without = if cluster.network.is_none() && !(across.is_empty() && jobs.is_empty()) {
            "; the cluster has no network that rows of several nodes could be fitted to"
        } else {
            ""
        };
        return Err(Failure::Message(format!(
            "nothing could be fitted to {} rows within one node and {} of several: a curve needs at least 4 that it may see \
             (about a third is kept to test it){without}",
            inside.len(),
            across.len() + jobs.len()
        )));
    }
    let mut shown =
        Shown { errors: String::new(), notes: String::new(), toml: String::new(), document: json!({}) };
    if fabric_fitted {
        shown.errors = errors(&fit);
        shown.toml = fit.to_calibration();
        shown.document = document(&fit);
    } else {
        shown.document["kind"] = "fabric".into();
    }
    match between {
        Some(fit) => {
            if !shown.toml.is_empty() {
                shown.errors.push('\n');
                shown.toml.push('\n');
            }
            shown.errors += &network_errors(&fit);
            shown.toml += &fit.to_calibration();
            shown.document["network"] = network_document(&fit);
        }
        None if !across.is_empty() => {
            shown.notes = format!("not used: {} rows of several nodes: {}\n", across.len(), {
                if cluster.network.is_none() { "the cluster has no network" } else { "too few for a fit" }
            });
        }
        None => {}
    }
    Ok(shown)
}

/// Who published a table of jobs: the catalogue's own under its name, others by their file.
fn spread_source(path: &Path) -> String {
    let file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if file == "collectives_multinode.csv" { MULTINODE_SOURCE.to_owned() } else { file }
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
fn of_cluster<T>(
    rows: Vec<T>,
    row: fn(&T) -> &CollectiveRow,
    cluster: &Cluster,
    topology: Option<&str>,
) -> Result<Vec<T>, Failure> {
    let names = |of: fn(&CollectiveRow) -> &str, rows: &[T]| {
        let mut names: Vec<String> = rows.iter().map(|item| of(row(item)).to_owned()).collect();
        names.sort_unstable();
        names.dedup();
        names
    };
    let gpu = &cluster.gpu.name;
    let gpus = names(|row| &row.gpu, &rows).join(", ");
    let rows: Vec<T> =
        rows.into_iter().filter(|item| row(item).gpu == *gpu || row(item).gpu.is_empty()).collect();
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
        Some(topology) => Ok(rows.into_iter().filter(|item| row(item).topology == topology).collect()),
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
    bands(&fit.fabric.name, &fit.errors)
}

fn bands(name: &str, errors: &[BandErrors]) -> String {
    let mut list =
        table(&["operation", "bytes", "rows", "median", "mean", "most", "median before", "mean before"]);
    list.set_width(110);
    let mut last = None;
    for band in errors {
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
    format!("{name}: errors on held-out rows\n{list}\n")
}

/// The errors of a network's fit, and of the medians of jobs.
fn network_errors(fit: &NetworkFit) -> String {
    let mut text = if fit.errors.is_empty() { String::new() } else { bands(&fit.network.name, &fit.errors) };
    if let Some(found) = &fit.jobs {
        text += &jobs(found, &fit.network.name);
    }
    text
}

/// One line on the medians of jobs.
pub(super) fn jobs(fit: &JobsFit, name: &str) -> String {
    format!(
        "{name}: medians of {} rows of several nodes, {} of them seen: median {}, mean {} (before: median {}, mean {}); {} \
         predicted between the fastest and the slowest tenth of the jobs\n",
        fit.after.rows,
        fit.seen,
        percent(fit.after.median),
        percent(fit.after.mean),
        percent(fit.before.median),
        percent(fit.before.mean),
        fit.within_jobs,
    )
}

/// The fit for scripts.
pub(super) fn document(fit: &FabricFit) -> Value {
    json!({
        "kind": "fabric",
        "fabric": fit.fabric.name,
        "source": fit.source,
        "fitted": fit.fitted,
        "fitted_pair": fit.fitted_pair,
        "held_out": bands_document(&fit.errors),
    })
}

fn network_document(fit: &NetworkFit) -> Value {
    let network = &fit.network;
    json!({
        "network": network.name,
        "source": fit.source,
        "fitted": fit.fitted,
        "share": network.share,
        "point_to_point": network.point_to_point,
        "latency_s": network.latency_s,
        "bulk_latency_s": network.bulk_latency_s,
        "message_s": network.message_s,
        "ll_message_s": network.ll_message_s,
        "reported_latency_s": network.reported_latency_s,
        "held_out": bands_document(&fit.errors),
        "jobs": fit.jobs.as_ref().map(|jobs| json!({
            "seen": jobs.seen,
            "within_jobs": jobs.within_jobs,
            "before": errors_document(&jobs.before),
            "after": errors_document(&jobs.after),
        })),
    })
}

fn bands_document(errors: &[BandErrors]) -> Vec<Value> {
    let band = |band: &BandErrors| {
        json!({
            "operation": band.operation.map_or("all", Operation::name),
            "bytes": band.band,
            "before": errors_document(&band.before),
            "after": errors_document(&band.after),
        })
    };
    errors.iter().map(band).collect()
}

pub(super) fn errors_document(errors: &CollectiveErrors) -> Value {
    let CollectiveErrors { rows, median, mean, most } = errors;
    json!({ "rows": rows, "median": median, "mean": mean, "most": most })
}
