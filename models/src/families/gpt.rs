//! Decoders with learned positions, LayerNorm before each half, biases, GELU and dropout: parameters in Megatron's
//! layout, kernels of plain PyTorch modules (Megatron fuses scale, mask and softmax, and looks positions up one by
//! one).

use super::{Architecture, EMBEDDING, HEAD, LayerPlan, hidden_and_heads, limits, stack};
use crate::blocks::{
    Attention, Linear, activation, add, all_tokens, attention, dropout, enter_tensor_parallel, language_head,
    layer_norm, leave_tensor_parallel, linear, lookup, position_lookup, split_columns, split_to_copies,
};
use crate::document::Section;
use crate::error::ModelError;
use crate::model::Sample;
use crate::operation::Dtype;
use crate::tape::{Tape, Trace, Traced, names};
use crate::work_shape::{AttentionKind, WorkShape};

/// Fields of `[architecture]`.
#[derive(Clone, Debug)]
pub(crate) struct Gpt {
    layers: u64,
    hidden: u64,
    heads: u64,
    feed_forward: u64,
    vocabulary: u64,
    positions: u64,
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

    fn embedding(&self, trace: Trace<'_>) -> Traced {
        let shape = trace.shape;
        let (mut tape, ids) = Tape::start(trace, all_tokens(shape), 1, Dtype::Int64.bytes());
        let tape = &mut tape;
        let x = lookup(tape, "word_embeddings", ids, [self.vocabulary, self.hidden]);
        let x = position_lookup(tape, "position_embeddings", x, shape.sequence_length, self.positions);
        let x = dropout(tape, names!("embedding.dropout"), x, self.dropout);
        tape.finish(x)
    }

    fn block(&self, trace: Trace<'_>) -> Traced {
        let (shape, h) = (trace.shape, self.hidden);
        let (mut tape, x) = Tape::start(trace, shape.token_rows(), h, shape.activation.bytes());
        let tape = &mut tape;

        let normed = layer_norm(tape, "input_layernorm", names!("attention.norm"), x, true);
        let normed = enter_tensor_parallel(tape, normed);
        let packed = Linear::new("self_attention.query_key_value", names!("attention.qkv"), 3 * h);
        let qkv = linear(tape, packed.bias(true).columns(), normed);
        let [q, k, v] = match shape.attention {
            AttentionKind::Eager => split_to_copies(tape, qkv),
            AttentionKind::Flash => split_columns(tape, qkv),
        };
        let context = attention(tape, &self.attention(shape), q, k, v);
        let out = Linear::new("self_attention.dense", names!("attention.projection"), h);
        let projected = linear(tape, out.bias(true).rows(), context);
        let projected = leave_tensor_parallel(tape, projected);
        let projected = dropout(tape, names!("attention.output_dropout"), projected, self.dropout);
        let x = add(tape, names!("attention.residual"), x, projected);

        let normed = layer_norm(tape, "post_attention_layernorm", names!("mlp.norm"), x, true);
        let normed = enter_tensor_parallel(tape, normed);
        let wide = Linear::new("mlp.dense_h_to_4h", names!("mlp.fc1"), self.feed_forward);
        let wide = linear(tape, wide.bias(true).columns(), normed);
        let wide = activation(tape, names!("mlp.gelu"), wide);
        let narrow = Linear::new("mlp.dense_4h_to_h", names!("mlp.fc2"), h);
        let narrow = linear(tape, narrow.bias(true).rows(), wide);
        let narrow = leave_tensor_parallel(tape, narrow);
        let narrow = dropout(tape, names!("mlp.dropout"), narrow, self.dropout);
        let x = add(tape, names!("mlp.residual"), x, narrow);
        tape.finish(x)
    }

    fn head(&self, trace: Trace<'_>) -> Traced {
        let shape = trace.shape;
        let (mut tape, x) = Tape::start(trace, shape.token_rows(), self.hidden, shape.activation.bytes());
        let tape = &mut tape;
        let normed = layer_norm(tape, "final_layernorm", names!("head.norm"), x, true);
        let output = language_head(tape, "output_layer", normed, self.vocabulary, self.tied);
        tape.finish(output)
    }

    fn attention(&self, shape: &WorkShape) -> Attention {
        let heads = shape.tensor.part(self.heads);
        Attention {
            batch: shape.micro_batch,
            length: shape.sequence_length,
            heads,
            kv_heads: heads,
            head_dim: self.hidden / self.heads,
            causal: true,
            dropout: self.dropout,
            softmax_fp32: false,
            sequence_first: false,
            merges_fused: false,
        }
    }
}

impl Architecture for Gpt {
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

    fn longest_sequence(&self) -> Option<u64> {
        Some(self.positions)
    }
}
