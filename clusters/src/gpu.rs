//! A GPU: what its data sheet promises and what programs reach of it.

use std::fmt;

use steptime_models::{Bytes, Dtype, MemoryBoundKind};

use crate::coefficients::{AttentionCoefficients, ConvolutionCoefficients, GemmCoefficients};
use crate::fact::{Basis, Constant, Fact, FactId};

/// Time in which a GPU's clock follows its power, seconds (order of magnitude).
const GOVERNOR_S: f64 = 0.5e-3;

/// Generation of a GPU's streaming multiprocessors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GpuArchitecture {
    /// Compute capability 7.0: tensor cores for fp16, neither tf32 nor bf16.
    Volta,
    /// Compute capability 7.5: tensor cores for fp16, neither tf32 nor bf16.
    Turing,
    /// Compute capability 8.0 (GA100) and 8.6 (GA102): tf32 and bf16.
    Ampere,
    /// Compute capability 8.9: fp8.
    Ada,
    /// Compute capability 9.0: fp8.
    Hopper,
    /// Compute capability 10.0 and 10.3: fp8 and fp4.
    Blackwell,
}

impl GpuArchitecture {
    /// All of them with the words that catalogue files use.
    pub(crate) const NAMES: [(&'static str, Self); 6] = [
        ("volta", Self::Volta),
        ("turing", Self::Turing),
        ("ampere", Self::Ampere),
        ("ada", Self::Ada),
        ("hopper", Self::Hopper),
        ("blackwell", Self::Blackwell),
    ];
}

impl fmt::Display for GpuArchitecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Volta => "Volta",
            Self::Turing => "Turing",
            Self::Ampere => "Ampere",
            Self::Ada => "Ada",
            Self::Hopper => "Hopper",
            Self::Blackwell => "Blackwell",
        })
    }
}

/// Formats of arithmetic with the words that catalogue files and messages use.
pub(crate) const FORMATS: [(&str, Dtype); 6] = [
    ("fp32", Dtype::Fp32),
    ("tf32", Dtype::Tf32),
    ("fp16", Dtype::Fp16),
    ("bf16", Dtype::Bf16),
    ("fp8", Dtype::Fp8),
    ("nvfp4", Dtype::Fp4),
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
        Dtype::Fp4 => "nvfp4",
    }
}

/// How far the hardware that coefficients were fitted on is from that which they price.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lent {
    /// The GPU itself, for the very kind of kernel.
    #[default]
    Not,
    /// The GPU for another kind, or another GPU of its architecture.
    Near,
    /// A GPU of another architecture.
    Far,
}

/// How strong the ground of a kind of price is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ground {
    /// What the coefficients rest on.
    pub basis: Basis,
    /// The fact that stands for them, in the GPU's list.
    pub fact: FactId,
    /// Relative error that 80 % of unseen shapes stay below, 0.1 being 10 %.
    pub error: f64,
    /// Whose coefficients they are.
    pub lent: Lent,
}

impl Ground {
    /// The ground of a constant with the error of the kind it is used for.
    pub fn of(constant: Constant, error: f64) -> Self {
        Self { basis: constant.basis, fact: constant.fact, error, lent: Lent::Not }
    }
}

/// A kernel model with its coefficients and their ground.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Calibrated<C> {
    /// Coefficients.
    pub coefficients: C,
    /// What they rest on.
    pub ground: Ground,
}

/// A number format that the GPU computes in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arithmetic {
    /// Format of the inputs.
    pub dtype: Dtype,
    /// Peak rate for dense (not sparse) operands, FLOP/s.
    pub peak: Constant,
    /// Fraction of the peak that full waves of the largest tiles reach.
    pub gemm: Constant,
    /// How matrix products of any shape run.
    pub model: Calibrated<GemmCoefficients>,
}

/// Share of the memory bandwidth that a kind of kernel reaches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MemoryShare {
    /// The share.
    pub share: Constant,
    /// Relative error that 80 % of unseen sizes stay below.
    pub error: f64,
    /// Time that the measurement added to every kernel, seconds; not part of prices.
    pub measured_start_s: f64,
}

