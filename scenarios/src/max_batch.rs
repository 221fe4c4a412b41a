//! The largest micro-batch that fits.

use serde::{Deserialize, Serialize};

use crate::draft::Draft;
use crate::error::InputError;
use crate::files::Files;
use crate::report::{OutOfMemory, Report, Verdict};
use crate::run::run;
use crate::scenario::{Job, Scenario};
use crate::tree::Value;

/// Schema of [`MaxBatch`].
pub const MAX_BATCH_SCHEMA: &str = "steptime.max_batch/1";

/// Largest micro-batch that is tried.
pub const LARGEST_MICRO_BATCH: u64 = 1 << 20;

/// The largest micro-batch of a scenario, and what stands in the way of a larger one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MaxBatch {
    /// [`MAX_BATCH_SCHEMA`].
    pub schema: String,
    /// The scenario's name.
    pub name: String,
    /// Samples of the largest micro-batch that fits; null where not even one sample does.
    pub micro_batch_size: Option<u64>,
    /// The smallest larger one that was tried, all of which run out of memory; null where the largest tried fits.
    pub next_micro_batch_size: Option<u64>,
    /// What runs out there.
    pub runs_out: Option<OutOfMemory>,
    /// The prediction with the largest micro-batch.
    pub report: Option<Report>,
    /// Micro-batches that were played, in order.
    pub tried: Vec<u64>,
}

/// Finds the largest micro-batch that fits, to within `granularity` samples: doubled until one does not fit, then by
/// bisection. Everything else stays as it is; the number of micro-batches stays, so that the global batch grows.
///
/// A larger micro-batch is taken to need no less memory than a smaller one.
///
/// # Errors
/// The scenario is wrong, or about vehicles, whose memory does not depend on the batch.
pub fn max_batch(draft: &Draft, files: &dyn Files, granularity: u64) -> Result<MaxBatch, InputError> {
    let base = draft.scenario(files)?;
    if matches!(base.job, Job::Vehicles { .. }) {
        let message = "vehicles hold stated memory, whatever the batch: there is no largest one to find";
        return Err(base.places.micro_batch.conflict(message));
    }
    let steps = i64::try_from(base.batch.accumulation).unwrap_or(i64::MAX);
    let free = draft
        .clone()
        .without("workload", "global_batch_size")
        .without("workload", "last_micro_batch")
        .with("workload", "gradient_accumulation_steps", Value::Integer(steps));
    let mut search = Search { free, files, tried: Vec::new() };
    let unit = granularity.max(1);
    let mut fitting: Option<(u64, Report)> = None;
    let mut failing: Option<(u64, Report)> = None;
    let mut size = unit;
    while size <= LARGEST_MICRO_BATCH {
        let report = search.play(size)?;
        if report.verdict == Verdict::OutOfMemory {
            failing = Some((size, report));
            break;
        }
        fitting = Some((size, report));
        size = size.saturating_mul(2);
    }
    while let (Some((low, _)), Some((high, _))) = (&fitting, &failing)
        && high - low > unit
    {
        let middle = low + (high - low) / unit / 2 * unit;
        let report = search.play(middle)?;
        if report.verdict == Verdict::OutOfMemory {
            failing = Some((middle, report));
        } else {
            fitting = Some((middle, report));
        }
    }
    let (next, runs_out) = failing.map_or((None, None), |(size, report)| (Some(size), report.out_of_memory));
    Ok(MaxBatch {
        schema: MAX_BATCH_SCHEMA.to_owned(),
        name: base.name,
        micro_batch_size: fitting.as_ref().map(|(size, _)| *size),
        next_micro_batch_size: next,
        runs_out,
        report: fitting.map(|(_, report)| report),
        tried: search.tried,
    })
}

struct Search<'a> {
    /// The scenario without keys that tie the micro-batch down.
    free: Draft,
    files: &'a dyn Files,
    tried: Vec<u64>,
}

impl Search<'_> {
    fn play(&mut self, size: u64) -> Result<Report, InputError> {
        self.tried.push(size);
        let size = Value::Integer(i64::try_from(size).unwrap_or(i64::MAX));
        let scenario: Scenario =
            self.free.clone().with("workload", "micro_batch_size", size).scenario(self.files)?;
        Ok(run(&scenario, false)?.report)
    }
}
