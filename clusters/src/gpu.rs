//! A GPU: what its data sheet promises and what programs reach of it.

use std::fmt;

use steptime_models::{Bytes, Dtype, MemoryBoundKind, Pass};

use crate::fact::{Constant, Fact};

/// Generation of a GPU's streaming multiprocessors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GpuArchitecture {
    /// Compute capability 7.5: tensor cores for fp16, neither tf32 nor bf16.
    Turing,
    /// Compute capability 8.0 (GA100) and 8.6 (GA102): tf32 and bf16.
    Ampere,
    /// Compute capability 8.9: fp8.
    Ada,
    /// Compute capability 9.0: fp8.
    Hopper,
}

impl GpuArchitecture {
    /// All of them with the words that catalogue files use.
    pub(crate) const NAMES: [(&'static str, Self); 4] =
        [("turing", Self::Turing), ("ampere", Self::Ampere), ("ada", Self::Ada), ("hopper", Self::Hopper)];
}

impl fmt::Display for GpuArchitecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Turing => "Turing",
            Self::Ampere => "Ampere",
            Self::Ada => "Ada",
            Self::Hopper => "Hopper",
        })
    }
}

/// Formats of arithmetic with the words that catalogue files and messages use.
pub(crate) const FORMATS: [(&str, Dtype); 5] = [
    ("fp32", Dtype::Fp32),
    ("tf32", Dtype::Tf32),
    ("fp16", Dtype::Fp16),
    ("bf16", Dtype::Bf16),
    ("fp8", Dtype::Fp8),
];

/// The word for a number format, e.g. `bf16`.
pub(crate) fn format_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::Int64 => "int64",
        Dtype::Bool => "bool",
        Dtype::Fp32 => "fp32",
        Dtype::Tf32 => "tf32",
        Dtype::Fp16 => "fp16",
        Dtype::Bf16 => "bf16",
        Dtype::Fp8 => "fp8",
    }
}

/// A number format that the GPU computes in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arithmetic {
    /// Format of the inputs.
    pub dtype: Dtype,
    /// Peak rate for dense (not sparse) operands, FLOP/s.
    pub peak: Constant,
    /// Fraction of the peak that large matrix products reach.
    pub gemm: Constant,
}

/// Fraction of the memory bandwidth that each kind of memory-bound kernel reaches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MemoryFractions {
    /// Adds, activations, casts, optimizer updates.
    pub elementwise: Constant,
    /// LayerNorm and RMSNorm.
    pub norm: Constant,
    /// Softmax and cross-entropy.
    pub softmax: Constant,
    /// Sums over rows or columns.
    pub reduction: Constant,
    /// Gather, scatter, embedding look-up.
    pub indexing: Constant,
    /// Fills and copies within the device.
    pub fill: Constant,
}

impl MemoryFractions {
    /// The fraction for a kind of kernel.
    pub fn of(&self, kind: MemoryBoundKind) -> Constant {
        match kind {
            MemoryBoundKind::Elementwise => self.elementwise,
            MemoryBoundKind::Norm => self.norm,
            MemoryBoundKind::Softmax => self.softmax,
            MemoryBoundKind::Reduction => self.reduction,
            MemoryBoundKind::Indexing => self.indexing,
            MemoryBoundKind::Fill => self.fill,
        }
    }
}

/// Fractions of the peaks that programs reach, besides those of matrix products ([`Arithmetic::gemm`]).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Achievable {
    /// Fused attention forward, of the peak of its format.
    pub attention_forward: Constant,
    /// Fused attention backward, of the peak of its format.
    pub attention_backward: Constant,
    /// Convolutions, of the peak of their format.
    pub convolution: Constant,
    /// Memory bandwidth by kind of kernel.
    pub memory: MemoryFractions,
}

impl Achievable {
    /// The fraction of fused attention in a direction.
    pub fn attention(&self, pass: Pass) -> Constant {
        match pass {
            Pass::Forward => self.attention_forward,
            Pass::Backward => self.attention_backward,
        }
    }
}

/// One GPU.
#[derive(Clone, Debug, PartialEq)]
pub struct Gpu {
    /// Catalogue name, e.g. `h100-80gb-sxm`.
    pub name: String,
    /// Name of the product, e.g. `NVIDIA H100 SXM5 80 GB`.
    pub product: String,
    /// Generation.
    pub architecture: GpuArchitecture,
    /// Streaming multiprocessors.
    pub sms: u32,
    /// Clock at which the peaks are stated, Hz.
    pub clock_hz: f64,
    /// Memory that the framework reports as usable (`total_memory` of the device properties).
    pub memory: Bytes,
    /// Bandwidth of the memory by the data sheet, bytes/s.
    pub memory_bandwidth: f64,
    /// Second-level cache.
    pub l2: Bytes,
    /// Formats it computes in; a format that is not listed is not supported.
    pub arithmetic: Vec<Arithmetic>,
    /// What programs reach of the peaks.
    pub achievable: Achievable,
    /// Fixed start of a kernel on the device, seconds.
    pub kernel_latency_s: f64,
    /// Memory that the CUDA context of one process takes, outside the framework's allocator.
    pub context: Bytes,
    /// Every constant with its source.
    pub facts: Vec<Fact>,
}

impl Gpu {
    /// Peak, dense, FLOP/s; `None` for a format that the GPU does not compute in.
    pub fn peak(&self, dtype: Dtype) -> Option<f64> {
        self.arithmetic(dtype).map(|arithmetic| arithmetic.peak.value)
    }

    /// Peak and achievable fraction of a format; `None` for a format that the GPU does not compute in.
    pub fn arithmetic(&self, dtype: Dtype) -> Option<&Arithmetic> {
        self.arithmetic.iter().find(|arithmetic| arithmetic.dtype == dtype)
    }
}
