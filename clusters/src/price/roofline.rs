//! The roofline (Williams, Waterman, Patterson 2009) with a fixed start:
//! `latency + max(FLOPs / (peak x fraction), bytes / (bandwidth x fraction))`.

use steptime_models::Bytes;

use super::{FactRef, Price};
use crate::fact::Constant;
use crate::gpu::Gpu;

/// The arithmetic side of a kernel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    /// FLOPs.
    pub(super) amount: f64,
    /// Peak of the format, FLOP/s.
    pub(super) peak: f64,
    /// Share of the peak that this kind of kernel reaches.
    pub(super) fraction: Constant,
}

/// Price of one kernel that does `work` and moves `bytes` at `memory` of the bandwidth.
pub(super) fn roofline(gpu: &Gpu, work: Option<Work>, bytes: Bytes, memory: Constant) -> Price {
    let arithmetic_s = work.map_or(0.0, |work| work.amount / (work.peak * work.fraction.value));
    let memory_s = memory_seconds(gpu, bytes, memory);
    let decides = match work {
        Some(work) if arithmetic_s >= memory_s => work.fraction,
        _ => memory,
    };
    Price {
        seconds: gpu.kernel_latency_s + arithmetic_s.max(memory_s),
        basis: decides.basis,
        fact: FactRef::Gpu(decides.fact),
    }
}

/// Time to move bytes at a share of the memory bandwidth, without the start of a kernel.
pub(super) fn memory_seconds(gpu: &Gpu, bytes: Bytes, fraction: Constant) -> f64 {
    bytes.0 as f64 / (gpu.memory_bandwidth * fraction.value)
}
