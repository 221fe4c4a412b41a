//! Scaled dot-product attention, eager and fused.

use super::autocast::{narrow, widen_for_softmax};
use super::context_parallel::{by_heads, ring};
use super::kept_result::{softmax_gradient, softmax_scratch};
use super::linear::gemm;
use super::pointwise::{cast, copy, dropout, mask, moved, scale, softcap};
use crate::division::ContextMethod;
use crate::operation::{Dtype, Kernel, MemoryBoundKind, Operation, Pass};
use crate::shape::AttentionShape;
use crate::tape::{Gradient, Names, Step, Tape, Tensor, memory, names, single};
use crate::units::{product, total};
use crate::work_shape::{AttentionKind, Modules};

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

    /// Tokens of the keys' sequence.
    fn keys(&self, extras: &Extras) -> u64 {
        extras.keys.unwrap_or(self.length)
    }

    /// Width of a head of values.
    fn values(&self, extras: &Extras) -> u64 {
        extras.value_dim.unwrap_or(self.head_dim)
    }

    /// Batched products, one for each sequence and head.
    fn products(&self) -> u64 {
        product(&[self.batch, self.heads])
    }
}

/// What some models add to plain self-attention. The default adds nothing.
#[derive(Clone, Copy, Default)]
pub(crate) struct Extras {
    /// Tokens of the keys' sequence, if not the queries' own (cross-attention).
    pub(crate) keys: Option<u64>,
    /// Width of a head of values, if not that of queries and keys.
    pub(crate) value_dim: Option<u64>,
    /// Tokens that a token sees; 0 for no limit. Eager attention computes all of them and masks.
    pub(crate) window: u64,
    /// Scores squeezed by `c * tanh(scores / c)`.
    pub(crate) softcap: bool,
    /// Scores are not divided by the root of the heads' width (T5).
    pub(crate) unscaled: bool,
    /// A mask of padded keys is added, one row a sequence.
    pub(crate) padding: bool,
    /// A fused kernel gets the tokens without their padding, gathered before it and scattered behind it (flash-attn's
    /// `unpad_input` and `pad_input`), whether there is padding or not.
    pub(crate) unpads: bool,
    pub(crate) bias: Bias,
}

/// What is added to the scores of each head, the same for every sequence of the batch.
#[derive(Clone, Copy, Default)]
pub(crate) enum Bias {
    #[default]
    None,
    /// A constant for each head and key (ALiBi, Press et al. 2022); a fused kernel computes it from the slopes.
    Linear,
    /// A tensor of heads * queries rows of one value a key (T5); a fused kernel reads it.
    Tensor(Tensor),
}

/// Plain self-attention of queries (tokens x heads * head_dim) over keys and values (tokens x kv_heads * head_dim), as tokens x
/// heads * head_dim.
pub(crate) fn attention(tape: &mut Tape<'_>, a: &Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor {
    attention_with(tape, a, &Extras::default(), [q, k, v])
}

/// Attention of queries over keys and values, as tokens x heads * width of a value's head.
pub(crate) fn attention_with(
    tape: &mut Tape<'_>,
    a: &Attention,
    extras: &Extras,
    qkv: [Tensor; 3],
) -> Tensor {
    let context = tape.shape.context;
    if context.ways() > 1 && context.method == ContextMethod::AllToAll {
        by_heads(tape, a, extras, qkv)
    } else {
        attention_of_whole(tape, a, extras, qkv)
    }
}

/// The same with the tokens of the tensors as whole sequences, or those of a ring.
pub(super) fn attention_of_whole(
    tape: &mut Tape<'_>,
    a: &Attention,
    extras: &Extras,
    qkv: [Tensor; 3],
) -> Tensor {
    let merge = names!("attention.merge_heads");
    let context = if tape.shape.attention == AttentionKind::Eager {
        let context = eager(tape, a, extras, qkv);
        // The products leave the heads outside the tokens; the projection wants them inside.
        copy(tape, merge, context)
    } else {
        let context = tape.shape.context;
        let context = if context.ways() > 1 && context.method == ContextMethod::Ring {
            ring(tape, a, extras, qkv)
        } else {
            let turned = turns_for_flash(tape, a);
            let qkv = if turned { batch_first(tape, qkv) } else { qkv };
            let context = flash(tape, a, extras, qkv);
            if turned { copy(tape, merge, context) } else { context }
        };
        if a.merges_fused { copy(tape, merge, context) } else { context }
    };
    context.reshaped(product(&[a.batch, a.length]), product(&[a.heads, a.values(extras)]))
}

