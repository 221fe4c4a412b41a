//! `steptime validate`: predictions against measured training steps.

use std::collections::BTreeMap;

use steptime_scenarios::{ErrorScore, SuiteScore, ValidatedRow, Validation, scenarios_of, validate as score};

use crate::cli::ValidateArguments;
use crate::failure::{Answer, Failure};
use crate::output;
use crate::present::{right_align, significant, table, trimmed};

/// `steptime validate --data FILE...`.
pub(crate) fn validate(arguments: &ValidateArguments) -> Result<Answer, Failure> {
    let tables = arguments
        .data
        .iter()
        .map(|path| {
            let name = path.display().to_string();
            let text = std::fs::read_to_string(path)
                .map_err(|error| Failure::Message(format!("cannot read {name}: {error}")))?;
            Ok((name, text))
        })
        .collect::<Result<Vec<_>, Failure>>()?;
    if let Some(wanted) = &arguments.scenario {
        print!("{}", scenario(&tables, wanted)?);
        return Ok(Answer::Yes);
    }
    let validation = score(&tables).map_err(|error| Failure::Message(error.to_string()))?;
    if arguments.json {
        print!("{}", output::json(&validation)?);
    } else {
        print!("{}", trimmed(&text(&validation, arguments.worst)));
    }
    Ok(Answer::Yes)
}

/// What a row becomes.
fn scenario(tables: &[(String, String)], wanted: &str) -> Result<String, Failure> {
    for (name, text) in tables {
        let rows = scenarios_of(name, text).map_err(|error| Failure::Message(error.to_string()))?;
        if let Some((_, scenario)) = rows.into_iter().find(|(run_id, _)| run_id == wanted) {
            return scenario
                .map_err(|reason| Failure::Message(format!("{wanted} cannot be played: {reason}")));
        }
    }
    Err(Failure::Message(format!("no row is named `{wanted}`")))
}

fn text(validation: &Validation, worst: usize) -> String {
    let mut text = scores(&validation.suites);
    let mut skipped: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for row in &validation.rows {
        if let Some(reason) = &row.skipped {
            *skipped.entry((&row.suite, reason)).or_default() += 1;
        }
    }
    if !skipped.is_empty() {
        text += "\nskipped rows\n";
        for ((suite, reason), count) in skipped {
            text += &format!("  {count:>5}  {suite}: {reason}\n");
        }
    }
    text + &worst_rows(&validation.rows, worst)
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

fn optional(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), percent)
}

fn scores(suites: &[SuiteScore]) -> String {
    let mut list =
        table(&["suite", "rows", "skipped", "of", "median", "mean", "p90", "max", "bias", "rank", "in 80 %"]);
    list.set_width(110);
    for suite in suites {
        let quantities: [(&str, Option<ErrorScore>); 4] = [
            ("step time", suite.time),
            ("allocated", suite.peak_allocated),
            ("reserved", suite.peak_reserved),
            ("after step", suite.static_allocated),
        ];
        let mut first = true;
        let mut head = || {
            let shown = std::mem::take(&mut first);
            let text = |value: String| if shown { value } else { String::new() };
            [text(suite.suite.clone()), text(suite.rows.to_string()), text(suite.skipped.to_string())]
        };
        for (name, score) in quantities {
            let Some(score) = score else { continue };
            let numbers = [
                format!("{name} ({})", score.scored),
                percent(score.median_ape),
                percent(score.mape),
                percent(score.p90_ape),
                percent(score.max_ape),
                percent(score.bias),
                score.spearman.map_or_else(|| "-".to_owned(), |rank| format!("{rank:.3}")),
                optional(score.interval_coverage),
            ];
            list.add_row(head().into_iter().chain(numbers));
        }
        if let Some(outcome) = suite.outcome.filter(|outcome| outcome.missed_oom.is_some()) {
            let line = [
                format!("outcome ({})", outcome.scored),
                format!("{} right", percent(outcome.accuracy)),
                format!("missed {}", optional(outcome.missed_oom)),
                format!("false {}", optional(outcome.false_oom)),
            ];
            list.add_row(head().into_iter().chain(line));
        }
        if suite.skipped == suite.rows {
            list.add_row(head());
        }
    }
    right_align(&mut list, 4);
    format!("{list}\n")
}

/// The rows whose step time is furthest off, by the logarithm of the ratio, so that too fast and too slow weigh the
/// same.
fn worst_rows(rows: &[ValidatedRow], count: usize) -> String {
    let ratio = |row: &ValidatedRow| Some(row.predicted_step_time_s? / row.measured_step_time_s?);
    let mut scored: Vec<(f64, &ValidatedRow)> =
        rows.iter().filter_map(|row| Some((ratio(row)?, row))).collect();
    scored.sort_by(|(a, _), (b, _)| b.max(1.0 / b).total_cmp(&a.max(1.0 / a)));
    scored.truncate(count);
    if scored.is_empty() {
        return String::new();
    }
    let mut list = table(&["run", "measured", "predicted", "ratio", "largest parts of the predicted step"]);
    list.set_width(110);
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
fn parts(row: &ValidatedRow) -> String {
    let (Some(breakdown), Some(step)) = (&row.predicted_time_breakdown_s, row.predicted_step_time_s) else {
        return String::new();
    };
    let mut parts = breakdown.entries();
    parts.sort_by(|a, b| b.1.total_cmp(&a.1));
    let shown: Vec<String> = parts
        .iter()
        .take(3)
        .filter(|(_, seconds)| *seconds > 0.01 * step)
        .map(|(name, seconds)| format!("{name} {:.0} %", 100.0 * seconds / step))
        .collect();
    shown.join(", ")
}
