//! Multi-attention-weight (MAW) attention: several attention matrices for each head, of which a small network chooses
//! one a sequence.
//!
//! For B sequences of S tokens of width H, a heads and D depths:
//!
//! ```text
//! q, k, v   = three linear layers of x                       # q and k feed nothing that is trained
//! dq, dk    = two linear layers of x                         # B, a, S, D
//! scores    = dq[:, :, :, None] * dk[:, :, None] / sqrt(D)   # B, a, S, S, D; in chunks of two sequences, concatenated
//! weights   = softmax over D of the masked scores, in 32 bits
//! state     = weights' mean over D, pooled to 8 x 8 a head, through two linear layers
//! depth     = one index a sequence, drawn from a policy network of the state; a value network beside it, and a frozen
//!             copy of state, policy and value networks for reference
//! y         = norm(x + out(dropout(weights[..., depth]) v))
//! ```
//!
//! The five-dimensional tensors dwarf everything else. The module is checkpointed: forward keeps its input, backward
//! runs it again. The index is discrete, so gradients reach `v`, `dq` and `dk` only.

use super::linear::{Linear, gemm, linear};
use super::norm::layer_norm;
use super::pointwise::{Function, activation, add, cast, copy, dropout, mask};
use crate::operation::{Dtype, MemoryBoundKind, Operation};
use crate::tape::{Gradient, Names, Step, Tape, Tensor, memory, names};
use crate::units::{product, total};

/// Sequences whose scores are computed at a time.
const CHUNK: u64 = 2;

/// Shape of the module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Maw {
    pub(crate) heads: u64,
    /// Attention matrices a head.
    pub(crate) depth: u64,
    /// Side of the square that a head's mean matrix is pooled to.
    pub(crate) pool: u64,
    /// Widths of the two layers that make the state.
    pub(crate) state: [u64; 2],
    /// Hidden width of the policy and value networks.
    pub(crate) policy: u64,
    pub(crate) dropout: bool,
}

/// The module after a layer whose output is `x`. Its parameters are trained whatever of the model is, those of the
/// reference never.
pub(crate) fn maw(tape: &mut Tape<'_>, maw: &Maw, x: Tensor) -> Tensor {
    tape.as_added(true, |tape| {
        let y = tape.checkpointed(names!("maw"), "maw.workspace", x, |tape, x| attend(tape, maw, x));
        let sum = add(tape, names!("maw.residual"), x, y);
        layer_norm(tape, "maw.layer_norm", names!("maw.norm"), sum, true)
    })
}

/// Everything but the residual and the norm.
fn attend(tape: &mut Tape<'_>, maw: &Maw, x: Tensor) -> Tensor {
    let (h, deep) = (x.width, product(&[maw.heads, maw.depth]));
    linear(tape, Linear::new("maw.query", names!("maw.query"), h), x);
    linear(tape, Linear::new("maw.key", names!("maw.key"), h), x);
    let v = linear(tape, Linear::new("maw.value", names!("maw.value"), h), x);
    let dq = linear(tape, Linear::new("maw.depth_query", names!("maw.depth_query"), deep), x);
    let dk = linear(tape, Linear::new("maw.depth_key", names!("maw.depth_key"), deep), x);
    let v = copy(tape, names!("maw.value_layout"), v);

    let scores = outer(tape, maw, dq, dk);
    let padding = product(&[tape.shape.micro_batch, tape.shape.sequence_length]);
    let masked = mask(tape, names!("maw.mask"), scores, padding);
    let wide = cast(tape, names!("maw.upcast"), masked, Dtype::Fp32.bytes());
    let weights = softmax(tape, wide);
    choose(tape, maw, weights);
    let chosen = slice(tape, maw, weights);
    let dropped = dropout(tape, names!("maw.dropout"), chosen, maw.dropout);
    let format = tape.activation_bytes();
    let rounded = cast(tape, names!("maw.downcast"), dropped, format);
    let context = context(tape, maw, rounded, v);
    let merged = copy(tape, names!("maw.merge_heads"), context).reshaped(x.rows, h);
    linear(tape, Linear::new("maw.out", names!("maw.projection"), h).bias(true), merged)
}

/// Outer products of the tokens, depth by depth. Backward of each chunk: the division's, for either factor a product and
/// a sum over the other's tokens, and the slices' gradients filled into zeros and added up.
fn outer(tape: &mut Tape<'_>, maw: &Maw, dq: Tensor, dk: Tensor) -> Tensor {
    let names = names!("maw.scores");
    let (batch, length) = (tape.shape.micro_batch, tape.shape.sequence_length);
    let rows = product(&[batch, maw.heads, length, length]);
    let (chunks, y) = (batch.div_ceil(CHUNK), tape.activation(names.output, rows, maw.depth));
    let pieces = tape.activation("maw.scores.chunks", rows, maw.depth);
    let launches = |a_chunk: u64, more: u64| {
        u32::try_from(total(&[product(&[a_chunk, chunks]), more])).unwrap_or(u32::MAX)
    };
    let (bytes, factors) = (y.bytes(), total(&[dq.bytes(), dk.bytes()]));
    let products = memory(
        names.op,
        MemoryBoundKind::Elementwise,
        total(&[factors, product(&[2, bytes])]),
        product(&[3, bytes]),
    );
    let slices = product(&[3, chunks, factors]);
    let gradients = memory(
        names.grad,
        MemoryBoundKind::Elementwise,
        total(&[product(&[5, bytes]), factors, slices]),
        total(&[product(&[3, bytes]), factors, slices]),
    );
    tape.record(&Step {
        names,
        forward: &[Operation { launches: launches(2, 1), ..products }],
        reads: &[dq, dk, pieces],
        saves: &[dq, dk],
        inputs: &[dq, dk],
        outputs: &[y],
        backward: &[Operation { launches: launches(11, 0), ..gradients }],
        scratch: product(&[2, bytes / chunks.max(1)]),
        gradient: Gradient::New,
        trains: false,
    });
    y
}

