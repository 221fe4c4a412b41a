//! Parts of a sweep on disk: a header and a line a point, and how parts become the whole.
//!
//! A part is text: the first line a [`SweepHeader`], every further one a [`SweepRow`], both JSON. A journal has its points in the
//! order in which they finished and may end in the middle of a line; a finished part has them in order.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::row::SweepRow;

/// Identifies the form of a part.
pub const SWEEP_SCHEMA: &str = "steptime.sweep/1";

/// Which points a part is to hold: those whose number leaves `index - 1` when divided by `count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// From 1.
    pub index: u64,
    /// Number of shards.
    pub count: u64,
}

impl Shard {
    /// Everything in one.
    pub const WHOLE: Self = Self { index: 1, count: 1 };

    /// Whether a point belongs to it.
    pub fn holds(self, point: u64) -> bool {
        point % self.count == self.index - 1
    }

    /// How many of so many points that are.
    fn points_of(self, points: u64) -> u64 {
        points.checked_sub(self.index.max(1)).map_or(0, |others| others / self.count.max(1) + 1)
    }
}

impl std::fmt::Display for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

/// The first line of a part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepHeader {
    /// [`SWEEP_SCHEMA`].
    pub schema: String,
    /// The scenario's name.
    pub name: String,
    /// Fingerprint of the scenario with its axes, the files that it names, and the program's version.
    pub fingerprint: String,
    /// Points of the whole sweep.
    pub points: u64,
    /// Points that conditions left out.
    pub skipped: u64,
    /// Names of the axes.
    pub axes: Vec<String>,
    /// What the part is to hold.
    pub shard: Shard,
    /// Version of the program.
    pub version: String,
}

impl SweepHeader {
    /// Whether two parts are of one sweep.
    fn agrees(&self, other: &Self) -> bool {
        Self { shard: self.shard, ..other.clone() } == *self
    }
}

/// What is left of a part that was being written.
#[derive(Clone, Debug, PartialEq)]
pub struct SweepPart {
    /// Its first line.
    pub header: SweepHeader,
    /// Its rows, as they stand.
    pub rows: Vec<SweepRow>,
    /// Bytes of the text that are whole lines; what follows was cut off while it was being written.
    pub whole_bytes: usize,
}

/// Why parts do not make a sweep.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PartError {
    /// The first line is no header.
    #[error("{file}: the first line is not the header of a sweep ({SWEEP_SCHEMA}): {message}")]
    Header {
        /// The part.
        file: String,
        /// What is wrong.
        message: String,
    },
    /// A line in the middle is no row.
    #[error("{file}:{line}: is not a row of a sweep: {message}")]
    Row {
        /// The part.
        file: String,
        /// Line from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// A row that the header does not allow.
    #[error("{file}: holds point {point}, but as shard {shard} of {points} points it should not")]
    Foreign {
        /// The part.
        file: String,
        /// The point.
        point: u64,
        /// Its header's shard.
        shard: Shard,
        /// Its header's points.
        points: u64,
    },
    /// Two parts of different sweeps.
    #[error("{file}: is a part of another sweep than {first}: fingerprint {found} against {expected}")]
    Other {
        /// The part.
        file: String,
        /// The first part.
        first: String,
        /// Its fingerprint.
        found: String,
        /// That of the first part.
        expected: String,
    },
    /// A point in two places.
    #[error("point {point} is in {first} and in {second}; each point must be there once")]
    Twice {
        /// The point.
        point: u64,
        /// Where it is.
        first: String,
        /// And where again.
        second: String,
    },
    /// Points that no part holds.
    #[error("{count} of {points} points are missing: {listed}")]
    Missing {
        /// How many.
        count: u64,
        /// Of how many.
        points: u64,
        /// Which, the first of them.
        listed: String,
    },
    /// Nothing to merge.
    #[error("no parts to merge")]
    Nothing,
}

/// A line of a part, with its end.
pub fn sweep_line<T: Serialize>(value: &T) -> String {
    // Rows and headers are plain data: they always have a form in JSON.
    serde_json::to_string(value).unwrap_or_default() + "\n"
}

