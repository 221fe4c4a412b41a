//! Feed-forward halves.

use super::linear::{Linear, linear};
use super::pointwise::{activation, multiply};
use crate::tape::{Tape, Tensor, names};

/// SwiGLU as Llama's code spells it: two linear layers side by side, SiLU of one times the other, and a third. Its
/// middle is divided among the tensor group; the result is this rank's summand.
pub(crate) fn gated_mlp(
    tape: &mut Tape<'_>,
    module: &str,
    x: Tensor,
    [feed_forward, hidden]: [u64; 2],
) -> Tensor {
    let name = |layer| format!("{module}.{layer}");
    let gate = linear(tape, Linear::new(&name("gate_proj"), names!("mlp.gate"), feed_forward).columns(), x);
    let gate = activation(tape, names!("mlp.silu"), gate);
    let up = linear(tape, Linear::new(&name("up_proj"), names!("mlp.up"), feed_forward).columns(), x);
    let wide = multiply(tape, names!("mlp.product"), gate, up);
    linear(tape, Linear::new(&name("down_proj"), names!("mlp.down"), hidden).rows(), wide)
}
