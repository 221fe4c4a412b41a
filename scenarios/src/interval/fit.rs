//! From residuals of measured runs to groups and their quantiles.
//!
//! Groups are the leaves of a tree of questions about the traits. Each question is the one that lets the two halves
//! have the narrowest intervals for their runs: the pinball loss of both quantiles (Koenker and Bassett 1978) is taken as
//! the scale of a Laplace distribution of its own in each half (Yu and Moyeed 2001), so that halves count by the ratio of
//! their widths. A sum of losses would see those groups alone that are widest, and leave runs known to 5 % among
//! runs known to 15 %. A question must gain more than chance (Schwarz 1978) and leave enough runs on both sides. A leaf's
//! quantiles have the finite-sample correction of conformal prediction. The questions were chosen by the same runs, which
//! makes leaves narrower than what other runs will do: where those that a leaf was split from reach further, its ends lean
//! towards theirs, the more the fewer runs it has.

use super::traits::{COVERED, Condition, FIRST, SHAPES, Traits};
use super::{FOLDS, Group, HELD, Intervals, Jobs, fold};

/// Fewest runs of a group: with fewer than 19, the corrected tenth is the extreme run itself.
const FEWEST: usize = 20;
/// Most questions that lead to a group.
const DEEPEST: usize = 6;
/// Mean loss that measuring itself leaves: published times have three digits.
const ROUNDING: f64 = 0.001;
/// Runs that the quantiles of the larger group are worth in the smaller one, where they lie further out.
const LEANING: f64 = 12.0;

/// A measured run and its prediction.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Residual {
    /// Name of the run.
    pub(crate) run_id: String,
    /// What the predicted step is made of.
    pub(crate) traits: Traits,
    /// Measured over predicted.
    pub(crate) ratio: f64,
    /// What the network of other jobs makes of the step.
    pub(crate) jobs: Option<Jobs>,
}

impl Residual {
    /// The logarithm of measured over predicted; nothing where a network of other jobs explains it, for every
    /// interval holds what that makes of its step.
    fn log(&self) -> f64 {
        if self.jobs.is_some_and(|jobs| jobs.hold(self.ratio)) { 0.0 } else { libm::log(self.ratio) }
    }
}

/// A run as the fit sees it.
struct Run<'a> {
    traits: &'a Traits,
    log: f64,
}

impl Intervals {
    /// Fits the tables.
    pub(crate) fn fit(residuals: &[Residual]) -> Self {
        let table = |left_out: Option<u64>| {
            let kept = residuals.iter().filter(|it| left_out.is_none_or(|part| fold(&it.run_id) != part));
            let mut runs: Vec<Run<'_>> = kept.map(|it| Run { traits: &it.traits, log: it.log() }).collect();
            // The order of the tables' files does not matter.
            runs.sort_by(|a, b| a.log.total_cmp(&b.log));
            grow_all(&runs)
        };
        Self {
            runs: residuals.len(),
            all: table(None),
            without: (0..FOLDS).map(|part| table(Some(part))).collect(),
        }
    }
}

