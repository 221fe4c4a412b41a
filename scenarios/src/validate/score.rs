//! Scores of a suite's rows.

use serde::{Deserialize, Serialize};

use super::ValidatedRow;
use super::choice::{ChoiceScore, choices};

/// How far predictions of one quantity are from measurements; errors are fractions (0.05 = 5 %).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorScore {
    /// Rows that have both numbers.
    pub scored: usize,
    /// Mean of |predicted / measured - 1|.
    pub mape: f64,
    /// Median of |predicted / measured - 1|.
    pub median_ape: f64,
    /// 90th percentile of |predicted / measured - 1|.
    pub p90_ape: f64,
    /// Largest |predicted / measured - 1|.
    pub max_ape: f64,
    /// Mean of predicted / measured - 1.
    pub bias: f64,
    /// Spearman's rank correlation; absent below three rows or where a side is constant.
    pub spearman: Option<f64>,
    /// Share of measurements inside the predicted interval, where there is one.
    pub interval_coverage: Option<f64>,
}

/// How well running out of memory is predicted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutcomeScore {
    /// Rows that have both outcomes.
    pub scored: usize,
    /// Share of rows with the right outcome.
    pub accuracy: f64,
    /// Share of the runs that ran out of memory for which this was not predicted.
    pub missed_oom: Option<f64>,
    /// Share of the runs that fitted for which running out of memory was predicted.
    pub false_oom: Option<f64>,
}

/// Scores of a suite.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SuiteScore {
    /// Name.
    pub suite: String,
    /// Rows.
    pub rows: usize,
    /// Rows that were not predicted.
    pub skipped: usize,
    /// Step time.
    pub time: Option<ErrorScore>,
    /// Peak of memory in tensors.
    pub peak_allocated: Option<ErrorScore>,
    /// Peak of memory held by the allocator.
    pub peak_reserved: Option<ErrorScore>,
    /// Memory in tensors after the step.
    pub static_allocated: Option<ErrorScore>,
    /// Plans of the same job.
    pub choice: Option<ChoiceScore>,
    /// Running out of memory.
    pub outcome: Option<OutcomeScore>,
}

/// A quantity of a row: predicted, measured, and the predicted interval.
pub(super) type Pair = (f64, f64, Option<[f64; 2]>);

pub(super) fn suites(rows: &[ValidatedRow]) -> Vec<SuiteScore> {
    let mut names: Vec<&str> = Vec::new();
    for row in rows {
        if !names.contains(&row.suite.as_str()) {
            names.push(&row.suite);
        }
    }
    let of = |name: &str| rows.iter().filter(|row| row.suite == name).collect::<Vec<_>>();
    names.into_iter().map(|name| suite(name, &of(name))).collect()
}

fn suite(name: &str, rows: &[&ValidatedRow]) -> SuiteScore {
    let pairs = |pair: fn(&ValidatedRow) -> Option<Pair>| {
        errors(&rows.iter().filter_map(|row| pair(row)).collect::<Vec<_>>())
    };
    SuiteScore {
        suite: name.to_owned(),
        rows: rows.len(),
        skipped: rows.iter().filter(|row| row.skipped.is_some()).count(),
        time: pairs(time),
        peak_allocated: pairs(|row| {
            Some((row.predicted_peak_allocated_gib?, row.measured_peak_allocated_gib?, None))
        }),
        peak_reserved: pairs(|row| {
            Some((row.predicted_peak_reserved_gib?, row.measured_peak_reserved_gib?, None))
        }),
        static_allocated: pairs(|row| {
            Some((row.predicted_static_allocated_gib?, row.measured_static_allocated_gib?, None))
        }),
        choice: choices(rows),
        outcome: outcomes(rows),
    }
}

/// The score of the step times of some rows, whatever their suites; absent where none has both numbers.
pub fn score_rows<'a>(rows: impl IntoIterator<Item = &'a ValidatedRow>) -> Option<ErrorScore> {
    errors(&rows.into_iter().filter_map(time).collect::<Vec<_>>())
}

fn time(row: &ValidatedRow) -> Option<Pair> {
    Some((row.predicted_step_time_s?, row.measured_step_time_s?, row.predicted_step_time_interval_s))
}

fn errors(pairs: &[Pair]) -> Option<ErrorScore> {
    if pairs.is_empty() {
        return None;
    }
    let signed: Vec<f64> = pairs.iter().map(|(predicted, measured, _)| predicted / measured - 1.0).collect();
    let mut absolute: Vec<f64> = signed.iter().map(|error| error.abs()).collect();
    absolute.sort_by(f64::total_cmp);
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let inside: Vec<bool> = pairs
        .iter()
        .filter_map(|(_, measured, interval)| interval.map(|[low, high]| (low..=high).contains(measured)))
        .collect();
    let coverage = inside.iter().filter(|&&hit| hit).count() as f64 / inside.len().max(1) as f64;
    Some(ErrorScore {
        scored: pairs.len(),
        mape: mean(&absolute),
        median_ape: percentile(&absolute, 0.5),
        p90_ape: percentile(&absolute, 0.9),
        max_ape: absolute.last().copied().unwrap_or(0.0),
        bias: mean(&signed),
        spearman: spearman(pairs),
        interval_coverage: (!inside.is_empty()).then_some(coverage),
    })
}

