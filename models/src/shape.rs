//! Shapes of the operations that have many sizes.

use crate::operation::{Dtype, Pass};
use crate::units::{Bytes, Flops, product};

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
    /// Width of a head.
    pub head_dim: u64,
    /// Whether a token sees only itself and earlier ones (half of the work).
    pub causal: bool,
    /// Forward (2 products) or backward (5 products, recomputing the scores).
    pub pass: Pass,
    /// Number format of the inputs.
    pub dtype: Dtype,
}

impl AttentionShape {
    /// What the kernel computes: 4 b h q k d forward (two products), halved when causal; five products backward,
    /// 2.5 times.
    pub fn flops(&self) -> Flops {
        let two_products = self.two_products();
        let visible = if self.causal { two_products / 2 } else { two_products };
        Flops(match self.pass {
            Pass::Forward => visible,
            Pass::Backward => (visible / 2).saturating_mul(5),
        })
    }

    /// What the model asks for: two products forward and four backward over all pairs of tokens, causal or not.
    pub fn model_flops(&self) -> Flops {
        Flops(match self.pass {
            Pass::Forward => self.two_products(),
            Pass::Backward => self.two_products().saturating_mul(2),
        })
    }

    fn two_products(&self) -> u64 {
        product(&[4, self.batch, self.heads, self.query_length, self.key_length, self.head_dim])
    }
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
