//! Scaled dot-product attention, eager and fused.

use super::linear::gemm;
use super::pointwise::{cast, copy, dropout, mask, scale};
use crate::operation::{Dtype, Kernel, MemoryBoundKind, Operation, Pass};
use crate::shape::AttentionShape;
use crate::tape::{Gradient, Names, Step, Tape, Tensor, memory, names, single};
use crate::units::{product, total};
use crate::work_shape::AttentionKind;

/// Shape and flavour of a self-attention.
#[derive(Clone, Copy)]
pub(crate) struct Attention {
    pub(crate) batch: u64,
    /// Tokens of a sequence.
    pub(crate) length: u64,
    pub(crate) heads: u64,
    /// Heads of keys and values, a divisor of `heads`.
    pub(crate) kv_heads: u64,
    pub(crate) head_dim: u64,
    pub(crate) causal: bool,
    /// Dropout on the probabilities.
    pub(crate) dropout: bool,
    /// Softmax in 32 bits whatever the activations, its result rounded by a kernel of its own (Llama's code).
    pub(crate) softmax_fp32: bool,
    /// Tensors are `[sequence, batch, heads, head_dim]` and the products are einsums (labml): queries, keys and
    /// values go into the batched products as strided views, but score-sized copies are made around the softmax.
    pub(crate) sequence_first: bool,
    /// The result of a fused kernel is copied so that the heads lie inside the tokens
    /// (`nn.MultiheadAttention`); other code has the kernel write it that way.
    pub(crate) merges_fused: bool,
}

impl Attention {
    /// Rows of a tensor with one row for each sequence, head and query.
    fn rows(&self) -> u64 {
        product(&[self.batch, self.heads, self.length])
    }

    /// Batched products, one for each sequence and head.
    fn products(&self) -> u64 {
        product(&[self.batch, self.heads])
    }
}

/// Attention of queries (tokens x heads * head_dim) over keys and values (tokens x kv_heads * head_dim), as tokens x
/// heads * head_dim.
pub(crate) fn attention(tape: &mut Tape<'_>, a: &Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor {
    let context = match tape.shape.attention {
        AttentionKind::Eager => {
            let context = eager(tape, a, q, k, v);
            // The products leave the heads outside the tokens; the projection wants them inside.
            copy(tape, names!("attention.merge_heads"), context)
        }
        AttentionKind::Flash => {
            let context = flash(tape, a, q, k, v);
            if a.merges_fused { copy(tape, names!("attention.merge_heads"), context) } else { context }
        }
    };
    context.reshaped(product(&[a.batch, a.length]), product(&[a.heads, a.head_dim]))
}

/// Every product and every pass over the scores a kernel of its own. Keeps queries, keys, values, the softmax's
/// result, and with dropout its mask and result.
fn eager(tape: &mut Tape<'_>, a: &Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor {
    let group = a.heads / a.kv_heads.max(1);
    let k = repeat_heads(tape, names!("attention.repeat_keys"), k, group);
    let v = repeat_heads(tape, names!("attention.repeat_values"), v, group);
    let scores = scores(tape, a, q, k);
    let scaled = scale(tape, names!("attention.core.scale"), scores, a.sequence_first);
    let visible = if a.causal {
        // One square mask for all sequences and heads.
        let mask_bytes = product(&[a.length, a.length]);
        mask(tape, names!("attention.core.mask"), scaled, mask_bytes)
    } else {
        scaled
    };
    let probabilities = softmax(tape, a, visible);
    let format = tape.activation_bytes();
    let rounded = cast(tape, names!("attention.core.softmax_cast"), probabilities, format);
    let dropped = dropout(tape, names!("attention.core.dropout"), rounded, a.dropout);
    context(tape, a, dropped, v)
}

/// `Q K^T`.
fn scores(tape: &mut Tape<'_>, a: &Attention, q: Tensor, k: Tensor) -> Tensor {
    let names = names!("attention.core.scores");
    let y = tape.activation(names.output, a.rows(), a.length);
    let mut backward = Vec::new();
    if a.sequence_first {
        // The gradient has its heads innermost; each of the two products copies it into a layout cuBLAS takes.
        let both = product(&[2, y.bytes()]);
        backward.push(Operation {
            launches: 2,
            ..memory("attention.core.scores.grad_layout", MemoryBoundKind::Fill, both, both)
        });
    }
    let (products, s, d) = (a.products(), a.length, a.head_dim);
    backward.push(gemm(tape, "attention.core.scores.grad_query", [products, s, d, s]));
    backward.push(gemm(tape, "attention.core.scores.grad_key", [products, s, d, s]));
    tape.record(&Step {
        names,
        forward: &[gemm(tape, names.op, [products, s, s, d])],
        reads: &[q, k],
        saves: &[q, k],
        inputs: &[q, k],
        outputs: &[y],
        backward: &backward,
        scratch: if a.sequence_first { y.bytes() } else { 0 },
        gradient: Gradient::New,
        trains: false,
    });
    y
}

