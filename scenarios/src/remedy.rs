//! What would make a scenario fit that runs out of memory: small changes, each verified by a run.

use serde::{Deserialize, Serialize};

use crate::draft::{Draft, written};
use crate::files::Files;
use crate::report::{Report, Verdict};
use crate::run::run_if_it_may_fit;
use crate::scenario::{Job, Scenario};
use crate::tree::{Node, Value};

/// A change under which a scenario fits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Remedy {
    /// Keys to set, as `section.key=value` of `--set`.
    pub set: Vec<String>,
    /// Predicted step with the change, seconds.
    pub step_time_s: f64,
    /// Device memory to spare then.
    pub spare_bytes: u64,
}

/// Most remedies that are named.
const MOST: usize = 3;

/// Most runs that are made to find them.
const MOST_TRIALS: usize = 96;

/// Values of keys that are set together.
type Change = Vec<(&'static str, &'static str, Value)>;

/// Up to three changes under which the scenario fits, the fastest first: the smallest change of one thing if any such
/// helps, else of two things together. Looked at are expandable segments, smaller micro-batches (the global batch stays), activation
/// checkpointing, higher ZeRO stages and offload of the optimizer and of the parameters. What the scenario's other keys
/// forbid is left out.
pub fn remedies(draft: &Draft, files: &dyn Files) -> Vec<Remedy> {
    let Ok(base) = draft.scenario(files) else { return Vec::new() };
    let Job::Gpus { plan, .. } = &base.job else { return Vec::new() };
    let mut trial = Trial { draft, files, left: MOST_TRIALS };
    let kinds = candidates(&base, plan.data);
    let mut found: Vec<Remedy> = kinds.iter().filter_map(|changes| trial.first(changes)).collect();
    if found.is_empty() {
        for (index, first) in kinds.iter().enumerate() {
            for second in &kinds[index + 1..] {
                let both = |one: &Change| second.iter().map(|two| [one.as_slice(), two].concat()).collect();
                let pairs: Vec<Change> = first.iter().flat_map::<Vec<Change>, _>(both).collect();
                found.extend(trial.first(&pairs));
            }
        }
    }
    found.sort_by(|a, b| a.step_time_s.total_cmp(&b.step_time_s));
    found.truncate(MOST);
    found
}

/// Changes by the thing that they change, of each thing the smallest first.
fn candidates(base: &Scenario, data: u64) -> Vec<Vec<Change>> {
    let text = |value: &str| Value::Text(value.to_owned());
    let whole = |value: u64| Value::Integer(i64::try_from(value).unwrap_or(i64::MAX));
    let segments = vec![("allocator", "expandable_segments", Value::Boolean(true))];
    // Smaller micro-batches that leave the global batch as it is.
    let (micro, steps) = (base.batch.micro, base.batch.accumulation);
    let smaller = (1..micro).rev().filter(|size| base.batch.last.is_none() && micro.is_multiple_of(*size));
    let batch = smaller.take(8).map(|size| {
        let steps = whole(steps * (micro / size));
        vec![
            ("workload", "micro_batch_size", whole(size)),
            ("workload", "gradient_accumulation_steps", steps),
        ]
    });
    let checkpointing =
        ["selective", "full"].map(|kind| vec![("workload", "activation_checkpointing", text(kind))]);
    let zero = (1..=3).filter(|_| data > 1).map(|stage| vec![("parallelism", "zero_stage", whole(stage))]);
    let offloaded = [&["optimizer"][..], &["optimizer", "parameters"]]
        .map(|parts| vec![("parallelism", "offload", offload(parts))]);
    vec![vec![segments], batch.collect(), checkpointing.to_vec(), zero.collect(), offloaded.to_vec()]
}

/// `{ optimizer = "cpu", ... }`.
fn offload(parts: &[&str]) -> Value {
    let node = || {
        let origin = crate::origin::Origin::Option { text: "offload".to_owned() };
        Node { value: Value::Text("cpu".to_owned()), key_origin: origin.clone(), origin }
    };
    Value::Table(parts.iter().map(|part| ((*part).to_owned(), node())).collect())
}

struct Trial<'a> {
    draft: &'a Draft,
    files: &'a dyn Files,
    /// Runs that may still be made.
    left: usize,
}

impl Trial<'_> {
    /// The first change that helps.
    fn first(&mut self, changes: &[Change]) -> Option<Remedy> {
        changes.iter().find_map(|change| {
            self.left = self.left.checked_sub(1)?;
            self.fits(change)
        })
    }

    /// The change as a remedy, if the scenario fits with it.
    fn fits(&self, change: &[(&'static str, &'static str, Value)]) -> Option<Remedy> {
        let mut draft = self.draft.clone();
        for (section, key, value) in change {
            draft = draft.with(section, key, value.clone());
        }
        let scenario = draft.scenario(self.files).ok()?;
        let report: Report = run_if_it_may_fit(&scenario).ok()??;
        let memory = &report.peak_memory;
        let spare_bytes = memory.capacity_bytes.saturating_sub(memory.device_bytes);
        let set = change.iter().map(|(section, key, value)| format!("{section}.{key}={}", written(value)));
        match (report.verdict, report.step_time_s) {
            (Verdict::Fits, Some(step_time_s)) => {
                Some(Remedy { set: set.collect(), step_time_s, spare_bytes })
            }
            _ => None,
        }
    }
}
