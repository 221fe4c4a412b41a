//! The `[input]` section: how samples are loaded.

use steptime_models::{Model, Sample};
use steptime_plans::{Loader, MOST_WORKERS, Workload};

use crate::error::InputError;
use crate::section::{Aliases, Section};

/// Names of PyTorch's `DataLoader` that mean the same.
pub(crate) const ALIASES: Aliases = &[("num_workers", "workers")];

/// Most samples of an epoch, as many as a step may have.
const MOST_SAMPLES: u64 = u32::MAX as u64;
/// Longest time that a sample or a worker may take, seconds.
const LONGEST: f64 = 3600.0;
/// Largest sample, bytes.
const LARGEST: u64 = 1 << 40;
/// Batches that a worker may be ahead.
const MOST_AHEAD: u64 = 64;

// Fitted to the loading times published with Alsatian (SIGMOD 2025): PyTorch 2.1, images of 3 x 224 x 224 in 32 bits,
// Threadripper PRO 3995WX, 1 to 64 workers, batches of 32 to 1024.

/// The training process forks a worker: growth of the first batch's time with the workers, seconds.
const WORKER_START: f64 = 0.009;
/// It ends a worker: growth of the whole time with the workers, less their start, seconds.
const WORKER_STOP: f64 = 0.017;
/// It takes a batch that is ready: what is left of the time at small batches, seconds.
const RECEIVE: f64 = 0.6e-3;
/// It maps a batch in shared memory and gives the one before back: growth of that time with the batch, bytes/s.
const RECEIVE_BANDWIDTH: f64 = 9.7e9;

/// How samples are loaded, and how many an epoch has.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// The loader of each rank.
    pub loader: Loader,
    /// Samples of an epoch over all ranks.
    pub samples: Option<u64>,
    /// Whether a last batch that is not full is left out.
    pub drop_last: bool,
}

/// Reads the section; a scenario without it takes its samples as they are.
pub(crate) fn read(
    section: Section<'_>,
    model: &Model,
    workload: &Workload,
) -> Result<Option<Input>, InputError> {
    if !section.is_present() {
        return Ok(None);
    }
    let seconds = |key| section.factor(key, 0.0, LONGEST);
    let flag = |key| section.flag(key).map(|given| given.unwrap_or(false));
    let workers = section.number("workers", 0, MOST_WORKERS)?.unwrap_or(0);
    let needed = "a number: seconds to read, decode and transform one sample on one core";
    let missing = || section.missing("seconds_per_sample", needed);
    let own = model.sample_bytes(&workload.shape()).0;
    let input = Input {
        loader: Loader {
            workers,
            prefetch_factor: section.count("prefetch_factor", MOST_AHEAD)?.unwrap_or(2),
            seconds_per_sample: seconds("seconds_per_sample")?.ok_or_else(missing)?,
            collate_seconds_per_sample: seconds("collate_seconds_per_sample")?.unwrap_or(0.0),
            sample_bytes: section.number("sample_bytes", 0, LARGEST)?.unwrap_or(own),
            pin_memory: flag("pin_memory")?,
            non_blocking: flag("non_blocking")?,
            persistent_workers: flag("persistent_workers")?,
            cpu_cores: section.count("cpu_cores", 1 << 20)?,
            worker_start_s: seconds("worker_start_seconds")?.unwrap_or(WORKER_START),
            worker_stop_s: seconds("worker_stop_seconds")?.unwrap_or(WORKER_STOP),
            receive_s: RECEIVE,
            receive_bandwidth: RECEIVE_BANDWIDTH,
        },
        samples: section.count("samples", MOST_SAMPLES)?,
        drop_last: flag("drop_last")?,
    };
    refuse_idle(&section, &input)?;
    if workload.last_micro_batch_size.is_some() {
        let message = "is not modelled for steps whose last micro-batch is smaller (workload.last_micro_batch); choose a \
                       global batch that is a multiple";
        return Err(section.conflict("seconds_per_sample", message));
    }
    if workload.synthetic_data {
        let message =
            "contradicts workload.synthetic_data = true, by which no sample is loaded; leave one of them out";
        return Err(section.conflict("seconds_per_sample", message));
    }
    if matches!(model.sample, Sample::Opaque) && section.node("sample_bytes")?.is_none() {
        let message = format!("a number: bytes of a sample, which {} does not say", model.name);
        return Err(section.missing("sample_bytes", &message));
    }
    section.finish()?;
    Ok(Some(input))
}

/// Refuses what could not act.
fn refuse_idle(section: &Section<'_>, input: &Input) -> Result<(), InputError> {
    let Loader { workers, pin_memory, non_blocking, persistent_workers, .. } = input.loader;
    if workers == 0 {
        for key in ["prefetch_factor", "worker_start_seconds", "worker_stop_seconds"] {
            if section.node(key)?.is_some() {
                return Err(
                    section.conflict(key, "is about worker processes, of which there are none; leave it out")
                );
            }
        }
        if persistent_workers {
            let message =
                "there are no worker processes that could live on, allowed: false, or workers above 0";
            return Err(section.conflict("persistent_workers", message));
        }
    }
    if persistent_workers {
        for key in ["worker_start_seconds", "worker_stop_seconds"] {
            if section.node(key)?.is_some() {
                return Err(
                    section.conflict(key, "workers that live on are neither started nor ended; leave it out")
                );
            }
        }
    }
    if non_blocking && !pin_memory {
        let message =
            "copies from pageable memory hold up the host in any case, allowed: false, or pin_memory = true";
        return Err(section.conflict("non_blocking", message));
    }
    if input.samples.is_none() && section.node("worker_stop_seconds")?.is_some() {
        let message = "workers end with the samples, and `samples` is not given; leave it out";
        return Err(section.conflict("worker_stop_seconds", message));
    }
    if input.drop_last && input.samples.is_none() {
        let message = "without `samples` there is no last batch, allowed: false";
        return Err(section.conflict("drop_last", message));
    }
    Ok(())
}