/// Softmax over the keys; keeps its result.
fn softmax(tape: &mut Tape<'_>, a: &Attention, x: Tensor) -> Tensor {
    let names = names!("attention.core.softmax");
    let kind = MemoryBoundKind::Softmax;
    let mut reads = x;
    let mut backward = Vec::new();
    if a.sequence_first {
        // `softmax(dim=1)` of a permuted tensor makes it contiguous first, and does so with the gradient again.
        reads = tape.activation("attention.core.softmax.contiguous", x.rows, x.width);
        tape.run(
            &[memory("attention.core.softmax.contiguous", MemoryBoundKind::Fill, x.bytes(), reads.bytes())],
            &[x],
        );
        backward.push(memory(
            "attention.core.softmax.grad_layout",
            MemoryBoundKind::Fill,
            x.bytes(),
            x.bytes(),
        ));
    }
    let value_bytes = if a.softmax_fp32 { Dtype::Fp32.bytes() } else { x.value_bytes };
    let y = tape.tensor(names.output, x.rows, x.width, value_bytes);
    backward.push(memory(names.grad, kind, product(&[2, y.bytes()]), x.bytes()));
    tape.record(&Step {
        names,
        forward: &[memory(names.op, kind, reads.bytes(), y.bytes())],
        reads: &[reads],
        saves: &[y],
        inputs: &[x],
        outputs: &[y],
        backward: &backward,
        scratch: if a.sequence_first { x.bytes() } else { 0 },
        gradient: Gradient::New,
        trains: false,
    });
    y
}

/// Probabilities times values.
fn context(tape: &mut Tape<'_>, a: &Attention, p: Tensor, v: Tensor) -> Tensor {
    let names = names!("attention.core.context");
    let (products, s, d) = (a.products(), a.length, a.head_dim);
    let mut factor = p;
    let mut backward = vec![gemm(tape, "attention.core.context.grad_probability", [products, s, s, d])];
    if a.sequence_first {
        // Heads innermost again: the product copies the probabilities, forward and for the values' gradient.
        factor = tape.activation("attention.core.context.layout", p.rows, p.width);
        tape.run(
            &[memory("attention.core.context.layout", MemoryBoundKind::Fill, p.bytes(), factor.bytes())],
            &[p],
        );
        backward.push(memory(
            "attention.core.context.grad_layout",
            MemoryBoundKind::Fill,
            p.bytes(),
            p.bytes(),
        ));
    }
    backward.push(gemm(tape, "attention.core.context.grad_value", [products, s, d, s]));
    let y = tape.activation(names.output, a.rows(), d);
    tape.record(&Step {
        names,
        forward: &[gemm(tape, names.op, [products, s, d, s])],
        reads: &[factor, v],
        saves: &[p, v],
        inputs: &[p, v],
        outputs: &[y],
        backward: &backward,
        scratch: if a.sequence_first { p.bytes() } else { 0 },
        gradient: Gradient::New,
        trains: false,
    });
    y
}

/// One fused kernel. Keeps queries, keys, values, its result, and the log of the sum of exponentials of each row in
/// 32 bits (4 b a s bytes in place of the 5 a s^2 b of eager attention with dropout in 16 bits); dropout is drawn
/// again in backward.
///
/// Backward, as FlashAttention-2 does it: a row-wise dot product of the result and its gradient, the main kernel,
/// and the rounding of the query gradient from its 32-bit accumulator; with grouped queries two sums over the group.
fn flash(tape: &mut Tape<'_>, a: &Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor {
    let names = names!("attention.flash");
    let kernel = |pass| {
        Kernel::Attention(AttentionShape {
            batch: a.batch,
            heads: a.heads,
            kv_heads: a.kv_heads,
            query_length: a.length,
            key_length: a.length,
            head_dim: a.head_dim,
            causal: a.causal,
            pass,
            dtype: tape.other_products(),
        })
    };
    let (forward, backward) = (kernel(Pass::Forward), kernel(Pass::Backward));
    let y = tape.activation(names.output, a.rows(), a.head_dim);
    let row_sums = tape.tensor(names.statistics, a.rows(), 1, 4);
    let launches = if a.heads == a.kv_heads { 3 } else { 5 };
    tape.record(&Step {
        names,
        forward: &[single(names.op, forward)],
        reads: &[q, k, v],
        saves: &[q, k, v, y, row_sums],
        inputs: &[q, k, v],
        outputs: &[y],
        backward: &[Operation { launches, ..single(names.grad, backward) }],
        scratch: total(&[product(&[4, y.values()]), row_sums.bytes()]),
        gradient: Gradient::New,
        trains: false,
    });
    y
}