/// Whether tensors with the sequence outermost are copied for a kernel that wants the batch there: those of the package
/// flash-attn, which cuDNN's are not (Transformer Engine, `FlashAttention`). Of one sequence both are the same.
fn turns_for_flash(tape: &Tape<'_>, a: &Attention) -> bool {
    tape.shape.modules.sequence_first() && tape.shape.attention == AttentionKind::Flash && a.batch > 1
}

/// Queries, keys and values with the batch outermost.
fn batch_first(tape: &mut Tape<'_>, [q, k, v]: [Tensor; 3]) -> [Tensor; 3] {
    [
        copy(tape, names!("attention.query_layout"), q),
        copy(tape, names!("attention.key_layout"), k),
        copy(tape, names!("attention.value_layout"), v),
    ]
}

/// Every product and every pass over the scores a kernel of its own. Keeps queries, keys, values, the softmax's
/// result, and with dropout its mask and result.
fn eager(tape: &mut Tape<'_>, a: &Attention, extras: &Extras, [q, k, v]: [Tensor; 3]) -> Tensor {
    let group = a.heads / a.kv_heads.max(1);
    let k = repeat_heads(tape, names!("attention.repeat_keys"), k, group);
    let v = repeat_heads(tape, names!("attention.repeat_values"), v, group);
    let scores = scores(tape, a, a.keys(extras), q, k);
    let scaled = if extras.unscaled {
        scores
    } else {
        scale(tape, names!("attention.core.scale"), scores, a.sequence_first)
    };
    let capped =
        if extras.softcap { softcap(tape, names!("attention.core.softcap"), scaled) } else { scaled };
    let biased = add_bias(tape, a, extras, capped);
    let visible = if matches!(extras.bias, Bias::Tensor(_)) {
        // The mask is part of the bias.
        biased
    } else if a.causal {
        // One square mask for all sequences and heads.
        let mask_bytes = product(&[a.length, a.length]);
        mask(tape, names!("attention.core.mask"), biased, mask_bytes)
    } else if extras.padding {
        let mask_bytes = product(&[a.batch, a.keys(extras), biased.value_bytes]);
        mask(tape, names!("attention.core.mask"), biased, mask_bytes)
    } else {
        biased
    };
    let probabilities = softmax(tape, a, visible);
    // Autocast rounds when the product asks for 16 bits, after the dropout.
    let format = if tape.shape.autocasts() { probabilities.value_bytes } else { tape.activation_bytes() };
    let rounded = cast(tape, names!("attention.core.softmax_cast"), probabilities, format);
    let dropped = dropout(tape, names!("attention.core.dropout"), rounded, a.dropout);
    context(tape, a, a.values(extras), dropped, v)
}

/// Adds what belongs to each head to the scores of all sequences.
fn add_bias(tape: &mut Tape<'_>, a: &Attention, extras: &Extras, scores: Tensor) -> Tensor {
    let names = names!("attention.core.bias");
    match extras.bias {
        Bias::None => scores,
        Bias::Linear => mask(tape, names, scores, product(&[a.heads, a.keys(extras), scores.value_bytes])),
        Bias::Tensor(bias) => {
            let expanded = expand_bias(tape, a, bias);
            let y = tape.result(names.output, scores.rows, scores.width, &[scores, bias]);
            let read = total(&[scores.bytes(), bias.bytes()]);
            tape.record(&Step {
                names,
                forward: &[memory(names.op, MemoryBoundKind::Elementwise, read, y.bytes())],
                reads: &[scores, bias],
                saves: &[],
                inputs: &[scores, expanded],
                outputs: &[y],
                backward: &[],
                scratch: 0,
                gradient: Gradient::Passed,
                trains: false,
            });
            y
        }
    }
}

/// A bias seen by each sequence of the batch: a view, whose gradient is summed over the batch.
fn expand_bias(tape: &mut Tape<'_>, a: &Attention, bias: Tensor) -> Tensor {
    let names = names!("attention.bias.expand");
    let expanded = tape.view(bias, product(&[bias.rows, a.batch]), bias.width);
    let sum = memory(names.grad, MemoryBoundKind::Reduction, expanded.bytes(), bias.bytes());
    let alone = a.batch == 1;
    tape.record(&Step {
        names,
        forward: &[],
        reads: &[],
        saves: &[],
        inputs: &[bias],
        outputs: &[expanded],
        backward: if alone { &[] } else { std::slice::from_ref(&sum) },
        scratch: 0,
        gradient: if alone { Gradient::Passed } else { Gradient::New },
        trains: false,
    });
    expanded
}

