//! The kinds of blocks and their fields.

use crate::blocks::Window;
use crate::error::Place;

use super::flow::Flow;

/// One block of a layer, checked against what it is given.
#[derive(Clone, Debug)]
pub(super) struct Block {
    pub(super) kind: Kind,
    /// Name of its module, from which its parameters have theirs.
    pub(super) module: String,
    /// Whether the file gives that name.
    pub(super) named: bool,
    pub(super) place: Option<Place>,
    pub(super) input: Flow,
    pub(super) output: Flow,
}

/// What a block does; sizes are of the whole model, not of one rank's part.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    Embedding {
        vocabulary: u64,
        width: u64,
    },
    Positions {
        rows: u64,
    },
    TokenTypes {
        count: u64,
    },
    Patches {
        size: u64,
        width: u64,
    },
    ClassToken,
    Norm(Norm),
    Attention(Attend),
    Mlp(Mlp),
    Moe(Moe),
    Convolution {
        channels: u64,
        window: Window,
        groups: u64,
        bias: bool,
    },
    /// GELU, SiLU, tanh: a new tensor.
    Activation,
    ReluInPlace,
    Dropout,
    Linear {
        width: u64,
        bias: bool,
    },
    Pool(Pool),
    Flatten,
    Head {
        outputs: u64,
        tied: bool,
        bias: bool,
    },
    Component(Component),
    Residual {
        branch: Vec<Block>,
        shortcut: Vec<Block>,
    },
}

/// Which norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Norm {
    Layer { bias: bool },
    Rms,
    Batch,
}

/// Self-attention with its projections.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attend {
    pub(super) heads: u64,
    pub(super) kv_heads: u64,
    pub(super) head_dim: u64,
    pub(super) causal: bool,
    pub(super) rotary: bool,
    /// One projection for queries, keys and values.
    pub(super) packed: bool,
    /// Biases of that or of the three.
    pub(super) bias: bool,
    pub(super) output_bias: bool,
    pub(super) dropout: bool,
    /// Softmax in 32 bits whatever the activations.
    pub(super) softmax_fp32: bool,
}

/// Feed-forward.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mlp {
    pub(super) width: u64,
    pub(super) gated: bool,
    pub(super) bias: bool,
    /// Dropout after the activation.
    pub(super) dropout: bool,
}

/// Routed experts, each a feed-forward without biases.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moe {
    pub(super) experts: u64,
    pub(super) top_k: u64,
    pub(super) width: u64,
    pub(super) gated: bool,
}

/// Which pooling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pool {
    Max(Window),
    Average(Window),
    /// All pixels of an image, or all tokens.
    Global,
    /// The first token.
    First,
}

/// A part known from outside only.
#[derive(Clone, Copy, Debug)]
pub(super) struct Component {
    /// FLOPs of a sample.
    pub(super) forward: f64,
    pub(super) backward: f64,
    pub(super) parameters: u64,
    /// Bytes of a sample kept for backward.
    pub(super) saved: f64,
}
