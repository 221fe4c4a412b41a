//! Scores as people read them.

use std::collections::BTreeMap;

use steptime_scenarios::{Change, ErrorScore, SuiteScore, ValidatedRow, Validation};

use crate::present::{right_align, significant, table};

/// Scores, skipped rows with their reasons, and the worst rows.
pub(super) fn text(validation: &Validation, worst: usize) -> String {
    let mut text = scores(&validation.suites);
    let skipped = skipped(validation);
    if !skipped.is_empty() {
        text += "\nskipped rows\n";
        for ((suite, reason), count) in skipped {
            text += &format!("  {count:>5}  {suite}: {reason}\n");
        }
    }
    text + &worst_rows(&validation.rows, worst)
}

/// How many rows are skipped, by suite and reason.
pub(super) fn skipped(validation: &Validation) -> BTreeMap<(&str, &str), usize> {
    let mut skipped = BTreeMap::new();
    for row in &validation.rows {
        if let Some(reason) = &row.skipped {
            *skipped.entry((row.suite.as_str(), reason.as_str())).or_default() += 1;
        }
    }
    skipped
}

pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// A share in percent whose unit stands elsewhere.
fn number(share: f64) -> String {
    bare(&percent(share))
}

fn bare(percent: &str) -> String {
    percent.trim_end_matches(" %").to_owned()
}

pub(super) fn optional(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), percent)
}

/// Number of rows, median, mean, p90, max, bias, rank, coverage.
pub(super) fn numbers(score: &ErrorScore) -> [String; 8] {
    [
        score.scored.to_string(),
        percent(score.median_ape),
        percent(score.mape),
        percent(score.p90_ape),
        percent(score.max_ape),
        percent(score.bias),
        score.spearman.map_or_else(|| "-".to_owned(), |rank| format!("{rank:.3}")),
        optional(score.interval_coverage),
    ]
}

fn scores(suites: &[SuiteScore]) -> String {
    let mut list = table(&["suite", "rows", "of", "median", "mean", "p90", "max", "bias", "rank", "in 80"]);
    for column in list.column_iter_mut() {
        column.set_padding((0, 1));
    }
    for suite in suites {
        let quantities: [(&str, Option<ErrorScore>); 4] = [
            ("step time", suite.time),
            ("allocated", suite.peak_allocated),
            ("reserved", suite.peak_reserved),
            ("static", suite.static_allocated),
        ];
        let mut first = true;
        let mut head = || {
            let shown = std::mem::take(&mut first);
            let text = |value: String| if shown { value } else { String::new() };
            [text(suite.suite.clone()), text(suite.rows.to_string())]
        };
        for (name, score) in quantities {
            let Some(score) = score else { continue };
            // The unit stands below.
            let mut numbers = numbers(&score).map(|text| bare(&text));
            numbers[0] = format!("{name} ({})", score.scored);
            list.add_row(head().into_iter().chain(numbers));
        }
        if let Some(choice) = suite.choice {
            let line = [
                format!("choice ({})", choice.jobs),
                number(choice.median_loss),
                number(choice.mean_loss),
                number(choice.p90_loss),
                number(choice.max_loss),
                "-".to_owned(),
                choice.spearman.map_or_else(|| "-".to_owned(), |rank| format!("{rank:.3}")),
            ];
            list.add_row(head().into_iter().chain(line));
        }
        if suite.skipped == suite.rows {
            list.add_row(head());
        }
    }
    right_align(&mut list, 3);
    for whole in [0, 2] {
        if let Some(column) = list.column_mut(whole) {
            column.set_constraint(comfy_table::ColumnConstraint::ContentWidth);
        }
    }
    let note = "errors, steps in their 80 % intervals, and what the plan ranked first loses\n\
                to the best of the same job (choice), in %";
    format!("{list}\n\n{note}\n{}", outcomes(suites))
}

/// How often it is told right whether a step fits in memory.
fn outcomes(suites: &[SuiteScore]) -> String {
    let mut text = String::new();
    for suite in suites {
        let Some(outcome) = suite.outcome.filter(|outcome| outcome.missed_oom.is_some()) else { continue };
        text += &format!(
            "{}: out of memory or not in {} rows: {} right, {} missed, {} false\n",
            suite.suite,
            outcome.scored,
            percent(outcome.accuracy),
            optional(outcome.missed_oom),
            optional(outcome.false_oom)
        );
    }
    text
}

/// The rows whose step time is furthest off, with predicted over measured, by the logarithm of that ratio, so that too
/// fast and too slow weigh the same.
pub(super) fn furthest_off(rows: &[ValidatedRow], count: usize) -> Vec<(f64, &ValidatedRow)> {
    let ratio = |row: &ValidatedRow| Some(row.predicted_step_time_s? / row.measured_step_time_s?);
    let mut scored: Vec<(f64, &ValidatedRow)> =
        rows.iter().filter_map(|row| Some((ratio(row)?, row))).collect();
    scored.sort_by(|(a, _), (b, _)| b.max(1.0 / b).total_cmp(&a.max(1.0 / a)));
    scored.truncate(count);
    scored
}

fn worst_rows(rows: &[ValidatedRow], count: usize) -> String {
    let scored = furthest_off(rows, count);
    if scored.is_empty() {
        return String::new();
    }
    let mut list = table(&["run", "measured", "predicted", "ratio", "largest parts of the predicted step"]);
    for (ratio, row) in scored {
        list.add_row([
            row.run_id.clone(),
            format!("{} s", significant(row.measured_step_time_s.unwrap_or_default())),
            format!("{} s", significant(row.predicted_step_time_s.unwrap_or_default())),
            format!("{ratio:.2}"),
            parts(row),
        ]);
    }
    right_align(&mut list, 1);
    if let Some(column) = list.column_mut(4) {
        column.set_cell_alignment(comfy_table::CellAlignment::Left);
    }
    format!("\nfurthest off\n{list}\n")
}

/// The three largest parts of a step.
pub(super) fn parts(row: &ValidatedRow) -> String {
    let (Some(breakdown), Some(step)) = (&row.predicted_time_breakdown_s, row.predicted_step_time_s) else {
        return String::new();
    };
    let mut parts = breakdown.entries();
    parts.sort_by(|a, b| b.1.total_cmp(&a.1));
    let shown: Vec<String> = parts
        .iter()
        .take(3)
        .filter(|(_, seconds)| *seconds > 0.01 * step)
        .map(|(name, seconds)| format!("{} {:.0} %", name.replace('_', " "), 100.0 * seconds / step))
        .collect();
    shown.join(", ")
}

/// What has changed since a baseline; empty where nothing has.
pub(super) fn changes(changes: &[Change]) -> String {
    if changes.is_empty() {
        return String::new();
    }
    let mut list = table(&["suite", "number", "before", "now", ""]);
    for change in changes {
        let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |it| format!("{it:.1} %"));
        let mark = if change.worse { "worse" } else { "" };
        list.add_row([
            change.suite.clone(),
            change.what.replace('_', " "),
            number(change.before),
            number(change.now),
            mark.to_owned(),
        ]);
    }
    right_align(&mut list, 2);
    format!("\nsince the baseline\n{list}\n")
}
