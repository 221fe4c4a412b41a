//! Measured collectives, read from CSV or from the output of nccl-tests.

use std::io::Read;

use thiserror::Error;

use crate::catalogue::GPU_ALIASES;
use crate::cluster::Cluster;
use crate::collective::{CollectiveKind, Placement, collective, point_to_point};

/// Measurements that cannot be read.
#[derive(Debug, Error)]
pub enum CollectiveRowsError {
    /// Not a table, or not a readable one.
    #[error("{0}")]
    Csv(#[from] csv::Error),
    /// A value is missing or something else.
    #[error("line {line}: `{what}` is \"{found}\", expected {expected}")]
    Value {
        /// Line of the text, from 1.
        line: u64,
        /// Column or field.
        what: &'static str,
        /// What stands there.
        found: String,
        /// What should.
        expected: &'static str,
    },
    /// The output does not say which collective was tested.
    #[error("the output names no test of collectives; give the operation")]
    NoOperation,
    /// The output has no row of results.
    #[error("the output holds no row of results")]
    NoRows,
}

/// What was timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// A collective.
    Collective(CollectiveKind),
    /// A send from one GPU to another.
    Send,
}

/// Words for operations: of the CSV tables, of the programs of nccl-tests.
const OPERATIONS: [(&str, &str, Operation); 6] = [
    ("all_reduce", "all_reduce_perf", Operation::Collective(CollectiveKind::AllReduce)),
    ("all_gather", "all_gather_perf", Operation::Collective(CollectiveKind::AllGather)),
    ("reduce_scatter", "reduce_scatter_perf", Operation::Collective(CollectiveKind::ReduceScatter)),
    ("broadcast", "broadcast_perf", Operation::Collective(CollectiveKind::Broadcast)),
    ("alltoall", "alltoall_perf", Operation::Collective(CollectiveKind::AllToAll)),
    ("send_recv", "sendrecv_perf", Operation::Send),
];

impl Operation {
    /// The word of the tables, e.g. `all_reduce`.
    pub fn name(self) -> &'static str {
        OPERATIONS.iter().find(|(_, _, operation)| *operation == self).map_or("", |(name, ..)| name)
    }
}

/// A measured collective or send.
#[derive(Clone, Debug, PartialEq)]
pub struct CollectiveRow {
    /// Catalogue name of the GPU, or the table's own name for one that is not known; empty when not stated.
    pub gpu: String,
    /// How the machine is built, in the words of the table.
    pub topology: String,
    /// What was timed.
    pub operation: Operation,
    /// Ranks and nodes.
    pub placement: Placement,
    /// The whole array, as nccl-tests counts it.
    pub bytes: u64,
    /// Measured time.
    pub seconds: f64,
    /// Who published it.
    pub source: String,
}

impl CollectiveRow {
    /// The time that a cluster predicts for the row when nothing else uses the links, seconds.
    pub fn predicted_s(&self, cluster: &Cluster) -> f64 {
        let placement = self.placement;
        let transfer = match self.operation {
            Operation::Collective(kind) => collective(cluster, kind, placement, self.bytes),
            Operation::Send => point_to_point(cluster, placement.nodes > 1, self.bytes),
        };
        transfer.alone_s(cluster, placement)
    }

    /// Whether the row is kept to test the fit: one in three, by a hash of what was timed and never of the time, so
    /// that the same case of another machine is held out too.
    pub fn held_out(&self) -> bool {
        let Placement { ranks, nodes } = self.placement;
        let key = format!("{},{ranks},{nodes},{}", self.operation.name(), self.bytes);
        // FNV-1a, 64 bits.
        let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        (hash >> 33).is_multiple_of(3)
    }
}

