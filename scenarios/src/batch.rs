//! Batch arithmetic: global batch = micro-batch x accumulation steps x data-parallel ranks.

use std::fmt;

use steptime_plans::MOST_MICRO_BATCHES;

use crate::error::InputError;
use crate::section::{KeyPlace, Section};

/// Most samples of a micro-batch and of a step; the formula of vehicle paths counts them in 32 bits.
const MOST_SAMPLES: u64 = u32::MAX as u64;

const MICRO: &str = "micro_batch_size";
const STEPS: &str = "gradient_accumulation_steps";
const GLOBAL: &str = "global_batch_size";
const LAST: &str = "last_micro_batch";

/// The numbers, consistent.
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
    /// Samples of the last micro-batch, where it is smaller than the others.
    pub last: Option<u64>,
}

impl Batch {
    /// Samples of a step on a data-parallel rank.
    pub fn samples(&self) -> u64 {
        self.micro * (self.accumulation - 1) + self.last.unwrap_or(self.micro)
    }

    /// The same with another number of micro-batches.
    pub(crate) fn with_micro_batches(self, accumulation: u64) -> Self {
        let other = Self { accumulation, ..self };
        Self { global: other.samples() * other.data, ..other }
    }
}

/// The batch, and the keys that its numbers come from.
#[derive(Debug)]
pub(crate) struct BatchSection {
    pub(crate) batch: Batch,
    /// The key that decides how large a micro-batch is.
    pub(crate) micro: KeyPlace,
    /// The key that decides how many there are.
    pub(crate) accumulation: KeyPlace,
}

/// What the file gives of the three.
#[derive(Clone, Copy)]
struct Given {
    micro: Option<u64>,
    accumulation: Option<u64>,
    global: Option<u64>,
}

/// Reads `micro_batch_size`, `gradient_accumulation_steps` and `global_batch_size`; the missing one follows.
pub(crate) fn read(workload: &Section<'_>, data: u64) -> Result<BatchSection, InputError> {
    let given = Given {
        micro: workload.count(MICRO, MOST_SAMPLES)?,
        accumulation: workload.count(STEPS, MOST_MICRO_BATCHES)?,
        global: workload.count(GLOBAL, MOST_SAMPLES)?,
    };
    let micro = workload.key_place(match given.micro {
        Some(_) => MICRO,
        None => GLOBAL,
    });
    let accumulation = workload.key_place(match (given.accumulation, given.global) {
        (Some(_), _) => STEPS,
        (None, Some(_)) => GLOBAL,
        (None, None) => MICRO,
    });
    let lasts = [("full", false), ("smaller", true)];
    let smaller = workload.choice(LAST, &lasts)?.unwrap_or(false);
    let batch = match given {
        Given { micro: Some(micro), accumulation: None, global: Some(global) } if smaller => {
            with_smaller_last(workload, data, (micro, global))?
        }
        _ if smaller => {
            let message = format!(
                "needs {MICRO} and {GLOBAL}, and no {STEPS}: which batch is left over follows from those two, allowed: \
                 \"full\""
            );
            return Err(workload.conflict(LAST, message));
        }
        _ => resolve(workload, data, given)?,
    };
    if batch.accumulation > MOST_MICRO_BATCHES {
        return Err(accumulation.conflict(format!(
            "{} over {} gives {} micro-batches a step, allowed: at most {MOST_MICRO_BATCHES}; use a larger {MICRO}",
            batch.global,
            Product::of(&[(MICRO, batch.micro), ("data", data)]),
            batch.accumulation
        )));
    }
    Ok(BatchSection { batch, micro, accumulation })
}

/// A step that is no multiple of the micro-batch: each rank's samples in full micro-batches, and the rest in a last one
/// (Composer's rule, and that of every loader that keeps its last batch).
fn with_smaller_last(
    workload: &Section<'_>,
    data: u64,
    (micro, global): (u64, u64),
) -> Result<Batch, InputError> {
    if !global.is_multiple_of(data) {
        let nearest = nearest(global, data);
        return Err(
            workload.conflict(GLOBAL, format!("{global} does not divide over data {data}; {nearest}"))
        );
    }
    let samples = global / data;
    let (full, rest) = (samples / micro, samples % micro);
    Ok(match (full, rest) {
        (_, 0) => Batch { micro, accumulation: full, data, global, last: None },
        (0, only) => Batch { micro: only, accumulation: 1, data, global, last: None },
        _ => Batch { micro, accumulation: full + 1, data, global, last: Some(rest) },
    })
}

