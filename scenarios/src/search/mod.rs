//! Search: the best plan of a scenario over data, tensor, pipeline and virtual-pipeline parallelism, ZeRO stages,
//! checkpointing, micro-batches, uneven stages and numbers of nodes.
//!
//! Every plan is screened by bounds that no play can undercut ([`bound`]). Plans whose model states, or these and what forwards keep,
//! exceed the memory are ruled out; the others are played in the order of their bounds until the next bound is no better
//! than the best plan that fits: what is left then cannot be better. The result does not depend on the number of threads.

mod bound;
mod section;
mod space;
mod split;
#[cfg(test)]
mod tests;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::cost::CostReport;
use crate::draft::Draft;
use crate::error::InputError;
use crate::estimate::in_part_sizes;
use crate::files::Files;
use crate::report::{Report, Verdict};
use crate::run::{attach_interval, run};
use crate::scenario::{Job, Scenario};

use bound::Screen;
use section::{CHOSEN, Objective, SearchSection};
use space::Candidate;

/// Identifies the form of [`SearchReport`].
pub const SEARCH_SCHEMA: &str = "steptime.search/1";

/// Plans that are played at a time: fixed, so that what is played does not depend on threads.
const BATCH: usize = 16;
/// A step played in part is within a thousandth of full play: plans closer than twice that are played in full.
const PART: f64 = 2e-3;
/// Most plans that are played in full.
const MOST_FULL: usize = 64;
/// Plans behind the best that are told about.
const RUNNERS_UP: usize = 5;

/// A plan that was played.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FoundPlan {
    /// Keys that make the scenario this plan, as `section.key=value` of `--set`.
    pub set: Vec<String>,
    /// GPUs.
    pub gpus: u64,
    /// What is minimized: seconds, money, or joules a step; GPUs for the smallest cluster.
    pub score: f64,
    /// Seconds a step.
    pub step_time_s: f64,
    /// 80 % interval of the step time.
    pub step_time_interval_s: Option<[f64; 2]>,
    /// Peak bytes on the fullest device.
    pub peak_device_bytes: u64,
    /// Money and energy.
    pub cost: Option<CostReport>,
    /// Seconds that the plan takes at least, by its bound.
    pub bound_s: f64,
    /// Bytes that its fullest rank holds at least, by its bound; 0 where nothing is said.
    pub bound_bytes: u64,
    /// Why it is not the best: empty of the best itself.
    pub why: String,
}

/// How many plans ended where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchCounts {
    /// Plans of the space, after what sizes and divisors forbid.
    pub plans: u64,
    /// Whose model states alone exceed the memory.
    pub states_do_not_fit: u64,
    /// Whose model states and what forwards keep exceed it.
    pub activations_do_not_fit: u64,
    /// Whose bound is no better than the best.
    pub bound_is_worse: u64,
    /// Played.
    pub played: u64,
    /// Of these, out of memory.
    pub out_of_memory: u64,
    /// Of these, refused by some rule.
    pub refused: u64,
    /// Left when the number of plays was used up.
    pub left: u64,
}

/// What a search found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SearchReport {
    /// [`SEARCH_SCHEMA`].
    pub schema: String,
    /// The scenario's name.
    pub name: String,
    /// `step_time`, `money`, `energy` or `smallest_cluster`.
    pub objective: String,
    /// How many plans ended where.
    pub counts: SearchCounts,
    /// The best plan; null where none fits and meets the deadline.
    pub best: Option<FoundPlan>,
    /// Plans that no other one beats in time, memory, money and energy at once, the fastest first: of those that were played, which
    /// with `pareto = "whole"` are all that could be among them.
    pub pareto: Vec<FoundPlan>,
    /// The next best ones, and why they are not the best.
    pub runners_up: Vec<FoundPlan>,
    /// No plan of the space scores less.
    pub bound: Option<f64>,
    /// How far the best is above the bound, as a share of the bound.
    pub gap: Option<f64>,
    /// Version of the program.
    pub version: String,
}

