//! The tables of the page.

use std::collections::{BTreeMap, BTreeSet};

use steptime_scenarios::{
    ErrorScore, Intervals, PublishedFact, SuiteScore, ValidatedRow, Validation, score_rows,
};

use super::catalogue::fitted_formats;
use crate::commands::validate::text::{
    furthest_off, numbers, optional, parts, percent, skipped as skipped_rows,
};
use crate::present::significant;

/// A Markdown table; columns from `right` on are set flush right.
pub(super) fn markdown<const N: usize>(
    header: &[&str; N],
    right: usize,
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let rule: Vec<&str> = (0..N).map(|column| if column < right { "---" } else { "---:" }).collect();
    let mut text = format!("| {} |\n| {} |\n", header.join(" | "), rule.join(" | "));
    for row in rows {
        text += &format!("| {} |\n", row.map(|cell| cell.replace('|', "\\|")).join(" | "));
    }
    text
}

const HEADER: [&str; 8] = ["scored", "median", "mean", "p90", "max", "bias", "rank", "in 80 %"];

fn headed<const N: usize>(first: &[&'static str]) -> [&'static str; N] {
    let mut header = [""; N];
    for (cell, name) in header.iter_mut().zip(first.iter().chain(&HEADER)) {
        *cell = name;
    }
    header
}

fn joined<const N: usize>(first: Vec<String>, score: &ErrorScore) -> [String; N] {
    let mut cells = first.into_iter().chain(numbers(score));
    std::array::from_fn(|_| cells.next().unwrap_or_default())
}

pub(super) fn times(validation: &Validation) -> String {
    let row = |suite: &SuiteScore| {
        let first = vec![suite.suite.clone(), suite.rows.to_string(), suite.skipped.to_string()];
        Some(joined(first, &suite.time?))
    };
    let header: [&str; 11] = headed(&["suite", "rows", "skipped"]);
    markdown(&header, 1, validation.suites.iter().filter_map(row))
}

pub(super) fn memory(validation: &Validation) -> String {
    let rows = validation.suites.iter().flat_map(|suite| {
        let quantities = [
            ("allocated", suite.peak_allocated),
            ("reserved", suite.peak_reserved),
            ("after step", suite.static_allocated),
        ];
        quantities.into_iter().filter_map(|(name, score)| {
            let [scored, median, mean, p90, max, bias, rank, _] = numbers(&score?);
            Some([suite.suite.clone(), name.to_owned(), scored, median, mean, p90, max, bias, rank])
        })
    });
    markdown(&["suite", "memory", "scored", "median", "mean", "p90", "max", "bias", "rank"], 2, rows)
}

pub(super) fn outcomes(validation: &Validation) -> String {
    let rows = validation.suites.iter().filter_map(|suite| {
        let outcome = suite.outcome.filter(|it| it.missed_oom.is_some())?;
        Some([
            suite.suite.clone(),
            outcome.scored.to_string(),
            percent(outcome.accuracy),
            optional(outcome.missed_oom),
            optional(outcome.false_oom),
        ])
    });
    markdown(&["suite", "scored", "right", "missed", "false alarms"], 1, rows)
}

pub(super) fn choices(validation: &Validation) -> String {
    let rows = validation.suites.iter().filter_map(|suite| {
        let choice = suite.choice?;
        Some([
            suite.suite.clone(),
            choice.jobs.to_string(),
            choice.plans.to_string(),
            choice.right.to_string(),
            percent(choice.median_loss),
            percent(choice.mean_loss),
            percent(choice.p90_loss),
            percent(choice.blind_loss),
            choice.spearman.map_or_else(|| "-".to_owned(), |rank| format!("{rank:.3}")),
        ])
    });
    let header = ["suite", "jobs", "plans", "right", "behind, median", "mean", "p90", "blind", "rank"];
    markdown(&header, 1, rows)
}

/// Error over groups of rows, each with the words of its first cells.
fn grouped<'a, const N: usize>(
    header: &[&'static str],
    groups: impl Iterator<Item = (Vec<String>, Vec<&'a ValidatedRow>)>,
) -> String {
    let rows = groups.filter_map(|(first, rows)| Some(joined::<N>(first, &score_rows(rows)?)));
    markdown::<N>(&headed(header), header.len(), rows)
}

pub(super) fn by_gpu(validation: &Validation) -> String {
    let names: BTreeSet<&str> = validation.rows.iter().map(|row| row.gpu.as_str()).collect();
    let groups = names.into_iter().map(|name| {
        let rows = validation.rows.iter().filter(|row| row.gpu == name).collect();
        (vec![name.to_owned(), fitted_formats(name)], rows)
    });
    grouped::<10>(&["GPU", "fitted"], groups)
}

pub(super) fn by_size(validation: &Validation) -> String {
    let bounds = [(1, 1), (2, 8), (9, 64), (65, 512), (513, u64::MAX)];
    let groups = bounds.into_iter().map(|(least, most)| {
        let words = match (least, most) {
            (1, 1) => "1".to_owned(),
            (_, u64::MAX) => format!("{least} and more"),
            _ => format!("{least} to {most}"),
        };
        let rows = validation.rows.iter().filter(|row| (least..=most).contains(&row.gpus)).collect();
        (vec![words], rows)
    });
    grouped::<9>(&["GPUs"], groups)
}

pub(super) fn intervals(intervals: &Intervals) -> String {
    let rows = intervals.groups().iter().map(|group| {
        let [low, high] = group.ends().map(|end| format!("{end:.2}"));
        [group.words(), group.runs().to_string(), low, high]
    });
    markdown(&["steps", "runs", "low", "high"], 1, rows)
}

pub(super) fn worst(validation: &Validation, count: usize) -> String {
    let rows = furthest_off(&validation.rows, count).into_iter().map(|(ratio, row)| {
        let step = row.predicted_step_time_s.unwrap_or_default();
        [
            row.run_id.clone(),
            row.gpu.clone(),
            parts(row),
            row.gpus.to_string(),
            format!("{} s", significant(step)),
            format!("{ratio:.3}"),
        ]
    });
    let header = ["run", "GPU", "largest parts of the predicted step", "GPUs", "predicted", "over measured"];
    markdown(&header, 3, rows)
}

/// Reasons that differ in their numbers only are one.
pub(super) fn skipped(validation: &Validation) -> String {
    let mut counts: BTreeMap<(&str, String), usize> = BTreeMap::new();
    for ((suite, reason), count) in skipped_rows(validation) {
        *counts.entry((suite, without_numbers(reason))).or_default() += count;
    }
    let rows =
        counts.into_iter().map(|((suite, reason), count)| [suite.to_owned(), reason, count.to_string()]);
    markdown(&["suite", "reason", "rows"], 2, rows)
}

/// `expert parallelism N` for any number of them; names with digits stay.
fn without_numbers(reason: &str) -> String {
    let plain = |word: &str| {
        let number = word.trim_end_matches([',', ';', ':']);
        let is_number = !number.is_empty() && number.chars().all(|c| c.is_ascii_digit());
        if is_number { word.replacen(number, "N", 1) } else { word.to_owned() }
    };
    reason.split(' ').map(plain).collect::<Vec<_>>().join(" ")
}

pub(super) fn facts(facts: &[PublishedFact], scored: &Validation) -> String {
    let rows = facts.iter().zip(&scored.rows).flat_map(|(fact, row)| {
        let quantities = [
            ("s", row.predicted_step_time_s, row.measured_step_time_s),
            ("GiB", row.predicted_peak_reserved_gib, row.measured_peak_reserved_gib),
            ("GiB", row.predicted_static_allocated_gib, row.measured_static_allocated_gib),
        ];
        quantities.into_iter().filter_map(|(unit, predicted, measured)| {
            let (predicted, measured) = (predicted?, measured?);
            Some([
                fact.id.clone(),
                fact.what.clone(),
                fact.stated.clone(),
                format!("{} {unit}", significant(measured)),
                format!("{} {unit}", significant(predicted)),
                format!("{:+.1} %", 100.0 * (predicted / measured - 1.0)),
            ])
        })
    });
    let table = markdown(&["name", "of", "stated", "that is", "predicted", "error"], 3, rows);
    let mut sources: Vec<&str> = Vec::new();
    for fact in facts {
        if !sources.contains(&fact.source.as_str()) {
            sources.push(&fact.source);
        }
    }
    format!("{table}\nSources:\n\n- {}\n", sources.join("\n- "))
}

/// What a comparison looks at.
type Number = fn(&SuiteScore) -> Option<String>;

/// Suites on which others have published numbers: what, the suite, theirs, ours.
const OTHERS: [(&str, &str, &str, Number); 8] = [
    (
        "step time, 64 to 512 A100 (vTrain's cluster runs), mean",
        "vtrain-multi",
        "vTrain 14.7 % (profiled), Calculon 11.1 %",
        mean_time,
    ),
    (
        "step time, papers of Megatron-LM and zero bubble, mean",
        "papers",
        "Calculon 3.65 % on 8 of the rows",
        mean_time,
    ),
    (
        "step time, good and bad plans on 8 to 512 H100, mean",
        "nanotron-h100",
        "a formula of 8 constants fitted to these rows 10.9 %",
        mean_time,
    ),
    (
        "out of memory or not, the same plans, right",
        "nanotron-h100",
        "RAPID-LLM about 95 %, a formula of 20 lines 92 to 94 %",
        |suite| suite.outcome.map(|it| percent(it.accuracy)),
    ),
    ("peak reserved memory, the same plans, median", "nanotron-h100", "the same formula 36 %", |suite| {
        suite.peak_reserved.map(|it| percent(it.median_ape))
    }),
    ("step time, Llama layers on 8 B200, mean", "megatron-b200", "SimuMax 5.6 % (profiled)", mean_time),
    ("peak allocated memory, the same, mean", "megatron-b200", "SimuMax 0.46 %", |suite| {
        suite.peak_allocated.map(|it| percent(it.mape))
    }),
    ("step time, MPT under FSDP on A100 and H100, median", "llm-foundry", "-", |suite| {
        suite.time.map(|it| percent(it.median_ape))
    }),
];

fn mean_time(suite: &SuiteScore) -> Option<String> {
    suite.time.map(|it| percent(it.mape))
}

pub(super) fn others(validation: &Validation) -> String {
    let rows = OTHERS.iter().filter_map(|(what, name, theirs, ours)| {
        let suite = validation.suites.iter().find(|suite| suite.suite == *name)?;
        Some([(*what).to_owned(), (*name).to_owned(), (*theirs).to_owned(), ours(suite)?])
    });
    markdown(&["on", "suite", "others", "steptime"], 3, rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_lose_their_numbers_and_keep_their_names() {
        assert_eq!(without_numbers("expert parallelism 8"), "expert parallelism N");
        assert_eq!(without_numbers("nearest: 960, and 1120"), "nearest: N, and N");
        assert_eq!(without_numbers("precision fp8-mx"), "precision fp8-mx");
    }

    #[test]
    fn tables_are_markdown() {
        let table = markdown(&["a", "b"], 1, [["x|y".to_owned(), "1".to_owned()]]);
        assert_eq!(table, "| a | b |\n| --- | ---: |\n| x\\|y | 1 |\n");
    }
}