fn resolve(workload: &Section<'_>, data: u64, given: Given) -> Result<Batch, InputError> {
    let refuse = |message: String| Err(workload.conflict(GLOBAL, message));
    let ranks = ("data", data);
    match (given.micro, given.accumulation, given.global) {
        (Some(micro), accumulation, None) => {
            let step = match accumulation {
                Some(steps) => Product::of(&[(MICRO, micro), (STEPS, steps), ranks]),
                None => Product::of(&[(MICRO, micro), ranks]),
            };
            let global = step.limited(workload)?.value;
            Ok(Batch { micro, accumulation: accumulation.unwrap_or(1), data, global, last: None })
        }
        (Some(micro), None, Some(global)) => {
            let each = Product::of(&[(MICRO, micro), ranks]).limited(workload)?;
            if !global.is_multiple_of(each.value) {
                return refuse(format!("{global} is no multiple of {each}; {}", nearest(global, each.value)));
            }
            Ok(Batch { micro, accumulation: global / each.value, data, global, last: None })
        }
        (Some(micro), Some(accumulation), Some(global)) => {
            let step = Product::of(&[(MICRO, micro), (STEPS, accumulation), ranks]).limited(workload)?;
            if step.value != global {
                return refuse(format!("{global} contradicts {step}; leave one of the three out"));
            }
            Ok(Batch { micro, accumulation, data, global, last: None })
        }
        (None, accumulation, Some(global)) => {
            let accumulation = accumulation.unwrap_or(1);
            let parts = Product::of(&[(STEPS, accumulation), ranks]);
            if !global.is_multiple_of(parts.value) {
                let nearest = nearest(global, parts.value);
                return refuse(format!("{global} does not divide over {parts}; {nearest}"));
            }
            Ok(Batch { micro: global / parts.value, accumulation, data, global, last: None })
        }
        (None, _, None) => Err(workload.missing(
            MICRO,
            "a whole number: samples a micro-batch and data-parallel rank (or give global_batch_size)",
        )),
    }
}

/// A product and its arithmetic: `micro_batch_size 4 x data 8 = 32`.
struct Product {
    text: String,
    value: u64,
}

impl Product {
    /// The value stops at the largest number, far beyond every limit. A single data-parallel rank (or a path of
    /// vehicles, which has none) is not worth a word.
    fn of(factors: &[(&str, u64)]) -> Self {
        let value: u128 = factors.iter().map(|&(_, factor)| u128::from(factor)).product();
        let words: Vec<String> = factors
            .iter()
            .filter(|factor| **factor != ("data", 1))
            .map(|(name, factor)| format!("{name} {factor}"))
            .collect();
        let text = match &words[..] {
            [only] => only.clone(),
            several => format!("{} = {value}", several.join(" x ")),
        };
        Self { text, value: u64::try_from(value).unwrap_or(u64::MAX) }
    }

