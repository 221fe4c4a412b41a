//! Attention of the groups of a coarse grid over the tokens of a fine one, with the maps in memory: what
//! `SpatialGroupingAttention` launches (spatial-grouping-attention, tag 2025.9.17.1506).

use super::kept_result::softmax;
use super::linear::gemm;
use super::pointwise::{copy, scale};
use crate::operation::{Dtype, MemoryBoundKind, Operation};
use crate::parameter::Split;
use crate::tape::{Names, Step, Tape, Tensor, memory, names};
use crate::units::{product, total};

const ELEMENTWISE: MemoryBoundKind = MemoryBoundKind::Elementwise;

/// Shape of the attention of one scale.
#[derive(Clone, Copy)]
pub(crate) struct Grouping {
    pub(crate) batch: u64,
    pub(crate) heads: u64,
    pub(crate) head_dim: u64,
    /// Groups: tokens of the coarse grid.
    pub(crate) groups: u64,
    /// Tokens of the fine grid.
    pub(crate) tokens: u64,
    /// Tokens that a group sees: all of them, or those of its neighbourhood.
    pub(crate) seen: u64,
}

impl Grouping {
    fn products(&self) -> u64 {
        product(&[self.batch, self.heads])
    }

    fn rows(&self) -> u64 {
        product(&[self.products(), self.groups])
    }

    fn sparse(&self) -> bool {
        self.seen < self.tokens
    }
}

/// The two arrays that the code allocates before its first iteration, whatever the kind of attention: one of 32-bit
/// floats for every head, group and token (`torch.empty`, without a kernel), and a clone of it. Both live until the
/// first iteration assigns to their names.
pub(crate) fn empty_maps(tape: &mut Tape<'_>, g: &Grouping) -> [Tensor; 2] {
    let value = Dtype::Fp32.bytes();
    let empty = tape.tensor("attention.map", g.rows(), g.tokens, value);
    let clone = tape.tensor("attention.map.clone", g.rows(), g.tokens, value);
    tape.run(&[memory("attention.map.clone", MemoryBoundKind::Fill, empty.bytes(), clone.bytes())], &[empty]);
    tape.hold(&[clone]);
    [empty, clone]
}

/// Products of queries and keys.
fn scores(tape: &mut Tape<'_>, g: &Grouping, q: Tensor, k: Tensor) -> Tensor {
    let names = names!("cross_attention.scores");
    let grads = ["cross_attention.scores.grad_query", "cross_attention.scores.grad_key"];
    let (m, n, d) = (g.groups, g.seen, g.head_dim);
    let y = tape.activation(names.output, g.rows(), n);
    contract(tape, g, names, grads, [[m, n, d], [m, d, n], [n, d, m]], [q, k], y);
    y
}

/// Shares times values.
fn context(tape: &mut Tape<'_>, g: &Grouping, shares: Tensor, v: Tensor) -> Tensor {
    let names = names!("cross_attention.context");
    let grads = ["cross_attention.context.grad_share", "cross_attention.context.grad_value"];
    let (m, n, d) = (g.groups, g.seen, g.head_dim);
    let y = tape.activation(names.output, g.rows(), d);
    contract(tape, g, names, grads, [[m, d, n], [m, n, d], [n, d, m]], [shares, v], y);
    y
}

