//! What the points of a sweep have in common: equal steps are played once, and memory that is asked for equally is
//! replayed once.
//!
//! A step is known by all that its document says, without the keys that cannot act on it, and by the batch, workload and
//! plan that were read from it. Those keys are the number of micro-batches, which stands in the workload as it is played (in
//! part, or in full), prices and failures; for times also the allocator's settings. What was found once is a function of
//! what it is known by, so that rows are the same whoever played them first, on however many threads.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use steptime_core::SimTime;
use steptime_plans::{RankMemory, ScheduleKind, Told, Workload, memory_told, replayed_micro_batches};

use crate::draft::{Draft, written};
use crate::error::InputError;
use crate::memory;
use crate::refusal;
use crate::report::Report;
use crate::run::{play, play_sizes, play_time, timed};
use crate::scenario::{Job, Scenario};
use crate::sweep::digest;

/// Most entries that are remembered of each kind; beyond them it begins anew. An entry takes a few KiB.
const MOST: usize = 1 << 14;

/// The times of a step.
#[derive(Debug)]
pub(crate) struct Timed {
    /// Without memory.
    pub(crate) report: Report,
    /// Its end.
    pub(crate) end: SimTime,
    /// By stage: most micro-batches between forward and backward.
    pub(crate) in_flight: Vec<u64>,
}

/// What is known already.
#[derive(Debug)]
struct Memo<T> {
    known: Mutex<HashMap<String, Arc<T>>>,
}

impl<T> Default for Memo<T> {
    fn default() -> Self {
        Self { known: Mutex::default() }
    }
}

impl<T> Memo<T> {
    /// What is known by a key, or what `make` makes of it. Two threads that ask at once both make it: nobody waits.
    fn get_or<E>(&self, key: String, make: impl FnOnce() -> Result<T, E>) -> Result<Arc<T>, E> {
        let lock = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = lock().get(&key) {
            return Ok(Arc::clone(found));
        }
        let made = Arc::new(make()?);
        let mut known = lock();
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(key, Arc::clone(&made));
        Ok(made)
    }
}

#[cfg(test)]
impl<T> Memo<T> {
    fn count(&self) -> usize {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// Steps and memories that were played.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Times by themselves.
    times: Memo<Timed>,
    /// Steps that were played in one go with their memory.
    whole: Memo<Report>,
    memories: Memo<Vec<RankMemory>>,
}

#[cfg(test)]
impl Shared {
    /// Memories that are remembered, with the steps that were played together with theirs.
    pub(crate) fn memories(&self) -> usize {
        self.memories.count() + self.whole.count()
    }
}

/// A point, which plays its steps unless others have.
pub(crate) struct Point<'a> {
    shared: &'a Shared,
    /// Its document without what cannot act on times.
    times: String,
    /// The same for memory.
    memory: String,
}

impl<'a> Point<'a> {
    /// `None` of a scenario whose steps are more than times and the memory of equal ranks.
    pub(crate) fn new(shared: &'a Shared, draft: &Draft, scenario: &Scenario) -> Option<Self> {
        let Job::Gpus { cluster, plan, .. } = &scenario.job else { return None };
        let alike = !cluster.is_mixed() && !plan.has_uneven_batches();
        let others = scenario.variability.is_some() || !scenario.jobs.is_empty() || scenario.input.is_some();
        if !alike || others {
            return None;
        }
        let counts = ["gradient_accumulation_steps", "global_batch_size"];
        let draft = counts.iter().fold(draft.clone(), |draft, key| draft.without("workload", key));
        let draft = ["name", "cost", "failures"].iter().fold(draft, |draft, key| draft.take(key).0);
        let memory = written(&draft.root().value);
        let (draft, allocator) = draft.take("allocator");
        let times = allocator.map_or_else(|| memory.clone(), |_| written(&draft.root().value));
        Some(Self { shared, times, memory })
    }

