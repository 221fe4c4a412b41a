//! How far jobs on one network lie apart, and what those that agree say of a message.

use std::io::Read;

use super::report::CollectiveErrors;
use super::rows::{CollectiveRow, CollectiveRowsError, Operation, known_gpu};
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

/// Rows over which the slowest tenth of the jobs take more than this times as long as the fastest tenth tell how jobs
/// differ, and nothing of the network that they share.
const AGREEING: f64 = 2.0;

/// What the spread of jobs says of a network.
#[derive(Clone, Debug, PartialEq)]
pub struct JobsFit {
    /// What a message between nodes adds, seconds.
    pub message_s: f64,
    /// Spread by nodes, ascending.
    pub spread: Vec<Spread>,
    /// Errors of the medians of all rows of several nodes without the fitted part.
    pub before: CollectiveErrors,
    /// The same with it.
    pub after: CollectiveErrors,
    /// Rows whose prediction lies between the fastest and the slowest tenth of the jobs.
    pub within_jobs: usize,
    /// Rows that the fit saw.
    pub seen: usize,
    /// Whose measurements.
    pub source: String,
}

/// Rows of a CSV table with the columns `gpu, nodes, gpus, op, p10_gbps, median_gbps, p90_gbps`: bus bandwidths in GB/s
/// of collectives of `bytes`, where no column `bytes` says so (operations as PyTorch names them, `AllReduce`).
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
        // A bandwidth is one of several ranks.
        let count = |what: &'static str, least: u32| {
            let found = text(what);
            let count = found.parse().ok().filter(|count: &u32| *count >= least && *count <= MOST_GPUS);
            let expected = if least > 1 {
                "a whole number from 2 to 1,048,576"
            } else {
                "a whole number from 1 to 1,048,576"
            };
            count.ok_or_else(|| CollectiveRowsError::Value { line, what, found: found.to_owned(), expected })
        };
        let (gpus, nodes, median) = (count("gpus", 2)?, count("nodes", 1)?, number("median_gbps")?);
        let bytes = if text("bytes").is_empty() { bytes } else { number("bytes")? as u64 };
        let bus = kind.bus_factor(f64::from(gpus)) * bytes as f64;
        rows.push(SpreadRow {
            median: CollectiveRow {
                gpu: known_gpu(text("gpu")),
                topology: text("interconnect").to_owned(),
                operation: Operation::Collective(kind),
                placement: Placement { ranks: gpus, nodes },
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

/// GPUs of a job at most: as many as a step may have.
const MOST_GPUS: u32 = 1 << 20;

/// Whether a table is one of bus bandwidths over jobs, by its columns.
pub fn is_spread(table: &[u8]) -> bool {
    table.split(|byte| *byte == b'\n').next().is_some_and(|line| {
        String::from_utf8_lossy(line).split(',').any(|column| column.trim() == "median_gbps")
    })
}

/// Fits a message of a cluster's network to jobs that agree. `None` without a network or without rows of several nodes.
pub fn fit_jobs(cluster: &Cluster, rows: &[SpreadRow]) -> Option<JobsFit> {
    let mut without = cluster.clone();
    without.network.as_mut()?.message_s = 0.0;
    let bare = Bare::new(&without, rows);
    let rows: Vec<&SpreadRow> = rows.iter().filter(|row| row.median.placement.nodes > 1).collect();
    // Rings alone tell what a message costs: the pieces that a tree sends up and down follow another count.
    let ring = |row: &&&SpreadRow| row.median.operation != Operation::Collective(CollectiveKind::AllReduce);
    let rings: Vec<&SpreadRow> = rows.iter().filter(ring).copied().collect();
    let agreeing = |row: &&&SpreadRow| row.slowest / row.fastest <= AGREEING;
    let mut seen: Vec<&SpreadRow> = rings.iter().filter(agreeing).copied().collect();
    if seen.is_empty() {
        seen.clone_from(&rings);
    }
    // Least squares of the relative error: base + message x messages = measured.
    let (mut products, mut squares) = (0.0, 0.0);
    for row in &seen {
        let share = messages(row) / row.median.seconds;
        products += share * (1.0 - bare.seconds(&row.median) / row.median.seconds);
        squares += share * share;
    }
    if squares <= 0.0 {
        return None;
    }
    let message_s = rounded_seconds((products / squares).max(0.0));
    let mut after = without.clone();
    after.network.as_mut()?.message_s = message_s;
    let medians = || rows.iter().map(|row| &row.median);
    let within = |row: &&&SpreadRow| {
        let ratio = row.median.predicted_s(&after) / row.median.seconds;
        (row.fastest..=row.slowest).contains(&ratio)
    };
    Some(JobsFit {
        message_s,
        spread: spread(&rings, &bare),
        before: CollectiveErrors::of(bare.cluster, medians()),
        after: CollectiveErrors::of(&after, medians()),
        within_jobs: rows.iter().filter(within).count(),
        seen: seen.len(),
        source: rows.first()?.median.source.clone(),
    })
}

/// What a collective takes beside its messages.
struct Bare<'a> {
    /// The cluster with messages that cost nothing.
    cluster: &'a Cluster,
    /// What each operation takes within a node beyond its prediction, seconds: the links inside nodes as the same
    /// measurements have them, which is no matter of the network.
    beyond: Vec<(Operation, f64)>,
}

impl<'a> Bare<'a> {
    fn new(cluster: &'a Cluster, rows: &[SpreadRow]) -> Self {
        let inside = rows.iter().map(|row| &row.median).filter(|row| row.placement.nodes == 1);
        let beyond = inside.map(|row| (row.operation, (row.seconds - row.predicted_s(cluster)).max(0.0)));
        Self { cluster, beyond: beyond.collect() }
    }

    fn seconds(&self, row: &CollectiveRow) -> f64 {
        let beyond = self.beyond.iter().find(|(operation, _)| *operation == row.operation);
        row.predicted_s(self.cluster) + beyond.map_or(0.0, |(_, seconds)| *seconds)
    }
}

/// Messages over each link between nodes ([`crate::Network::message_s`]).
fn messages(row: &SpreadRow) -> f64 {
    f64::from(row.median.placement.ranks - 1)
}

/// What a message costs in the fastest and in the slowest tenth of the jobs: means over the operations, on a network
/// without that cost.
fn spread(rows: &[&SpreadRow], bare: &Bare<'_>) -> Vec<Spread> {
    let mut nodes: Vec<u32> = rows.iter().map(|row| row.median.placement.nodes).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let of = |nodes: u32| {
        let among: Vec<&&SpreadRow> = rows.iter().filter(|row| row.median.placement.nodes == nodes).collect();
        let mean = |of_median: fn(&SpreadRow) -> f64| {
            let message = |row: &&&SpreadRow| {
                let left = of_median(row) * row.median.seconds - bare.seconds(&row.median);
                (left / messages(row)).max(0.0)
            };
            rounded_seconds(among.iter().map(message).sum::<f64>() / among.len().max(1) as f64)
        };
        Spread { nodes, fastest_s: mean(|row| row.fastest), slowest_s: mean(|row| row.slowest) }
    };
    nodes.into_iter().map(of).collect()
}
