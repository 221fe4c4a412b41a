//! What a sweep says of a point: one row.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::cost::CostReport;
use crate::report::{Report, TimeBreakdown, Verdict};

/// How a point ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PointVerdict {
    /// It runs and fits.
    Fits,
    /// It does not fit into memory.
    OutOfMemory,
    /// The scenario cannot be; the reason says why.
    Refused,
}

impl PointVerdict {
    /// The word of the tables.
    pub fn word(self) -> &'static str {
        match self {
            Self::Fits => "fits",
            Self::OutOfMemory => "out_of_memory",
            Self::Refused => "refused",
        }
    }
}

/// One point and what came of it. Values that are not known are null.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SweepRow {
    /// Number of the point, from 0.
    pub point: u64,
    /// The axes' values.
    pub values: IndexMap<String, Json>,
    /// How it ended.
    pub verdict: PointVerdict,
    /// Seconds a step.
    pub step_time_s: Option<f64>,
    /// 80 % interval of the step time, seconds.
    pub step_time_interval_s: Option<[f64; 2]>,
    /// Samples a second.
    pub samples_per_s: Option<f64>,
    /// Tokens a second.
    pub tokens_per_s: Option<f64>,
    /// Tokens a second and GPU.
    pub tokens_per_s_per_gpu: Option<f64>,
    /// Model FLOPs over peak.
    pub model_flops_utilization: Option<f64>,
    /// Executed FLOPs over peak.
    pub hardware_flops_utilization: Option<f64>,
    /// GPUs or vehicles of the job.
    pub gpus: Option<u64>,
    /// Where the step goes, seconds.
    pub time_breakdown_s: Option<TimeBreakdown>,
    /// Peak bytes in live tensors.
    pub peak_allocated_bytes: Option<u64>,
    /// Peak bytes held by the allocator.
    pub peak_reserved_bytes: Option<u64>,
    /// Peak bytes in use on the device.
    pub peak_device_bytes: Option<u64>,
    /// Bytes that the device has.
    pub capacity_bytes: Option<u64>,
    /// Money and energy.
    pub cost: Option<CostReport>,
    /// Why the point was refused or does not fit.
    pub reason: Option<String>,
}

impl SweepRow {
    /// The row of a point that was played.
    pub(super) fn played(point: u64, values: IndexMap<String, Json>, report: &Report) -> Self {
        let memory = &report.peak_memory;
        let placed = report.step_time_s.is_some();
        Self {
            point,
            values,
            verdict: match report.verdict {
                Verdict::Fits => PointVerdict::Fits,
                Verdict::OutOfMemory => PointVerdict::OutOfMemory,
            },
            step_time_s: report.step_time_s,
            step_time_interval_s: report.step_time_interval_s,
            samples_per_s: report.samples_per_s,
            tokens_per_s: report.tokens_per_s,
            tokens_per_s_per_gpu: report.tokens_per_s_per_gpu,
            model_flops_utilization: report.model_flops_utilization,
            hardware_flops_utilization: report.hardware_flops_utilization,
            gpus: Some(report.gpus),
            time_breakdown_s: placed.then_some(report.time_breakdown_s),
            peak_allocated_bytes: Some(memory.allocated_bytes),
            peak_reserved_bytes: Some(memory.reserved_bytes),
            peak_device_bytes: Some(memory.device_bytes),
            capacity_bytes: Some(memory.capacity_bytes),
            cost: report.cost.clone(),
            reason: shortage(report),
        }
    }

    /// The row of a point that cannot be.
    pub(super) fn refused(point: u64, values: IndexMap<String, Json>, reason: String) -> Self {
        Self {
            point,
            values,
            verdict: PointVerdict::Refused,
            step_time_s: None,
            step_time_interval_s: None,
            samples_per_s: None,
            tokens_per_s: None,
            tokens_per_s_per_gpu: None,
            model_flops_utilization: None,
            hardware_flops_utilization: None,
            gpus: None,
            time_breakdown_s: None,
            peak_allocated_bytes: None,
            peak_reserved_bytes: None,
            peak_device_bytes: None,
            capacity_bytes: None,
            cost: None,
            reason: Some(reason),
        }
    }
}

