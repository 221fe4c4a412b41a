//! Kernels that only move memory, and copies between host and device.

use steptime_models::{Bytes, Dtype, MemoryBoundKind, Pass};

use super::{FactRef, Price};
use crate::cluster::Host;
use crate::fact::{Basis, FactId};
use crate::gpu::{Gpu, Ground};

/// Spread of host copies: one link measured at several sizes and machines differs by about this much.
const COPY_ERROR: f64 = 0.1;

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
