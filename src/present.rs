//! Results as people read them, within 80 columns.

use std::fmt::Write;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use steptime_scenarios::{Report, Verdict};

/// Columns of a terminal that every table fits.
const COLUMNS: u16 = 80;
/// Columns of a bar in the breakdown.
const BAR: usize = 24;

/// Everything about one run, or a comparison of several.
pub(crate) fn reports(reports: &[&Report]) -> String {
    match reports {
        [report] => one(report),
        several => comparison(several),
    }
}

/// A table with a plain header line and no frame.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.to_vec());
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(COLUMNS);
    table
}

fn right_align(table: &mut Table, first: usize) {
    for column in table.column_iter_mut().skip(first) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

/// The verdict in a sentence.
pub(crate) fn verdict_line(report: &Report) -> String {
    let name = &report.name;
    if let Some(infeasible) = &report.infeasible {
        return format!("{name}: cannot be placed: {}", infeasible.reason);
    }
    let step = report.step_time_s.map_or_else(|| "no step".to_owned(), seconds);
    let memory = &report.peak_memory;
    match (report.verdict, &report.out_of_memory) {
        (Verdict::OutOfMemory, Some(oom)) => format!(
            "{name}: out of memory on rank {} at {}: {} asks for {}, {} short",
            oom.rank,
            seconds(oom.at_s),
            oom.tensor,
            bytes(oom.requested_bytes),
            bytes(oom.short_by_bytes)
        ),
        (Verdict::OutOfMemory, None) => format!("{name}: out of memory"),
        (Verdict::Fits, _) => format!(
            "{name}: {step} a step, fits with {} to spare",
            bytes(memory.capacity_bytes.saturating_sub(memory.device_bytes))
        ),
    }
}

fn one(report: &Report) -> String {
    let mut text = format!("{}\n\n", report.name);
    facts(&mut text, report);
    if report.step_time_s.is_some() {
        breakdown(&mut text, report);
        memory(&mut text, report);
        stages(&mut text, report);
    }
    let _ = writeln!(text, "\n{}", verdict_line(report));
    text
}

fn facts(text: &mut String, report: &Report) {
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<14} {value}");
    };
    if let Some(step) = report.step_time_s {
        let interval = report.step_time_interval_s.map_or_else(String::new, |[low, high]| {
            format!("  (80 % interval {} to {})", seconds(low), seconds(high))
        });
        line("step time", format!("{}{interval}", seconds(step)));
    }
    if let Some(samples) = report.samples_per_s {
        let tokens = report
            .tokens_per_s_per_gpu
            .map_or_else(String::new, |tokens| format!(", {} tokens/s per GPU", significant(tokens)));
        line("throughput", format!("{} samples/s{tokens}", significant(samples)));
    }
    if let (Some(model), Some(hardware)) = (report.model_flops_utilization, report.hardware_flops_utilization)
    {
        line("utilization", format!("{:.1} % MFU, {:.1} % HFU", 100.0 * model, 100.0 * hardware));
    }
    if report.parameters.total > 0 {
        line("parameters", thousands(report.parameters.total));
    }
    if let Some(path) = &report.vehicle_path {
        line("path", format!("{} (placement: {})", path.path.join(" > "), path.placement));
        line(
            "serial formula",
            format!(
                "{:.4} s = compute {:.4} s + communication {:.4} s",
                path.serial_time_s, path.serial_compute_s, path.serial_communication_s
            ),
        );
    }
    let noun = if report.vehicle_path.is_some() || report.infeasible.is_some() { "vehicles" } else { "GPUs" };
    line(noun, report.gpus.to_string());
}

fn breakdown(text: &mut String, report: &Report) {
    let step = report.step_time_s.unwrap_or_default();
    let _ = writeln!(text, "\n  where the step goes (mean over ranks)");
    for (name, part) in report.time_breakdown_s.entries() {
        let share = if step > 0.0 { part / step } else { 0.0 };
        if part > 0.0 {
            let bar = "#".repeat((share * BAR as f64).round() as usize);
            let _ = writeln!(
                text,
                "  {:<23} {:>11} {:>6.1} %  {bar}",
                name.replace('_', " "),
                seconds(part),
                100.0 * share
            );
        }
    }
}

