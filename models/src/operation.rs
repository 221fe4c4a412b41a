//! What a layer asks of the hardware: operations, described by shape, never by time.

use std::fmt;

use crate::shape::{AttentionShape, ConvolutionShape};
use crate::units::{Bytes, Flops, product};

/// Number format of a tensor or of an operation's inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dtype {
    /// 32-bit IEEE float, computed on the CUDA cores.
    Fp32,
    /// Stored as 32-bit float, multiplied by tensor cores with a 10-bit mantissa.
    Tf32,
    /// 16-bit IEEE float.
    Fp16,
    /// bfloat16.
    Bf16,
    /// 8-bit float (E4M3 or E5M2).
    Fp8,
    /// 4-bit float (E2M1) with an 8-bit scale for each 16 values (NVIDIA's NVFP4).
    Fp4,
    /// 64-bit integer (token ids, labels, gather indices).
    Int64,
    /// One byte a value (dropout and attention masks).
    Bool,
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fp32 => "fp32",
            Self::Tf32 => "tf32",
            Self::Fp16 => "fp16",
            Self::Bf16 => "bf16",
            Self::Fp8 => "fp8",
            Self::Fp4 => "nvfp4",
            Self::Int64 => "int64",
            Self::Bool => "bool",
        })
    }
}

impl fmt::Display for ExchangeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AllReduce => "all-reduce",
            Self::AllGather => "all-gather",
            Self::ReduceScatter => "reduce-scatter",
            Self::AllToAll => "all-to-all",
            Self::SendReceive => "send and receive",
        })
    }
}

impl fmt::Display for ExchangeGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tensor => "tensor",
            Self::Context => "context",
            Self::Expert => "expert",
            Self::ExpertTensor => "expert tensor",
        })
    }
}

impl Dtype {
    /// Bytes of one stored value; of a 4-bit one with its scale (9/16 of a byte), rounded up.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Int64 => 8,
            Self::Fp32 | Self::Tf32 => 4,
            Self::Fp16 | Self::Bf16 => 2,
            Self::Fp8 | Self::Fp4 | Self::Bool => 1,
        }
    }
}

/// Direction of a pass over the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pass {
    /// From inputs to loss.
    Forward,
    /// From loss to gradients.
    Backward,
}

/// What a memory-bound kernel does; each kind may reach another share of the bandwidth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MemoryBoundKind {
    /// Element by element: add, GELU, SiLU, scale, dropout, cast, bias.
    Elementwise,
    /// LayerNorm, RMSNorm and their backward: a row at a time.
    Norm,
    /// Softmax over rows and its backward; cross-entropy.
    Softmax,
    /// Sums over rows or columns (bias gradients).
    Reduction,
    /// Gather, scatter, index select, nonzero: access in data-dependent order.
    Indexing,
    /// Fill with a constant, or copy within the device.
    Fill,
    /// BatchNorm and its backward: a channel at a time, over images and pixels.
    BatchNorm,
}

/// A collective within a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ExchangeKind {
    /// Every rank gets the sum of all arrays.
    AllReduce,
    /// Every rank gets all parts.
    AllGather,
    /// Every rank gets its part of the sum.
    ReduceScatter,
    /// Every rank sends a part to every other.
    AllToAll,
    /// Every rank sends to the next of a ring and receives from the one before. It runs beside the operation that
    /// follows it; those after that wait for it.
    SendReceive,
}

/// Ranks that exchange something within a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ExchangeGroup {
    /// Those that share the layer.
    Tensor,
    /// Those that share the sequences.
    Context,
    /// Those over which the experts are spread.
    Expert,
    /// Those that share each expert.
    ExpertTensor,
}