/// Reads a part. The last line may be cut off; `file` is how errors name it.
///
/// # Errors
/// The text is no part, a line in the middle is no row, or it holds points that its header does not allow or holds
/// one twice.
pub fn read_part(file: &str, text: &str) -> Result<SweepPart, PartError> {
    let refuse = |message: String| PartError::Header { file: file.to_owned(), message };
    let Some((first, _)) = text.split_once('\n') else {
        return Err(refuse("the file is empty or cut off".to_owned()));
    };
    let header: SweepHeader = serde_json::from_str(first).map_err(|error| refuse(error.to_string()))?;
    if header.schema != SWEEP_SCHEMA
        || header.shard.count == 0
        || !(1..=header.shard.count).contains(&header.shard.index)
    {
        return Err(refuse(format!("schema {}, shard {}", header.schema, header.shard)));
    }
    let mut part = SweepPart { header, rows: Vec::new(), whole_bytes: first.len() + 1 };
    let mut seen = std::collections::BTreeSet::new();
    for (index, line) in text[part.whole_bytes..].split_inclusive('\n').enumerate() {
        // Without its end a line was cut off, even if what is there can be read.
        if !line.ends_with('\n') {
            break;
        }
        let row: SweepRow = serde_json::from_str(line).map_err(|error| PartError::Row {
            file: file.to_owned(),
            line: index + 2,
            message: error.to_string(),
        })?;
        let (shard, points) = (part.header.shard, part.header.points);
        if row.point >= points || !shard.holds(row.point) {
            return Err(PartError::Foreign { file: file.to_owned(), point: row.point, shard, points });
        }
        if !seen.insert(row.point) {
            let second = format!("line {} of it again", index + 2);
            return Err(PartError::Twice { point: row.point, first: file.to_owned(), second });
        }
        part.whole_bytes += line.len();
        part.rows.push(row);
    }
    Ok(part)
}

/// The whole sweep from its parts, each with the name that errors give it.
///
/// # Errors
/// The parts are of different sweeps, a point is missing, or one is there twice.
pub fn merge_parts(parts: Vec<(String, SweepPart)>) -> Result<SweepPart, PartError> {
    let Some((first, head)) = parts.first().map(|(file, part)| (file.clone(), part.header.clone())) else {
        return Err(PartError::Nothing);
    };
    let points = usize::try_from(head.points).unwrap_or(usize::MAX);
    let mut places: std::collections::BTreeMap<u64, (String, SweepRow)> = std::collections::BTreeMap::new();
    let mut unfinished = Vec::new();
    for (file, part) in parts {
        if !head.agrees(&part.header) {
            return Err(PartError::Other {
                file,
                first,
                found: part.header.fingerprint,
                expected: head.fingerprint,
            });
        }
        let all = part.header.shard.points_of(head.points);
        if (part.rows.len() as u64) < all {
            unfinished.push(format!(
                "{file} has {} of {all} points of shard {}",
                part.rows.len(),
                part.header.shard
            ));
        }
        for row in part.rows {
            if let Some((earlier, _)) = places.get(&row.point) {
                return Err(PartError::Twice { point: row.point, first: earlier.clone(), second: file });
            }
            places.insert(row.point, (file.clone(), row));
        }
    }
    if places.len() < points {
        return Err(missing(&head, &places, &unfinished));
    }
    let rows = places.into_values().map(|(_, row)| row).collect();
    Ok(SweepPart { header: SweepHeader { shard: Shard::WHOLE, ..head }, rows, whole_bytes: 0 })
}

/// Points that a message lists.
const LISTED: usize = 8;

fn missing(
    head: &SweepHeader,
    places: &std::collections::BTreeMap<u64, (String, SweepRow)>,
    unfinished: &[String],
) -> PartError {
    let gaps = || (0..head.points).filter(|point| !places.contains_key(point));
    let mut listed: Vec<String> = gaps().take(LISTED).map(|point| point.to_string()).collect();
    let count = head.points - places.len() as u64;
    if count > LISTED as u64 {
        listed.push("...".to_owned());
    }
    let mut listed = listed.join(", ");
    if !unfinished.is_empty() {
        listed += &format!("; {}", unfinished.join("; "));
    }
    PartError::Missing { count, points: head.points, listed }
}
