//! For what work a layer is expanded: sizes, number formats, division among ranks.

use crate::division::{ContextParallel, ExpertParallel};
use crate::operation::Dtype;
use crate::shape::MemoryFormat;
use crate::units::product;

/// How attention is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttentionKind {
    /// Score matrix, softmax and dropout as kernels of their own, kept for backward.
    Eager,
    /// One fused kernel that keeps only row statistics.
    Flash,
}

/// Size and number formats of one micro-batch's work. Sizes that leave 64 bits stop at the largest number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WorkShape {
    /// Samples (sequences or images) a micro-batch.
    pub micro_batch: u64,
    /// Tokens of a sequence that this rank holds: all of them, or under context parallelism its part. Ignored by
    /// architectures that take images.
    pub sequence_length: u64,
    /// Format of matrix products: of 8 and 4 bits only the linear layers of blocks compute in it.
    pub compute: Dtype,
    /// How values are scaled to 8 bits.
    pub scaling: Scaling,
    /// Format of activations as stored.
    pub activation: Dtype,
    /// How attention is computed.
    pub attention: AttentionKind,
    /// Whether dropout runs and tensors are saved for backward.
    pub training: bool,
    /// How a tensor-parallel group divides the layers.
    pub tensor: TensorParallel,
    /// How a context-parallel group divides the sequences.
    pub context: ContextParallel,
    /// How experts are spread, where they have groups of their own; else they are divided like other layers.
    pub expert: Option<ExpertParallel>,
    /// Which memory-bound operations are one kernel.
    pub fusion: Fusion,
    /// How convolutions run.
    pub convolutions: Convolutions,
    /// PyTorch's autocast: weights have 32 bits, products run in the format of the activations, norms and softmax in 32
    /// bits, and what meets a 32-bit tensor becomes one. Modelled in families of images.
    pub autocast: bool,
}

/// How convolutions run, where they differ from other products.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Convolutions {
    /// How feature maps lie in memory.
    pub format: MemoryFormat,
    /// Whether those of 32-bit floats run on tensor cores (cuDNN's TF32).
    pub tf32: bool,
}

/// Which chains of memory-bound operations run as one kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Fusion {
    /// Each operation is a kernel of its own: PyTorch's eager mode.
    #[default]
    None,
    /// Every chain between two computing operations: `torch.compile`.
    Compiled,
    /// Those that Transformer Engine and Megatron-LM have kernels for: scale, mask and softmax; SwiGLU; dropout with the
    /// residual; rotation.
    TransformerEngine,
}

impl WorkShape {
    /// One token, for listing parameters.
    pub(crate) const fn smallest() -> Self {
        Self {
            micro_batch: 1,
            sequence_length: 1,
            compute: Dtype::Fp32,
            scaling: Scaling::Delayed,
            activation: Dtype::Fp32,
            attention: AttentionKind::Eager,
            training: true,
            tensor: TensorParallel::NONE,
            context: ContextParallel::NONE,
            expert: None,
            fusion: Fusion::None,
            convolutions: Convolutions { format: MemoryFormat::Contiguous, tf32: false },
            autocast: false,
        }
    }

    /// Bytes of a value of what autocast keeps in 32 bits: results of norms, and sums and products with parameters.
    pub(crate) const fn stable_bytes(&self) -> u64 {
        if self.autocast { Dtype::Fp32.bytes() } else { self.activation.bytes() }
    }

    /// The same with experts spread so.
    pub fn with_experts(self, expert: Option<ExpertParallel>) -> Self {
        Self { expert, ..self }
    }

    /// Rows of a tensor of tokens between the divided layers: all tokens of the micro-batch, or this rank's part of
    /// them under sequence parallelism (rounded up).
    pub(crate) fn token_rows(&self) -> u64 {
        self.tensor.rows(product(&[self.micro_batch, self.sequence_length]))
    }
}

impl Default for WorkShape {
    /// One token in 32 bits, in training, on one rank.
    fn default() -> Self {
        Self::smallest()
    }
}

/// How values are scaled to the range of an 8-bit format (Transformer Engine's recipes).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Scaling {
    /// One scale a tensor, from the largest values of earlier steps: one pass.
    #[default]
    Delayed,
    /// One scale a tensor, from its own largest value: a pass that finds it, and one that converts.
    Current,
    /// One scale for each block of values (128 of them, or 128 x 128): one pass.
    Blockwise,
    /// One 8-bit scale for each 32 values (OCP Microscaling Formats 1.0): one pass.
    Microscaling,
}

/// Tensor parallelism of the work of one rank (Shoeybi et al. 2019, Megatron-LM; sequence parallelism: Korthikanti et
/// al. 2022).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TensorParallel {
    /// Ranks that share each layer; at least 1.
    pub size: u64,
    /// Whether what lies between the divided layers is divided along the sequence.
    pub sequence: bool,
}

impl TensorParallel {
    /// One rank does it all.
    pub const NONE: Self = Self { size: 1, sequence: false };

    /// Ranks that share each layer, at least 1 whatever `size` says.
    pub fn ways(&self) -> u64 {
        self.size.max(1)
    }

    /// This rank's part of `size` equal things, rounded up.
    pub(crate) fn part(&self, size: u64) -> u64 {
        size.div_ceil(self.ways())
    }

    /// Rows between the divided layers, of `tokens` in all.
    pub(crate) fn rows(&self, tokens: u64) -> u64 {
        if self.sequence { self.part(tokens) } else { tokens }
    }
}

impl Default for TensorParallel {
    fn default() -> Self {
        Self::NONE
    }
}