fn grow_all(runs: &[Run<'_>]) -> Vec<Group> {
    let mut groups = Vec::new();
    if let Some((low, high)) = quantiles(runs) {
        // Half the logarithm of the runs for each of the two ends that a question adds.
        let least_gain = libm::log(runs.len() as f64);
        let root = Branch { when: Vec::new(), low, high };
        grow(&runs.iter().collect::<Vec<_>>(), root, least_gain, &mut groups);
    }
    groups
}

/// A set of runs on the way to a group: the answers so far, and the quantiles of its logarithms.
struct Branch {
    when: Vec<Condition>,
    low: f64,
    high: f64,
}

fn grow(runs: &[&Run<'_>], branch: Branch, least_gain: f64, groups: &mut Vec<Group>) {
    let split = if branch.when.is_empty() && divides(FIRST, runs) {
        Some(FIRST)
    } else if branch.when.len() < DEEPEST {
        best_split(runs, &branch.when, least_gain)
    } else {
        None
    };
    let Some(condition) = split else {
        groups.push(leaf(runs, branch));
        return;
    };
    for at_least in [true, false] {
        let answer = Condition { at_least, ..condition };
        let side: Vec<&Run<'_>> = runs.iter().copied().filter(|run| answer.holds(run.traits)).collect();
        let weight = side.len() as f64 / (side.len() as f64 + LEANING);
        let (low, high) = quantiles_of(&side).unwrap_or((branch.low, branch.high));
        let lean = |own: f64, larger: f64| weight * own + (1.0 - weight) * larger;
        let mut when: Vec<Condition> = branch.when.clone();
        // A narrower answer to the same question takes the place of the wider one.
        when.retain(|known| known.kind != answer.kind || known.at_least != answer.at_least);
        when.push(answer);
        let next =
            Branch { when, low: low.min(lean(low, branch.low)), high: high.max(lean(high, branch.high)) };
        grow(&side, next, least_gain, groups);
    }
}

/// Whether a question leaves enough runs on both sides.
fn divides(condition: Condition, runs: &[&Run<'_>]) -> bool {
    let above = runs.iter().filter(|run| condition.holds(run.traits)).count();
    above.min(runs.len() - above) >= FEWEST
}

/// The question that gains the most.
fn best_split(runs: &[&Run<'_>], asked: &[Condition], least_gain: f64) -> Option<Condition> {
    let whole = surprise(runs);
    let mut best: Option<(f64, Condition)> = None;
    for shape in &SHAPES {
        for &threshold in shape.thresholds {
            let condition = Condition { kind: shape.kind, at_least: true, threshold };
            if asked.iter().any(|it| it.kind == shape.kind && it.threshold.total_cmp(&threshold).is_eq()) {
                continue;
            }
            let (above, below): (Vec<&Run<'_>>, Vec<&Run<'_>>) =
                runs.iter().partition(|run| condition.holds(run.traits));
            if above.len().min(below.len()) < FEWEST {
                continue;
            }
            let gain = whole - surprise(&above) - surprise(&below);
            if gain >= least_gain && best.as_ref().is_none_or(|(most, _)| gain > *most) {
                best = Some((gain, condition));
            }
        }
    }
    best.map(|(_, condition)| condition)
}

fn leaf(runs: &[&Run<'_>], branch: Branch) -> Group {
    let covered = COVERED.map(|kind| {
        let values = || runs.iter().map(|run| run.traits.get(kind));
        (kind, values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max))
    });
    Group {
        when: branch.when,
        runs: runs.len(),
        low: libm::exp(branch.low),
        high: libm::exp(branch.high),
        covered: covered.to_vec(),
    }
}

/// Shares of the runs below the two ends.
fn ends() -> (f64, f64) {
    ((1.0 - HELD) / 2.0, f64::midpoint(1.0, HELD))
}

/// The run at a rank from 1, or the nearest there is.
fn at_rank(runs: &[&Run<'_>], rank: f64) -> Option<f64> {
    runs.get((rank.max(1.0) as usize).min(runs.len()).checked_sub(1)?).map(|run| run.log)
}

/// Quantiles of sorted runs with the finite-sample correction: rank `(n + 1) p`, outwards.
fn tails_of(runs: &[&Run<'_>]) -> Option<(f64, f64)> {
    let count = runs.len() as f64 + 1.0;
    let (low, high) = ends();
    Some((at_rank(runs, (count * low + 1e-9).floor())?, at_rank(runs, (count * high - 1e-9).ceil())?))
}

/// The ends of the interval: equal tails, unless it would not hold the prediction itself. Then it begins or ends at the
/// prediction and reaches as far to the other side as it takes to hold as many runs.
fn quantiles_of(runs: &[&Run<'_>]) -> Option<(f64, f64)> {
    let (low, high) = tails_of(runs)?;
    let held = (runs.len() as f64 + 1.0) * HELD;
    if low > 0.0 {
        let below = runs.iter().filter(|run| run.log < 0.0).count() as f64;
        return Some((0.0, at_rank(runs, (below + held - 1e-9).ceil())?));
    }
    if high < 0.0 {
        let below = runs.iter().filter(|run| run.log <= 0.0).count() as f64;
        return Some((at_rank(runs, (below + 1.0 - held + 1e-9).floor())?, 0.0));
    }
    Some((low, high))
}

fn quantiles(runs: &[Run<'_>]) -> Option<(f64, f64)> {
    quantiles_of(&runs.iter().collect::<Vec<_>>())
}

/// Pinball loss of sorted runs at both quantiles.
fn loss_of(runs: &[&Run<'_>]) -> f64 {
    let Some((low, high)) = tails_of(runs) else { return 0.0 };
    let (under, over) = ends();
    let pinball = |value: f64, quantile: f64, share: f64| {
        let distance = value - quantile;
        if distance >= 0.0 { share * distance } else { (share - 1.0) * distance }
    };
    runs.iter().map(|run| pinball(run.log, low, under) + pinball(run.log, high, over)).sum()
}

/// Negative logarithm of the likelihood of sorted runs, but for a constant a run: of a Laplace distribution whose scale is
/// their own mean loss.
fn surprise(runs: &[&Run<'_>]) -> f64 {
    let count = runs.len() as f64;
    if runs.is_empty() { 0.0 } else { count * libm::log(loss_of(runs) / count + ROUNDING) }
}
