//! Decoders with rotary positions, RMSNorm before each half, grouped queries, SwiGLU, no biases and no dropout.

use super::{Architecture, EMBEDDING, HEAD, LayerPlan, hidden_and_heads, limits, stack};
use crate::blocks::{
    Attention, Linear, add, all_tokens, attention, copy, enter_tensor_parallel, gated_mlp, language_head,
    leave_tensor_parallel, linear, lookup, rms_norm, rotary,
};
use crate::document::Section;
use crate::error::ModelError;
use crate::model::Sample;
use crate::operation::Dtype;
use crate::tape::{Tape, Tensor, Trace, Traced, names};
use crate::work_shape::AttentionKind;

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
    positions: u64,
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

    fn embedding(&self, trace: Trace<'_>) -> Traced {
        let (mut tape, ids) = Tape::start(trace, all_tokens(trace.shape), 1, Dtype::Int64.bytes());
        let x = lookup(&mut tape, "embed_tokens", ids, [self.vocabulary, self.hidden]);
        tape.finish(x)
    }

    fn block(&self, trace: Trace<'_>) -> Traced {
        let shape = trace.shape;
        let (mut tape, x) = Tape::start(trace, shape.token_rows(), self.hidden, shape.activation.bytes());
        let tape = &mut tape;

        let normed = rms_norm(tape, "input_layernorm", names!("attention.norm"), x);
        let normed = enter_tensor_parallel(tape, normed);
        let context = self.attend(tape, normed);
        let out = Linear::new("self_attn.o_proj", names!("attention.projection"), self.hidden);
        let projected = linear(tape, out.rows(), context);
        let projected = leave_tensor_parallel(tape, projected);
        let x = add(tape, names!("attention.residual"), x, projected);

        let normed = rms_norm(tape, "post_attention_layernorm", names!("mlp.norm"), x);
        let normed = enter_tensor_parallel(tape, normed);
        let narrow = gated_mlp(tape, "mlp", normed, [self.feed_forward, self.hidden]);
        let narrow = leave_tensor_parallel(tape, narrow);
        let x = add(tape, names!("mlp.residual"), x, narrow);
        tape.finish(x)
    }

    /// Projections, rotation and attention, up to the output projection.
    fn attend(&self, tape: &mut Tape<'_>, x: Tensor) -> Tensor {
        let (query, key) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let q = Linear::new("self_attn.q_proj", names!("attention.query"), query);
        let q = linear(tape, q.columns(), x);
        let k = Linear::new("self_attn.k_proj", names!("attention.key"), key);
        let k = linear(tape, k.columns(), x);
        let v = Linear::new("self_attn.v_proj", names!("attention.value"), key);
        let mut v = linear(tape, v.columns(), x);
        let mut q = rotary(tape, names!("attention.rotary_query"), q);
        let mut k = rotary(tape, names!("attention.rotary_key"), k);
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
            heads: tape.shape.tensor.part(self.heads),
            kv_heads: tape.shape.tensor.part(self.kv_heads),
            head_dim: self.head_dim,
            causal: true,
            dropout: false,
            softmax_fp32: true,
            sequence_first: false,
            merges_fused: false,
        };
        attention(tape, &shape, q, k, v)
    }

    fn head(&self, trace: Trace<'_>) -> Traced {
        let shape = trace.shape;
        let (mut tape, x) = Tape::start(trace, shape.token_rows(), self.hidden, shape.activation.bytes());
        let tape = &mut tape;
        let normed = rms_norm(tape, "norm", names!("head.norm"), x);
        let output = language_head(tape, "lm_head", normed, self.vocabulary, self.tied);
        tape.finish(output)
    }
}

impl Architecture for Llama {
    fn sample(&self) -> Sample {
        Sample::Tokens { default_length: self.positions }
    }

    fn layers(&self) -> Vec<LayerPlan> {
        stack(self.layers)
    }

    fn tensor_parallel_heads(&self) -> Option<u64> {
        Some(self.heads)
    }

    fn trace(&self, kind: u32, trace: Trace<'_>) -> Traced {
        match kind {
            EMBEDDING => self.embedding(trace),
            HEAD => self.head(trace),
            _ => self.block(trace),
        }
    }
}
