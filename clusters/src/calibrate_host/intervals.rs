//! Intervals between launches while the device waits for the host.

use super::trace::{Launch, Span, Trace, TraceError};
use super::{HostConstant, HostFit};
use crate::cluster::ExecutionStyle;

/// Fewer intervals of a pass than this say nothing about it.
pub const FEWEST_INTERVALS: usize = 20;
/// Intervals of more than so many medians hold something else than issuing: loading of data, logging, collection of
/// garbage.
const OUTLIER: f64 = 10.0;

/// Times of one kind, seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Intervals {
    /// How many.
    pub count: usize,
    /// How many more were left out, being longer than ten medians.
    pub outliers: usize,
    /// Mean: so many operations times this is the time that the host takes for them.
    pub mean_s: f64,
    /// Middle.
    pub median_s: f64,
    /// A tenth is shorter.
    pub p10_s: f64,
    /// A tenth is longer.
    pub p90_s: f64,
}

impl Intervals {
    /// Of times in microseconds; `None` for too few.
    fn of(mut times: Vec<f64>) -> Option<Self> {
        times.sort_by(f64::total_cmp);
        let middle = times.get(times.len() / 2).copied()?;
        let all = times.len();
        times.retain(|time| *time <= OUTLIER * middle);
        let count = times.len();
        if count < FEWEST_INTERVALS {
            return None;
        }
        let at = |share: f64| times.get((share * count as f64) as usize).map_or(0.0, |time| time * 1e-6);
        Some(Self {
            count,
            outliers: all - count,
            mean_s: times.iter().sum::<f64>() / count as f64 * 1e-6,
            median_s: at(0.5),
            p10_s: at(0.1),
            p90_s: at(0.9),
        })
    }

    fn constant(&self, key: &'static str, what: &str) -> HostConstant {
        let Self { count, median_s, p10_s, p90_s, .. } = self;
        let [median, p10, p90] = [median_s, p10_s, p90_s].map(|seconds| seconds * 1e6);
        HostConstant {
            key,
            seconds: self.mean_s,
            source: format!(
                "Mean of {count} {what}: median {median:.2} us, 80 % from {p10:.2} to {p90:.2} us"
            ),
        }
    }
}

/// A kernel that begins after less than so many times the shortest delay of the trace did not queue behind another.
const SOON: f64 = 1.5;

/// What a trace tells about its host.
#[derive(Clone, Debug, PartialEq)]
pub struct HostTimes {
    /// Launches that were read.
    pub launches: usize,
    /// Those that found the device idle.
    pub idle: usize,
    /// From launch to launch in forward.
    pub forward: Option<Intervals>,
    /// The same in backward.
    pub backward: Option<Intervals>,
    /// From the start of a launch to the start of its kernel on an idle device.
    pub launch_latency: Option<Intervals>,
    /// From the end of the last kernel to the end of the call that waited for it.
    pub sync_latency: Option<Intervals>,
}

/// What the host of a trace spends between launches. An interval counts if the device waited for the later launch: its
/// work was done when the call began, or the kernel began hardly later than the fastest one of the trace. Besides, no call may wait for the device in between, and both launches must belong to the same step and pass; launches of the optimizer
/// belong to none.
///
/// # Errors
/// [`TraceError`] when launches or kernels are missing, or too few launches found the device idle.
pub fn from_trace(trace: &Trace, style: ExecutionStyle) -> Result<(HostTimes, HostFit), TraceError> {
    if trace.launches.is_empty() {
        return Err(TraceError::NoLaunch);
    }
    let device = Device::of(trace);
    let (mut forward, mut backward, mut latency) = (Vec::new(), Vec::new(), Vec::new());
    let (mut idle, mut matched) = (0, 0);
    let mut launches = trace.launches.clone();
    launches.sort_by(|a, b| a.thread.cmp(&b.thread).then(a.at.total_cmp(&b.at)));
    let host = Host::of(trace);
    let delays =
        launches.iter().filter_map(|launch| Some(device.kernel(launch.correlation)?.start - launch.at));
    let floor = delays.filter(|delay| *delay > 0.0).fold(f64::INFINITY, f64::min);
    let mut before: Option<Launch> = None;
    for launch in launches {
        let Some(kernel) = device.kernel(launch.correlation) else { continue };
        matched += 1;
        let soon = kernel.start > kernel.idle_since && kernel.start - launch.at <= SOON * floor;
        let waited = launch.at >= kernel.idle_since || soon;
        if waited {
            idle += 1;
            latency.push((kernel.start - launch.at).max(0.0));
        }
        let pair = before.replace(launch).filter(|before| before.thread == launch.thread && waited);
        let Some(before) = pair.filter(|before| !host.interrupted(before.at, launch.at)) else { continue };
        match (host.pass(&before), host.pass(&launch)) {
            (Pass::Forward, Pass::Forward) => forward.push(launch.at - before.at),
            (Pass::Backward, Pass::Backward) => backward.push(launch.at - before.at),
            _ => {}
        }
    }
    if matched == 0 {
        return Err(TraceError::NoKernel);
    }
    let found = forward.len().max(backward.len());
    let mut times = HostTimes {
        launches: trace.launches.len(),
        idle,
        forward: None,
        backward: None,
        launch_latency: Intervals::of(latency),
        sync_latency: Intervals::of(device.after_waits(&trace.waits)),
    };
    if style == ExecutionStyle::Eager {
        times.forward = Intervals::of(forward);
        times.backward = Intervals::of(backward);
    } else {
        forward.append(&mut backward);
        times.forward = Intervals::of(forward);
    }
    if times.forward.is_none() && times.backward.is_none() {
        let launches = trace.launches.len();
        return Err(TraceError::DeviceBound { found, launches, needed: FEWEST_INTERVALS });
    }
    let fit = constants(&times, style);
    Ok((times, fit))
}

