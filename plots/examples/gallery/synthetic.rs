//! Results made up for the gallery and the tests: believable shapes, no prediction.

use indexmap::IndexMap;
use steptime_scenarios::{
    Infeasible, MemoryPoint, OutOfMemory, Parameters, PeakMemory, Report, TIMELINE_SCHEMA, TimeBreakdown,
    Timeline, TimelineRank, TimelineSpan, ValidatedRow, Validation, Verdict,
};

pub(crate) const GIB: f64 = 1_073_741_824.0;

/// One span.
pub(crate) fn span(
    stream: u32,
    start_s: f64,
    end_s: f64,
    kind: &str,
    micro_batch: Option<u64>,
) -> TimelineSpan {
    TimelineSpan {
        stream,
        start_s,
        end_s,
        kind: kind.to_owned(),
        name: format!("{kind} block.0"),
        micro_batch,
        chunk: None,
    }
}

/// A rank without memory.
pub(crate) fn rank(number: u64, stage: u64, streams: &[&str], spans: Vec<TimelineSpan>) -> TimelineRank {
    TimelineRank {
        rank: number,
        stage,
        multiplicity: 1,
        device: "A100-SXM4-80GB".to_owned(),
        streams: streams.iter().map(|&name| name.to_owned()).collect(),
        spans,
        memory: Vec::new(),
        memory_categories: Vec::new(),
        reserved: Vec::new(),
        failed_request: None,
        capacity_bytes: (80.0 * GIB) as u64,
    }
}

/// A timeline of these ranks.
pub(crate) fn timeline(step_time_s: f64, ranks: Vec<TimelineRank>) -> Timeline {
    Timeline { schema: TIMELINE_SCHEMA.to_owned(), name: "gpt-18b, 1F1B".to_owned(), step_time_s, ranks }
}

/// What one stage of 1F1B does, in order: (backward?, micro-batch).
fn one_forward_one_backward(stages: usize, stage: usize, micro_batches: usize) -> Vec<(bool, usize)> {
    let warm_up = (stages - stage - 1).min(micro_batches);
    let mut order: Vec<(bool, usize)> = (0..warm_up).map(|m| (false, m)).collect();
    for m in 0..micro_batches {
        if m + warm_up < micro_batches {
            order.push((false, m + warm_up));
        }
        order.push((true, m));
    }
    order
}

/// A 1F1B pipeline: a forward lasts `unit` seconds, a backward twice that, of which `recompute` is the share
/// of a repeated forward; sends take a tenth of a unit.
pub(crate) fn pipeline(stages: usize, micro_batches: usize, unit: f64, recompute: bool) -> Timeline {
    let send = unit * 0.1;
    let mut done = vec![[vec![f64::NAN; micro_batches], vec![f64::NAN; micro_batches]]; stages];
    let mut next = vec![0; stages];
    let mut free = vec![0.0_f64; stages];
    let mut spans: Vec<Vec<TimelineSpan>> = vec![Vec::new(); stages];
    let orders: Vec<_> = (0..stages).map(|s| one_forward_one_backward(stages, s, micro_batches)).collect();
    let mut progress = true;
    while progress {
        progress = false;
        for s in 0..stages {
            let Some(&(backward, m)) = orders[s].get(next[s]) else {
                continue;
            };
            let ready = match (backward, s) {
                (false, 0) => 0.0,
                (false, _) => done[s - 1][0][m] + send,
                (true, _) if s + 1 == stages => done[s][0][m],
                (true, _) => done[s + 1][1][m] + send,
            };
            if ready.is_nan() {
                continue;
            }
            let start = ready.max(free[s]);
            let micro = Some(m as u64);
            let mut at = start;
            if backward && recompute {
                spans[s].push(span(0, at, at + unit, "recompute", micro));
                at += unit;
            }
            let length = if backward { 2.0 * unit } else { unit };
            // Two layers a stage: the figure joins them.
            let kind = if backward { "backward" } else { "forward" };
            spans[s].push(span(0, at, at + length / 2.0, kind, micro));
            spans[s].push(span(0, at + length / 2.0, at + length, kind, micro));
            at += length;
            let sends = if backward { s > 0 } else { s + 1 < stages };
            if sends {
                spans[s].push(span(1, at, at + send, "send_receive", micro));
            }
            done[s][usize::from(backward)][m] = at;
            free[s] = at;
            next[s] += 1;
            progress = true;
        }
    }
    let mut end = 0.0_f64;
    for s in 0..stages {
        let reduced = free[s] + unit * 1.5;
        spans[s].push(span(1, free[s] + 0.1 * unit, reduced, "all_reduce", None));
        spans[s].push(span(0, reduced, reduced + unit * 0.8, "optimizer", None));
        end = end.max(reduced + unit * 0.8);
    }
    let ranks = spans
        .into_iter()
        .enumerate()
        .map(|(s, spans)| rank(s as u64, s as u64, &["compute", "send_receive", "host"], spans));
    timeline(end, ranks.collect())
}