/// Keys or values for each query head: a copy when heads are grouped, whose gradient is summed over the group.
fn repeat_heads(tape: &mut Tape<'_>, names: Names, x: Tensor, group: u64) -> Tensor {
    if group == 1 {
        return x;
    }
    let y = tape.activation(names.output, x.rows, product(&[x.width, group]));
    tape.record(&Step {
        names,
        forward: &[memory(names.op, MemoryBoundKind::Fill, x.bytes(), y.bytes())],
        reads: &[x],
        saves: &[],
        inputs: &[x],
        outputs: &[y],
        backward: &[memory(names.grad, MemoryBoundKind::Reduction, y.bytes(), x.bytes())],
        scratch: 0,
        gradient: Gradient::New,
        trains: false,
    });
    y
}

/// Views of the queries, keys and values in one projection's result; their gradients are concatenated.
pub(crate) fn split_columns(tape: &mut Tape<'_>, qkv: Tensor) -> [Tensor; 3] {
    let thirds = [(); 3].map(|()| tape.view(qkv, qkv.rows, qkv.width / 3));
    concatenate_gradients(tape, names!("attention.split_heads"), qkv, thirds, &[]);
    thirds
}

/// Queries, keys and values each copied out of one projection's result: heads beside the batch, as a batched product
/// takes them. Three copies; their gradients are concatenated by one.
pub(crate) fn split_to_copies(tape: &mut Tape<'_>, qkv: Tensor) -> [Tensor; 3] {
    let names = names!("attention.split_heads");
    let thirds = ["attention.query", "attention.key", "attention.value"]
        .map(|name| tape.activation(name, qkv.rows, qkv.width / 3));
    let copies =
        Operation { launches: 3, ..memory(names.op, MemoryBoundKind::Fill, qkv.bytes(), qkv.bytes()) };
    concatenate_gradients(tape, names, qkv, thirds, &[copies]);
    thirds
}

fn concatenate_gradients(
    tape: &mut Tape<'_>,
    names: Names,
    qkv: Tensor,
    thirds: [Tensor; 3],
    forward: &[Operation],
) {
    tape.record(&Step {
        names,
        forward,
        reads: &[qkv],
        saves: &[],
        inputs: &[qkv],
        outputs: &thirds,
        backward: &[memory(names.grad, MemoryBoundKind::Fill, qkv.bytes(), qkv.bytes())],
        scratch: 0,
        gradient: Gradient::New,
        trains: false,
    });
}

/// The split of `nn.MultiheadAttention`: the packed projection is copied once so that queries, keys and values are
/// each contiguous, and indexed.
///
/// Backward of the three indexings: each fills a tensor of all three with zeros and copies its gradient into it
/// (6 launches), and autograd adds the three up (2); then the copy back into the projection's layout.
pub(crate) fn split_in_projection(tape: &mut Tape<'_>, qkv: Tensor) -> [Tensor; 3] {
    let names = names!("attention.in_projection_split");
    let bytes = qkv.bytes();
    let packed = tape.tensor(names.output, qkv.rows, qkv.width, qkv.value_bytes);
    let thirds = [(); 3].map(|()| tape.view(packed, qkv.rows, qkv.width / 3));
    let fill_and_copy = memory(names.grad_input, MemoryBoundKind::Fill, bytes, product(&[4, bytes]));
    let sums = memory(names.grad, MemoryBoundKind::Elementwise, product(&[4, bytes]), product(&[2, bytes]));
    tape.record(&Step {
        names,
        forward: &[memory(names.op, MemoryBoundKind::Fill, bytes, bytes)],
        reads: &[qkv],
        saves: &[],
        inputs: &[qkv],
        outputs: &thirds,
        backward: &[
            Operation { launches: 6, ..fill_and_copy },
            Operation { launches: 2, ..sums },
            memory("attention.in_projection_split.grad_layout", MemoryBoundKind::Fill, bytes, bytes),
        ],
        scratch: product(&[2, bytes]),
        gradient: Gradient::New,
        trains: false,
    });
    thirds
}