/// Softmax over the depths: keeps its result.
fn softmax(tape: &mut Tape<'_>, x: Tensor) -> Tensor {
    let (names, kind) = (names!("maw.softmax"), MemoryBoundKind::Softmax);
    let y = tape.tensor(names.output, x.rows, x.width, x.value_bytes);
    tape.record(&Step {
        names,
        forward: &[memory(names.op, kind, x.bytes(), y.bytes())],
        reads: &[x],
        saves: &[y],
        inputs: &[x],
        outputs: &[y],
        backward: &[memory(names.grad, kind, product(&[2, y.bytes()]), x.bytes())],
        scratch: 0,
        gradient: Gradient::New,
        trains: false,
    });
    y
}

/// The networks that choose a depth for each sequence. What they return is an index: no gradient comes back, so they
/// run on a copy of the weights' mean that is cut off from it.
fn choose(tape: &mut Tape<'_>, maw: &Maw, weights: Tensor) {
    let mean = tape.tensor("maw.mean", weights.rows, 1, weights.value_bytes);
    let batch = tape.shape.micro_batch;
    let state = tape.activation("maw.pooled", batch, product(&[maw.heads, maw.pool, maw.pool]));
    tape.run(
        &[memory("maw.mean", MemoryBoundKind::Reduction, weights.bytes(), mean.bytes())],
        &[weights, mean],
    );
    tape.run(&[memory("maw.pool", MemoryBoundKind::Reduction, mean.bytes(), state.bytes())], &[mean, state]);
    networks(tape, maw, state, ["maw.router.0", "maw.router.2"], ["maw.policy", "maw.value_net"]);
    tape.as_added(false, |tape| {
        let router = ["maw.reference.router.0", "maw.reference.router.2"];
        networks(tape, maw, state, router, ["maw.reference.policy", "maw.reference.value_net"]);
    });
    let index = product(&[batch, Dtype::Int64.bytes()]);
    let draw = memory("maw.draw", MemoryBoundKind::Indexing, product(&[batch, maw.depth, 4]), index);
    // Softmax, draw, logarithm of the drawn probability, gather.
    tape.run(&[Operation { launches: 4, ..draw }], &[]);
}

/// State, policy and value networks, two linear layers each.
fn networks(tape: &mut Tape<'_>, maw: &Maw, state: Tensor, router: [&str; 2], heads: [&str; 2]) {
    let [hidden, out] = maw.state;
    let x = pair(tape, router, [hidden, out], state);
    let x = activation(tape, names!("maw.state_activation"), Function::Gelu, x);
    for (head, width) in heads.into_iter().zip([maw.depth, 1]) {
        let layers = ["0", "2"].map(|number| format!("{head}.{number}"));
        pair(tape, [&layers[0], &layers[1]], [maw.policy, width], x);
    }
}

/// Two linear layers with an activation between them.
fn pair(tape: &mut Tape<'_>, [first, second]: [&str; 2], [hidden, out]: [u64; 2], x: Tensor) -> Tensor {
    let wide = linear(tape, Linear::new(first, names!("maw.network"), hidden).bias(true), x);
    let wide = activation(tape, names!("maw.network_activation"), Function::Gelu, wide);
    linear(tape, Linear::new(second, names!("maw.network"), out).bias(true), wide)
}

/// The chosen depth of each sequence. Backward fills a gradient of all depths with zeros and scatters into it.
fn slice(tape: &mut Tape<'_>, maw: &Maw, weights: Tensor) -> Tensor {
    let names = names!("maw.choose");
    let (heads, length) = (maw.heads, tape.shape.sequence_length);
    let rows = product(&[tape.shape.micro_batch, heads, length]);
    let y = tape.tensor(names.output, rows, length, weights.value_bytes);
    let bytes = y.bytes();
    tape.record(&Step {
        names,
        forward: &[memory(names.op, MemoryBoundKind::Indexing, bytes, bytes)],
        reads: &[weights],
        saves: &[],
        inputs: &[weights],
        outputs: &[y],
        backward: &[
            memory(names.grad_input, MemoryBoundKind::Fill, 0, weights.bytes()),
            memory(names.grad, MemoryBoundKind::Indexing, bytes, bytes),
        ],
        scratch: 0,
        gradient: Gradient::New,
        trains: false,
    });
    y
}

/// Weights times values.
fn context(tape: &mut Tape<'_>, maw: &Maw, p: Tensor, v: Tensor) -> Tensor {
    let names: Names = names!("maw.context");
    let (products, s) = (product(&[tape.shape.micro_batch, maw.heads]), p.width);
    let d = v.width / maw.heads.max(1);
    let y = tape.activation(names.output, p.rows, d);
    tape.record(&Step {
        names,
        forward: &[gemm(tape, names.op, [products, s, d, s])],
        reads: &[p, v],
        saves: &[p, v],
        inputs: &[p, v],
        outputs: &[y],
        backward: &[
            gemm(tape, names.grad_input, [products, s, s, d]),
            gemm(tape, names.grad_weight, [products, s, d, s]),
        ],
        scratch: 0,
        gradient: Gradient::New,
        trains: false,
    });
    y
}