/// A data-parallel step of one GPU: overlapping buckets, recomputation, a host that issues kernels.
pub(crate) fn data_parallel(layers: u32) -> Timeline {
    let mut spans = Vec::new();
    let (f, b) = (1e-3, 2e-3);
    let mut at = 2e-3;
    spans.push(span(0, 0.0, at, "data_loading", None));
    for _ in 0..layers {
        spans.push(span(0, at, at + f * 0.96, "forward", Some(0)));
        at += f;
    }
    for layer in 0..layers {
        spans.push(span(0, at, at + f, "recompute", Some(0)));
        spans.push(span(0, at + f, at + f + b, "backward", Some(0)));
        at += f + b;
        if layer % 4 == 3 {
            spans.push(span(1, at, at + 9e-3, "all_reduce", None));
        }
    }
    spans.push(span(0, at, at + 9e-3, "waiting", None));
    spans.push(span(0, at + 9e-3, at + 14e-3, "optimizer", None));
    for i in 0..4000_u32 {
        let start = f64::from(i) * at / 4000.0;
        spans.push(span(2, start, start + at / 4000.0 * 0.4, "host", None));
    }
    timeline(at + 14e-3, vec![rank(0, 0, &["compute", "nccl", "host"], spans)])
}

/// The categories of a memory curve.
pub(crate) const CATEGORIES: [&str; 7] =
    ["parameters", "gradients", "optimizer_states", "activations", "buffers", "workspace", "context"];

/// A memory curve over a step of `step` seconds: `layers` layers, `scale` GiB of activations at the peak.
/// Buffers are always zero.
pub(crate) fn memory(step: f64, layers: u32, scale: f64, capacity_gib: f64) -> Timeline {
    let gib = |x: f64| (x * GIB) as u64;
    let mut points = Vec::new();
    let n = f64::from(layers);
    let mut push = |at: f64, gradients: f64, activations: f64, workspace: f64| {
        let bytes = [12.4, gradients, 18.6, activations, 0.0, workspace, 0.9].map(gib).to_vec();
        points.push(MemoryPoint { at_s: at, bytes });
    };
    for i in 0..=layers {
        let done = f64::from(i) / n;
        push(done * step * 0.3, 0.0, scale * done, if i % 2 == 0 { 1.1 } else { 1.6 });
    }
    for i in 0..=layers {
        let done = f64::from(i) / n;
        push(step * (0.32 + 0.58 * done), 6.2 * done, scale * (1.0 - done) + 0.4, 1.6);
    }
    push(step * 0.92, 6.2, 0.0, 2.4);
    push(step * 0.99, 0.0, 0.0, 1.1);
    let mut rank = rank(3, 3, &["compute"], Vec::new());
    rank.memory = points;
    rank.memory_categories = CATEGORIES.map(str::to_owned).to_vec();
    rank.capacity_bytes = gib(capacity_gib);
    timeline(step, vec![rank])
}