/// Searches for the best plan. `most_plays` ends the search early; the gap says what that costs.
///
/// # Errors
/// The scenario is wrong, runs on vehicles, fixes what the search is to choose, or `[search]` is wrong.
pub fn search(
    draft: &Draft,
    files: &(dyn Files + Sync),
    most_plays: u64,
) -> Result<SearchReport, InputError> {
    let (plain, section) = SearchSection::take(draft)?;
    let base = plain.scenario(files)?;
    let section = section.checked(&base)?;
    let candidates = space::candidates(&base, &section)?;
    let mut screen = Screen::new(&base, &section);
    let screened = screen.all(candidates)?;
    let mut hunt = Hunt {
        base: &base,
        plain: &plain,
        files,
        section: &section,
        played: Vec::new(),
        counts: screened.counts,
    };
    hunt.play(screened.open, most_plays);
    Ok(hunt.report())
}

/// Searches around the plan that a scenario is: its sizes, its split and its order of stages are for the search to choose.
///
/// # Errors
/// The scenario is one that is not searched.
pub(crate) fn search_around(
    draft: &Draft,
    files: &(dyn Files + Sync),
    most_plays: u64,
) -> Result<SearchReport, InputError> {
    let free = CHOSEN.iter().fold(draft.clone(), |draft, (section, key)| draft.without(section, key));
    search(&free, files, most_plays)
}

impl FoundPlan {
    /// The plan by its sizes, without those that are 1.
    pub fn words(&self) -> String {
        let trivial = |key: &str| {
            let one = key.ends_with("=1") && !key.contains("zero_stage") && !key.contains("micro_batch_size");
            one || key.ends_with("=false") || key.ends_with("=none")
        };
        let shown = self.set.iter().filter(|key| !trivial(key));
        let short = shown.filter_map(|key| key.split_once('.').map(|(_, key)| key.replacen('=', " ", 1)));
        let kept = short.filter(|key| !key.starts_with("global_batch_size") && !key.starts_with("nodes"));
        kept.collect::<Vec<_>>().join(", ")
    }
}

/// A screened plan.
#[derive(Clone, Debug)]
struct Open {
    candidate: Candidate,
    /// Seconds that it takes at least.
    bound_s: f64,
    /// Bytes that its fullest rank holds at least.
    bound_bytes: u64,
    /// Money and joules that a step takes at least; 0 where nothing is priced.
    costs: [f64; 2],
    /// Score that it has at least.
    score: f64,
}

impl Open {
    /// What no play of it undercuts, as [`traits_of`] has it of a play.
    fn least(&self) -> [f64; 4] {
        [self.bound_s, self.bound_bytes as f64, self.costs[0], self.costs[1]]
    }
}

/// A played plan.
struct Played {
    open: Open,
    report: Report,
    score: f64,
}

impl Played {
    /// The better one first.
    fn order(&self, other: &Self) -> std::cmp::Ordering {
        let step = |played: &Self| played.report.step_time_s.unwrap_or(f64::INFINITY);
        let order = self.score.total_cmp(&other.score).then(step(self).total_cmp(&step(other)));
        order.then_with(|| self.open.candidate.cmp(&other.open.candidate))
    }
}

struct Hunt<'a> {
    base: &'a Scenario,
    plain: &'a Draft,
    files: &'a (dyn Files + Sync),
    section: &'a SearchSection,
    played: Vec<Played>,
    counts: SearchCounts,
}