/// What does not fit, in words.
fn shortage(report: &Report) -> Option<String> {
    if let Some(infeasible) = &report.infeasible {
        return Some(infeasible.reason.clone());
    }
    report.out_of_memory.as_ref().map(|oom| {
        let layer = oom.layer.as_ref().map_or_else(String::new, |layer| format!(" of {layer}"));
        format!(
            "rank {}: {}{layer} asks for {} bytes, {} bytes short",
            oom.rank, oom.tensor, oom.requested_bytes, oom.short_by_bytes
        )
    })
}

/// Columns that come after those of the axes.
const COLUMNS: [&str; 33] = [
    "verdict",
    "step_time_s",
    "step_time_low_s",
    "step_time_high_s",
    "samples_per_s",
    "tokens_per_s",
    "tokens_per_s_per_gpu",
    "model_flops_utilization",
    "hardware_flops_utilization",
    "gpus",
    "compute_s",
    "exposed_communication_s",
    "pipeline_bubble_s",
    "host_s",
    "data_loading_s",
    "optimizer_s",
    "offload_s",
    "other_s",
    "peak_allocated_bytes",
    "peak_reserved_bytes",
    "peak_device_bytes",
    "capacity_bytes",
    "spare_bytes",
    "money_per_hour",
    "money_per_step",
    "money_per_million_tokens",
    "energy_per_step_j",
    "tokens_per_joule",
    "goodput",
    "finish_s",
    "finish_money",
    "finish_energy_j",
    "reason",
];

/// The rows as comma-separated values: `point`, the axes, and the same columns whatever the sweep is about. What is not
/// known is empty; text is quoted where it must be (RFC 4180).
pub fn sweep_csv(axes: &[String], rows: &[SweepRow]) -> String {
    let mut text = String::new();
    let header = std::iter::once("point").chain(axes.iter().map(String::as_str)).chain(COLUMNS);
    line(&mut text, header.map(str::to_owned));
    for row in rows {
        let values = axes.iter().map(|axis| row.values.get(axis).map_or_else(String::new, cell));
        line(&mut text, std::iter::once(row.point.to_string()).chain(values).chain(results(row)));
    }
    text
}

/// Cells of the columns that every sweep has.
fn results(row: &SweepRow) -> Vec<String> {
    let real = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
    let whole = |value: Option<u64>| value.map_or_else(String::new, |value| value.to_string());
    let interval = row.step_time_interval_s;
    let spare = row.capacity_bytes.zip(row.peak_device_bytes).map(|(has, uses)| has.saturating_sub(uses));
    let mut cells = vec![row.verdict.word().to_owned(), real(row.step_time_s)];
    cells.extend([real(interval.map(|ends| ends[0])), real(interval.map(|ends| ends[1]))]);
    cells.extend([real(row.samples_per_s), real(row.tokens_per_s), real(row.tokens_per_s_per_gpu)]);
    cells.extend([real(row.model_flops_utilization), real(row.hardware_flops_utilization), whole(row.gpus)]);
    let parts = row.time_breakdown_s;
    let unknown = TimeBreakdown::default();
    cells.extend(
        unknown.entries().iter().enumerate().map(|(index, _)| real(parts.map(|it| it.entries()[index].1))),
    );
    cells.extend([whole(row.peak_allocated_bytes), whole(row.peak_reserved_bytes)]);
    cells.extend([whole(row.peak_device_bytes), whole(row.capacity_bytes), whole(spare)]);
    let cost = row.cost.as_ref();
    let finish = cost.and_then(|cost| cost.to_finish);
    cells.extend([real(cost.map(|cost| cost.per_hour)), real(cost.map(|cost| cost.per_step))]);
    cells.extend([
        real(cost.and_then(|cost| cost.per_million_tokens)),
        real(cost.and_then(|cost| cost.energy_per_step_j)),
    ]);
    cells.extend([
        real(cost.and_then(|cost| cost.tokens_per_joule)),
        real(cost.and_then(|cost| cost.goodput)),
    ]);
    cells.extend([real(finish.map(|finish| finish.time_s)), real(finish.map(|finish| finish.money))]);
    cells.push(real(finish.and_then(|finish| finish.energy_j)));
    cells.push(row.reason.clone().unwrap_or_default());
    cells
}

/// A value of an axis: text without quotes, everything else as JSON.
fn cell(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn line(text: &mut String, cells: impl IntoIterator<Item = String>) {
    for (index, cell) in cells.into_iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        if cell.contains([',', '"', '\n', '\r']) {
            text.push('"');
            text.push_str(&cell.replace('"', "\"\""));
            text.push('"');
        } else {
            text.push_str(&cell);
        }
    }
    text.push('\n');
}
