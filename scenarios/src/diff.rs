//! Where two predictions differ.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::report::Report;

/// Identifies the form of [`Difference`].
pub const DIFF_SCHEMA: &str = "steptime.diff/1";

/// A number of both predictions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// Of the first.
    pub first: f64,
    /// Of the second.
    pub second: f64,
    /// Second less first.
    pub difference: f64,
}

impl Pair {
    fn of(first: f64, second: f64) -> Self {
        Self { first, second, difference: second - first }
    }
}

/// Two predictions part by part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// [`DIFF_SCHEMA`].
    pub schema: String,
    /// Names of the two.
    pub names: [String; 2],
    /// Seconds a step; null where one of them cannot run.
    pub step_time_s: Option<Pair>,
    /// Parts of the step, seconds, mean over ranks; they add up to the steps, and their differences to that of the steps.
    pub time_s: IndexMap<String, Pair>,
    /// Peak bytes on the device.
    pub peak_device_bytes: Pair,
    /// Parts of the peak, bytes, each at its own fullest moment.
    pub memory_bytes: IndexMap<String, Pair>,
}

/// Compares two reports.
pub fn difference(first: &Report, second: &Report) -> Difference {
    let times = first.time_breakdown_s.entries().into_iter().zip(second.time_breakdown_s.entries());
    let (one, two) = (&first.peak_memory, &second.peak_memory);
    let mut parts: Vec<&String> = one.breakdown_bytes.keys().collect();
    parts.extend(two.breakdown_bytes.keys().filter(|part| !one.breakdown_bytes.contains_key(*part)));
    let bytes = |map: &IndexMap<String, u64>, part: &str| map.get(part).copied().unwrap_or(0) as f64;
    let memory = parts.into_iter().map(|part| {
        (part.clone(), Pair::of(bytes(&one.breakdown_bytes, part), bytes(&two.breakdown_bytes, part)))
    });
    Difference {
        schema: DIFF_SCHEMA.to_owned(),
        names: [first.name.clone(), second.name.clone()],
        step_time_s: first.step_time_s.zip(second.step_time_s).map(|(a, b)| Pair::of(a, b)),
        time_s: times.map(|((name, a), (_, b))| (name.to_owned(), Pair::of(a, b))).collect(),
        peak_device_bytes: Pair::of(one.device_bytes as f64, two.device_bytes as f64),
        memory_bytes: memory.collect(),
    }
}
