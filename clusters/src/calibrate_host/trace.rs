//! Reads traces of the PyTorch profiler (Kineto's JSON in Chrome's trace format) as a stream: of the events, which fill
//! gigabytes, only the few numbers are kept that tell when the host issued what and when the device ran it.

use std::fmt;
use std::io::Read;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use thiserror::Error;

/// Most launches that are kept of a trace: what comes after them is read and left out.
pub const MOST_LAUNCHES: usize = 1 << 20;

/// A trace that cannot be used.
#[derive(Debug, Error)]
pub enum TraceError {
    /// Not JSON, cut off, or unreadable.
    #[error("not a trace in JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// No event launches a kernel.
    #[error(
        "no event launches a kernel (category `cuda_runtime` or `cuda_driver`, name `cudaLaunchKernel` or the like); \
         profile with ProfilerActivity.CPU and ProfilerActivity.CUDA"
    )]
    NoLaunch,
    /// No kernel has the correlation id of a launch.
    #[error(
        "no event of category `kernel` has the correlation id of a launch; profile with ProfilerActivity.CUDA"
    )]
    NoKernel,
    /// The host was hardly ever late.
    #[error(
        "only {found} of {launches} launches found the device idle, and {needed} in one pass are needed: the trace is \
         bound by the device and says nothing of the host; profile a smaller batch"
    )]
    DeviceBound {
        /// Launches of one pass that did.
        found: usize,
        /// All launches.
        launches: usize,
        /// How many are needed.
        needed: usize,
    },
}

/// A call that starts work on the device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Launch {
    /// Thread of the host.
    pub(super) thread: u64,
    /// Start of the call, microseconds.
    pub(super) at: f64,
    /// Joins it to its kernel.
    pub(super) correlation: u64,
}

/// A span of time, microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Span {
    /// Thread of the host, or device.
    pub(super) place: u64,
    pub(super) start: f64,
    pub(super) end: f64,
    /// Joins a kernel to its launch; 0 elsewhere.
    pub(super) correlation: u64,
}

/// What is kept of a trace, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trace {
    pub(super) launches: Vec<Launch>,
    /// Kernels, copies and fills on the device.
    pub(super) kernels: Vec<Span>,
    /// Calls that wait for the device.
    pub(super) waits: Vec<Span>,
    /// What the autograd engine evaluates, by thread.
    pub(super) backward: Vec<Span>,
    /// Updates of the optimizer, by thread.
    pub(super) optimizer: Vec<Span>,
    /// Starts of the profiler's steps.
    pub(super) steps: Vec<f64>,
}

/// Calls that start work; names that begin so.
const LAUNCHES: [&str; 5] =
    ["cudaLaunch", "cuLaunchKernel", "cudaMemcpyAsync", "cudaMemsetAsync", "hipLaunchKernel"];
/// Calls that wait for the device, or for memory of it.
const WAITS: [&str; 9] = [
    "cudaStreamSynchronize",
    "cudaDeviceSynchronize",
    "cudaEventSynchronize",
    "cudaMemcpy",
    "cudaMalloc",
    "cudaFree",
    "cudaHostAlloc",
    "hipStreamSynchronize",
    "hipDeviceSynchronize",
];

impl Trace {
    /// Reads a trace: an object with `traceEvents`, or the array of events alone.
    ///
    /// # Errors
    /// [`TraceError::Json`] with line and column.
    pub fn read(reader: impl Read) -> Result<Self, TraceError> {
        let mut trace = Self::default();
        let mut json = serde_json::Deserializer::from_reader(reader);
        Document(&mut trace).deserialize(&mut json)?;
        json.end()?;
        Ok(trace)
    }