/// A report with this step time split over the parts, and this device memory.
pub(crate) fn report(name: &str, step: f64, device_gib: f64, capacity_gib: f64) -> Report {
    let gib = |x: f64| (x * GIB) as u64;
    let part = |share: f64| step * share;
    Report {
        schema: "steptime.report/1".to_owned(),
        name: name.to_owned(),
        verdict: Verdict::Fits,
        step_time_s: Some(step),
        step_time_interval_s: Some([step * 0.93, step * 1.08]),
        variability: None,
        samples_per_s: None,
        tokens_per_s: None,
        tokens_per_s_per_gpu: None,
        model_flops_utilization: None,
        hardware_flops_utilization: None,
        time_breakdown_s: TimeBreakdown {
            compute: part(0.55),
            exposed_communication: part(0.16),
            pipeline_bubble: part(0.11),
            host: part(0.08),
            data_loading: 0.0,
            optimizer: part(0.07),
            offload: 0.0,
            other: part(0.03),
        },
        end_to_end_s: None,
        input: None,
        peak_memory: PeakMemory {
            allocated_bytes: gib(device_gib * 0.9),
            reserved_bytes: gib(device_gib * 0.97),
            device_bytes: gib(device_gib),
            capacity_bytes: gib(capacity_gib),
            after_step_bytes: 0,
            rank: 0,
            at_s: step * 0.3,
            breakdown_bytes: IndexMap::new(),
            host: None,
        },
        out_of_memory: None,
        remedies: Vec::new(),
        infeasible: None,
        cost: None,
        stages: Vec::new(),
        vehicle_path: None,
        gpus: 4,
        parameters: Parameters { total: 0, trainable: 0, active: 0 },
        flops_per_step: 0.0,
        provenance: Vec::new(),
        version: "0.1.0".to_owned(),
        scenario_hash: None,
    }
}

/// The same for a run that does not fit.
pub(crate) fn out_of_memory(name: &str, step: Option<f64>, device_gib: f64, capacity_gib: f64) -> Report {
    let mut report = report(name, step.unwrap_or(0.0), device_gib, capacity_gib);
    report.verdict = Verdict::OutOfMemory;
    report.step_time_s = step;
    report.step_time_interval_s = None;
    report.out_of_memory = Some(OutOfMemory {
        rank: 0,
        at_s: 0.1,
        tensor: "block.3.attention.scores".to_owned(),
        requested_bytes: 1 << 30,
        short_by_bytes: 1 << 20,
        layer: Some("block.3".to_owned()),
        unusable_bytes: 0,
        allocated_bytes: 0,
        step: 0,
    });
    report
}

/// The same for a component model that cannot be placed.
pub(crate) fn infeasible(name: &str) -> Report {
    let mut report = out_of_memory(name, None, 0.0, 0.0);
    report.out_of_memory = None;
    report.infeasible = Some(Infeasible {
        partition: "encoder.2".to_owned(),
        required_bytes: 9 << 30,
        device: "vehicle 3".to_owned(),
        available_bytes: 8 << 30,
        short_by_bytes: 1 << 30,
        reason: "encoder.2 needs 9 GiB; vehicle 3 has 8 GiB".to_owned(),
    });
    report
}

/// Five variants of a model, one of which cannot be placed and one of which runs out of memory.
pub(crate) fn variants() -> Vec<Report> {
    let mut fast = report("VisionEncoder-S", 0.0412, 6.3, 24.0);
    fast.time_breakdown_s.pipeline_bubble = 0.0;
    fast.time_breakdown_s.compute += 0.0412 * 0.11;
    vec![
        fast,
        report("VisionEncoder-B", 0.118, 14.9, 24.0),
        report("VisionEncoder-L, ZeRO 2", 0.2475, 22.1, 24.0),
        out_of_memory("VisionEncoder-L, no partitioning", Some(0.231), 27.8, 24.0),
        infeasible("VisionEncoder-H"),
    ]
}

/// So many runs a suite, their steps `growth` times as long each, predicted within a fifth.
pub(crate) fn validation(suites: usize, runs: u32, shortest: f64, growth: f64) -> Validation {
    const GPUS: [&str; 9] = [
        "h100-80gb-sxm",
        "a100-80gb-sxm",
        "quadro-rtx-8000",
        "rtx-a5000",
        "v100-16gb-sxm2",
        "gb200",
        "b200",
        "l40s",
        "rtx-4090",
    ];
    let row = |(suite, run): (usize, u32)| {
        let measured = (0..run).fold(shortest, |step, _| step * growth);
        ValidatedRow {
            run_id: format!("run-{suite}-{run}"),
            suite: format!("suite-number-{suite}"),
            gpu: GPUS[(suite + run as usize) % GPUS.len()].to_owned(),
            measured_step_time_s: Some(measured),
            predicted_step_time_s: Some(measured * (0.8 + 0.4 * f64::from(run * 7 % 11) / 10.0)),
            ..ValidatedRow::default()
        }
    };
    let runs = (0..suites).flat_map(|suite| (0..runs).map(move |run| (suite, run)));
    Validation::new(runs.map(row).collect())
}