/// One operation, by shape. Prices belong to the clusters' floor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kernel {
    /// `batch` independent products of an `m` x `k` by a `k` x `n` matrix: 2 b m n k FLOPs.
    Gemm {
        /// Independent products.
        batch: u64,
        /// Rows of the result.
        m: u64,
        /// Columns of the result.
        n: u64,
        /// Length of the sums.
        k: u64,
        /// Number format of the inputs.
        dtype: Dtype,
    },
    /// Fused (flash) attention over `batch` sequences.
    Attention(AttentionShape),
    /// Two-dimensional convolution, forward or one of its two gradients (same FLOPs each).
    Convolution(ConvolutionShape),
    /// Limited by memory traffic.
    MemoryBound {
        /// What it does.
        kind: MemoryBoundKind,
        /// Bytes read.
        read: Bytes,
        /// Bytes written.
        written: Bytes,
        /// Bytes that one row reads and writes, if the kernel goes over the rows of its input twice, first for their
        /// statistics: where all rows at work fit the second-level cache the second time costs nothing. Zero for kernels that
        /// read everything once.
        row: Bytes,
        /// Instructions of all threads, where they may take longer than the traffic; zero where they never do.
        instructions: u64,
    },
    /// Table look-up of `tokens` rows of `width` values, or the scatter of its gradient.
    Embedding {
        /// Rows looked up.
        tokens: u64,
        /// Values a row.
        width: u64,
        /// Rows of the table.
        vocabulary: u64,
        /// Look-up or scatter.
        pass: Pass,
        /// Number format of the table.
        dtype: Dtype,
    },
    /// Parameter update over `parameters` values, moving `bytes_per_parameter` of memory traffic for each.
    Optimizer {
        /// Parameters updated.
        parameters: u64,
        /// Bytes read and written for each parameter, all passes together.
        bytes_per_parameter: u64,
    },
    /// Copy between host and device.
    HostCopy {
        /// Bytes moved.
        bytes: Bytes,
        /// Whether the host side is page-locked.
        pinned: bool,
    },
    /// Collective among the ranks of a group.
    Exchange {
        /// Which ranks.
        group: ExchangeGroup,
        /// What it does.
        kind: ExchangeKind,
        /// Size of the whole array: what each rank has after an all-gather or had before a reduce-scatter or an
        /// all-to-all; what each rank sends to the next in a ring.
        bytes: Bytes,
    },
    /// Work known only by its FLOPs (a component of somebody's model description).
    Component {
        /// Work of the pass.
        flops: Flops,
        /// Number format it would run in.
        dtype: Dtype,
    },
}

impl Kernel {
    /// A kernel that reads and writes so much, everything once, with hardly any arithmetic.
    pub const fn memory(kind: MemoryBoundKind, read: Bytes, written: Bytes) -> Self {
        Self::MemoryBound { kind, read, written, row: Bytes(0), instructions: 0 }
    }

    /// Arithmetic of the operation: 2 FLOPs a multiply-add; zero for memory-bound kinds.
    ///
    /// Of attention see [`AttentionShape::flops`].
    /// Stops at `u64::MAX` for absurd shapes.
    pub fn flops(&self) -> Flops {
        Flops(match *self {
            Self::Gemm { batch, m, n, k, .. } => product(&[2, batch, m, n, k]),
            Self::Attention(shape) => return shape.flops(),
            Self::Convolution(shape) => return shape.flops(),
            Self::Component { flops, .. } => return flops,
            Self::MemoryBound { .. }
            | Self::Embedding { .. }
            | Self::Optimizer { .. }
            | Self::Exchange { .. }
            | Self::HostCopy { .. } => 0,
        })
    }
}

impl Kernel {
    /// Arithmetic that the model asks for, whatever kernel computes it: attention counts two products forward and
    /// four backward over all pairs of tokens, causal or not, and no recomputation inside the kernel (PaLM,
    /// Chowdhery et al. 2022, appendix B). Utilizations divide this by the peak.
    pub fn model_flops(&self) -> Flops {
        match *self {
            Self::Attention(shape) => shape.model_flops(),
            _ => self.flops(),
        }
    }
}

/// Bytes in a few characters.
struct Size(Bytes);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.0 as f64;
        match self.0.0 {
            0..1_000 => write!(f, "{} B", self.0.0),
            1_000..1_000_000 => write!(f, "{:.1} kB", bytes / 1e3),
            1_000_000..1_000_000_000 => write!(f, "{:.1} MB", bytes / 1e6),
            _ => write!(f, "{:.1} GB", bytes / 1e9),
        }
    }
}

