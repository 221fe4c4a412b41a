//! Kernels that only move memory, and copies between host and device.

use steptime_models::{Bytes, Dtype, MemoryBoundKind, Pass};

use super::gemm::in_cache;
use super::{FactRef, Price};
use crate::cluster::Host;
use crate::fact::{Basis, FactId};
use crate::gpu::{Gpu, Ground};

/// Spread of host copies: one link measured at several sizes and machines differs by about this much.
const COPY_ERROR: f64 = 0.1;

/// Threads whose instructions the four schedulers of a multiprocessor start in a clock, a warp of 32 each (CUDA C++ Programming
/// Guide, compute capabilities 7.0 to 10.0).
const THREADS_A_CLOCK: f64 = 128.0;
/// Share of the instructions that are arithmetic of 32-bit floats, which half as many lanes take twice as long for: what tells
/// GELU on an A100 (0.47 clocks a value and multiprocessor) from GELU on an H100 (0.40).
const FLOAT_INSTRUCTIONS: f64 = 0.2;
/// Share of those starts that kernels of element by element arithmetic use, waiting for operands in the others: GELU's 36
/// instructions in 16 bits (Vidur) at 0.40 clocks a value on an H100.
const STARTED: f64 = 0.7;
/// Threads of the blocks of norms, a block for each row (PyTorch, `layer_norm_kernel.cu`: 32 x 4).
const NORM_THREADS: f64 = 128.0;

/// A kernel that reads and writes `[read, written]` bytes: latency + the longer of its traffic / (bandwidth x fraction of the kind)
/// and its arithmetic. It is the traffic of one pass if `row` is zero; otherwise all is read once more as far as rows at work
/// do not stay in the second-level cache: as many as there are blocks on the multiprocessors, each with `row` bytes in and out.
pub(crate) fn of_rows(
    gpu: &Gpu,
    kind: MemoryBoundKind,
    [read, written]: [Bytes; 2],
    row: Bytes,
    instructions: u64,
) -> Price {
    let again = read.0 as f64 * read_again(gpu, row.0 as f64);
    let traffic = memory_bound(gpu, kind, read + written + Bytes(again as u64));
    let seconds = gpu.kernel_latency_s + arithmetic_seconds(gpu, instructions as f64);
    Price { seconds: traffic.seconds.max(seconds), ..traffic }
}

/// Share of what a kernel over rows of so many bytes, in and out, reads from memory once more; none for 0.
pub(crate) fn read_again(gpu: &Gpu, row: f64) -> f64 {
    if row <= 0.0 {
        return 0.0;
    }
    let blocks = f64::from(gpu.sms) * (gpu.threads_a_multiprocessor() / NORM_THREADS);
    1.0 - in_cache(blocks * row, gpu.l2.0 as f64)
}

/// Time that multiprocessors need for so many instructions of all threads together.
pub(crate) fn arithmetic_seconds(gpu: &Gpu, instructions: f64) -> f64 {
    let floats = FLOAT_INSTRUCTIONS * (THREADS_A_CLOCK / gpu.lanes()).max(1.0);
    let clocks = (1.0 - FLOAT_INSTRUCTIONS + floats) / (THREADS_A_CLOCK * STARTED);
    instructions * clocks / (f64::from(gpu.sms) * gpu.clock_hz)
}

/// Latency + bytes read and written / (bandwidth x fraction of the kind).
pub fn memory_bound(gpu: &Gpu, kind: MemoryBoundKind, traffic: Bytes) -> Price {
    let share = gpu.achievable.memory.of(kind);
    let seconds = gpu.kernel_latency_s + memory_seconds(gpu, traffic, kind);
    Ground::of(share.share, share.error).price(seconds)
}

/// Time to move bytes at the share of the bandwidth that a kind of kernel reaches, without the start of a kernel.
pub(crate) fn memory_seconds(gpu: &Gpu, bytes: Bytes, kind: MemoryBoundKind) -> f64 {
    bytes.0 as f64 / (gpu.memory_bandwidth * gpu.achievable.memory.of(kind).share.value)
}

/// Forward: reads and writes one row a token. Backward: fills the table's gradient with zeros, then reads one
/// row a token and adds it to a row of the gradient (read and written).
pub fn embedding(gpu: &Gpu, tokens: u64, width: u64, vocabulary: u64, pass: Pass, dtype: Dtype) -> Price {
    let rows = |count: u64| Bytes(count.saturating_mul(width).saturating_mul(dtype.bytes()));
    match pass {
        Pass::Forward => memory_bound(gpu, MemoryBoundKind::Indexing, rows(tokens.saturating_mul(2))),
        Pass::Backward => {
            let mut price = memory_bound(gpu, MemoryBoundKind::Indexing, rows(tokens.saturating_mul(3)));
            price.seconds +=
                gpu.kernel_latency_s + memory_seconds(gpu, rows(vocabulary), MemoryBoundKind::Fill);
            price
        }
    }
}

/// Parameter update: element by element over all states.
pub fn optimizer(gpu: &Gpu, parameters: u64, bytes_per_parameter: u64) -> Price {
    memory_bound(gpu, MemoryBoundKind::Elementwise, Bytes(parameters.saturating_mul(bytes_per_parameter)))
}

/// Latency + bytes / the host's bandwidth to one GPU, from page-locked or pageable memory.
pub fn host_copy(gpu: &Gpu, host: &Host, bytes: Bytes, pinned: bool) -> Price {
    let (bandwidth, what) = if pinned {
        (host.pinned_bandwidth, "host.pinned_bandwidth")
    } else {
        (host.pageable_bandwidth, "host.pageable_bandwidth")
    };
    let position = host.facts.iter().position(|fact| fact.what == what);
    Price {
        seconds: gpu.kernel_latency_s + bytes.0 as f64 / bandwidth,
        basis: position.map_or(Basis::DataSheet, |index| host.facts[index].basis),
        fact: FactRef::Host(FactId(position.unwrap_or(usize::MAX))),
        error: COPY_ERROR,
    }
}