    fn keep(&mut self, event: &Event) {
        let (Some(start), Some(name)) = (event.ts.0, event.name.as_deref()) else { return };
        if !start.is_finite() {
            return;
        }
        let thread = mixed(event.pid.0.unwrap_or_default(), event.tid.0.unwrap_or_default());
        let correlation = event.args.0.correlation;
        let end = start + event.dur.0.filter(|duration| *duration >= 0.0).unwrap_or_default();
        let span = Span { place: thread, start, end, correlation: 0 };
        let is = |prefix: &&str| name.starts_with(prefix);
        match event.category() {
            Category::Runtime if LAUNCHES.iter().any(is) => {
                if let Some(correlation) = correlation.filter(|_| self.launches.len() < MOST_LAUNCHES) {
                    self.launches.push(Launch { thread, at: start, correlation });
                }
            }
            Category::Runtime if WAITS.iter().any(is) => self.waits.push(span),
            Category::Device => {
                let device = event.args.0.device.or(event.pid.0.map(|pid| pid as u64)).unwrap_or_default();
                if let Some(correlation) = correlation.filter(|_| self.kernels.len() < 2 * MOST_LAUNCHES) {
                    self.kernels.push(Span { place: device, correlation, ..span });
                }
            }
            Category::Operation if name.starts_with("autograd::engine::evaluate_function") => {
                self.backward.push(span);
            }
            Category::Operation if name.starts_with("Optimizer.step") => self.optimizer.push(span),
            Category::Operation if name.starts_with("ProfilerStep") => self.steps.push(start),
            _ => {}
        }
    }
}

/// One number for a process and a thread of it.
fn mixed(process: f64, thread: f64) -> u64 {
    (process as i64 as u64).rotate_left(32) ^ (thread as i64 as u64)
}

enum Category {
    Runtime,
    Device,
    Operation,
    Other,
}

/// One event; what is not named here is skipped without being kept.
#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    cat: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    ts: Number,
    #[serde(default)]
    dur: Number,
    #[serde(default)]
    pid: Number,
    #[serde(default)]
    tid: Number,
    #[serde(default)]
    args: Arguments,
}

impl Event {
    /// Names of categories have changed: `Kernel` and `Runtime` became `kernel` and `cuda_runtime`.
    fn category(&self) -> Category {
        match self.cat.as_deref().unwrap_or_default() {
            "cuda_runtime" | "cuda_driver" | "Runtime" => Category::Runtime,
            "kernel" | "gpu_memcpy" | "gpu_memset" | "Kernel" | "Memcpy" | "Memset" => Category::Device,
            "cpu_op" | "user_annotation" | "Operator" => Category::Operation,
            _ => Category::Other,
        }
    }
}

/// A number, also as text; anything else is none.
#[derive(Clone, Copy, Debug, Default)]
struct Number(Option<f64>);

/// Numbers among the arguments of an event.
#[derive(Clone, Copy, Debug, Default)]
struct Correlation {
    correlation: Option<u64>,
    device: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Arguments(Correlation);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberVisitor)
    }
}

struct NumberVisitor;

impl<'de> Visitor<'de> for NumberVisitor {
    type Value = Number;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_u64<E>(self, value: u64) -> Result<Number, E> {
        Ok(Number(Some(value as f64)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Number, E> {
        Ok(Number(Some(value as f64)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Number, E> {
        Ok(Number(Some(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Number, E> {
        Ok(Number(value.parse().ok()))
    }

    fn visit_unit<E>(self) -> Result<Number, E> {
        Ok(Number(None))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Number, E> {
        Ok(Number(None))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Number, A::Error> {
        while values.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Number(None))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut values: A) -> Result<Number, A::Error> {
        while values.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Number(None))
    }
}

impl<'de> Deserialize<'de> for Arguments {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ArgumentsVisitor)
    }
}

struct ArgumentsVisitor;

impl<'de> Visitor<'de> for ArgumentsVisitor {
    type Value = Arguments;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with the arguments of the event")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut values: A) -> Result<Arguments, A::Error> {
        let mut found = Correlation::default();
        while let Some(key) = values.next_key::<String>()? {
            let place = match key.as_str() {
                "correlation" => &mut found.correlation,
                "device" => &mut found.device,
                _ => {
                    values.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            let number = values.next_value::<Number>()?.0;
            *place = number.filter(|number| *number >= 0.0).map(|number| number as u64);
        }
        Ok(Arguments(found))
    }
}

/// The whole file.
struct Document<'a>(&'a mut Trace);

impl<'de> DeserializeSeed<'de> for Document<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Document<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with `traceEvents`, or an array of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut events: A) -> Result<(), A::Error> {
        while let Some(event) = events.next_element::<Event>()? {
            self.0.keep(&event);
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut values: A) -> Result<(), A::Error> {
        while let Some(key) = values.next_key::<String>()? {
            if key == "traceEvents" {
                values.next_value_seed(Document(&mut *self.0))?;
            } else {
                values.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}
