//! What an operation costs on a GPU: one plain function for each kind of kernel.

pub(crate) mod attention;
mod convolution;
pub(crate) mod gemm;
pub(crate) mod memory;
#[cfg(test)]
mod tests;

use steptime_models::{Bytes, Dtype, Flops, Kernel};
use thiserror::Error;

pub use self::attention::attention;
pub use self::convolution::convolution;
pub use self::gemm::{GemmShape, gemm};
pub use self::memory::{embedding, host_copy, memory_bound, optimizer};
use crate::cluster::Host;
use crate::fact::{Basis, Fact, FactId};
use crate::gpu::{Arithmetic, Gpu, Ground, format_name};

/// Whose list holds the fact that a price rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FactRef {
    /// [`Gpu::facts`].
    Gpu(FactId),
    /// [`Host::facts`].
    Host(FactId),
}

/// The duration of an operation on the device and what the number rests on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Price {
    /// From the start of the first to the end of the last kernel, seconds.
    pub seconds: f64,
    /// How strong its ground is.
    pub basis: Basis,
    /// The constant that decides it.
    pub fact: FactRef,
    /// Relative error that 80 % of operations of its kind stay below, 0.1 being 10 %.
    pub error: f64,
}

impl Ground {
    /// A price on this ground.
    pub(crate) fn price(&self, seconds: f64) -> Price {
        Price { seconds, basis: self.basis, fact: FactRef::Gpu(self.fact), error: self.error }
    }
}

impl Price {
    /// The fact that decides the price, for the GPU and host that it was asked for.
    pub fn fact<'a>(&self, gpu: &'a Gpu, host: &'a Host) -> Option<&'a Fact> {
        match self.fact {
            FactRef::Gpu(id) => gpu.facts.get(id.0),
            FactRef::Host(id) => host.facts.get(id.0),
        }
    }
}

/// An operation that cannot run on the GPU.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PriceError {
    /// The GPU does not compute in the format.
    #[error("{gpu} ({architecture}) does not compute in {format}; it computes in {supported}")]
    UnsupportedFormat {
        /// Catalogue name.
        gpu: String,
        /// Generation.
        architecture: String,
        /// Format asked for.
        format: &'static str,
        /// Formats that it computes in, separated by commas.
        supported: String,
    },
    /// A collective: its price depends on the ranks that take part and the links between them.
    #[error("a collective among ranks is not an operation of one GPU")]
    Exchange,
}

/// Duration of a kernel on the device; the host's work to launch it is [`Host::launch_s`].
///
/// # Errors
/// [`PriceError`] when the GPU does not compute in the kernel's format.
pub fn price(gpu: &Gpu, host: &Host, kernel: &Kernel) -> Result<Price, PriceError> {
    match *kernel {
        Kernel::Gemm { batch, m, n, k, dtype } => gemm(gpu, GemmShape { batch, m, n, k, dtype }),
        Kernel::Attention(shape) => attention(gpu, shape),
        Kernel::Convolution(shape) => convolution(gpu, shape),
        Kernel::MemoryBound { kind, read, written, row, instructions } => {
            Ok(memory::of_rows(gpu, kind, [read, written], row, instructions))
        }
        Kernel::Embedding { tokens, width, vocabulary, pass, dtype } => {
            Ok(embedding(gpu, tokens, width, vocabulary, pass, dtype))
        }
        Kernel::Optimizer { parameters, bytes_per_parameter } => {
            Ok(optimizer(gpu, parameters, bytes_per_parameter))
        }
        Kernel::HostCopy { bytes, pinned } => Ok(host_copy(gpu, host, bytes, pinned)),
        Kernel::Component { flops, dtype } => component(gpu, flops, dtype),
        Kernel::Exchange { .. } => Err(PriceError::Exchange),
    }
}

/// Bytes that a kernel must read and write once, whatever a cache spares or does twice; what rooflines divide by. Of work
/// that is known by its FLOPs alone, nothing; of a collective, the array.
pub fn traffic(kernel: &Kernel) -> Bytes {
    match *kernel {
        Kernel::Gemm { batch, m, n, k, dtype } => GemmShape { batch, m, n, k, dtype }.traffic(),
        Kernel::Attention(shape) => attention::traffic(&shape),
        Kernel::Convolution(shape) => shape.traffic,
        Kernel::MemoryBound { read, written, .. } => read + written,
        // A row is read and written.
        Kernel::Embedding { tokens, width, dtype, .. } => {
            Bytes(tokens.saturating_mul(width).saturating_mul(2 * dtype.bytes()))
        }
        Kernel::Optimizer { parameters, bytes_per_parameter } => {
            Bytes(parameters.saturating_mul(bytes_per_parameter))
        }
        Kernel::HostCopy { bytes, .. } | Kernel::Exchange { bytes, .. } => bytes,
        Kernel::Component { .. } => Bytes(0),
    }
}

/// Work known only by its FLOPs: latency + FLOPs / (peak x fraction of the largest tiles of matrix products).
///
/// # Errors
/// [`PriceError`] when the GPU does not compute in the format.
pub fn component(gpu: &Gpu, flops: Flops, dtype: Dtype) -> Result<Price, PriceError> {
    let arithmetic = arithmetic_of(gpu, dtype)?;
    let seconds = flops.0 as f64 / (arithmetic.peak.value * arithmetic.gemm.value);
    Ok(arithmetic.model.ground.price(gpu.kernel_latency_s + seconds))
}

/// The GPU's arithmetic in a format, or an error that names what it has.
fn arithmetic_of(gpu: &Gpu, dtype: Dtype) -> Result<&Arithmetic, PriceError> {
    gpu.arithmetic(dtype).ok_or_else(|| {
        let supported: Vec<_> =
            gpu.arithmetic.iter().map(|arithmetic| format_name(arithmetic.dtype)).collect();
        PriceError::UnsupportedFormat {
            gpu: gpu.name.clone(),
            architecture: gpu.architecture.to_string(),
            format: format_name(dtype),
            supported: supported.join(", "),
        }
    })
}