impl Hunt<'_> {
    /// Plays plans in the order of their bounds, as long as they can be better than the best.
    fn play(&mut self, mut open: Vec<Open>, most_plays: u64) {
        open.sort_by(|a, b| {
            let bounds = a.score.total_cmp(&b.score).then(a.bound_s.total_cmp(&b.bound_s));
            bounds.then_with(|| a.candidate.cmp(&b.candidate))
        });
        // One cluster that meets the deadline is as good as another of its size.
        let slack = if self.section.objective == Objective::SmallestCluster { 0.0 } else { PART };
        let mut next = 0;
        let mut best = f64::INFINITY;
        let mut finished = false;
        while next < open.len() && self.counts.played < most_plays {
            let batch: Vec<Open> = open[next..]
                .iter()
                .take_while(|open| open.score < best * (1.0 + slack))
                .take(self.room(most_plays))
                .cloned()
                .collect();
            if batch.is_empty() {
                finished = true;
                break;
            }
            next += batch.len();
            best = self.play_batch(batch).min(best);
        }
        let rest = open.split_off(next);
        let unplayed = rest.iter().map(|open| open.score).fold(f64::INFINITY, f64::min);
        let others = rest.len() as u64;
        let (beaten, left) = match (finished, self.section.whole_pareto) {
            (true, true) => self.play_pareto(rest, most_plays),
            (true, false) => (others, 0),
            (false, _) => (0, others),
        };
        self.counts.bound_is_worse += beaten;
        self.counts.left += left;
        self.settle(unplayed);
    }

    /// Plans that are played next.
    fn room(&self, most_plays: u64) -> usize {
        usize::try_from(most_plays - self.counts.played).unwrap_or(usize::MAX).min(BATCH)
    }

    /// Plays the plans of which no played one is surely as good in time, memory, money and energy; returns how many the
    /// others are, and for how many no plays were left.
    fn play_pareto(&mut self, open: Vec<Open>, most_plays: u64) -> (u64, u64) {
        let (mut beaten, mut wanted) = (0, Vec::new());
        let mut open = open.into_iter();
        loop {
            while wanted.len() < self.room(most_plays) {
                let Some(next) = open.next() else { break };
                let meets = |played: &&Played| self.section.meets(&played.report);
                let no_better = |played: &Played| {
                    traits_of(&played.report)
                        .into_iter()
                        .zip(next.least())
                        .all(|(found, least)| found <= least)
                };
                if self.played.iter().filter(meets).any(no_better) {
                    beaten += 1;
                } else {
                    wanted.push(next);
                }
            }
            if wanted.is_empty() {
                return (beaten, open.len() as u64);
            }
            self.play_batch(std::mem::take(&mut wanted));
        }
    }

    /// Plays some plans; returns the least score among those that fit.
    fn play_batch(&mut self, batch: Vec<Open>) -> f64 {
        let base = self.base;
        let results: Vec<(Open, Result<Report, InputError>)> = batch
            .into_par_iter()
            .map(|open| {
                let report = open.candidate.scenario(base).and_then(|scenario| {
                    in_part_sizes(&scenario).map(|report| attach_interval(&scenario, report))
                });
                (open, report)
            })
            .collect();
        let mut best = f64::INFINITY;
        for (open, result) in results {
            self.counts.played += 1;
            match result {
                Ok(report) if report.verdict == Verdict::OutOfMemory => self.counts.out_of_memory += 1,
                Ok(report) => {
                    let score = self.section.score(&report);
                    best = best.min(score);
                    self.played.push(Played { open, report, score });
                }
                Err(_) => self.counts.refused += 1,
            }
        }
        best
    }

    /// Plays the plans at the top in full, from the keys that will be named, and remembers what was left out.
    fn settle(&mut self, unplayed: f64) {
        self.played.sort_by(Played::order);
        let best = self.played.first().map_or(f64::INFINITY, |played| played.score);
        let near = self
            .played
            .iter()
            .filter(|played| played.score <= best * (1.0 + 2.0 * PART))
            .count()
            .min(MOST_FULL);
        let top: Vec<Played> = self.played.drain(..near).collect();
        let (plain, files) = (self.plain, self.files);
        let full: Vec<(Played, Option<Report>)> = top
            .into_par_iter()
            .map(|played| {
                let keys = played.open.candidate.set();
                let scenario = plain.clone().set(&keys).and_then(|draft| draft.scenario(files));
                let report = scenario.and_then(|scenario| run(&scenario, false)).map(|run| run.report).ok();
                (played, report)
            })
            .collect();
        for (played, report) in full {
            match report {
                Some(report) if report.verdict == Verdict::Fits => {
                    let score = self.section.score(&report);
                    self.played.push(Played { report, score, ..played });
                }
                Some(_) => self.counts.out_of_memory += 1,
                None => self.counts.refused += 1,
            }
        }
        self.played.sort_by(Played::order);
        self.section.unplayed.set(unplayed);
    }

    fn report(&self) -> SearchReport {
        let meets = |played: &&Played| self.section.meets(&played.report);
        let good: Vec<&Played> = self.played.iter().filter(meets).collect();
        let best = good.first().copied();
        let least = best.map_or(f64::INFINITY, |best| best.score).min(self.section.unplayed.get());
        let bound = least.is_finite().then_some(least);
        SearchReport {
            schema: SEARCH_SCHEMA.to_owned(),
            name: self.base.name.clone(),
            objective: self.section.objective.word().to_owned(),
            counts: self.counts,
            best: best.map(|best| found(best, String::new())),
            pareto: pareto(&good).into_iter().map(|played| found(played, String::new())).collect(),
            runners_up: best.map_or_else(Vec::new, |best| {
                good.iter().skip(1).take(RUNNERS_UP).map(|played| found(played, why(best, played))).collect()
            }),
            bound,
            gap: best.zip(bound).map(|(best, bound)| (best.score - bound).max(0.0) / bound),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

fn found(played: &Played, why: String) -> FoundPlan {
    let report = &played.report;
    FoundPlan {
        set: played.open.candidate.set(),
        gpus: report.gpus,
        score: played.score,
        step_time_s: report.step_time_s.unwrap_or(f64::INFINITY),
        step_time_interval_s: report.step_time_interval_s,
        peak_device_bytes: report.peak_memory.device_bytes,
        cost: report.cost.clone(),
        bound_s: played.open.bound_s,
        bound_bytes: played.open.bound_bytes,
        why,
    }
}

/// The part of the step that costs a plan most against the best one.
fn why(best: &Played, other: &Played) -> String {
    let (own, least) = (other.report.time_breakdown_s.entries(), best.report.time_breakdown_s.entries());
    let more = own.iter().zip(&least).map(|((name, a), (_, b))| (*name, a - b));
    let (name, seconds) = more.fold(("other", 0.0), |most, part| if part.1 > most.1 { part } else { most });
    let steps = (other.report.step_time_s, best.report.step_time_s);
    match steps {
        (Some(a), Some(b)) if a > b => {
            format!(
                "{:.1} % slower, most of it {} ({seconds:.4} s more)",
                100.0 * (a / b - 1.0),
                name.replace('_', " ")
            )
        }
        _ if matches!(other.report.gpus.cmp(&best.report.gpus), std::cmp::Ordering::Greater) => {
            format!("takes {} GPUs", other.report.gpus)
        }
        _ => "as good, and later in the order of plans".to_owned(),
    }
}

/// Time, memory, money and energy of a step.
fn traits_of(report: &Report) -> [f64; 4] {
    let cost = report.cost.as_ref();
    [
        report.step_time_s.unwrap_or(f64::INFINITY),
        report.peak_memory.device_bytes as f64,
        cost.map_or(0.0, |cost| cost.per_step),
        cost.and_then(|cost| cost.energy_per_step_j).unwrap_or(0.0),
    ]
}

/// Plans that no other one is as good as in everything and better than in something.
fn pareto<'a>(good: &[&'a Played]) -> Vec<&'a Played> {
    let beats = |a: &Played, b: &Played| {
        let pairs = traits_of(&a.report).into_iter().zip(traits_of(&b.report));
        pairs.clone().all(|(a, b)| a <= b) && pairs.clone().any(|(a, b)| a < b)
    };
    let mut front: Vec<&Played> =
        good.iter().filter(|one| !good.iter().any(|other| beats(other, one))).copied().collect();
    front.sort_by(|a, b| {
        let step = |played: &Played| played.report.step_time_s.unwrap_or(f64::INFINITY);
        step(a).total_cmp(&step(b)).then_with(|| a.open.candidate.cmp(&b.open.candidate))
    });
    front
}

/// Seconds, money or joules that a scenario's step scores.
fn score_of(objective: Objective, report: &Report) -> f64 {
    let cost = report.cost.as_ref();
    match objective {
        Objective::StepTime => report.step_time_s,
        Objective::Money => cost.map(|cost| cost.per_step),
        Objective::Energy => cost.and_then(|cost| cost.energy_per_step_j),
        Objective::SmallestCluster => Some(report.gpus as f64),
    }
    .unwrap_or(f64::INFINITY)
}

/// Whether a scenario is about GPUs.
fn gpus_of(
    scenario: &Scenario,
) -> Option<(&steptime_clusters::Cluster, &steptime_plans::Plan, &steptime_plans::Workload)> {
    match &scenario.job {
        Job::Gpus { cluster, plan, workload } => Some((cluster, plan, workload)),
        Job::Vehicles { .. } => None,
    }
}
