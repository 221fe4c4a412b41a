//! Decoders with rotary positions, RMSNorm before each half, grouped queries, SwiGLU, no biases and no dropout.

use super::{Parameters, hidden_and_heads, limits, stack};
use crate::blocks::{
    Attention, activation, add, attention, copy, cross_entropy, linear, lookup, multiply, rms_norm, rotary,
};
use crate::document::Section;
use crate::error::ModelError;
use crate::model::{AttentionKind, Layer, LayerRole, WorkShape};
use crate::operation::{Dtype, LayerWork};
use crate::tape::{Tape, Tensor, names};
use crate::units::product;

/// Fields of `[architecture]`.
#[derive(Clone, Debug)]
pub(crate) struct Llama {
    layers: u64,
    hidden: u64,
    heads: u64,
    kv_heads: u64,
    head_dim: u64,
    feed_forward: u64,
    vocabulary: u64,
    pub(super) positions: u64,
    tied: bool,
}

impl Llama {
    pub(super) fn read(section: &Section) -> Result<Self, ModelError> {
        section.only(&[
            "layers",
            "hidden",
            "heads",
            "kv_heads",
            "head_dim",
            "feed_forward",
            "vocabulary",
            "positions",
            "tied",
        ])?;
        let hidden = section.count("hidden", limits::WIDTH)?;
        // With a width of heads of its own, the heads need not divide the hidden width.
        let (heads, head_dim) = if let Some(head_dim) = section.range("head_dim", 1, limits::WIDTH)? {
            (section.count("heads", limits::HEADS)?, head_dim)
        } else {
            let (hidden, heads) = hidden_and_heads(section)?;
            (heads, hidden / heads)
        };
        let kv_heads = section.range("kv_heads", 1, limits::HEADS)?.unwrap_or(heads);
        if !heads.is_multiple_of(kv_heads) {
            return Err(section.refuse("kv_heads", kv_heads, format!("a divisor of heads ({heads})")));
        }
        Ok(Self {
            layers: section.count("layers", limits::LAYERS)?,
            hidden,
            heads,
            kv_heads,
            head_dim,
            feed_forward: section.count("feed_forward", limits::FEED_FORWARD)?,
            vocabulary: section.count("vocabulary", limits::VOCABULARY)?,
            positions: section.count("positions", limits::POSITIONS)?,
            tied: section.flag("tied", false)?,
        })
    }

    pub(super) fn layers(&self) -> Vec<Layer> {
        let (h, f) = (self.hidden, self.feed_forward);
        let (query, key) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let mut embedding = Parameters::new();
        embedding.add("embed_tokens.weight", self.vocabulary * h);
        let mut block = Parameters::new();
        block.linear("self_attn.q_proj", h, query, false);
        block.linear("self_attn.k_proj", h, key, false);
        block.linear("self_attn.v_proj", h, key, false);
        block.linear("self_attn.o_proj", query, h, false);
        block.linear("mlp.gate_proj", h, f, false);
        block.linear("mlp.up_proj", h, f, false);
        block.linear("mlp.down_proj", f, h, false);
        block.add("input_layernorm.weight", h);
        block.add("post_attention_layernorm.weight", h);
        let mut head = Parameters::new();
        head.add("norm.weight", h);
        head.output_projection("lm_head.weight", self.vocabulary * h, self.tied);
        stack(embedding, block, head, self.layers, None)
    }

    pub(super) fn work(&self, role: LayerRole, shape: &WorkShape) -> LayerWork {
        match role {
            LayerRole::Embedding => {
                let (mut tape, ids) = Tape::start(shape, tokens(shape), 1, Dtype::Int64.bytes());
                let x = lookup(&mut tape, ids, self.vocabulary, self.hidden);
                tape.finish(x)
            }
            LayerRole::Head => self.head(shape),
            LayerRole::Block | LayerRole::Component => self.block(shape),
        }
    }

    fn block(&self, shape: &WorkShape) -> LayerWork {
        let (mut tape, x) = Tape::start(shape, tokens(shape), self.hidden, shape.activation.bytes());
        let tape = &mut tape;

        let normed = rms_norm(tape, names!("attention.norm"), x);
        let context = self.attend(tape, normed);
        let projected = linear(tape, names!("attention.projection"), context, self.hidden, false);
        let x = add(tape, names!("attention.residual"), x, projected);

        let normed = rms_norm(tape, names!("mlp.norm"), x);
        let gate = linear(tape, names!("mlp.gate"), normed, self.feed_forward, false);
        let gate = activation(tape, names!("mlp.silu"), gate);
        let up = linear(tape, names!("mlp.up"), normed, self.feed_forward, false);
        let wide = multiply(tape, names!("mlp.product"), gate, up);
        let narrow = linear(tape, names!("mlp.down"), wide, self.hidden, false);
        let x = add(tape, names!("mlp.residual"), x, narrow);
        tape.finish(x)
    }

    /// Projections, rotation and attention, up to the output projection.
    fn attend(&self, tape: &mut Tape<'_>, x: Tensor) -> Tensor {
        let (query, key) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let q = linear(tape, names!("attention.query"), x, query, false);
        let k = linear(tape, names!("attention.key"), x, key, false);
        let v = linear(tape, names!("attention.value"), x, key, false);
        let mut q = rotary(tape, names!("attention.rotary_query"), q);
        let mut k = rotary(tape, names!("attention.rotary_key"), k);
        let mut v = v;
        if tape.shape.attention == AttentionKind::Eager {
            // The batched products want heads beside the batch. Grouped keys and values get there when they are
            // repeated; the others are copied.
            q = copy(tape, names!("attention.query_layout"), q);
            if self.kv_heads == self.heads {
                k = copy(tape, names!("attention.key_layout"), k);
                v = copy(tape, names!("attention.value_layout"), v);
            }
        }
        let shape = Attention {
            batch: tape.shape.micro_batch,
            length: tape.shape.sequence_length,
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            causal: true,
            dropout: false,
            softmax_fp32: true,
            sequence_first: false,
            merges_fused: false,
        };
        attention(tape, &shape, q, k, v)
    }

    fn head(&self, shape: &WorkShape) -> LayerWork {
        let (mut tape, x) = Tape::start(shape, tokens(shape), self.hidden, shape.activation.bytes());
        let tape = &mut tape;
        let normed = rms_norm(tape, names!("head.norm"), x);
        let logits = linear(tape, names!("head.projection"), normed, self.vocabulary, false);
        let output = if shape.training { cross_entropy(tape, logits) } else { logits };
        tape.finish(output)
    }
}

fn tokens(shape: &WorkShape) -> u64 {
    product(&[shape.micro_batch, shape.sequence_length])
}
