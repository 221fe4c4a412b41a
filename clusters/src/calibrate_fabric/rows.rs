//! Measured collectives, read from CSV or from the output of nccl-tests.

use std::io::Read;

use thiserror::Error;

use crate::catalogue::GPU_ALIASES;
use crate::cluster::Cluster;
use crate::collective::{CollectiveKind, Placement, Transfer, collective, point_to_point};

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
    /// A column is missing.
    #[error("line 1: the column `{column}` is missing; a table of collectives has {needed}")]
    Column {
        /// The first one that is missing.
        column: &'static str,
        /// Columns that are read, separated by commas.
        needed: String,
    },
    /// The output does not say which collective was tested.
    #[error("the output names no test of collectives; give the operation")]
    NoOperation,
    /// The program that was run found wrong results.
    #[error(
        "line {line}: {found} wrong values; times of a collective that computes wrong results are not read"
    )]
    WrongResults {
        /// Line of the text, from 1.
        line: u64,
        /// As printed.
        found: String,
    },
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
    /// The operation that a word of the tables or the name of a program of nccl-tests starts, e.g. `all_reduce` or
    /// `all_reduce_perf`.
    pub fn named(text: &str) -> Option<Self> {
        let known = OPERATIONS.iter().find(|(word, program, _)| *word == text || text.starts_with(program));
        known.map(|&(.., operation)| operation)
    }

    /// Words of the tables, in the order of messages.
    pub fn names() -> impl Iterator<Item = &'static str> {
        OPERATIONS.iter().map(|&(word, ..)| word)
    }

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
        self.transfer(cluster).alone_s(cluster, self.placement)
    }

    /// How a cluster does it.
    pub(super) fn transfer(&self, cluster: &Cluster) -> Transfer {
        match self.operation {
            Operation::Collective(kind) => collective(cluster, kind, self.placement, self.bytes),
            Operation::Send => point_to_point(cluster, self.placement.nodes > 1, self.bytes),
        }
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

/// The catalogue's name of a GPU, where a table's is an alias of it.
pub(super) fn known_gpu(name: &str) -> String {
    GPU_ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |&(_, known)| known).to_owned()
}

/// Larger arrays than this are errors of the table.
const MOST_BYTES: u64 = 1 << 50;
/// Columns of a table of collectives.
const COLUMNS: [&str; 8] = ["gpu", "topology", "op", "gpus", "nodes", "bytes", "time_us", "source"];

/// Rows of a CSV table with the columns `gpu, topology, op, gpus, nodes, bytes, time_us, source`.
///
/// # Errors
/// [`CollectiveRowsError`] with the line of the first wrong value.
pub fn read_collectives(table: impl Read) -> Result<Vec<CollectiveRow>, CollectiveRowsError> {
    let mut reader = csv::Reader::from_reader(table);
    let headers = reader.headers()?.clone();
    if let Some(column) = COLUMNS.into_iter().find(|column| headers.iter().all(|name| name != *column)) {
        return Err(CollectiveRowsError::Column { column, needed: COLUMNS.join(", ") });
    }
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
        let gpu = text("gpu");
        let (ranks, nodes) = (number("gpus")?, number("nodes")?);
        if !(1..=1 << 20).contains(&ranks) {
            return Err(wrong(text("gpus"), "gpus", line, "a whole number from 1 to 1048576"));
        }
        if !(1..=ranks).contains(&nodes) {
            return Err(wrong(text("nodes"), "nodes", line, "a whole number from 1 to the GPUs of the row"));
        }
        let bytes = number("bytes")?;
        if bytes > MOST_BYTES {
            return Err(wrong(text("bytes"), "bytes", line, "at most 1 PiB"));
        }
        rows.push(CollectiveRow {
            gpu: known_gpu(gpu),
            topology: text("topology").to_owned(),
            operation: Operation::named(word)
                .ok_or_else(|| wrong(word, "op", line, "an operation, e.g. all_reduce"))?,
            placement: Placement { ranks: ranks as u32, nodes: nodes as u32 },
            bytes,
            seconds: microseconds(text("time_us"), "time_us", line)?,
            source: text("source").to_owned(),
        });
    }
    Ok(rows)
}

/// Rows of the output of a program of nccl-tests: out-of-place times, ranks and machines from its header. The
/// operation is that of the header's `Collective test starting: all_reduce_perf`; older versions print none. Sizes are
/// those of the whole array, as the program prints them: all that an all-gather receives and all that a
/// reduce-scatter or an all-to-all sends. Labels that `mpirun --tag-output` and `srun --label` put before each line
/// are ignored, and so is what the library logs in between.
///
/// # Errors
/// [`CollectiveRowsError`] when no operation is known, no row is found, a row is malformed, or the program found
/// wrong results.
pub fn read_nccl_tests(
    output: &str,
    operation: Option<Operation>,
    source: &str,
) -> Result<Vec<CollectiveRow>, CollectiveRowsError> {
    let (mut ranks, mut hosts, mut gpu) = (0, Vec::new(), String::new());
    let mut named = operation;
    let mut rows = Vec::new();
    for (line, text) in (1..).zip(output.lines()) {
        let words: Vec<&str> = unlabelled(text).split_whitespace().collect();
        if let Some((_, program)) = text.split_once("Collective test starting:") {
            named = Operation::named(program.trim()).or(named);
        }
        if let Some((host, device)) = rank_line(&words) {
            ranks += 1;
            if !hosts.contains(&host) {
                hosts.push(host);
            }
            gpu = device;
        }
        let Some(times) = result_line(&words) else { continue };
        if let Some(found) = wrong_results(&words) {
            return Err(CollectiveRowsError::WrongResults { line, found: found.to_owned() });
        }
        if ranks == 0 {
            return Err(wrong(
                "",
                "Rank",
                line,
                "lines `# Rank 0 ... on HOST device 0 ...` before the results",
            ));
        }
        let operation = named.ok_or(CollectiveRowsError::NoOperation)?;
        let bytes = whole(words.first().copied().unwrap_or_default(), "size", line)?;
        if bytes == 0 {
            continue;
        }
        if bytes > MOST_BYTES {
            return Err(wrong(&bytes.to_string(), "size", line, "at most 1 PiB"));
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

/// A line without the label of a launcher: `[1,0]<stdout>:` or `0: `.
fn unlabelled(text: &str) -> &str {
    let text = text.split_once("<stdout>:").map_or(text, |(_, rest)| rest);
    match text.split_once(": ") {
        Some((label, rest)) if label.trim().bytes().all(|byte| byte.is_ascii_digit()) => rest,
        _ => text,
    }
}

/// The wrong values of a row, out of place or in place, unless there are none or they were not counted.
fn wrong_results<'a>(words: &[&'a str]) -> Option<&'a str> {
    let counts = [words.len().checked_sub(5)?, words.len().checked_sub(1)?];
    let mut found = counts.into_iter().filter_map(|index| words.get(index).copied());
    found.find(|count| count.parse().is_ok_and(|count: f64| count > 0.5))
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