/// A batched product of two tensors, both kept, and the two of its backward, each with its sizes `[m, n, k]`.
/// Neighbourhoods (NATTEN's `na2d_qk` and `na2d_av`) have nine keys a query: memory, not arithmetic.
fn contract(
    tape: &mut Tape<'_>,
    g: &Grouping,
    names: Names,
    grads: [&'static str; 2],
    sizes: [[u64; 3]; 3],
    factors: [Tensor; 2],
    y: Tensor,
) {
    let [forward, backward] = if g.sparse() {
        let (kind, both) = (MemoryBoundKind::Indexing, total(&factors.map(|it| it.bytes())));
        let gradients = memory(names.grad, kind, total(&[both, product(&[2, y.bytes()])]), both);
        let forward = memory(names.op, kind, both, y.bytes());
        [vec![forward], vec![Operation { launches: 2, ..gradients }]]
    } else {
        let batched = |name, [m, n, k]: [u64; 3]| gemm(tape, name, [g.products(), m, n, k]);
        let [whole, left, right] = sizes;
        [vec![batched(names.op, whole)], vec![batched(grads[0], left), batched(grads[1], right)]]
    };
    tape.record(&Step {
        forward: &forward,
        reads: &factors,
        saves: &factors,
        inputs: &factors,
        outputs: &[y],
        backward: &backward,
        ..Step::of(names)
    });
}

/// Divides the map by its sums over the groups, so that every token is shared out: keeps the map and the sums.
///
/// Forward: sum, addition of a small constant, division. Backward, as ATen writes the gradient of a quotient: one
/// division for the map; minus, two divisions and a product, each as large as the map and alive together, and a sum
/// for the sums; their gradient spread over the groups and added.
fn share_out(tape: &mut Tape<'_>, g: &Grouping, map: Tensor) -> Tensor {
    let names = names!("cross_attention.share");
    let sums = tape.tensor("cross_attention.share.sums", g.products(), map.width, map.value_bytes);
    let y = tape.activation(names.output, map.rows, map.width);
    let (bytes, few) = (map.bytes(), sums.bytes());
    let times = |count: u64| product(&[count, bytes]);
    let sum = memory("cross_attention.share.sum", MemoryBoundKind::Reduction, bytes, product(&[2, few]));
    let backward = [
        memory(names.grad_input, ELEMENTWISE, total(&[bytes, few]), bytes),
        Operation {
            launches: 4,
            ..memory("cross_attention.share.grad_quotient", ELEMENTWISE, times(5), times(4))
        },
        memory("cross_attention.share.grad_sums", MemoryBoundKind::Reduction, bytes, few),
        memory(names.grad, ELEMENTWISE, total(&[bytes, few]), bytes),
    ];
    let forward =
        [Operation { launches: 2, ..sum }, memory(names.op, ELEMENTWISE, total(&[bytes, few]), y.bytes())];
    tape.record(&Step {
        forward: &forward,
        reads: &[map],
        saves: &[map, sums],
        inputs: &[map],
        outputs: &[y],
        backward: &backward,
        scratch: times(4),
        ..Step::of(names)
    });
    y
}

/// Attention of learned queries (`groups`) over tokens with the probabilities in memory, as `nn.MultiheadAttention` runs
/// it when the weights are asked for: the queries scaled, and at the end the mean of the probabilities over the heads.
pub(crate) fn query_attention(tape: &mut Tape<'_>, g: &Grouping, [q, k, v]: [Tensor; 3]) -> Tensor {
    let q = scale(tape, names!("cross_attention.scale"), q, false);
    let scores = scores(tape, g, q, k);
    let map = softmax(tape, names!("cross_attention.softmax"), scores);
    let context = context(tape, g, map, v);
    let mean = map.bytes() / g.heads.max(1);
    tape.run(
        &[memory("cross_attention.mean_weights", MemoryBoundKind::Reduction, map.bytes(), mean)],
        &[map],
    );
    let merged = copy(tape, names!("cross_attention.merge_heads"), context);
    merged.reshaped(product(&[g.batch, g.groups]), product(&[g.heads, g.head_dim]))
}

/// One iteration's attention over `k` and `v`; returns the groups' context, the map, and the shares. `before` are the
/// variables that the map and the shares are assigned to: what they held is freed then.
pub(crate) fn grouping_attention(
    tape: &mut Tape<'_>,
    g: &Grouping,
    [q, k, v]: [Tensor; 3],
    before: [Tensor; 2],
) -> (Tensor, [Tensor; 2]) {
    let scores = scores(tape, g, q, k);
    let map = softmax(tape, names!("cross_attention.softmax"), scores);
    tape.hold(&before);
    let shares = share_out(tape, g, map);
    tape.hold(&before[1..]);
    let context = context(tape, g, shares, v);
    let width = product(&[g.heads, g.head_dim]);
    (context.reshaped(product(&[g.batch, g.groups]), width), [map, shares])
}

/// Product of a block's map (`groups` x `tokens`) and the one accumulated before it (`tokens` x `origin`, for every
/// head), for tracing groups back to the image. Nothing of the loss depends on it, so it has no backward; it keeps both
/// factors nevertheless until backward drops them. `earlier` is the accumulated map where this layer holds it.
pub(crate) fn accumulate(
    tape: &mut Tape<'_>,
    g: &Grouping,
    map: Tensor,
    earlier: Option<Tensor>,
    origin: u64,
) -> Tensor {
    let names = names!("maps.accumulate");
    let y = tape.activation(names.output, g.rows(), origin);
    let forward = gemm(tape, names.op, [g.products(), g.groups, origin, g.tokens]);
    let saves: Vec<Tensor> = std::iter::once(map).chain(earlier).collect();
    tape.record(&Step {
        forward: &[forward],
        reads: &[map],
        saves: &saves,
        inputs: &[map],
        outputs: &[y],
        backward: &[],
        ..Step::of(names)
    });
    y
}

/// Rotary spatial embedding (RoSE, tag 2025.9.11.1918) of the first `heads` heads by learned frequencies.
#[derive(Clone, Copy)]
pub(crate) struct Rotation<'n> {
    pub(crate) module: &'n str,
    /// Heads that are rotated.
    pub(crate) heads: u64,
    pub(crate) head_dim: u64,
    /// Tokens of all grids.
    pub(crate) tokens: u64,
    /// Grids that are rotated one after the other.
    pub(crate) grids: u64,
}