impl fmt::Display for Kernel {
    /// In a few words, for tables.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Gemm { batch: 1, m, n, k, dtype } => write!(f, "{dtype} product {m} x {n} x {k}"),
            Self::Gemm { batch, m, n, k, dtype } => write!(f, "{batch} {dtype} products {m} x {n} x {k}"),
            Self::Attention(it) => {
                let (b, h, q, k, d) = (it.batch, it.heads, it.query_length, it.key_length, it.head_dim);
                write!(f, "fused attention {b} x {h} heads, {q} x {k} tokens, width {d}")
            }
            Self::Convolution(it) => {
                let (r, s, from, to) = (it.kernel_height, it.kernel_width, it.in_channels, it.out_channels);
                write!(f, "{} convolution {r} x {s}, {from} to {to} channels", it.dtype)?;
                if it.groups > 1 { write!(f, ", {} groups", it.groups) } else { Ok(()) }
            }
            Self::MemoryBound { read, written, .. } => {
                write!(f, "reads {}, writes {}", Size(read), Size(written))
            }
            Self::Embedding { tokens, width, vocabulary, .. } => {
                write!(f, "{tokens} rows of {width} in a table of {vocabulary}")
            }
            Self::Optimizer { parameters, .. } => write!(f, "update of {parameters} values"),
            Self::HostCopy { bytes, .. } => write!(f, "copy of {} between host and device", Size(bytes)),
            Self::Exchange { group, kind, bytes } => {
                write!(f, "{kind} of {} in the {group} group", Size(bytes))
            }
            Self::Component { flops, .. } => write!(f, "{} FLOP", flops.0),
        }
    }
}

/// A kernel with its name and what the host does to launch it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Name for timelines, e.g. `attention.qkv`.
    pub name: &'static str,
    /// Shape of the work.
    pub kernel: Kernel,
    /// Kernels that the framework launches for it (a `nonzero` is several).
    pub launches: u32,
    /// Whether the host waits for the result before it goes on (`.item()`, `nonzero`).
    pub host_sync: bool,
}

/// Beginning of the names of everything between queries, keys, values and the attention's result when these are
/// kernels of their own: what selective recomputation runs again (Korthikanti et al. 2022, section 5).
const ATTENTION_CORE: &str = "attention.core.";

/// Gathers the input of a layer that a tensor-parallel group divides once more, under sequence parallelism.
pub(crate) const GATHER_AGAIN: &str = "tensor_parallel.gather_again";
/// Sums the gradient of the input of such a layer over the group.
const INPUT_GRADIENT_SUM: &str = "tensor_parallel.enter.grad";

impl Operation {
    /// The same memory-bound operation over rows that each read and write `bytes`, twice.
    #[must_use]
    pub(crate) fn over_rows(mut self, bytes: u64) -> Self {
        if let Kernel::MemoryBound { row, .. } = &mut self.kernel {
            *row = Bytes(bytes);
        }
        self
    }

    /// The same memory-bound operation with the arithmetic of so many instructions.
    #[must_use]
    pub(crate) fn with_instructions(mut self, count: u64) -> Self {
        if let Kernel::MemoryBound { instructions, .. } = &mut self.kernel {
            *instructions = count;
        }
        self
    }

    /// Whether it makes the gradient of a weight: nothing else in the layer waits for that.
    pub fn makes_weight_gradient(&self) -> bool {
        self.name.ends_with(".grad_weight")
    }

    /// Whether it makes the gradient of a bias.
    pub fn makes_bias_gradient(&self) -> bool {
        self.name.ends_with(".grad_bias")
    }

    /// Whether it gathers, in backward, an input that forward gathered from the tensor-parallel group and let go.
    pub fn gathers_input_again(&self) -> bool {
        self.name == GATHER_AGAIN
    }

    /// Whether it sums the gradient of a divided layer's input over the tensor-parallel group.
    pub fn sums_input_gradient(&self) -> bool {
        self.name == INPUT_GRADIENT_SUM
    }