fn memory(text: &mut String, report: &Report) {
    let memory = &report.peak_memory;
    let _ = writeln!(
        text,
        "\n  peak memory: {} of {} on rank {}, {} into the step",
        bytes(memory.device_bytes),
        bytes(memory.capacity_bytes),
        memory.rank,
        seconds(memory.at_s)
    );
    for (name, &held) in &memory.breakdown_bytes {
        if held > 0 {
            let share = held as f64 / memory.capacity_bytes.max(1) as f64;
            let bar = "#".repeat(((share * BAR as f64).round() as usize).min(2 * BAR));
            let _ = writeln!(
                text,
                "  {:<23} {:>11} {:>6.1} %  {bar}",
                name.replace('_', " "),
                bytes(held),
                100.0 * share
            );
        }
    }
}

fn stages(text: &mut String, report: &Report) {
    if report.stages.len() < 2 {
        return;
    }
    let mut table = table(&["stage", "device", "layers", "peak", "in flight", "busy", "bubble", "sends"]);
    for stage in &report.stages {
        let percent = |share: f64| format!("{:.1} %", 100.0 * share);
        table.add_row([
            stage.stage.to_string(),
            stage.device.clone(),
            layers(&stage.layers),
            bytes(stage.peak_allocated_bytes),
            stage.in_flight_micro_batches.to_string(),
            percent(stage.busy_fraction),
            percent(stage.bubble_fraction),
            percent(stage.communication_fraction),
        ]);
    }
    right_align(&mut table, 3);
    let _ = writeln!(text, "\n{table}");
}

/// `block.0 to block.6 (7)`, or the one layer's name.
fn layers(names: &[String]) -> String {
    match names {
        [] => "none".to_owned(),
        [only] => only.clone(),
        [first, .., last] => format!("{first} to {last} ({})", names.len()),
    }
}

fn comparison(reports: &[&Report]) -> String {
    let mut table = table(&["scenario", "step time", "samples/s", "peak memory", "of", "verdict"]);
    for report in reports {
        let verdict = match (report.verdict, &report.infeasible) {
            (Verdict::Fits, _) => "fits",
            (Verdict::OutOfMemory, Some(_)) => "cannot be placed",
            (Verdict::OutOfMemory, None) => "out of memory",
        };
        table.add_row([
            report.name.clone(),
            report.step_time_s.map_or_else(|| "-".to_owned(), seconds),
            report.samples_per_s.map_or_else(|| "-".to_owned(), significant),
            bytes(report.peak_memory.device_bytes),
            bytes(report.peak_memory.capacity_bytes),
            verdict.to_owned(),
        ]);
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        if (1..=4).contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut text = format!("{table}\n");
    for report in reports {
        if report.verdict != Verdict::Fits {
            let _ = writeln!(text, "\n{}", verdict_line(report));
        }
    }
    text
}

/// Seconds with a fitting unit and four significant digits: `12.34 ms`.
pub(crate) fn seconds(value: f64) -> String {
    let (scaled, unit) = match value {
        v if v >= 1.0 || v == 0.0 => (v, "s"),
        v if v >= 1e-3 => (v * 1e3, "ms"),
        v => (v * 1e6, "us"),
    };
    format!("{} {unit}", significant(scaled))
}

/// Four significant digits, never in scientific form.
pub(crate) fn significant(value: f64) -> String {
    let decimals = match value.abs() {
        v if v >= 1000.0 || v == 0.0 => 0,
        v if v >= 100.0 => 1,
        v if v >= 10.0 => 2,
        v if v >= 1.0 => 3,
        _ => 4,
    };
    format!("{value:.decimals$}")
}

/// Bytes with a binary unit.
pub(crate) fn bytes(value: u64) -> String {
    steptime_models::Bytes(value).to_string()
}

/// `12,798,490`.
pub(crate) fn thousands(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
