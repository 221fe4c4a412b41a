//! A verdict as people read it.

use std::fmt::Write;

use steptime_scenarios::{CheckReport, PlanVerdict};

use crate::present::{bytes, right_align, seconds, table};

/// The verdict in a sentence.
pub(super) fn verdict(report: &CheckReport) -> String {
    let name = &report.name;
    match report.verdict {
        PlanVerdict::Accepted => format!("{name}: accepted\n"),
        PlanVerdict::Rejected => {
            let reasons: Vec<&str> =
                report.violations.iter().map(|violation| violation.message.as_str()).collect();
            format!("{name}: rejected: {}\n", reasons.join("; "))
        }
    }
}

/// Everything about the proposed plan, and a line for each of the others.
pub(super) fn full(report: &CheckReport, others: &[CheckReport]) -> String {
    let mut text = format!("{}\n\n", report.name);
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<14} {value}");
    };
    line("plan", report.plan.clone());
    let answer = |rule: &str, holds: bool| {
        let broken: Vec<&str> = (report.violations.iter())
            .filter(|violation| violation.rule == rule)
            .map(|violation| violation.message.as_str())
            .collect();
        if holds { "yes".to_owned() } else { format!("no: {}", broken.join("; ")) }
    };
    line("legal", answer("legal", report.legal));
    line("complete", answer("complete", report.complete));
    line("fits", report.fits.map_or_else(|| "not known".to_owned(), |fits| answer("fits", fits)));
    if let Some(claimed) = report.claimed.step_time_s {
        line("claimed", format!("{claimed:.4} s a step"));
    }
    if let Some(claimed) = report.claimed.peak_memory_bytes {
        line("claimed", format!("a peak of {}", bytes(claimed as u64)));
    }
    if let Some(step) = report.step_time_s {
        let interval = report.step_time_interval_s.map_or_else(String::new, |[low, high]| {
            format!("  (80 % interval {} to {})", seconds(low), seconds(high))
        });
        let part = if report.complete { "" } else { ", without what is missing" };
        line("predicted", format!("{step:.4} s a step{part}{interval}"));
    }
    if let Some(memory) = report.peak_memory_bytes {
        line("memory", bytes(memory));
    }
    if let Some((what, share)) = &report.bottleneck {
        line("bottleneck", format!("{what}, {:.1} % of the step", 100.0 * share));
    }
    distance(report, &mut line);
    if let Some(repair) = &report.repair {
        line("repair", format!("{}: {:.4} s a step", repair.changes.join(", "), repair.step_time_s));
    }
    compared(&mut text, report);
    if !others.is_empty() {
        text += "\nother plans of the file\n";
        for other in others {
            let time = other.step_time_s.map_or_else(|| "-".to_owned(), |time| format!("{time:.4} s"));
            text += &format!("  {time:>14}  {}", verdict(other));
        }
    }
    text += &format!("\n{}", verdict(report));
    text
}

/// How far the plan is from the best one found, and that from the bound.
fn distance(report: &CheckReport, line: &mut dyn FnMut(&str, String)) {
    let best = report.compared.first().and_then(|best| best.step_time_s);
    if let (Some(step), Some(best)) = (report.step_time_s, best)
        && report.complete
        && report.legal
    {
        line("best found", format!("{best:.4} s; this plan takes {:.2} times as long", step / best));
    }
    match (report.bound_s, report.proven) {
        (Some(bound), true) => {
            line("bound", format!("{bound:.4} s, which the best plan reaches: it is optimal"));
        }
        (Some(bound), false) => line("bound", format!("{bound:.4} s: no plan is faster")),
        (None, true) => line("bound", "no plan fits: all were looked at or ruled out".to_owned()),
        (None, false) => {}
    }
}

fn compared(text: &mut String, report: &CheckReport) {
    if report.compared.is_empty() {
        return;
    }
    let mut grid = table(&["planner", "step", "plan"]);
    for entry in &report.compared {
        let time = entry.step_time_s.map_or_else(|| "none".to_owned(), |time| format!("{time:.4} s"));
        grid.add_row([entry.planner.clone(), time, entry.plan.clone()]);
    }
    right_align(&mut grid, 1);
    if let Some(last) = grid.column_mut(2) {
        last.set_cell_alignment(comfy_table::CellAlignment::Left);
    }
    let _ = writeln!(text, "\n{grid}");
}
