//! Queries, keys and values of multi-head latent attention.

use super::form::Latent;
use crate::blocks::{Linear, copy, expand, join_columns, linear, rms_norm, rotary, split};
use crate::tape::{Tape, Tensor, names};
use crate::work_shape::AttentionKind;

impl Latent {
    /// As Hugging Face's DeepSeek code runs them: down to the narrow vectors and their norms, up to all heads, the
    /// rotated part of the keys made once a token and seen by each head. The narrow vectors are whole on every rank of
    /// the tensor group, the heads divided.
    ///
    /// Values stay a view of the projection that holds keys and values, and keep all of it.
    pub(super) fn project(&self, tape: &mut Tape<'_>, all_heads: u64, x: Tensor) -> [Tensor; 3] {
        let heads = tape.shape.tensor.part(all_heads);
        let q = self.query(tape, all_heads, x);
        let widths = [heads * self.nope_dim, heads * self.rope_dim];
        let [q_plain, q_turned] = split(tape, names!("attention.query_split"), q, widths);

        let down = Linear::new(
            "self_attn.kv_a_proj_with_mqa",
            names!("attention.kv_down"),
            self.kv_rank + self.rope_dim,
        );
        let narrow = linear(tape, down, x);
        let widths = [self.kv_rank, self.rope_dim];
        let [latent, k_turned] = split(tape, names!("attention.kv_down_split"), narrow, widths);
        let latent = rms_norm(tape, "self_attn.kv_a_layernorm", names!("attention.kv_norm"), latent);
        let up = Linear::new(
            "self_attn.kv_b_proj",
            names!("attention.kv_up"),
            all_heads * (self.nope_dim + self.value_dim),
        );
        let kv = linear(tape, up.columns(), latent);
        let widths = [heads * self.nope_dim, heads * self.value_dim];
        let [k_plain, v] = split(tape, names!("attention.kv_split"), kv, widths);

        let q_turned = rotary(tape, names!("attention.rotary_query"), q_turned, q_turned.width);
        let k_turned = rotary(tape, names!("attention.rotary_key"), k_turned, k_turned.width);
        let k_turned = expand(tape, names!("attention.key_expand"), k_turned, heads);
        let q = join_columns(tape, names!("attention.query_join"), [q_plain, q_turned]);
        let k = join_columns(tape, names!("attention.key_join"), [k_plain, k_turned]);
        let v = match tape.shape.attention {
            AttentionKind::Eager => copy(tape, names!("attention.value_layout"), v),
            _ => v,
        };
        [q, k, v]
    }

    fn query(&self, tape: &mut Tape<'_>, heads: u64, x: Tensor) -> Tensor {
        let width = heads * (self.nope_dim + self.rope_dim);
        if self.query_rank == 0 {
            return linear(
                tape,
                Linear::new("self_attn.q_proj", names!("attention.query"), width).columns(),
                x,
            );
        }
        let down = Linear::new("self_attn.q_a_proj", names!("attention.query_down"), self.query_rank);
        let latent = linear(tape, down, x);
        let latent = rms_norm(tape, "self_attn.q_a_layernorm", names!("attention.query_down_norm"), latent);
        linear(tape, Linear::new("self_attn.q_b_proj", names!("attention.query"), width).columns(), latent)
    }
}
