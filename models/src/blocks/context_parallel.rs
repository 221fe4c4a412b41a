//! Attention over sequences of which each rank of a context group holds a part.

use super::attention::{Attention, Extras, attention_of_whole, fused_kernel};
use crate::operation::{ExchangeGroup, ExchangeKind, MemoryBoundKind, Operation, Pass};
use crate::tape::{Names, Step, Tape, Tensor, exchange_in, memory, names, single};
use crate::units::{product, total};

/// Tokens for heads, attention over whole sequences with a part of the heads, and back (DeepSpeed-Ulysses, Jacobs et al.
/// 2023): one all-to-all for each of queries, keys and values, one for the result, the same again for the gradients.
///
/// Where there are fewer heads of keys than ranks, each rank receives a whole one.
pub(super) fn by_heads(tape: &mut Tape<'_>, a: &Attention, extras: &Extras, qkv: [Tensor; 3]) -> Tensor {
    let context = tape.shape.context;
    let inner = Attention {
        length: product(&[a.length, context.ways()]),
        heads: context.part(a.heads),
        kv_heads: context.part(a.kv_heads),
        ..*a
    };
    let [q, k, v] = qkv;
    let widths = [
        product(&[inner.heads, a.head_dim]),
        product(&[inner.kv_heads, a.head_dim]),
        product(&[inner.kv_heads, extras.value_dim.unwrap_or(a.head_dim)]),
    ];
    let names = [
        names!("attention.context.query"),
        names!("attention.context.key"),
        names!("attention.context.value"),
    ];
    let mut moved = [q, k, v];
    for ((x, width), names) in moved.iter_mut().zip(widths).zip(names) {
        let rows = product(&[x.rows, context.ways()]);
        *x = redistribute(tape, names, *x, [rows, width]);
    }
    let result = attention_of_whole(tape, &inner, extras, moved);
    let sizes = [result.rows / context.ways(), product(&[result.width, context.ways()])];
    redistribute(tape, names!("attention.context.result"), result, sizes)
}

/// An all-to-all between two copies that bring the parts for each rank together.
fn redistribute(tape: &mut Tape<'_>, names: Names, x: Tensor, [rows, width]: [u64; 2]) -> Tensor {
    let y = tape.tensor(names.output, rows, width, x.value_bytes);
    let bytes = x.bytes().max(y.bytes());
    let send = |name| exchange_in(ExchangeGroup::Context, name, ExchangeKind::AllToAll, bytes);
    let copy = |name, bytes| memory(name, MemoryBoundKind::Fill, bytes, bytes);
    tape.record(&Step {
        forward: &[copy(names.op, x.bytes()), send(names.op), copy(names.op, y.bytes())],
        reads: &[x],
        inputs: &[x],
        outputs: &[y],
        backward: &[copy(names.grad, y.bytes()), send(names.grad), copy(names.grad, x.bytes())],
        ..Step::of(names)
    });
    y
}

/// Fused attention of this rank's queries to every rank's keys and values, which go round a ring: while a rank attends to
/// one part, the next is on its way (Transformer Engine, `AttnFuncWithCPAndKVP2P`).
///
/// Each step is a kernel over this rank's queries and one rank's keys. Under a causal mask the sequence is cut into 2 n
/// chunks of which a rank holds number r and number 2n - 1 - r: then every step leaves half of the pairs, the step over
/// its own keys by the mask, the others because either half of the queries or half of the keys has no part in it. With a
/// window only the parts that it reaches are visited.
///
/// Keeps what a fused kernel keeps: this rank's queries, keys, values, result and row statistics. The keys and values of
/// all steps and their results before they are joined live until the last step is done. Backward sends keys and values
/// round again, with their gradients behind them, which make one step more.
pub(super) fn ring(tape: &mut Tape<'_>, a: &Attention, extras: &Extras, [q, k, v]: [Tensor; 3]) -> Tensor {
    let names = names!("attention.ring");
    let steps = steps(tape, a, extras);
    let value_dim = extras.value_dim.unwrap_or(a.head_dim);
    let kernel = |pass| fused_kernel(tape, a, extras, [a.length, 0], pass);
    let (forward_step, backward_step) = (kernel(Pass::Forward), kernel(Pass::Backward));
    let rows = product(&[a.batch, a.heads, a.length]);
    let pair = total(&[k.bytes(), v.bytes()]);
    let hop = |name, bytes| exchange_in(ExchangeGroup::Context, name, ExchangeKind::SendReceive, bytes);
    let received = tape.tensor("attention.ring.received", product(&[steps - 1, pair]), 1, 1);
    let parts = tape.activation("attention.ring.parts", product(&[steps, rows]), value_dim);
    let y = tape.activation(names.output, rows, value_dim);
    let row_sums = tape.tensor(names.statistics, rows, 1, 4);

    let mut forward = Vec::new();
    let mut backward = Vec::new();
    let launches = if a.heads == a.kv_heads { 3 } else { 5 };
    for step in 0..steps {
        if step + 1 < steps {
            forward.push(hop("attention.ring.send", pair));
        }
        forward.push(single(names.op, forward_step));
        // Keys and values go ahead, gradients follow one step behind.
        let mut bytes = if step + 1 < steps { pair } else { 0 };
        if step > 0 {
            bytes = total(&[bytes, pair]);
        }
        backward.push(hop("attention.ring.grad_send", bytes));
        backward.push(Operation { launches, ..single(names.grad, backward_step) });
    }
    backward.push(hop("attention.ring.grad_send", pair));
    let steps_32 = u32::try_from(steps).unwrap_or(u32::MAX);
    let kind = MemoryBoundKind::Elementwise;
    let join = memory("attention.ring.join", kind, product(&[2, parts.bytes()]), parts.bytes());
    forward.push(Operation { launches: steps_32, ..join });
    let gradients = total(&[q.bytes(), pair]);
    let sum = memory(
        "attention.ring.grad_sum",
        kind,
        product(&[2, steps, gradients]),
        product(&[steps, gradients]),
    );
    backward.push(Operation { launches: steps_32, ..sum });
    let inputs = [q, k, v];
    tape.record(&Step {
        forward: &forward,
        reads: &[q, k, v, received, parts],
        saves: &[q, k, v, y, row_sums],
        inputs: &inputs,
        outputs: &[y],
        backward: &backward,
        // The accumulator of a step's query gradient, and two sets of keys, values and their gradients.
        scratch: total(&[product(&[4, q.values()]), row_sums.bytes(), product(&[4, pair])]),
        ..Step::of(names)
    });
    y
}

/// Parts of the keys that this rank's queries see.
fn steps(tape: &Tape<'_>, a: &Attention, extras: &Extras) -> u64 {
    let ways = tape.shape.context.ways();
    if extras.window == 0 {
        return ways;
    }
    let sides = if a.causal { 1 } else { 2 };
    ways.min(total(&[1, product(&[sides, extras.window.div_ceil(a.length.max(1))])]))
}
