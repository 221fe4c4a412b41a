//! Results as people read them, within 80 columns.

use std::fmt::Write;

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table, presets};
use steptime_scenarios::{CostReport, OutOfMemory, Report, Verdict};

/// Columns of a terminal that every table fits.
const COLUMNS: u16 = 80;
/// Columns before the values of a run's facts.
const FACTS: usize = 17;
/// Columns of a bar in the breakdown.
const BAR: usize = 24;

/// A bar of a share; one that is more than the whole ends in an arrow.
fn bar(share: f64) -> String {
    let full = "#".repeat((share.min(1.0) * BAR as f64).round() as usize);
    if share > 1.0 { full + ">" } else { full }
}

/// Words in lines that fit the terminal, all but the first indented.
fn wrapped(words: &str, indent: usize) -> String {
    let room = usize::from(COLUMNS) - indent;
    let mut text = String::new();
    let mut used = 0;
    for word in words.split(' ') {
        let wide = word.chars().count();
        if used > 0 && used + 1 + wide > room {
            text += &format!("\n{}", " ".repeat(indent));
            used = 0;
        } else if used > 0 {
            text.push(' ');
            used += 1;
        }
        text += word;
        used += wide;
    }
    text
}

/// Everything about one run, or a comparison of several.
pub(crate) fn reports(reports: &[&Report]) -> String {
    let text = match reports {
        [report] => one(report),
        several => comparison(several),
    };
    trimmed(&text)
}

/// The text without spaces at the ends of its lines.
pub(crate) fn trimmed(text: &str) -> String {
    text.lines().flat_map(|line| [line.trim_end(), "\n"]).collect()
}

/// A table with a plain header line and no frame.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.to_vec());
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(COLUMNS);
    table
}

/// Keeps the names in the first column whole: other columns are wrapped in their place.
pub(crate) fn whole_names(table: &mut Table) {
    if let Some(names) = table.column_mut(0) {
        names.set_constraint(ColumnConstraint::ContentWidth);
    }
}

/// Sets the columns from `first` on flush right, as numbers are read.
pub(crate) fn right_align(table: &mut Table, first: usize) {
    for column in table.column_iter_mut().skip(first) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

/// What an allocation that does not fit asks for.
pub(crate) fn shortage(oom: &OutOfMemory) -> String {
    format!("{} asks for {}, {} short", oom.tensor, bytes(oom.requested_bytes), bytes(oom.short_by_bytes))
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
        (Verdict::OutOfMemory, Some(oom)) => {
            format!("{name}: out of memory on rank {} at {}: {}", oom.rank, seconds(oom.at_s), shortage(oom))
        }
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
        host_memory(&mut text, report);
        stages(&mut text, report);
    }
    remedies(&mut text, report);
    let _ = writeln!(text, "\n{}", verdict_line(report));
    text
}

/// Changes under which the job would fit.
fn remedies(text: &mut String, report: &Report) {
    if report.remedies.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n  it would fit with");
    for remedy in &report.remedies {
        let options: Vec<String> = remedy.set.iter().map(|key| format!("--set {}", quoted(key))).collect();
        let _ = writeln!(text, "  {}", options.join(" "));
        let (step, spare) = (seconds(remedy.step_time_s), bytes(remedy.spare_bytes));
        let _ = writeln!(text, "    {step} a step, {spare} to spare");
    }
}

/// An option that a shell would take apart, in quotes.
fn quoted(option: &str) -> String {
    let plain = option.chars().all(|c| c.is_ascii_alphanumeric() || "._=-".contains(c));
    if plain { option.to_owned() } else { format!("'{option}'") }
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
    if let Some(varied) = report.variability {
        let step = varied.step_time_s;
        let low_high = format!("{} to {}", seconds(step.p10), seconds(step.p90));
        line("of its steps", format!("{low_high} (P10 to P90 of {})", varied.repetitions));
        let device = varied.peak_device_bytes;
        if device.p10 < device.p90 {
            line("device memory", format!("{} to {} in them", bytes(device.p10), bytes(device.p90)));
        }
        if varied.out_of_memory_fraction > 0.0 {
            let share = significant(100.0 * varied.out_of_memory_fraction);
            line("too little in", format!("{share} % of the steps"));
        }
    }
    if let Some(samples) = report.samples_per_s {
        let tokens = report
            .tokens_per_s_per_gpu
            .map_or_else(String::new, |tokens| format!(", {} tokens/s per GPU", significant(tokens)));
        line("throughput", format!("{} samples/s{tokens}", significant(samples)));
    }
    if let Some(input) = report.input {
        let rate = input
            .loader_samples_per_s
            .map_or_else(String::new, |rate| format!(", then at most {} samples/s", significant(rate)));
        line("loader", format!("first batch after {}{rate}", seconds(input.first_batch_s)));
    }
    if let Some(epoch) = report.end_to_end_s {
        line("epoch", seconds(epoch));
    }
    if let (Some(model), Some(hardware)) = (report.model_flops_utilization, report.hardware_flops_utilization)
    {
        line("utilization", format!("{:.1} % MFU, {:.1} % HFU", 100.0 * model, 100.0 * hardware));
    }
    if report.parameters.total > 0 {
        line("parameters", thousands(report.parameters.total));
    }
    if let Some(path) = &report.vehicle_path {
        line("placement", path.placement.clone());
        line("path", path.path.join(" > "));
        for (vehicle, partitions) in &path.assignment {
            let held = if partitions.is_empty() { "nothing".to_owned() } else { partitions.join(", ") };
            line(&format!("  {vehicle} holds"), wrapped(&held, FACTS));
        }
        line(
            "serial formula",
            format!(
                "{:.4} s = {:.4} s compute + {:.4} s transfers",
                path.serial_time_s, path.serial_compute_s, path.serial_communication_s
            ),
        );
    }
    if let Some(cost) = &report.cost {
        costs(&mut line, cost);
    }
    let noun = if report.vehicle_path.is_some() || report.infeasible.is_some() { "vehicles" } else { "GPUs" };
    line(noun, report.gpus.to_string());
}

