//! What a transformer is, once its fields are read and checked.

use super::naming::Naming;
use crate::blocks::{Activation, Maw, Moe};

/// How a block knows where a token stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Position {
    /// A learned table of this many rows, added to the embedding.
    Learned(u64),
    /// Queries and keys rotated, this many values of each head.
    Rotary(u64),
    /// Slopes over the distance, added to the scores (Press et al. 2022).
    Alibi,
    /// T5's learned bias for each of this many buckets of distances.
    Relative(u64),
    None,
}

/// Which norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Norm {
    Rms,
    Layer { bias: bool },
}

/// Where the norms of a half stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// Before the half.
    Pre,
    /// After its residual.
    Post,
    /// Before the half, and after it before the residual.
    Both,
    /// One norm each before attention and feed-forward, which run side by side on the block's input.
    Parallel,
}

/// RMSNorm of queries and keys before their product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QueryKeyNorm {
    None,
    /// Of each head.
    Head,
    /// Of all heads of a token at once.
    Full,
}

/// What stands on the last block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Head {
    /// Projection to the vocabulary and its loss.
    Language,
    /// A linear layer, activation and norm before that.
    MaskedLanguage,
    /// Linear layer and tanh of the first token.
    Pooler,
    /// Mean over the tokens.
    MeanPool,
    /// So many classes, and their loss.
    Classifier(u64),
    None,
}

/// Multi-head latent attention (DeepSeek-V2, section 2.1): keys and values of all heads from one narrow vector a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Latent {
    /// Width of the vector that queries are made of; 0 if they are projected directly.
    pub(super) query_rank: u64,
    /// Width of the vector that keys and values are made of.
    pub(super) kv_rank: u64,
    /// Values of a head that are rotated; of the keys, one such vector for all heads.
    pub(super) rope_dim: u64,
    /// Values of a head that are not.
    pub(super) nope_dim: u64,
    /// Width of a head of values.
    pub(super) value_dim: u64,
}

/// Blocks with routed experts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Routed {
    pub(super) moe: Moe,
    /// First blocks that have none.
    pub(super) dense_layers: u64,
    /// Every so many blocks have them, the first at the end of each such group.
    pub(super) every: u64,
}

/// A transformer.
#[derive(Clone, Debug)]
pub(crate) struct Transformer {
    /// Blocks; of an encoder-decoder those of the decoder.
    pub(crate) layers: u64,
    /// Blocks of the encoder of an encoder-decoder; 0 for a single stack.
    pub(crate) encoder_layers: u64,
    pub(crate) hidden: u64,
    pub(crate) heads: u64,
    pub(crate) kv_heads: u64,
    pub(crate) head_dim: u64,
    pub(crate) feed_forward: u64,
    pub(crate) vocabulary: u64,
    /// Longest sequence of a learned table; else the one of the training.
    pub(crate) positions: u64,
    pub(crate) default_length: u64,
    /// Whether the output projection is the embedding's table.
    pub(crate) tied: bool,
    pub(crate) causal: bool,
    pub(crate) position: Position,
    pub(crate) token_types: u64,
    /// Width of the embedding's table.
    pub(crate) embedding_dim: u64,
    pub(crate) embedding_norm: bool,
    pub(crate) embedding_scale: bool,
    pub(crate) norm: Norm,
    pub(crate) placement: Placement,
    pub(crate) final_norm: bool,
    pub(crate) qkv_bias: bool,
    pub(crate) projection_bias: bool,
    pub(crate) mlp_bias: bool,
    pub(crate) activation: Activation,
    pub(crate) gated: bool,
    pub(crate) query_key_norm: QueryKeyNorm,
    pub(crate) attention_softcap: bool,
    /// A learned score for each head beside those of the keys (GPT-OSS).
    pub(crate) attention_sinks: bool,
    /// Whether fused attention gets the tokens without their padding, gathered before it and scattered behind it.
    pub(crate) unpads: bool,
    pub(crate) logit_softcap: bool,
    /// Tokens that a token sees in every `window_every`-th block, from the first on; 0 for all.
    pub(crate) window: u64,
    pub(crate) window_every: u64,
    pub(crate) dropout: bool,
    /// Softmax in 32 bits whatever the activations.
    pub(crate) softmax_fp32: bool,
    pub(crate) head: Head,
    /// The pooler's linear layer is there, whether or not its result is used.
    pub(crate) pooler: bool,
    pub(crate) routed: Option<Routed>,
    pub(crate) latent: Option<Latent>,
    /// Modules after the last block, each of which predicts one token further (DeepSeek-V3, section 2.2).
    pub(crate) predictions: u64,
    /// Module after some blocks, and which.
    pub(crate) maw: Option<(Maw, Vec<u64>)>,
    pub(crate) naming: &'static Naming,
}

/// Code and sizes of a block; layers with the same are of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) experts: bool,
    pub(super) windowed: bool,
    /// Of a decoder that attends to an encoder.
    pub(super) cross: bool,
    /// The first of its stack, where that differs from the others.
    pub(super) first: bool,
    pub(super) maw: bool,
    /// Of a module that predicts further.
    pub(super) prediction: bool,
}

impl Block {
    const FLAGS: u32 = 2;

    /// As the number of a kind that is a block: its lowest two bits are `block`.
    pub(super) fn kind(self, block: u32) -> u32 {
        let flags = [self.experts, self.windowed, self.cross, self.first, self.maw, self.prediction];
        let set = flags.iter().enumerate().filter(|(_, flag)| **flag);
        set.fold(block, |kind, (bit, _)| kind | 1 << (Self::FLAGS + bit as u32))
    }

    /// The block of a kind.
    pub(super) fn of(kind: u32) -> Self {
        let flag = |bit: u32| kind >> (Self::FLAGS + bit) & 1 == 1;
        Self {
            experts: flag(0),
            windowed: flag(1),
            cross: flag(2),
            first: flag(3),
            maw: flag(4),
            prediction: flag(5),
        }
    }
}

impl Transformer {
    /// Block `number` of a stack: which parts it has.
    pub(super) fn block_at(&self, number: u64, cross: bool) -> Block {
        let experts =
            self.routed.is_some_and(|it| number >= it.dense_layers && (number + 1).is_multiple_of(it.every));
        let relative = matches!(self.position, Position::Relative(_));
        Block {
            experts,
            windowed: self.window > 0 && number.is_multiple_of(self.window_every),
            cross,
            first: number == 0 && (cross || relative),
            maw: self.maw.as_ref().is_some_and(|(_, after)| after.contains(&number)),
            prediction: false,
        }
    }

    /// The block of a module that predicts further: like the last one.
    pub(super) fn prediction_block(&self) -> Block {
        Block { first: false, maw: false, prediction: true, ..self.block_at(self.layers - 1, false) }
    }

    /// Whether the modules are those of T5, with its dropout inside and after.
    pub(super) fn is_t5(&self) -> bool {
        self.naming.name == "t5"
    }
}