/// Rows of a CSV table with the columns `gpu, topology, op, gpus, nodes, bytes, time_us, source`.
///
/// # Errors
/// [`CollectiveRowsError`] with the line of the first wrong value.
pub fn read_collectives(table: impl Read) -> Result<Vec<CollectiveRow>, CollectiveRowsError> {
    let mut reader = csv::Reader::from_reader(table);
    let headers = reader.headers()?.clone();
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record?;
        let line = record.position().map_or(0, csv::Position::line);
        let text = |column: &'static str| {
            let index = headers.iter().position(|name| name == column);
            index.and_then(|index| record.get(index)).unwrap_or_default()
        };
        let number = |what: &'static str| whole(text(what), what, line);
        let word = text("op");
        let operation = OPERATIONS.iter().find(|(name, ..)| *name == word).map(|&(.., operation)| operation);
        let gpu = text("gpu");
        rows.push(CollectiveRow {
            gpu: GPU_ALIASES
                .iter()
                .find(|(alias, _)| *alias == gpu)
                .map_or(gpu, |&(_, name)| name)
                .to_owned(),
            topology: text("topology").to_owned(),
            operation: operation.ok_or_else(|| wrong(word, "op", line, "an operation, e.g. all_reduce"))?,
            placement: Placement { ranks: number("gpus")? as u32, nodes: number("nodes")? as u32 },
            bytes: number("bytes")?,
            seconds: microseconds(text("time_us"), "time_us", line)?,
            source: text("source").to_owned(),
        });
    }
    Ok(rows)
}

/// Rows of the output of a program of nccl-tests: out-of-place times, ranks and machines from its header. The
/// operation is that of the header's `Collective test starting: all_reduce_perf`; older versions print none.
///
/// # Errors
/// [`CollectiveRowsError`] when no operation is known, no row is found, or a row is malformed.
pub fn read_nccl_tests(
    output: &str,
    operation: Option<Operation>,
    source: &str,
) -> Result<Vec<CollectiveRow>, CollectiveRowsError> {
    let (mut ranks, mut hosts, mut gpu) = (0, Vec::new(), String::new());
    let mut named = operation;
    let mut rows = Vec::new();
    for (line, text) in (1..).zip(output.lines()) {
        let words: Vec<&str> = text.split_whitespace().collect();
        if let Some(program) = text.split_once("Collective test starting:").map(|(_, rest)| rest.trim()) {
            named = named.or(OPERATIONS
                .iter()
                .find(|(_, name, _)| program.starts_with(name))
                .map(|&(.., operation)| operation));
        }
        if let Some((host, device)) = rank_line(&words) {
            ranks += 1;
            if !hosts.contains(&host) {
                hosts.push(host);
            }
            gpu = device;
        }
        let Some(times) = result_line(&words) else { continue };
        let operation = named.ok_or(CollectiveRowsError::NoOperation)?;
        let bytes = whole(words.first().copied().unwrap_or_default(), "size", line)?;
        if bytes == 0 {
            continue;
        }
        rows.push(CollectiveRow {
            gpu: gpu.clone(),
            topology: "nccl-tests".to_owned(),
            operation,
            placement: Placement { ranks, nodes: hosts.len() as u32 },
            bytes,
            seconds: microseconds(times, "time", line)?,
            source: source.to_owned(),
        });
    }
    if rows.is_empty() { Err(CollectiveRowsError::NoRows) } else { Ok(rows) }
}

/// Host and device of a line like `#  Rank  0 Group  0 Pid 249104 on node1 device  0 [0x05] NVIDIA B200`.
fn rank_line<'a>(words: &[&'a str]) -> Option<(&'a str, String)> {
    let start = words.iter().position(|word| *word == "Rank")?;
    let on = start + words.get(start..)?.iter().position(|word| *word == "on")?;
    let device = on + words.get(on..)?.iter().position(|word| word.starts_with('['))?;
    Some((words.get(on + 1)?, words.get(device + 1..)?.join(" ")))
}

/// The out-of-place time of a row: the eighth field from the end, before algorithm and bus bandwidth, errors, and the
/// same four in place.
fn result_line<'a>(words: &[&'a str]) -> Option<&'a str> {
    let starts = words.first()?.bytes().all(|byte| byte.is_ascii_digit());
    (starts && words.len() >= 10).then(|| words.get(words.len() - 8).copied()).flatten()
}

fn whole(text: &str, what: &'static str, line: u64) -> Result<u64, CollectiveRowsError> {
    text.parse().map_err(|_| wrong(text, what, line, "a whole number"))
}

fn microseconds(text: &str, what: &'static str, line: u64) -> Result<f64, CollectiveRowsError> {
    let time = text.parse().ok().filter(|time: &f64| *time > 0.0 && time.is_finite());
    Ok(time.ok_or_else(|| wrong(text, what, line, "microseconds above 0"))? * 1e-6)
}

fn wrong(found: &str, what: &'static str, line: u64, expected: &'static str) -> CollectiveRowsError {
    CollectiveRowsError::Value { line, what, found: found.to_owned(), expected }
}