    /// Whether selective recomputation runs it again in backward.
    pub fn is_attention_core(&self) -> bool {
        self.name.starts_with(ATTENTION_CORE)
    }

    /// Whether it is a transfer among ranks whose tensors PyTorch records on the stream of the transfer even where the
    /// caller waits for it: all but gathers to everybody and scattered sums (`ProcessGroupNCCL::_allgather_base`,
    /// `_reduce_scatter_base`).
    pub fn records_streams(&self) -> bool {
        let Kernel::Exchange { kind, .. } = self.kernel else { return false };
        !matches!(kind, ExchangeKind::AllGather | ExchangeKind::ReduceScatter)
    }
}

/// A tensor kept from forward for backward.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedTensor {
    /// Name for reports: the operation that makes it and what it is, e.g. `mlp.fc1.output`;
    /// [`SavedTensor::INPUT`] for the layer's own input.
    pub name: &'static str,
    /// Size.
    pub bytes: Bytes,
    /// Index of the forward operation that makes it (0 for the layer's input).
    pub born: usize,
    /// Index of the last operation of forward that reads it.
    pub last_read: usize,
    /// Index of the backward operation after which it is freed.
    pub freed: usize,
    /// Whether an operation that [records streams](Operation::records_streams) makes it or sends it: its memory is free
    /// only when that stream got past its end.
    pub sent: bool,
}

impl SavedTensor {
    /// Name under which a layer lists its input when it keeps it.
    pub const INPUT: &'static str = "input";

    /// Whether selective recomputation drops it and makes it again in backward.
    pub fn is_attention_core(&self) -> bool {
        self.name.starts_with(ATTENTION_CORE)
    }

    /// Whether this is the layer's input, which exists before the layer runs.
    pub fn is_layer_input(&self) -> bool {
        self.name == Self::INPUT
    }
}

/// A short-lived tensor: made and freed within one pass of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Temporary {
    /// Name for reports: of the operation that makes it and what it is, e.g. `attention.core.scores.output`.
    pub name: &'static str,
    /// Pass in which it lives.
    pub pass: Pass,
    /// Size.
    pub bytes: Bytes,
    /// Index of the pass's operation before which it is allocated.
    pub born: usize,
    /// Index of the pass's operation after which it is freed.
    pub freed: usize,
    /// Whether an operation that [records streams](Operation::records_streams) makes it or is the last to read it.
    pub sent: bool,
}

/// All work of one layer on one micro-batch.
///
/// Who owns what, so that nothing is counted twice when layers follow each other:
/// - a layer's output belongs to the *next* layer, as that one's input;
/// - a layer that keeps its input for backward (a norm, an embedding) lists it in `saved`, as Korthikanti et al.
///   (2022) count it. The sum of `saved` over the layers is therefore all activation memory of a micro-batch,
///   the output of the last layer (the loss) aside;
/// - views share the memory of the tensor behind them and are counted once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayerWork {
    /// Operations of the forward pass, in order.
    pub forward: Vec<Operation>,
    /// Operations of the backward pass, in order. Adding parameter gradients to those of earlier micro-batches
    /// is not among them.
    pub backward: Vec<Operation>,
    /// Tensors kept by forward for backward, in order of birth, *with* the layer's input where the layer keeps
    /// it (see [`SavedTensor::is_layer_input`]: whoever plays the layer must not allocate that one again).
    /// Parameters and constants shared by all layers (causal mask, rotary tables) are left out.
    pub saved: Vec<SavedTensor>,
    /// The layer's input activation: what a checkpoint keeps, and what a pipeline receives. It may be among
    /// `saved`; it is freed with the forward pass if it is not.
    pub input: Bytes,
    /// The layer's output activation: what the next layer or stage receives (of a head in training: the loss, one
    /// value). Never among `saved`.
    pub output: Bytes,
    /// Most bytes of short-lived tensors alive at once during forward: made by an operation of the layer, freed
    /// after the last operation that reads them; neither saved, nor the layer's input or output.
    pub forward_temporary: Bytes,
    /// Most bytes of activation gradients alive at once during backward, *with* the gradient of the output that
    /// comes in and the gradient of the input that goes out. Parameter gradients are not counted.
    pub backward_temporary: Bytes,
    /// The largest short-lived tensors of both passes, at most eight of each, forward first and in order of birth.
    /// They are parts of [`LayerWork::forward_temporary`] and [`LayerWork::backward_temporary`], not additions to
    /// them: whoever finds no room for a pass's temporaries can name the tensor.
    pub temporaries: Vec<Temporary>,
    /// All short-lived tensors of both passes, forward first, each in order of birth: what an allocator is asked for
    /// beside the saved ones. The gradients that come in and go out are among those of backward.
    pub short_lived: Vec<Temporary>,
    /// Bytes of its largest tensor that lies in a buffer which all layers share ([`crate::Modules::MegatronLocal`]): counted
    /// by whoever holds that buffer, and nowhere else here.
    pub shared_buffer: Bytes,
    /// What of backward can wait, because only the update of the parameters needs it.
    pub weight_gradients: WeightGradients,
}

