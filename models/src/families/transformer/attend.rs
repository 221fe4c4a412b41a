//! Attention of a block, up to its output projection.

use super::form::{Position, QueryKeyNorm, Transformer};
use super::{Around, naming};
use crate::blocks::{
    Attention, Extras, Linear, attention_with, copy, enter_tensor_parallel, linear, rms_norm, rotary,
    split_heads, split_to_copies,
};
use crate::parameter::Split;
use crate::tape::{Names, Tape, Tensor, names};
use crate::units::product;
use crate::work_shape::AttentionKind;

impl Transformer {
    /// Self-attention with its output projection, as this rank's summand.
    pub(super) fn attention(&self, tape: &mut Tape<'_>, around: &Around, x: Tensor) -> Tensor {
        let extras = Extras {
            window: if around.block.windowed { self.window } else { 0 },
            softcap: self.attention_softcap,
            unscaled: matches!(self.position, Position::Relative(_)),
            padding: !self.causal,
            unpads: self.unpads,
            bias: around.bias,
            value_dim: self.latent.map(|latent| latent.value_dim),
            ..Extras::default()
        };
        let qkv = match self.latent {
            Some(latent) => latent.project(tape, self.heads, x),
            None => self.project(tape, around, x),
        };
        // An encoder beside a decoder sees all of its tokens.
        let causal = self.causal && (around.block.cross || self.encoder_layers == 0);
        if self.attention_sinks {
            // One score a head that every query sees beside its keys; part of the fused softmax.
            tape.weight("self_attn.sinks", "", &[self.heads], Split::Tensor);
        }
        let context = attention_with(tape, &self.scores(tape, causal), &extras, qkv);
        let out = Linear::new(around.naming.projection, names!("attention.projection"), self.hidden);
        linear(tape, out.bias(self.projection_bias).rows(), context)
    }

    /// Attention of the decoder's tokens to the encoder's: as many, taken as equally long.
    pub(super) fn cross_attention(&self, tape: &mut Tape<'_>, x: Tensor, encoded: Tensor) -> Tensor {
        let encoded = enter_tensor_parallel(tape, encoded);
        let [_, query, key, value, out] = naming::CROSS;
        let (wide, narrow) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let q = Linear::new(query, names!("cross_attention.query"), wide);
        let k = Linear::new(key, names!("cross_attention.key"), narrow);
        let v = Linear::new(value, names!("cross_attention.value"), narrow);
        let q = linear(tape, q.bias(self.qkv_bias).columns(), x);
        let k = linear(tape, k.bias(self.qkv_bias).heads(self.kv_heads), encoded);
        let v = linear(tape, v.bias(self.qkv_bias).heads(self.kv_heads), encoded);
        let qkv = self.beside_batch(tape, [q, k, v]);
        let extras = Extras { unscaled: true, padding: true, ..Extras::default() };
        let context = attention_with(tape, &self.scores(tape, false), &extras, qkv);
        let out = Linear::new(out, names!("cross_attention.projection"), self.hidden);
        linear(tape, out.bias(self.projection_bias).rows(), context)
    }

    fn scores(&self, tape: &Tape<'_>, causal: bool) -> Attention {
        let shape = tape.shape;
        Attention {
            batch: shape.micro_batch,
            length: shape.sequence_length,
            heads: shape.tensor.part(self.heads),
            kv_heads: shape.tensor.part(self.kv_heads),
            head_dim: self.head_dim,
            causal,
            dropout: self.dropout,
            softmax_fp32: self.softmax_fp32,
            sequence_first: false,
            merges_fused: false,
        }
    }

    /// Queries, keys and values: projections, norms, rotation, and for eager attention the layout of its products.
    fn project(&self, tape: &mut Tape<'_>, around: &Around, x: Tensor) -> [Tensor; 3] {
        let naming = around.naming;
        let (query, key) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let eager = tape.shape.attention == AttentionKind::Eager;
        let rotates = matches!(self.position, Position::Rotary(_));
        if let Some(module) = naming.packed {
            let packed = Linear::new(module, names!("attention.qkv"), 3 * query);
            let qkv = linear(tape, packed.bias(self.qkv_bias).columns(), x);
            if eager && !rotates && self.query_key_norm == QueryKeyNorm::None {
                return split_to_copies(tape, qkv);
            }
            let qkv = split_heads(tape, qkv);
            let qkv = self.normalize_and_rotate(tape, around, qkv);
            return self.beside_batch(tape, qkv);
        }
        let q = Linear::new(naming.query, names!("attention.query"), query).heads(self.heads);
        let k = Linear::new(naming.key, names!("attention.key"), key).heads(self.kv_heads);
        let v = Linear::new(naming.value, names!("attention.value"), key).heads(self.kv_heads);
        let qkv = [q, k, v].map(|layer| linear(tape, layer.bias(self.qkv_bias), x));
        let qkv = self.normalize_and_rotate(tape, around, qkv);
        self.beside_batch(tape, qkv)
    }

    fn normalize_and_rotate(
        &self,
        tape: &mut Tape<'_>,
        around: &Around,
        [q, k, v]: [Tensor; 3],
    ) -> [Tensor; 3] {
        let naming = around.naming;
        let q = self.query_key_norm(tape, naming.query_norm, names!("attention.query_norm"), q);
        let k = self.query_key_norm(tape, naming.key_norm, names!("attention.key_norm"), k);
        let Position::Rotary(values) = self.position else {
            return [q, k, v];
        };
        let rotated = |x: Tensor| x.width / self.head_dim * values;
        let (of_q, of_k) = (rotated(q), rotated(k));
        [
            rotary(tape, names!("attention.rotary_query"), q, of_q),
            rotary(tape, names!("attention.rotary_key"), k, of_k),
            v,
        ]
    }

    fn query_key_norm(&self, tape: &mut Tape<'_>, module: &str, names: Names, x: Tensor) -> Tensor {
        match self.query_key_norm {
            QueryKeyNorm::None => x,
            QueryKeyNorm::Full => rms_norm(tape, module, names, x),
            QueryKeyNorm::Head => {
                let heads = x.width / self.head_dim;
                let by_head = x.reshaped(product(&[x.rows, heads]), self.head_dim);
                rms_norm(tape, module, names, by_head).reshaped(x.rows, x.width)
            }
        }
    }

    /// The batched products of eager attention want heads beside the batch. Grouped keys and values get there when they
    /// are repeated; the others are copied.
    fn beside_batch(&self, tape: &mut Tape<'_>, [q, k, v]: [Tensor; 3]) -> [Tensor; 3] {
        if tape.shape.attention != AttentionKind::Eager {
            return [q, k, v];
        }
        let q = copy(tape, names!("attention.query_layout"), q);
        if self.kv_heads != self.heads {
            return [q, k, v];
        }
        let k = copy(tape, names!("attention.key_layout"), k);
        [q, k, copy(tape, names!("attention.value_layout"), v)]
    }
}
