//! Shapes of the operations that have many sizes.

use crate::operation::{Dtype, Pass};
use crate::units::{Bytes, Flops, product, total};

/// Fused (flash) attention over `batch` sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttentionShape {
    /// Sequences.
    pub batch: u64,
    /// Query heads.
    pub heads: u64,
    /// Key and value heads (fewer under grouped-query attention).
    pub kv_heads: u64,
    /// Query tokens.
    pub query_length: u64,
    /// Key tokens.
    pub key_length: u64,
    /// Width of a head of queries and keys.
    pub head_dim: u64,
    /// Width of a head of values and of the result (another one under multi-head latent attention).
    pub value_dim: u64,
    /// Tokens that a token sees to its left, itself included, and as many to its right unless the attention is
    /// causal; 0 for no limit.
    pub window: u64,
    /// Whether a token sees only itself and earlier ones (half of the work).
    pub causal: bool,
    /// Forward (2 products) or backward (5 products, recomputing the scores).
    pub pass: Pass,
    /// Number format of the inputs.
    pub dtype: Dtype,
    /// Whose kernels run.
    pub generation: FlashGeneration,
}

/// Generations of fused attention kernels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FlashGeneration {
    /// FlashAttention (Dao et al. 2022).
    First,
    /// The Triton kernels after it.
    Triton,
    /// FlashAttention-2 (Dao 2023): Ampere's matrix instructions, on later GPUs as well.
    Second,
    /// Kernels for the GPU's own matrix instructions: up to Ada FlashAttention-2's, then FlashAttention-3's (Shah et al.
    /// 2024) or cuDNN's.
    #[default]
    Current,
}

impl AttentionShape {
    /// What the kernel makes: the result; backward the gradients of queries, keys and values.
    pub const fn result_bytes(&self) -> u64 {
        let rows = self.batch.saturating_mul(self.heads).saturating_mul(self.query_length);
        let values = match self.pass {
            Pass::Forward => rows.saturating_mul(self.value_dim),
            Pass::Backward => {
                let keys = self.batch.saturating_mul(self.kv_heads).saturating_mul(self.key_length);
                let widths = self.head_dim.saturating_add(self.value_dim);
                rows.saturating_mul(self.head_dim).saturating_add(keys.saturating_mul(widths))
            }
        };
        values.saturating_mul(self.dtype.bytes())
    }

    /// What the kernel computes: two products forward, 2 b h q k (d + v), halved when causal; five products backward
    /// (scores again, and a gradient for each factor of both products), 2.5 times as much where v = d.
    pub fn flops(&self) -> Flops {
        let all = self.products();
        Flops(if self.causal { all / 2 } else { all })
    }

    /// What the model asks for: two products forward and four backward over all pairs of tokens within the window,
    /// causal or not.
    pub fn model_flops(&self) -> Flops {
        let two = product(&[2, self.pairs(), total(&[self.head_dim, self.value_dim])]);
        Flops(match self.pass {
            Pass::Forward => two,
            Pass::Backward => two.saturating_mul(2),
        })
    }

    /// Products of the pass over all pairs.
    fn products(&self) -> u64 {
        let (keys, values) = (self.head_dim, self.value_dim);
        let widths = match self.pass {
            Pass::Forward => total(&[keys, values]),
            Pass::Backward => total(&[product(&[3, keys]), product(&[2, values])]),
        };
        product(&[2, self.pairs(), widths])
    }

    /// Pairs of a query and a key: all q k of each sequence and head, or with a window of w < k tokens to either side
    /// k^2 - (k - w)^2 of a square (twice what a causal mask leaves, as for the whole square).
    fn pairs(&self) -> u64 {
        let (queries, keys) = (self.query_length, self.key_length);
        let heads = product(&[self.batch, self.heads]);
        if self.window == 0 || self.window >= keys {
            return product(&[heads, queries, keys]);
        }
        let of_square = u128::from(self.window) * (2 * u128::from(keys) - u128::from(self.window));
        let seen = (of_square / u128::from(keys)).saturating_mul(u128::from(queries));
        let seen = if queries == keys { of_square } else { seen };
        product(&[heads, u64::try_from(seen).unwrap_or(u64::MAX)])
    }
}

/// How feature maps lie in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MemoryFormat {
    /// Channel by channel (NCHW): PyTorch's `contiguous_format`.
    #[default]
    Contiguous,
    /// Pixel by pixel (NHWC): PyTorch's `channels_last`.
    ChannelsLast,
}

/// What a convolution computes: its result or one of its gradients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ConvolutionPass {
    /// The result. As a product of matrices: positions of the result x channels out, sums over the filter.
    Forward,
    /// The gradient of the input: positions of the input x channels in, sums over channels out and the filter.
    GradInput,
    /// The gradient of the filter: channels out x filter, sums over the positions of the result.
    GradWeight,
}

/// Two-dimensional convolution, forward or one of its two gradients (same FLOPs each).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConvolutionShape {
    /// Images.
    pub batch: u64,
    /// Channels in.
    pub in_channels: u64,
    /// Channels out.
    pub out_channels: u64,
    /// Rows of the output.
    pub out_height: u64,
    /// Columns of the output.
    pub out_width: u64,
    /// Rows of the filter.
    pub kernel_height: u64,
    /// Columns of the filter.
    pub kernel_width: u64,
    /// Filter groups (`in_channels` of them: depthwise).
    pub groups: u64,
    /// Pixels that the filter moves from one output to the next, in both directions.
    pub stride: u64,
    /// Result or gradient.
    pub pass: ConvolutionPass,
    /// How input and result lie in memory.
    pub format: MemoryFormat,
    /// Bytes read and written by the operation.
    pub traffic: Bytes,
    /// Number format of the inputs.
    pub dtype: Dtype,
}

impl ConvolutionShape {
    /// Two FLOPs for each output, input channel of its group and position of the filter.
    pub fn flops(&self) -> Flops {
        let outputs = product(&[self.batch, self.out_channels, self.out_height, self.out_width]);
        let inputs = self.in_channels / self.groups.max(1);
        Flops(product(&[2, outputs, inputs, self.kernel_height, self.kernel_width]))
    }
}