/// Multiplies pairs of values by complex phases. Forward, 7 launches a grid: the angles of all tokens (a product with inner
/// width 2), cosine, sine, product with i, sum, the complex product, concatenation with the heads that are left alone.
/// Keeps its input, the phases and the angles. Backward, about 15: zeros and a copy for each slice of the input and their
/// sum, two complex products, and of the phases a sum over the batch and the small chain back to the frequencies.
pub(crate) fn rotary_spatial(tape: &mut Tape<'_>, r: &Rotation<'_>, names: Names, x: Tensor) -> Tensor {
    let (planes, grids) = (r.head_dim / 2, r.grids as u32);
    let trains = tape.weight(r.module, "freqs", &[r.heads, planes, 2], Split::Whole);
    let per_token = product(&[r.heads, planes]);
    let angles = tape.tensor("rotary.angles", r.tokens, per_token, Dtype::Fp32.bytes());
    let phases = tape.tensor("rotary.phases", r.tokens, per_token, 2 * Dtype::Fp32.bytes());
    let y = tape.activation(names.output, x.rows, x.width);
    let rotated = product(&[x.rows, r.heads, r.head_dim, x.value_bytes]);
    let small = |count: u64| product(&[count, angles.bytes()]);
    let read = total(&[small(8), rotated, x.bytes()]);
    let written = total(&[small(7), rotated, y.bytes()]);
    let back_read = total(&[small(8), product(&[4, rotated]), product(&[4, x.bytes()])]);
    let back_written = total(&[small(8), product(&[2, rotated]), product(&[4, x.bytes()])]);
    tape.record(&Step {
        forward: &[Operation { launches: 7 * grids, ..memory(names.op, ELEMENTWISE, read, written) }],
        reads: &[x],
        saves: &[x, phases, angles],
        inputs: &[x],
        outputs: &[y],
        backward: &[Operation {
            launches: 15 * grids,
            ..memory(names.grad, ELEMENTWISE, back_read, back_written)
        }],
        scratch: total(&[product(&[2, rotated]), small(4)]),
        trains,
        ..Step::of(names)
    });
    y
}

/// Product with a learned scalar: keeps its input. Backward: a product for the input; a product and a sum for the scalar.
pub(crate) fn scale_learned(tape: &mut Tape<'_>, parameter: &str, names: Names, x: Tensor) -> Tensor {
    let trains = tape.weight(parameter, "", &[1], Split::Whole);
    let y = tape.activation(names.output, x.rows, x.width);
    let bytes = x.bytes();
    let mut backward = vec![memory(names.grad_input, ELEMENTWISE, bytes, bytes)];
    if trains {
        let sum = memory(names.grad_weight, MemoryBoundKind::Reduction, product(&[3, bytes]), bytes);
        backward.push(Operation { launches: 2, ..sum });
    }
    tape.record(&Step {
        forward: &[memory(names.op, ELEMENTWISE, bytes, y.bytes())],
        reads: &[x],
        saves: if trains { std::slice::from_ref(&x) } else { &[] },
        inputs: &[x],
        outputs: &[y],
        backward: &backward,
        scratch: if trains { bytes } else { 0 },
        trains,
        ..Step::of(names)
    });
    y
}