/// Fraction of the memory bandwidth that each kind of memory-bound kernel reaches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MemoryFractions {
    /// Adds, activations, casts, optimizer updates.
    pub elementwise: MemoryShare,
    /// LayerNorm and RMSNorm, of what they read and write in as many passes as reach the memory.
    pub norm: MemoryShare,
    /// Softmax and cross-entropy.
    pub softmax: MemoryShare,
    /// Sums over rows or columns.
    pub reduction: MemoryShare,
    /// Gather, scatter, embedding look-up.
    pub indexing: MemoryShare,
    /// Fills and copies within the device.
    pub fill: MemoryShare,
    /// BatchNorm.
    pub batch_norm: MemoryShare,
}

impl MemoryFractions {
    /// All of them, in the order of the kinds in catalogue files.
    pub(crate) fn each_mut(&mut self) -> [&mut MemoryShare; 7] {
        let Self { elementwise, norm, softmax, reduction, indexing, fill, batch_norm } = self;
        [elementwise, norm, softmax, reduction, indexing, fill, batch_norm]
    }

    /// The fraction for a kind of kernel.
    pub fn of(&self, kind: MemoryBoundKind) -> MemoryShare {
        match kind {
            MemoryBoundKind::Elementwise => self.elementwise,
            MemoryBoundKind::Norm => self.norm,
            MemoryBoundKind::Softmax => self.softmax,
            MemoryBoundKind::Reduction => self.reduction,
            MemoryBoundKind::Indexing => self.indexing,
            MemoryBoundKind::Fill => self.fill,
            MemoryBoundKind::BatchNorm => self.batch_norm,
        }
    }
}

/// What programs reach of the peaks, besides matrix products ([`Arithmetic::model`]).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Achievable {
    /// Fused attention forward.
    pub attention: Calibrated<AttentionCoefficients>,
    /// The same by kernels with Ampere's matrix instructions (FlashAttention-2 and before), where the GPU has faster ones
    /// of its own.
    pub portable_attention: Option<Calibrated<AttentionCoefficients>>,
    /// Arithmetic rate of fused attention backward, of forward's.
    pub attention_backward: Constant,
    /// Convolutions.
    pub convolution: Calibrated<ConvolutionCoefficients>,
    /// Memory bandwidth by kind of kernel.
    pub memory: MemoryFractions,
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

    /// Lanes of a multiprocessor for 32-bit floats, two operations a clock each: 64 (Volta, Turing, GA100) or 128.
    pub(crate) fn lanes(&self) -> f64 {
        let peak = self.peak(Dtype::Fp32).unwrap_or(f64::INFINITY);
        if peak < f64::from(self.sms) * self.clock_hz * 2.0 * 96.0 { 64.0 } else { 128.0 }
    }

    /// Threads that a multiprocessor holds at once (CUDA C++ Programming Guide, technical specifications by compute
    /// capability).
    pub(crate) fn threads_a_multiprocessor(&self) -> f64 {
        match self.architecture {
            GpuArchitecture::Turing => 1024.0,
            GpuArchitecture::Ada => 1536.0,
            // GA102 has twice the lanes of GA100.
            GpuArchitecture::Ampere if self.lanes() > 64.0 => 1536.0,
            GpuArchitecture::Volta
            | GpuArchitecture::Ampere
            | GpuArchitecture::Hopper
            | GpuArchitecture::Blackwell => 2048.0,
        }
    }

    /// The GPU in the middle of a step. Where measured kernels are long their clock drops to the power limit
    /// ([`GemmCoefficients::throttle`]); short ones are over before. In a step the kernels before have brought the
    /// clock there already, so that short kernels of a kind run at it too. Slow-downs that set in faster than clocks
    /// are governed are not the clock's and stay as they are.
    #[must_use]
    pub fn sustained(mut self) -> Self {
        let Achievable { attention, portable_attention, .. } = &mut self.achievable;
        let attention = [attention].into_iter().chain(portable_attention);
        let attention = attention.map(|it| &mut it.coefficients.throttle_after_s);
        let products = self.arithmetic.iter_mut().map(|it| &mut it.model.coefficients.throttle_after_s);
        for after in products.chain(attention).filter(|after| **after >= GOVERNOR_S) {
            *after = 0.0;
        }
        self
    }
}
