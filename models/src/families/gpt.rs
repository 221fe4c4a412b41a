//! Decoders with learned positions, LayerNorm before each half, biases, GELU and dropout: parameters in Megatron's
//! layout, kernels of plain PyTorch modules (Megatron fuses scale, mask and softmax, and looks positions up one by
//! one).

use super::{Parameters, hidden_and_heads, limits, stack};
use crate::blocks::{
    Attention, activation, add, attention, cross_entropy, dropout, layer_norm, linear, lookup,
    position_lookup, split_columns, split_to_copies,
};
use crate::document::Section;
use crate::error::ModelError;
use crate::model::{AttentionKind, Layer, LayerRole, WorkShape};
use crate::operation::{Dtype, LayerWork};
use crate::tape::{Tape, names};
use crate::units::product;

/// Fields of `[architecture]`.
#[derive(Clone, Debug)]
pub(crate) struct Gpt {
    layers: u64,
    hidden: u64,
    heads: u64,
    feed_forward: u64,
    vocabulary: u64,
    pub(super) positions: u64,
    tied: bool,
    dropout: bool,
}

impl Gpt {
    pub(super) fn read(section: &Section) -> Result<Self, ModelError> {
        section.only(&[
            "layers",
            "hidden",
            "heads",
            "feed_forward",
            "vocabulary",
            "positions",
            "tied",
            "dropout",
        ])?;
        let (hidden, heads) = hidden_and_heads(section)?;
        Ok(Self {
            layers: section.count("layers", limits::LAYERS)?,
            hidden,
            heads,
            feed_forward: section.range("feed_forward", 1, limits::FEED_FORWARD)?.unwrap_or(4 * hidden),
            vocabulary: section.count("vocabulary", limits::VOCABULARY)?,
            positions: section.count("positions", limits::POSITIONS)?,
            tied: section.flag("tied", true)?,
            dropout: section.flag("dropout", true)?,
        })
    }

    pub(super) fn layers(&self) -> Vec<Layer> {
        let (h, f) = (self.hidden, self.feed_forward);
        let mut embedding = Parameters::new();
        embedding.add("word_embeddings.weight", self.vocabulary * h);
        embedding.add("position_embeddings.weight", self.positions * h);
        let mut block = Parameters::new();
        block.layer_norm("input_layernorm", h);
        block.linear("self_attention.query_key_value", h, 3 * h, true);
        block.linear("self_attention.dense", h, h, true);
        block.layer_norm("post_attention_layernorm", h);
        block.linear("mlp.dense_h_to_4h", h, f, true);
        block.linear("mlp.dense_4h_to_h", f, h, true);
        let mut head = Parameters::new();
        head.layer_norm("final_layernorm", h);
        head.output_projection("output_layer.weight", self.vocabulary * h, self.tied);
        stack(embedding, block, head, self.layers, None)
    }

    pub(super) fn work(&self, role: LayerRole, shape: &WorkShape) -> LayerWork {
        match role {
            LayerRole::Embedding => self.embedding(shape),
            LayerRole::Head => self.head(shape),
            LayerRole::Block | LayerRole::Component => self.block(shape),
        }
    }

    fn embedding(&self, shape: &WorkShape) -> LayerWork {
        let (mut tape, ids) = Tape::start(shape, tokens(shape), 1, Dtype::Int64.bytes());
        let tape = &mut tape;
        let x = lookup(tape, ids, self.vocabulary, self.hidden);
        let x = position_lookup(tape, x, shape.sequence_length, self.positions);
        let x = dropout(tape, names!("embedding.dropout"), x, self.dropout);
        tape.finish(x)
    }

    fn block(&self, shape: &WorkShape) -> LayerWork {
        let h = self.hidden;
        let (mut tape, x) = Tape::start(shape, tokens(shape), h, shape.activation.bytes());
        let tape = &mut tape;

        let normed = layer_norm(tape, names!("attention.norm"), x);
        let qkv = linear(tape, names!("attention.qkv"), normed, 3 * h, true);
        let [q, k, v] = match shape.attention {
            AttentionKind::Eager => split_to_copies(tape, qkv),
            AttentionKind::Flash => split_columns(tape, qkv),
        };
        let context = attention(tape, &self.attention(shape), q, k, v);
        let projected = linear(tape, names!("attention.projection"), context, h, true);
        let projected = dropout(tape, names!("attention.output_dropout"), projected, self.dropout);
        let x = add(tape, names!("attention.residual"), x, projected);

        let normed = layer_norm(tape, names!("mlp.norm"), x);
        let wide = linear(tape, names!("mlp.fc1"), normed, self.feed_forward, true);
        let wide = activation(tape, names!("mlp.gelu"), wide);
        let narrow = linear(tape, names!("mlp.fc2"), wide, h, true);
        let narrow = dropout(tape, names!("mlp.dropout"), narrow, self.dropout);
        let x = add(tape, names!("mlp.residual"), x, narrow);
        tape.finish(x)
    }

    fn head(&self, shape: &WorkShape) -> LayerWork {
        let (mut tape, x) = Tape::start(shape, tokens(shape), self.hidden, shape.activation.bytes());
        let tape = &mut tape;
        let normed = layer_norm(tape, names!("head.norm"), x);
        let logits = linear(tape, names!("head.projection"), normed, self.vocabulary, false);
        let output = if shape.training { cross_entropy(tape, logits) } else { logits };
        tape.finish(output)
    }

    fn attention(&self, shape: &WorkShape) -> Attention {
        Attention {
            batch: shape.micro_batch,
            length: shape.sequence_length,
            heads: self.heads,
            kv_heads: self.heads,
            head_dim: self.hidden / self.heads,
            causal: true,
            dropout: self.dropout,
            softmax_fp32: false,
            sequence_first: false,
            merges_fused: false,
        }
    }
}

fn tokens(shape: &WorkShape) -> u64 {
    product(&[shape.micro_batch, shape.sequence_length])
}
