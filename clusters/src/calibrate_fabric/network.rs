//! Fits what ranks on other nodes add to a collective, and how far jobs lie apart.

use std::io::Read;

use super::report::CollectiveErrors;
use super::rows::{CollectiveRow, CollectiveRowsError, Operation};
use super::text::rounded_seconds;
use crate::cluster::Cluster;
use crate::collective::{CollectiveKind, Placement};
use crate::network::Spread;

/// Size of the collectives whose spread over jobs the catalogue's EFA holds.
pub const MULTINODE_BYTES: u64 = 256 << 20;
/// Who published them.
pub const MULTINODE_SOURCE: &str = "256 MiB on clusters of 8 H100 a node (sweep of the Ultra-Scale Playbook)";

/// Bus bandwidths that jobs on one cluster reached with one collective.
#[derive(Clone, Debug, PartialEq)]
pub struct SpreadRow {
    /// The median job.
    pub median: CollectiveRow,
    /// Duration of the 10 % fastest jobs, of the median's.
    pub fastest: f64,
    /// Duration of the 10 % slowest jobs, of the median's.
    pub slowest: f64,
}

/// A fitted network.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkFit {
    /// What every rank on other nodes adds, seconds.
    pub remote_rank_s: f64,
    /// Spread by nodes, ascending.
    pub spread: Vec<Spread>,
    /// Errors of the medians over several nodes without the fitted part.
    pub before: CollectiveErrors,
    /// The same with it, the rows that were held out.
    pub after: CollectiveErrors,
    /// Whose measurements.
    pub source: String,
}

/// Rows of a CSV table with the columns `gpu, nodes, gpus, op, p10_gbps, median_gbps, p90_gbps`: bus bandwidths in GB/s
/// of collectives of `bytes` (operations as PyTorch names them, `AllReduce`).
///
/// # Errors
/// [`CollectiveRowsError`] with the line of the first wrong value.
pub fn read_spread(
    table: impl Read,
    bytes: u64,
    source: &str,
) -> Result<Vec<SpreadRow>, CollectiveRowsError> {
    let mut reader = csv::Reader::from_reader(table);
    let headers = reader.headers()?.clone();
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record?;
        let line = record.position().map_or(0, csv::Position::line);
        let text = |column: &str| {
            let index = headers.iter().position(|name| name == column);
            index.and_then(|index| record.get(index)).unwrap_or_default()
        };
        let number = |what: &'static str| {
            let found = text(what);
            let number = found.parse().ok().filter(|number: &f64| *number > 0.0 && number.is_finite());
            number.ok_or_else(|| CollectiveRowsError::Value {
                line,
                what,
                found: found.to_owned(),
                expected: "a number above 0",
            })
        };
        let kind = match text("op") {
            "AllReduce" => CollectiveKind::AllReduce,
            "AllGather" => CollectiveKind::AllGather,
            "ReduceScatter" => CollectiveKind::ReduceScatter,
            other => {
                return Err(CollectiveRowsError::Value {
                    line,
                    what: "op",
                    found: other.to_owned(),
                    expected: "AllReduce, AllGather or ReduceScatter",
                });
            }
        };
        let (ranks, median) = (number("gpus")?, number("median_gbps")?);
        let rounds = if kind == CollectiveKind::AllReduce { 2.0 } else { 1.0 };
        let bus = rounds * (ranks - 1.0) / ranks * bytes as f64;
        rows.push(SpreadRow {
            median: CollectiveRow {
                gpu: text("gpu").to_owned(),
                topology: text("interconnect").to_owned(),
                operation: Operation::Collective(kind),
                placement: Placement { ranks: ranks as u32, nodes: number("nodes")? as u32 },
                bytes,
                seconds: bus / (median * 1e9),
                source: source.to_owned(),
            },
            fastest: median / number("p90_gbps")?,
            slowest: median / number("p10_gbps")?,
        });
    }
    Ok(rows)
}

/// Fits the network of a cluster. `None` without a network or without rows of several nodes.
pub fn fit_network(cluster: &Cluster, rows: &[SpreadRow]) -> Option<NetworkFit> {
    let rows: Vec<&SpreadRow> = rows.iter().filter(|row| row.median.placement.nodes > 1).collect();
    let mut fitted = cluster.clone();
    fitted.network.as_mut()?.remote_rank_s = 0.0;
    let before = CollectiveErrors::of(&fitted, rows.iter().map(|row| &row.median));
    // Least squares of the relative error: base + late x = measured.
    let (mut products, mut squares) = (0.0, 0.0);
    for row in rows.iter().map(|row| &row.median).filter(|row| !row.held_out()) {
        let late = f64::from(row.placement.ranks - row.placement.members_per_node()) / row.seconds;
        products += late * (1.0 - row.predicted_s(&fitted) / row.seconds);
        squares += late * late;
    }
    if squares <= 0.0 {
        return None;
    }
    let remote_rank_s = rounded_seconds((products / squares).max(0.0));
    fitted.network.as_mut()?.remote_rank_s = remote_rank_s;
    let held = rows.iter().map(|row| &row.median).filter(|row| row.held_out());
    Some(NetworkFit {
        remote_rank_s,
        spread: spread(&rows),
        before,
        after: CollectiveErrors::of(&fitted, held),
        source: rows.first()?.median.source.clone(),
    })
}

/// Means over the operations.
fn spread(rows: &[&SpreadRow]) -> Vec<Spread> {
    let mut nodes: Vec<u32> = rows.iter().map(|row| row.median.placement.nodes).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let of = |nodes: u32| {
        let among: Vec<&&SpreadRow> = rows.iter().filter(|row| row.median.placement.nodes == nodes).collect();
        let mean = |value: fn(&SpreadRow) -> f64| {
            among.iter().map(|row| value(row)).sum::<f64>() / among.len().max(1) as f64
        };
        Spread { nodes, fastest: mean(|row| row.fastest), slowest: mean(|row| row.slowest) }
    };
    nodes.into_iter().map(of).collect()
}
