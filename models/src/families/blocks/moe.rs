//! Routed experts.

use super::kinds::Moe;
use crate::blocks::{
    Function, Linear, activation, enter_tensor_parallel, leave_tensor_parallel, linear, multiply, softmax,
};
use crate::operation::{Dtype, Kernel, MemoryBoundKind, Operation};
use crate::parameter::Split;
use crate::tape::{Names, Step, Tape, Tensor, memory, names, single};
use crate::units::{product, total};

/// Routed experts without dropped tokens, taken as balanced: a linear router, softmax, the `top_k` best experts of each
/// token; the tokens' rows sorted by expert, one grouped product a matrix over all experts, and the rows added up again
/// with their probabilities. Whole experts on every rank; a tensor group divides each.
pub(super) fn moe(tape: &mut Tape<'_>, moe: &Moe, module: &str, x: Tensor) -> Tensor {
    let x = enter_tensor_parallel(tape, x);
    let router = format!("{module}.router");
    let logits = linear(tape, Linear::new(&router, names!("moe.router"), moe.experts), x);
    let [probabilities, chosen] = route(tape, moe, logits);
    let rows = product(&[x.rows, moe.top_k]);
    let gathered = gather(tape, x, chosen, rows);
    let hidden = x.width;
    let inner = tape.shape.tensor.part(moe.width);
    let up = grouped(tape, moe, [module, "up_proj"], names!("moe.up"), gathered, [inner, moe.width, hidden]);
    let wide = if moe.gated {
        let gate = grouped(
            tape,
            moe,
            [module, "gate_proj"],
            names!("moe.gate"),
            gathered,
            [inner, moe.width, hidden],
        );
        let gate = activation(tape, names!("moe.activation"), Function::Silu, gate);
        multiply(tape, names!("moe.product"), gate, up)
    } else {
        activation(tape, names!("moe.activation"), Function::Gelu, up)
    };
    let down =
        grouped(tape, moe, [module, "down_proj"], names!("moe.down"), wide, [hidden, hidden, moe.width]);
    let y = combine(tape, down, probabilities, chosen, x.rows);
    leave_tensor_parallel(tape, y)
}

/// Probabilities and indices of each token's experts. Keeps the softmax's result and the indices.
fn route(tape: &mut Tape<'_>, moe: &Moe, logits: Tensor) -> [Tensor; 2] {
    let all = softmax(tape, names!("moe.softmax"), logits);
    let names = names!("moe.top_k");
    let best = tape.activation(names.output, logits.rows, moe.top_k);
    let chosen = tape.tensor("moe.chosen", logits.rows, moe.top_k, Dtype::Int64.bytes());
    let found = total(&[best.bytes(), chosen.bytes()]);
    let scatter = memory(names.grad, MemoryBoundKind::Indexing, found, total(&[all.bytes(), best.bytes()]));
    tape.record(&Step {
        forward: &[memory(names.op, MemoryBoundKind::Reduction, all.bytes(), found)],
        reads: &[all],
        saves: &[chosen],
        inputs: &[all],
        outputs: &[best],
        backward: &[Operation { launches: 2, ..scatter }],
        ..Step::of(names)
    });
    [best, chosen]
}

/// Every token's row once for each of its experts, sorted by expert: a sort of the indices and an index select. Keeps the
/// indices.
fn gather(tape: &mut Tape<'_>, x: Tensor, chosen: Tensor, rows: u64) -> Tensor {
    let names = names!("moe.gather");
    let y = tape.activation(names.output, rows, x.width);
    let both = total(&[y.bytes(), chosen.bytes()]);
    let forward = Operation { launches: 3, ..memory(names.op, MemoryBoundKind::Indexing, both, y.bytes()) };
    let backward = memory(names.grad, MemoryBoundKind::Indexing, both, product(&[2, x.bytes()]));
    tape.record(&Step {
        forward: &[forward],
        reads: &[x, chosen],
        saves: &[chosen],
        inputs: &[x],
        outputs: &[y],
        backward: &[Operation { launches: 2, ..backward }],
        ..Step::of(names)
    });
    y
}

/// One matrix of every expert times its rows. `[part, outputs, inputs]`: this rank's outputs, and the whole matrix.
fn grouped(
    tape: &mut Tape<'_>,
    moe: &Moe,
    [module, leaf]: [&str; 2],
    names: Names,
    x: Tensor,
    [part, outputs, inputs]: [u64; 3],
) -> Tensor {
    let trains = tape.as_expert(moe.experts, moe.top_k, |tape| {
        (0..moe.experts).fold(false, |_, expert| {
            tape.expert_number(expert);
            let name = format!("{module}.experts.{expert}.{leaf}");
            tape.weight(&name, "weight", &[outputs, inputs], Split::Tensor)
        })
    });
    let rows = x.rows.div_ceil(moe.experts.max(1));
    let dtype = tape.shape.compute;
    let gemm = |name, m, n, k| single(name, Kernel::Gemm { batch: moe.experts, m, n, k, dtype });
    let y = tape.activation(names.output, x.rows, part);
    let mut backward = Vec::new();
    if tape.needs_gradient(x) {
        backward.push(gemm(names.grad_input, rows, x.width, part));
    }
    if trains {
        backward.push(gemm(names.grad_weight, part, x.width, rows));
    }
    tape.record(&Step {
        forward: &[gemm(names.op, rows, part, x.width)],
        reads: &[x],
        saves: if trains { std::slice::from_ref(&x) } else { &[] },
        inputs: &[x],
        outputs: &[y],
        backward: &backward,
        trains,
        ..Step::of(names)
    });
    y
}

/// The experts' rows times their probabilities, added up for each token. Keeps rows, probabilities and indices.
fn combine(tape: &mut Tape<'_>, rows: Tensor, probabilities: Tensor, chosen: Tensor, tokens: u64) -> Tensor {
    let names = names!("moe.combine");
    let y = tape.activation(names.output, tokens, rows.width);
    let few = total(&[probabilities.bytes(), chosen.bytes()]);
    let forward = memory(names.op, MemoryBoundKind::Indexing, total(&[rows.bytes(), few]), y.bytes());
    let read = total(&[rows.bytes(), rows.bytes(), few]);
    let written = total(&[rows.bytes(), probabilities.bytes()]);
    let backward = memory(names.grad, MemoryBoundKind::Indexing, read, written);
    tape.record(&Step {
        forward: &[Operation { launches: 2, ..forward }],
        reads: &[rows, probabilities, chosen],
        saves: &[rows, probabilities, chosen],
        inputs: &[rows, probabilities],
        outputs: &[y],
        backward: &[Operation { launches: 3, ..backward }],
        ..Step::of(names)
    });
    y
}
