//! For what work a layer is expanded: sizes, number formats, division among ranks.

use crate::division::{ContextParallel, ExpertParallel};
use crate::operation::Dtype;
use crate::shape::{FlashGeneration, MemoryFormat};
use crate::units::{product, total};

/// How attention is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttentionKind {
    /// Score matrix, softmax and dropout as kernels of their own, kept for backward.
    Eager,
    /// One fused kernel that keeps only row statistics: FlashAttention-2, in PyTorch and the package flash-attn.
    Flash,
    /// The same by kernels for the GPU's own matrix instructions (FlashAttention-3, cuDNN).
    Flash3,
    /// The same by the kernels of the first FlashAttention (flash-attn before 2.0).
    Flash1,
    /// The same by kernels written in Triton after the first FlashAttention.
    FlashTriton,
}

impl AttentionKind {
    /// Whether one kernel does it all.
    pub const fn is_fused(self) -> bool {
        !matches!(self, Self::Eager)
    }

    /// Most values of a head that its kernels have; `None` where nothing limits them. 256 of FlashAttention-2 and 3, and of
    /// cuDNN (README of flash-attn 2, cuDNN's table of fused attention), 128 of those before (README of flash-attn 1, and
    /// its Triton kernels' check).
    pub const fn widest_head(self) -> Option<u64> {
        match self {
            Self::Eager => None,
            Self::Flash | Self::Flash3 => Some(256),
            Self::Flash1 | Self::FlashTriton => Some(128),
        }
    }

    /// Whose kernels run.
    pub(crate) const fn generation(self) -> FlashGeneration {
        match self {
            Self::Eager | Self::Flash3 => FlashGeneration::Current,
            Self::Flash => FlashGeneration::Second,
            Self::Flash1 => FlashGeneration::First,
            Self::FlashTriton => FlashGeneration::Triton,
        }
    }
}

/// Size and number formats of one micro-batch's work. Sizes that leave 64 bits stop at the largest number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WorkShape {
    /// Samples (sequences or images) a micro-batch.
    pub micro_batch: u64,
    /// Tokens of a sequence that this rank holds: all of them, or under context parallelism its part. Ignored by
    /// architectures that take images.
    pub sequence_length: u64,
    /// Documents that a sequence is packed from: a token attends to those of its own document alone. 1 for whole sequences.
    pub documents: u64,
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
    /// How the formats of parameters and of the tensors between operations come about.
    pub formats: Formats,
    /// Cross-entropies of the logits that training computes once more as metrics, without a gradient.
    pub loss_metrics: u64,
    /// Whose kernels compute the loss of language models.
    pub cross_entropy: CrossEntropy,
    /// Whose modules the blocks of transformers are made of.
    pub modules: Modules,
}

/// Whose modules the blocks of transformers are made of: what they keep beside what any of them must.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Modules {
    /// Those of PyTorch and of libraries that look like it. Tensors have the batch outermost.
    #[default]
    PyTorch,
    /// Megatron-LM's own. Tensors have the sequence outermost, queries, keys and values come out of one product, and all
    /// layers write their scores into one buffer.
    MegatronLocal,
    /// Megatron-LM's with Transformer Engine's linear layers and attention: the same layout and product.
    TransformerEngine,
}

impl Modules {
    /// Whether they are Megatron-LM's: the sequence outermost, one product for queries, keys and values.
    pub const fn sequence_first(self) -> bool {
        !matches!(self, Self::PyTorch)
    }
}

/// Whose kernels compute the cross-entropy of a language model's logits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CrossEntropy {
    /// `F.cross_entropy`: log softmax in 32 bits and negative log-likelihood.
    #[default]
    Torch,
    /// Megatron-LM's `vocab_parallel_cross_entropy` and its copies (nanotron): a kernel for each elementary step on a
    /// 32-bit copy of the logits, in place.
    VocabularyParallel,
    /// Megatron-LM's `fused_vocab_parallel_cross_entropy`: the same steps in three compiled pieces, of which one makes the
    /// exponentials beside the 32-bit copy.
    VocabularyParallelCompiled,
    /// flash-attn's `CrossEntropyLoss`: a kernel forward that keeps the logits as they are and a sum a row, one backward that
    /// makes their gradient in their own format.
    FlashAttn,
    /// Two kernels that make the gradient with the loss, in 32 bits (Transformer Engine's `parallel_cross_entropy`).
    Fused,
}

/// How convolutions run, where they differ from other products.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Convolutions {
    /// How feature maps lie in memory.
    pub format: MemoryFormat,
    /// Whether those of 32-bit floats run on tensor cores (cuDNN's TF32).
    pub tf32: bool,
}

/// How number formats of parameters and tensors come about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Formats {
    /// Parameters and activations have the format of the activations throughout (a model converted by `.half()` or
    /// `.bfloat16()`, Megatron-LM, DeepSpeed).
    #[default]
    Uniform,
    /// `torch.autocast` (PyTorch documentation, "CUDA Ops that can autocast"): products and convolutions take and make the
    /// activations' 16 bits, norms, softmax and losses 32 bits, all other operations the widest format of their inputs.
    /// Whatever has another format is converted by a kernel of its own.
    Autocast {
        /// Format of the parameters as operations find them: 32 bits, or 16 where FSDP gathers them so.
        parameters: Dtype,
        /// Whether norms are kept in 16 bits (MosaicML Composer's low-precision layer norm).
        low_precision_norms: bool,
    },
}

/// Bytes of a 32-bit float.
const FULL: u64 = Dtype::Fp32.bytes();

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
            documents: 1,
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
            formats: Formats::Uniform,
            loss_metrics: 0,
            cross_entropy: CrossEntropy::Torch,
            modules: Modules::PyTorch,
        }
    }

    /// Whether the formats of tensors follow from each operation.
    pub(crate) const fn autocasts(&self) -> bool {
        matches!(self.formats, Formats::Autocast { .. })
    }

    /// Format of the parameters as operations find them.
    pub const fn parameters(&self) -> Dtype {
        match self.formats {
            Formats::Uniform => self.activation,
            Formats::Autocast { parameters, .. } => parameters,
        }
    }

    /// Bytes of a value that a norm reads and makes.
    pub(crate) const fn norm_bytes(&self) -> u64 {
        match self.formats {
            Formats::Autocast { low_precision_norms: false, .. } => FULL,
            _ => self.activation.bytes(),
        }
    }

    /// Bytes of a value of the stream of residuals: an embedding makes it in the format of its table, and additions keep
    /// the widest.
    pub(crate) const fn residual_bytes(&self) -> u64 {
        self.parameters().bytes()
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

impl Scaling {
    /// Bytes of `values` in a format of 8 or 4 bits with their scales.
    pub fn stored_bytes(self, format: Dtype, values: u64) -> u64 {
        match (format, self) {
            (Dtype::Fp4, _) => total(&[values.div_ceil(2), values.div_ceil(16)]),
            (_, Self::Microscaling | Self::Blockwise) => total(&[values, values.div_ceil(32)]),
            (_, Self::Delayed | Self::Current) => values,
        }
    }
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
