//! Linear layers.

use crate::operation::{Kernel, MemoryBoundKind, Operation};
use crate::tape::{Gradient, Names, Step, Tape, Tensor, memory, single};
use crate::units::product;

/// `y = x W^T + b`: one GEMM with the bias in its epilogue. Keeps `x`.
///
/// Backward: a GEMM for the gradient of `x`, one for that of `W`, and a sum over the rows for that of `b`.
pub(crate) fn linear(tape: &mut Tape<'_>, names: Names, x: Tensor, width: u64, bias: bool) -> Tensor {
    let y = tape.activation(names.output, x.rows, width);
    let mut backward = vec![
        gemm(tape, names.grad_input, [1, x.rows, x.width, width]),
        gemm(tape, names.grad_weight, [1, width, x.width, x.rows]),
    ];
    if bias {
        let gradient = product(&[width, tape.activation_bytes()]);
        backward.push(memory(names.grad_bias, MemoryBoundKind::Reduction, y.bytes(), gradient));
    }
    tape.record(&Step {
        names,
        forward: &[gemm(tape, names.op, [1, x.rows, width, x.width])],
        reads: &[x],
        saves: &[x],
        inputs: &[x],
        outputs: &[y],
        backward: &backward,
        scratch: 0,
        gradient: Gradient::New,
    });
    y
}

/// `batch` products of an `m` x `k` by a `k` x `n` matrix in the format of the tape, sizes in that order. Batches
/// of products are attention's.
pub(super) fn gemm(tape: &Tape<'_>, name: &'static str, [batch, m, n, k]: [u64; 4]) -> Operation {
    let dtype = if batch == 1 { tape.shape.compute } else { tape.other_products() };
    single(name, Kernel::Gemm { batch, m, n, k, dtype })
}