    /// The product of `micro_batch_size` and other factors, if that many samples can be counted.
    fn limited(self, workload: &Section<'_>) -> Result<Self, InputError> {
        if self.value <= MOST_SAMPLES {
            return Ok(self);
        }
        let message = format!("{self} samples a step, allowed: at most {MOST_SAMPLES}");
        Err(workload.conflict(MICRO, message))
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The multiples of `each` next to `global`.
fn nearest(global: u64, each: u64) -> String {
    let below = global / each * each;
    let above = below.saturating_add(each);
    let near: Vec<String> = [below, above]
        .into_iter()
        .filter(|multiple| (1..=MOST_SAMPLES).contains(multiple))
        .map(|multiple| multiple.to_string())
        .collect();
    if near.is_empty() {
        format!("allowed: at most {MOST_SAMPLES}")
    } else {
        format!("nearest: {}", near.join(" and "))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod tests {
    use super::*;
    use crate::tree;
    use crate::workload::ALIASES;

    fn read_with(keys: &str, data: u64) -> Result<BatchSection, InputError> {
        let root = tree::parse("case.toml", &format!("[workload]\n{keys}"))?;
        read(&Section::of(&root, "workload", ALIASES)?, data)
    }

    fn message(keys: &str, data: u64) -> String {
        read_with(keys, data).unwrap_err().to_string()
    }

    #[test]
    fn the_missing_number_follows() {
        let whole = Batch { micro: 4, accumulation: 8, data: 2, global: 64, last: None };
        for keys in [
            "micro_batch_size = 4\ngradient_accumulation_steps = 8",
            "micro_batch_size = 4\nglobal_batch_size = 64",
            "gradient_accumulation_steps = 8\nglobal_batch_size = 64",
            "micro_batch_size = 4\ngradient_accumulation_steps = 8\nglobal_batch_size = 64",
        ] {
            assert_eq!(read_with(keys, 2).unwrap().batch, whole, "{keys}");
        }
    }

    #[test]
    fn the_last_micro_batch_may_be_smaller() {
        let read = |global: u64, data| {
            let keys = format!(
                "micro_batch_size = 12\nglobal_batch_size = {global}\nlast_micro_batch = \"smaller\""
            );
            read_with(&keys, data).unwrap().batch
        };
        // 32 samples a rank: 12, 12 and 8.
        let batch = read(256, 8);
        assert_eq!((batch.micro, batch.accumulation, batch.last, batch.samples()), (12, 3, Some(8), 32));
        assert_eq!((read(192, 8).accumulation, read(192, 8).last), (2, None));
        assert_eq!((read(40, 8).micro, read(40, 8).accumulation, read(40, 8).last), (5, 1, None));
        let keys = "micro_batch_size = 12\nglobal_batch_size = 30\nlast_micro_batch = \"smaller\"";
        assert!(message(keys, 8).ends_with("30 does not divide over data 8; nearest: 24 and 32"));
    }

    #[test]
    fn each_number_knows_the_key_that_decides_it() {
        for (keys, micro, accumulation) in [
            ("micro_batch_size = 4", "micro_batch_size", "micro_batch_size"),
            ("local_batch_size = 4", "local_batch_size", "local_batch_size"),
            ("global_batch_size = 4", "global_batch_size", "global_batch_size"),
            ("micro_batch_size = 4\nglobal_batch_size = 8", "micro_batch_size", "global_batch_size"),
            ("num_micro_batches = 2\ntrain_batch_size = 8", "train_batch_size", "num_micro_batches"),
        ] {
            let section = read_with(keys, 1).unwrap();
            assert_eq!(section.micro.key, format!("workload.{micro}"));
            assert_eq!(section.accumulation.key, format!("workload.{accumulation}"));
        }
    }

    #[test]
    fn too_many_micro_batches_are_refused_at_the_key_that_asks_for_them() {
        assert_eq!(
            message("micro_batch_size = 1\ngradient_accumulation_steps = 65537", 1),
            "case.toml:3:31: workload.gradient_accumulation_steps: found the integer 65537, allowed: a whole number \
             from 1 to 65536"
        );
        assert_eq!(
            message("micro_batch_size = 1\nglobal_batch_size = 131074", 2),
            "case.toml:3:21: workload.global_batch_size: 131074 over micro_batch_size 1 x data 2 = 2 gives \
             65537 micro-batches a step, allowed: at most 65536; use a larger micro_batch_size"
        );
        assert!(read_with("micro_batch_size = 1\nglobal_batch_size = 131072", 2).is_ok());
    }

    #[test]
    fn a_step_has_no_more_samples_than_can_be_counted() {
        assert_eq!(
            message("micro_batch_size = 4294967295\ngradient_accumulation_steps = 65536", 1 << 20),
            "case.toml:2:20: workload.micro_batch_size: micro_batch_size 4294967295 x gradient_accumulation_steps \
             65536 x data 1048576 = 295147905110633349120 samples a step, allowed: at most 4294967295"
        );
        assert!(read_with("micro_batch_size = 4294967295", 1).is_ok());
        assert!(read_with("micro_batch_size = 4294967295", 2).is_err());
    }

    #[test]
    fn the_nearest_batches_are_named_once() {
        for (keys, data, end) in [
            (
                "micro_batch_size = 4\nglobal_batch_size = 8",
                3,
                "micro_batch_size 4 x data 3 = 12; nearest: 12",
            ),
            ("micro_batch_size = 4\nglobal_batch_size = 30", 1, "micro_batch_size 4; nearest: 28 and 32"),
            ("gradient_accumulation_steps = 5\nglobal_batch_size = 32", 1, "steps 5; nearest: 30 and 35"),
            ("micro_batch_size = 8\nglobal_batch_size = 4294967295", 1, "nearest: 4294967288"),
        ] {
            let message = message(keys, data);
            assert!(message.ends_with(end), "{message}");
        }
    }
}