/// The part of a layer's backward that makes gradients of weights by products of matrices or convolutions: nothing
/// before the layer waits for it, so that a pipeline can put it off (Qi et al. 2024, Zero Bubble, section 2).
/// Gradients of biases, norms and embeddings are small and come with those of the inputs, as in Megatron-LM's linear
/// layers, whose products alone are put off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WeightGradients {
    /// Indices into [`LayerWork::backward`], in order.
    pub operations: Vec<usize>,
    /// Indices into [`LayerWork::saved`] of the tensors that they read.
    pub saved: Vec<usize>,
    /// Bytes of the gradients of layers' results that they read, and that are kept until then.
    pub gradients: Bytes,
}

impl LayerWork {
    /// FLOPs of the forward pass.
    pub fn forward_flops(&self) -> Flops {
        self.forward.iter().map(|operation| operation.kernel.flops()).sum()
    }

    /// FLOPs of the backward pass.
    pub fn backward_flops(&self) -> Flops {
        self.backward.iter().map(|operation| operation.kernel.flops()).sum()
    }

    /// Bytes saved for backward, the layer's input included where it is kept.
    pub fn saved_bytes(&self) -> Bytes {
        self.saved.iter().map(|tensor| tensor.bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::{ConvolutionPass, FlashGeneration};

    #[test]
    fn flops_count_two_for_a_multiply_add() {
        let gemm = Kernel::Gemm { batch: 2, m: 3, n: 5, k: 7, dtype: Dtype::Bf16 };
        assert_eq!(gemm.flops(), Flops(2 * 2 * 3 * 5 * 7));
        let attention = |causal, pass| {
            Kernel::Attention(AttentionShape {
                batch: 2,
                heads: 3,
                kv_heads: 1,
                query_length: 10,
                key_length: 20,
                head_dim: 4,
                value_dim: 4,
                window: 0,
                causal,
                pass,
                dtype: Dtype::Bf16,
                generation: FlashGeneration::Current,
            })
        };
        assert_eq!(attention(false, Pass::Forward).flops(), Flops(4 * 2 * 3 * 10 * 20 * 4));
        assert_eq!(attention(true, Pass::Forward).flops(), Flops(2 * 2 * 3 * 10 * 20 * 4));
        assert_eq!(attention(false, Pass::Backward).flops(), Flops(10 * 2 * 3 * 10 * 20 * 4));
    }

    #[test]
    fn depthwise_convolution_sees_one_channel() {
        let convolution = |groups| {
            Kernel::Convolution(ConvolutionShape {
                batch: 1,
                in_channels: 32,
                out_channels: 32,
                out_height: 8,
                out_width: 8,
                kernel_height: 3,
                kernel_width: 3,
                groups,
                stride: 1,
                pass: ConvolutionPass::Forward,
                format: crate::shape::MemoryFormat::Contiguous,
                traffic: Bytes(0),
                dtype: Dtype::Fp32,
            })
        };
        assert_eq!(convolution(1).flops(), Flops(2 * 32 * 64 * 32 * 9));
        assert_eq!(convolution(32).flops(), Flops(2 * 32 * 64 * 9));
    }
}
