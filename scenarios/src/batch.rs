//! Batch arithmetic: global batch = micro-batch x accumulation steps x data-parallel ranks.

use crate::error::InputError;
use crate::section::Section;

/// Largest batch or micro-batch count that is accepted.
const MOST: u64 = 1 << 32;

/// The three numbers, consistent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Samples a micro-batch and data-parallel rank.
    pub micro: u64,
    /// Micro-batches a step.
    pub accumulation: u64,
    /// Data-parallel ranks.
    pub data: u64,
    /// Samples a step.
    pub global: u64,
}

/// Reads `micro_batch_size`, `gradient_accumulation_steps` and `global_batch_size`; the missing one follows.
pub(crate) fn read(workload: &Section<'_>, data: u64) -> Result<Batch, InputError> {
    let micro = workload.count("micro_batch_size", MOST)?;
    let accumulation = workload.count("gradient_accumulation_steps", MOST)?;
    let global = workload.count("global_batch_size", MOST)?;
    let batch = |micro: u64, accumulation: u64| Batch {
        micro,
        accumulation,
        data,
        global: micro.saturating_mul(accumulation).saturating_mul(data),
    };
    match (micro, accumulation, global) {
        (Some(micro), accumulation, None) => Ok(batch(micro, accumulation.unwrap_or(1))),
        (Some(micro), None, Some(global)) => {
            let each = micro.saturating_mul(data);
            if global % each != 0 {
                return Err(workload.conflict(
                    "global_batch_size",
                    format!(
                        "{global} is no multiple of micro_batch_size {micro} x data {data} = {each}; nearest \
                         that are: {} and {}",
                        (global / each).max(1) * each,
                        (global / each + 1) * each
                    ),
                ));
            }
            Ok(batch(micro, global / each))
        }
        (Some(micro), Some(accumulation), Some(global)) => {
            let product = batch(micro, accumulation);
            if product.global != global {
                return Err(workload.conflict(
                    "global_batch_size",
                    format!(
                        "{global} contradicts micro_batch_size {micro} x gradient_accumulation_steps \
                         {accumulation} x data {data} = {}; leave one of the three out",
                        product.global
                    ),
                ));
            }
            Ok(product)
        }
        (None, accumulation, Some(global)) => {
            let accumulation = accumulation.unwrap_or(1);
            let each = accumulation.saturating_mul(data);
            if global % each != 0 {
                return Err(workload.conflict(
                    "global_batch_size",
                    format!(
                        "{global} does not divide over gradient_accumulation_steps {accumulation} x data {data} \
                         = {each}"
                    ),
                ));
            }
            Ok(batch(global / each, accumulation))
        }
        (None, _, None) => Err(workload.missing(
            "micro_batch_size",
            "a whole number: samples a micro-batch and data-parallel rank (or give global_batch_size)",
        )),
    }
}