/// Money, energy, and the whole run.
fn costs(line: &mut dyn FnMut(&str, String), cost: &CostReport) {
    let currency = &cost.currency;
    if cost.per_hour > 0.0 {
        let tokens = cost.per_million_tokens.map_or_else(String::new, |money| {
            format!(", {} {currency} a million tokens", significant(money))
        });
        line("cost", format!("{} {currency} an hour{tokens}", significant(cost.per_hour)));
    }
    if let (Some(power), Some(energy)) = (cost.power_w, cost.energy_per_step_j) {
        let tokens = cost
            .tokens_per_joule
            .map_or_else(String::new, |tokens| format!(", {} tokens/J", significant(tokens)));
        line(
            "energy",
            format!("{} kW, {} kJ a step{tokens}", significant(power / 1e3), significant(energy / 1e3)),
        );
    }
    if let Some(goodput) = cost.goodput {
        line("goodput", format!("{:.2} % by the closed form", 100.0 * goodput));
    }
    if let Some(finish) = cost.to_finish {
        let energy = finish
            .energy_j
            .map_or_else(String::new, |joules| format!(", {} MWh", significant(joules / 3.6e9)));
        let money = if finish.money > 0.0 {
            format!(", {} {currency}", significant(finish.money))
        } else {
            String::new()
        };
        let (steps, days) = (significant(finish.steps), significant(finish.time_s / 86_400.0));
        line("to the end", format!("{steps} steps, {days} days{money}{energy}"));
    }
}

fn breakdown(text: &mut String, report: &Report) {
    let step = report.step_time_s.unwrap_or_default();
    let _ = writeln!(text, "\n  where the step goes (mean over ranks)");
    for (name, part) in report.time_breakdown_s.entries() {
        let share = if step > 0.0 { part / step } else { 0.0 };
        // What rounding leaves of a part that is none is not worth a line.
        if share > 1e-9 {
            let bar = bar(share);
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
            let bar = bar(share);
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

/// What hosts and drives hold, where anything is offloaded.
fn host_memory(text: &mut String, report: &Report) {
    let Some(host) = &report.peak_memory.host else { return };
    let _ = writeln!(
        text,
        "\n  host memory: {} of {} on node {}, {} of it page-locked",
        bytes(host.peak_bytes),
        bytes(host.capacity_bytes),
        host.node,
        bytes(host.pinned_bytes)
    );
    for (name, &held) in &host.breakdown_bytes {
        let share = held as f64 / host.capacity_bytes.max(1) as f64;
        let bar = bar(share);
        let line =
            format!("{:<23} {:>11} {:>6.1} %  {bar}", name.replace('_', " "), bytes(held), 100.0 * share);
        let _ = writeln!(text, "  {line}");
    }
    if let (Some(held), Some(capacity)) = (host.nvme_bytes, host.nvme_capacity_bytes) {
        let _ = writeln!(text, "  on drives: {} of {}", bytes(held), bytes(capacity));
    }
}

fn stages(text: &mut String, report: &Report) {
    if report.stages.len() < 2 {
        return;
    }
    // GPUs of a job are all alike; vehicles are not.
    let alike = report.stages.iter().all(|stage| stage.device == report.stages[0].device);
    let mut table = table(&["stage", "layers", "allocated", "in flight", "busy", "bubble", "transfers"]);
    for stage in &report.stages {
        let percent = |share: f64| format!("{:.1} %", 100.0 * share);
        let name = if alike { stage.stage.to_string() } else { format!("{} {}", stage.stage, stage.device) };
        table.add_row([
            name,
            // What a vehicle holds stands in the path above.
            if alike { layers(&stage.layers) } else { stage.layers.len().to_string() },
            bytes(stage.peak_allocated_bytes),
            stage.in_flight_micro_batches.to_string(),
            percent(stage.busy_fraction),
            percent(stage.bubble_fraction),
            percent(stage.communication_fraction),
        ]);
    }
    right_align(&mut table, 2);
    let _ = writeln!(text, "\n{table}");
}

/// `block.0..block.6`, or the one layer's name.
fn layers(names: &[String]) -> String {
    match names {
        [] => "none".to_owned(),
        [only] => only.clone(),
        [first, .., last] => format!("{first}..{last}"),
    }
}

fn comparison(reports: &[&Report]) -> String {
    let mut table = table(&["scenario", "step time", "peak memory", "verdict"]);
    for report in reports {
        let memory = &report.peak_memory;
        let verdict = match (report.verdict, &report.infeasible) {
            (Verdict::Fits, _) => "fits",
            (Verdict::OutOfMemory, Some(_)) => "infeasible",
            (Verdict::OutOfMemory, None) => "out of memory",
        };
        table.add_row([
            report.name.clone(),
            report.step_time_s.map_or_else(|| "-".to_owned(), seconds),
            format!("{:.2} of {:.2} GiB", gib(memory.device_bytes), gib(memory.capacity_bytes)),
            verdict.to_owned(),
        ]);
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        if (1..=2).contains(&index) {
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

/// In units of 2^30 bytes.
fn gib(value: u64) -> f64 {
    steptime_models::Bytes(value).gib()
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