fn constants(times: &HostTimes, style: ExecutionStyle) -> HostFit {
    let key = match style {
        ExecutionStyle::Eager => "eager_forward_launch",
        ExecutionStyle::Compiled => "compiled_launch",
        ExecutionStyle::CudaGraphs => "cuda_graphs_launch",
    };
    let kinds = [
        (key, times.forward, "intervals between launches while the device waited"),
        (
            "eager_backward_launch",
            times.backward,
            "intervals between launches of backward while the device waited",
        ),
        ("sync_latency", times.sync_latency, "returns from waiting for the device"),
    ];
    let constant = |(key, found, what): (&'static str, Option<Intervals>, &str)| {
        found.filter(|times| times.mean_s > 0.0).map(|times| times.constant(key, what))
    };
    HostFit { constants: kinds.into_iter().filter_map(constant).collect() }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    Forward,
    Backward,
    Other,
}

/// What ran on the host besides launches.
struct Host {
    /// Starts of calls that waited, and of the profiler's steps.
    breaks: Vec<f64>,
    backward: Vec<Span>,
    optimizer: Vec<Span>,
}

impl Host {
    fn of(trace: &Trace) -> Self {
        let mut breaks: Vec<f64> =
            trace.waits.iter().map(|wait| wait.start).chain(trace.steps.iter().copied()).collect();
        breaks.sort_by(f64::total_cmp);
        Self { breaks, backward: sorted(&trace.backward), optimizer: sorted(&trace.optimizer) }
    }

    fn interrupted(&self, from: f64, to: f64) -> bool {
        let next = self.breaks.partition_point(|at| *at < from);
        self.breaks.get(next).is_some_and(|at| *at <= to)
    }

    fn pass(&self, launch: &Launch) -> Pass {
        if within(&self.optimizer, launch) {
            Pass::Other
        } else if within(&self.backward, launch) {
            Pass::Backward
        } else {
            Pass::Forward
        }
    }
}

fn sorted(spans: &[Span]) -> Vec<Span> {
    let mut spans = spans.to_vec();
    spans.sort_by(|a, b| a.place.cmp(&b.place).then(a.start.total_cmp(&b.start)));
    spans
}

/// Whether one of the spans, sorted by place and start, holds the launch. They do not lie within each other.
fn within(spans: &[Span], launch: &Launch) -> bool {
    let after = spans.partition_point(|span| {
        (span.place, span.start.total_cmp(&launch.at)) <= (launch.thread, std::cmp::Ordering::Equal)
    });
    let last = after.checked_sub(1).and_then(|index| spans.get(index));
    last.is_some_and(|span| span.place == launch.thread && span.end >= launch.at)
}

/// A kernel, and since when the device had nothing else to do.
#[derive(Clone, Copy)]
struct Kernel {
    correlation: u64,
    start: f64,
    idle_since: f64,
}

/// What ran on the devices.
struct Device {
    /// By correlation id.
    kernels: Vec<Kernel>,
    /// Ends, ascending.
    ends: Vec<f64>,
}

impl Device {
    fn of(trace: &Trace) -> Self {
        let mut kernels = Vec::with_capacity(trace.kernels.len());
        let mut busy: Option<(u64, f64)> = None;
        for span in sorted(&trace.kernels) {
            let until = busy.filter(|(device, _)| *device == span.place).map(|(_, end)| end);
            // What the device did before the first kernel of the trace is not known.
            let idle_since = until.unwrap_or(f64::INFINITY);
            kernels.push(Kernel { correlation: span.correlation, start: span.start, idle_since });
            busy = Some((span.place, until.map_or(span.end, |end| end.max(span.end))));
        }
        kernels.sort_by_key(|kernel| kernel.correlation);
        let mut ends: Vec<f64> = trace.kernels.iter().map(|span| span.end).collect();
        ends.sort_by(f64::total_cmp);
        Self { kernels, ends }
    }

    fn kernel(&self, correlation: u64) -> Option<Kernel> {
        let index = self.kernels.binary_search_by_key(&correlation, |kernel| kernel.correlation).ok()?;
        self.kernels.get(index).copied()
    }

    /// How long calls took to return after the last kernel that ended while they waited.
    fn after_waits(&self, waits: &[Span]) -> Vec<f64> {
        let last = |wait: &Span| {
            let index = self.ends.partition_point(|end| *end <= wait.end).checked_sub(1)?;
            let end = self.ends.get(index).copied()?;
            (end >= wait.start).then_some(wait.end - end)
        };
        waits.iter().filter_map(last).collect()
    }
}