/// `Q K^T`.
fn scores(tape: &mut Tape<'_>, a: &Attention, keys: u64, q: Tensor, k: Tensor) -> Tensor {
    let names = names!("attention.core.scores");
    let [q, k] = [q, k].map(|factor| narrow(tape, names, factor));
    let y = if tape.shape.modules == Modules::MegatronLocal {
        tape.in_shared_buffer(names.output, a.rows(), keys)
    } else {
        tape.activation(names.output, a.rows(), keys)
    };
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
    backward.push(gemm(tape, "attention.core.scores.grad_query", [products, s, d, keys]));
    backward.push(gemm(tape, "attention.core.scores.grad_key", [products, keys, d, s]));
    tape.record(&Step {
        names,
        forward: &[gemm(tape, names.op, [products, s, keys, d])],
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
    let x = widen_for_softmax(tape, names, x);
    let kind = MemoryBoundKind::Softmax;
    let mut reads = x;
    let mut backward = Vec::new();
    if a.sequence_first {
        // `softmax(dim=1)` of a permuted tensor makes it contiguous first, and does so with the gradient again.
        reads = tape.result("attention.core.softmax.contiguous", x.rows, x.width, &[x]);
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
    let wide = a.softmax_fp32 || tape.shape.autocasts();
    let value_bytes = if wide { Dtype::Fp32.bytes() } else { x.value_bytes };
    let y = tape.tensor(names.output, x.rows, x.width, value_bytes);
    backward.extend(softmax_gradient(tape, names, y, x));
    let contiguous = if a.sequence_first { x.bytes() } else { 0 };
    tape.record(&Step {
        names,
        forward: &[memory(names.op, kind, reads.bytes(), y.bytes())],
        reads: &[reads],
        saves: &[y],
        inputs: &[x],
        outputs: &[y],
        backward: &backward,
        scratch: total(&[contiguous, softmax_scratch(tape, y)]),
        gradient: Gradient::New,
        trains: false,
    });
    y
}

/// Probabilities times values.
fn context(tape: &mut Tape<'_>, a: &Attention, width: u64, p: Tensor, v: Tensor) -> Tensor {
    let names = names!("attention.core.context");
    let [p, v] = [p, v].map(|factor| narrow(tape, names, factor));
    let (products, s, keys) = (a.products(), a.length, p.width);
    let mut factor = p;
    let mut backward =
        vec![gemm(tape, "attention.core.context.grad_probability", [products, s, keys, width])];
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
    backward.push(gemm(tape, "attention.core.context.grad_value", [products, keys, width, s]));
    let y = tape.activation(names.output, a.rows(), width);
    tape.record(&Step {
        names,
        forward: &[gemm(tape, names.op, [products, s, width, keys])],
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

/// The fused kernel of a pass over this rank's queries and so many keys, within a window of so many (0: all). Of packed
/// sequences it takes each document by itself (`varlen` kernels, of cumulative lengths); all are as long here.
pub(super) fn fused_kernel(
    tape: &Tape<'_>,
    a: &Attention,
    extras: &Extras,
    [key_length, window]: [u64; 2],
    pass: Pass,
) -> Kernel {
    let documents = tape.shape.documents.max(1);
    Kernel::Attention(AttentionShape {
        batch: product(&[a.batch, documents]),
        heads: a.heads,
        kv_heads: a.kv_heads,
        query_length: a.length.div_ceil(documents),
        key_length: key_length.div_ceil(documents),
        head_dim: a.head_dim,
        value_dim: a.values(extras),
        window,
        causal: a.causal,
        pass,
        dtype: tape.other_products(),
        generation: tape.shape.attention.generation(),
    })
}

/// One fused kernel. Keeps queries, keys, values, its result, and the log of the sum of exponentials of each row in
/// 32 bits (4 b a s bytes in place of the 5 a s^2 b of eager attention with dropout in 16 bits); dropout is drawn
/// again in backward.
///
/// Backward, as FlashAttention-2 does it: a row-wise dot product of the result and its gradient, the main kernel,
/// and the rounding of the query gradient from its 32-bit accumulator; with grouped queries two sums over the group.
///
/// A bias that is a tensor is one more input, whose gradient the kernel writes for every sequence.
fn flash(tape: &mut Tape<'_>, a: &Attention, extras: &Extras, [q, k, v]: [Tensor; 3]) -> Tensor {
    let names = names!("attention.flash");
    let [q, k, v] = [q, k, v].map(|input| narrow(tape, names, input));
    let [q, k, v] = if extras.unpads { unpad(tape, a, [q, k, v]) } else { [q, k, v] };
    let mut inputs = vec![q, k, v];
    if let Bias::Tensor(bias) = extras.bias {
        inputs.push(expand_bias(tape, a, bias));
    }
    let kernel = |pass| fused_kernel(tape, a, extras, [a.keys(extras), extras.window], pass);
    let (forward, backward) = (kernel(Pass::Forward), kernel(Pass::Backward));
    let y = tape.activation(names.output, a.rows(), a.values(extras));
    let row_sums = tape.tensor(names.statistics, a.rows(), 1, 4);
    let launches = if a.heads == a.kv_heads { 3 } else { 5 };
    tape.record(&Step {
        names,
        forward: &[single(names.op, forward)],
        reads: &inputs,
        saves: &[&inputs[..], &[y, row_sums]].concat(),
        inputs: &inputs,
        outputs: &[y],
        backward: &[Operation { launches, ..single(names.grad, backward) }],
        scratch: total(&[product(&[4, q.values()]), row_sums.bytes()]),
        gradient: Gradient::New,
        trains: false,
    });
    if extras.unpads { moved_tokens(tape, names!("attention.pad"), y, true) } else { y }
}

/// Finds the tokens that are no padding (sums, cumulative sums, `nonzero` and the longest length, for both of which the
/// host waits) and gathers theirs.
fn unpad(tape: &mut Tape<'_>, a: &Attention, qkv: [Tensor; 3]) -> [Tensor; 3] {
    let tokens = product(&[a.batch, a.length]);
    let index = memory("attention.unpad.index", MemoryBoundKind::Indexing, tokens, product(&[8, tokens]));
    let waits = Operation { host_sync: true, launches: 4, ..index };
    tape.run(&[waits, waits], &[]);
    qkv.map(|x| moved_tokens(tape, names!("attention.unpad"), x, false))
}

/// Tokens gathered, or scattered among `zeros`; backward does the other.
fn moved_tokens(tape: &mut Tape<'_>, names: Names, x: Tensor, zeros: bool) -> Tensor {
    let y = tape.tensor(names.output, x.rows, x.width, x.value_bytes);
    let bytes = x.bytes();
    let gathers = |name| memory(name, MemoryBoundKind::Indexing, bytes, bytes);
    let scatters = |name| Operation {
        launches: 2,
        ..memory(name, MemoryBoundKind::Indexing, bytes, product(&[2, bytes]))
    };
    let (forward, backward) = if zeros {
        (scatters(names.op), gathers(names.grad))
    } else {
        (gathers(names.op), scatters(names.grad))
    };
    moved(tape, names, [x, y], forward, backward);
    y
}

/// Keys or values for each query head: a copy when heads are grouped, whose gradient is summed over the group.
fn repeat_heads(tape: &mut Tape<'_>, names: Names, x: Tensor, group: u64) -> Tensor {
    if group == 1 {
        return x;
    }
    let y = tape.result(names.output, x.rows, product(&[x.width, group]), &[x]);
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
pub(crate) fn split_heads(tape: &mut Tape<'_>, qkv: Tensor) -> [Tensor; 3] {
    split_columns(tape, names!("attention.split_heads"), qkv)
}

/// Views of equal parts of a packed projection's result; their gradients are concatenated.
pub(crate) fn split_columns<const N: usize>(
    tape: &mut Tape<'_>,
    names: Names,
    packed: Tensor,
) -> [Tensor; N] {
    let parts = [(); N].map(|()| tape.view(packed, packed.rows, packed.width / (N as u64)));
    concatenate_gradients(tape, names, packed, &parts, &[]);
    parts
}

/// Queries, keys and values each copied out of one projection's result: heads beside the batch, as a batched product
/// takes them. Three copies; their gradients are concatenated by one.
pub(crate) fn split_to_copies(tape: &mut Tape<'_>, qkv: Tensor) -> [Tensor; 3] {
    let names = names!("attention.split_heads");
    let thirds = ["attention.query", "attention.key", "attention.value"]
        .map(|name| tape.result(name, qkv.rows, qkv.width / 3, &[qkv]));
    let copies =
        Operation { launches: 3, ..memory(names.op, MemoryBoundKind::Fill, qkv.bytes(), qkv.bytes()) };
    concatenate_gradients(tape, names, qkv, &thirds, &[copies]);
    thirds
}

fn concatenate_gradients(
    tape: &mut Tape<'_>,
    names: Names,
    qkv: Tensor,
    thirds: &[Tensor],
    forward: &[Operation],
) {
    tape.record(&Step {
        names,
        forward,
        reads: &[qkv],
        saves: &[],
        inputs: &[qkv],
        outputs: thirds,
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