    /// The report of its scenario, with so many micro-batches if a number is given, without the interval and with no more of
    /// its memory than is asked for. Stages and provenance are left out: rows do not show them.
    pub(crate) fn play(
        &self,
        scenario: &Scenario,
        count: Option<u64>,
        told: Option<Told>,
    ) -> Result<Report, InputError> {
        let Job::Gpus { cluster, plan, workload } = &scenario.job else { return play_time(scenario) };
        // Made for what is played alone.
        let sized =
            || count.map_or(Cow::Borrowed(scenario), |it| Cow::Owned(scenario.with_micro_batches(it)));
        let batch = count.map_or(scenario.batch, |count| scenario.batch.with_micro_batches(count));
        let workload = Workload { accumulation: batch.accumulation, ..workload.clone() };
        let key = |document: &str, few: u64, more: String| {
            let workload = Workload { accumulation: few, ..workload.clone() };
            digest([document.to_owned(), format!("{plan:?} {workload:?}"), more])
        };
        let all = workload.accumulation;
        let few = replayed_micro_batches(plan, &workload);
        if let (Some(told), true) = (told, few == all && !plan.explicit) {
            let more = format!("{batch:?} {told:?}");
            let whole = self.shared.whole.get_or(key(&self.memory, all, more), || match told {
                Told::Everything => play(&sized(), false).map(|played| slim(played.report)),
                Told::Sizes => play_sizes(&sized()).map(slim),
            })?;
            return Ok(Report { name: scenario.name.clone(), ..Report::clone(&whole) });
        }
        let timed = self.shared.times.get_or(key(&self.times, all, format!("{batch:?}")), || {
            timed(&sized()).map(|timed| Timed { report: slim(timed.report), ..timed })
        })?;
        let report = Report { name: scenario.name.clone(), ..timed.report.clone() };
        let Some(told) = told else { return Ok(report) };
        let more = format!("{:?} {told:?}", timed.in_flight);
        // Schedules whose order follows rules from the first micro-batch on. Of others the few may hold something else than all,
        // and then all are replayed.
        let by_rule = matches!(plan.schedule, ScheduleKind::GPipe | ScheduleKind::OneForwardOneBackward);
        let replayed = if by_rule { few } else { all };
        let memories = self.shared.memories.get_or(key(&self.memory, replayed, more), || {
            let job = (&scenario.model, &**cluster, &**plan, &workload);
            memory_told(job, &scenario.allocator, &timed.in_flight, told)
                .map_err(|source| refusal::explain(scenario, source))
        })?;
        Ok(memory::told(report, &scenario.model, &memories, cluster.gpu.memory.0, timed.end))
    }
}

/// A report without what grows with its stages.
fn slim(report: Report) -> Report {
    Report { stages: Vec::new(), provenance: Vec::new(), ..report }
}

#[cfg(test)]
mod tests {
    use crate::draft::Draft;
    use crate::files::NoFiles;
    use crate::sweep::Sweep;

    const BASE: &str = "[model]\nname = \"gpt2\"\nsequence_length = 1024\n[cluster]\nname = \"dgx-h100\"\n[workload]\n\
                        micro_batch_size = 1\nglobal_batch_size = 64\nprecision = \"bf16\"\n[cost]\ngpu_hour = 2\ntokens = 1e9\n\
                        [allocator]\nexpandable_segments = false\n";

    fn sweep(axes: &str) -> Sweep {
        Sweep::read(&Draft::read("case", &format!("{BASE}[sweep]\n{axes}"), &[]).unwrap(), &NoFiles).unwrap()
    }

    /// Points of axes that share much, something, and nothing: every row is the row of its point alone.
    #[test]
    fn points_that_share_are_points_alone() {
        let axes = [
            // Batches and prices over plans; among them plans that are refused and that run out of memory.
            "\"workload.global_batch_size\" = [8, 60, 64, 512, 520]\n\"parallelism.pipeline\" = [1, 2, 4]\n\
             \"workload.micro_batch_size\" = [1, 8]\n\"cost.gpu_hour\" = [2, 3]\n\"model.sequence_length\" = [1024, 16384]\n",
            // Allocators and what is around them.
            "\"allocator.expandable_segments\" = [true, false]\n\"allocator.memory_fraction\" = [0.05, 1.0]\n\
             \"parallelism.zero_stage\" = [0, 3]\n\"workload.global_batch_size\" = [64, 72, 128]\n",
            // States on the hosts; interleaved stages; every rank played.
            "\"parallelism.zero_stage\" = [1, 3]\n\"parallelism.offload\" = [{ optimizer = \"none\" }, { optimizer = \"cpu\" }]\n\
             \"workload.global_batch_size\" = [32, 64]\n\"simulation.explicit\" = [false, true]\n",
            "\"parallelism.pipeline\" = [2, 4]\n\"parallelism.virtual_pipeline\" = [1, 3]\n\
             \"workload.global_batch_size\" = [64, 128, 136]\n\"parallelism.schedule\" = [\"1f1b\", \"gpipe\", \"zb-2p\", \"hanayo\"]\n",
        ];
        for axes in axes {
            for play in ["full", "part"] {
                let text = format!("play = \"{play}\"\n{axes}");
                let (together, mut verdicts) = (sweep(&text), [0; 3]);
                for point in 0..together.points() {
                    let row = together.row(point, &NoFiles);
                    verdicts[row.verdict as usize] += 1;
                    // A sweep that has played nothing else.
                    assert_eq!(row, sweep(&text).row(point, &NoFiles), "{text}");
                }
                assert!(verdicts[0] > 0, "{verdicts:?}");
                let (memories, points) = (together.memories(), together.points() as usize);
                assert!(0 < memories && memories < points, "{memories} replays of {points} points");
            }
        }
    }
}