/// Percentile of sorted values, with linear interpolation between neighbours.
pub(super) fn percentile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let below = place.floor();
    let (low, high) = (sorted[below as usize], sorted[place.ceil() as usize]);
    low + (high - low) * (place - below)
}

/// Pearson's correlation of the ranks, ties at their mean rank.
pub(super) fn spearman(pairs: &[Pair]) -> Option<f64> {
    if pairs.len() < 3 {
        return None;
    }
    let predicted = ranks(&pairs.iter().map(|pair| pair.0).collect::<Vec<_>>());
    let measured = ranks(&pairs.iter().map(|pair| pair.1).collect::<Vec<_>>());
    let middle = (pairs.len() - 1) as f64 / 2.0;
    let (mut both, mut first, mut second) = (0.0, 0.0, 0.0);
    for (a, b) in predicted.iter().zip(&measured) {
        let (a, b) = (a - middle, b - middle);
        both += a * b;
        first += a * a;
        second += b * b;
    }
    (first > 0.0 && second > 0.0).then(|| both / (first * second).sqrt())
}

fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    while start < order.len() {
        let ties =
            order[start..].iter().take_while(|&&it| values[it].total_cmp(&values[order[start]]).is_eq());
        let end = start + ties.count();
        for &index in &order[start..end] {
            ranks[index] = (start + end - 1) as f64 / 2.0;
        }
        start = end;
    }
    ranks
}

fn outcomes(rows: &[&ValidatedRow]) -> Option<OutcomeScore> {
    let pairs: Vec<(bool, bool)> = rows
        .iter()
        .filter_map(|row| {
            let failed = |outcome: &Option<String>| outcome.as_deref().map(|it| it == "out_of_memory");
            Some((failed(&row.predicted_outcome)?, failed(&row.measured_outcome)?))
        })
        .collect();
    if pairs.is_empty() {
        return None;
    }
    let share = |wrong: usize, of: usize| (of > 0).then(|| wrong as f64 / of as f64);
    let count = |wanted: (bool, bool)| pairs.iter().filter(|&&pair| pair == wanted).count();
    let (missed, wrong) = (count((false, true)), count((true, false)));
    let measured = pairs.iter().filter(|(_, measured)| *measured).count();
    Some(OutcomeScore {
        scored: pairs.len(),
        accuracy: 1.0 - (missed + wrong) as f64 / pairs.len() as f64,
        missed_oom: share(missed, measured),
        false_oom: share(wrong, pairs.len() - measured),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_counted_as_they_are_defined() {
        // 10 % above, 20 % below, exact.
        let score = errors(&[(1.1, 1.0, Some([1.0, 1.2])), (1.6, 2.0, Some([1.5, 1.9])), (3.0, 3.0, None)]);
        let score = score.unwrap();
        let near = |a: f64, b: f64| (a - b).abs() < 1e-12;
        assert!(near(score.mape, 0.1) && near(score.median_ape, 0.1) && near(score.max_ape, 0.2));
        assert!(near(score.p90_ape, 0.18) && near(score.bias, -0.1 / 3.0));
        assert_eq!((score.scored, score.spearman, score.interval_coverage), (3, Some(1.0), Some(0.5)));
        assert!(errors(&[]).is_none());
    }

    #[test]
    fn ties_share_their_mean_rank() {
        assert_eq!(ranks(&[2.0, 1.0, 2.0, 5.0]), [1.5, 0.0, 1.5, 3.0]);
        assert_eq!(spearman(&[(1.0, 3.0, None), (2.0, 2.0, None), (3.0, 1.0, None)]), Some(-1.0));
        assert_eq!(spearman(&[(1.0, 3.0, None), (1.0, 2.0, None), (1.0, 1.0, None)]), None);
    }

    #[test]
    fn missed_and_false_alarms_are_shares_of_their_own_kind() {
        let row = |predicted: &str, measured: &str| ValidatedRow {
            predicted_outcome: Some(predicted.to_owned()),
            measured_outcome: Some(measured.to_owned()),
            ..ValidatedRow::default()
        };
        let rows = [
            row("ok", "ok"),
            row("out_of_memory", "ok"),
            row("ok", "out_of_memory"),
            row("out_of_memory", "out_of_memory"),
            row("ok", "ok"),
        ];
        let score = outcomes(&rows.iter().collect::<Vec<_>>()).unwrap();
        assert_eq!((score.scored, score.missed_oom, score.false_oom), (5, Some(0.5), Some(1.0 / 3.0)));
        assert!((score.accuracy - 0.6).abs() < 1e-12);
    }
}
