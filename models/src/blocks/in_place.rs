//! Operations that write over their input, and products with random numbers.
//!
//! Autograd keeps what an operation's derivative is written in. ReLU's is written in its result, so that nothing is
//! kept that the next layer does not keep anyway. Those of hard tanh (ReLU6) and SiLU are written in their input, which
//! is gone after an operation in place: autograd copies it first.

use super::autocast::widened;
use super::pointwise::add_into;
use crate::operation::{MemoryBoundKind, Operation};
use crate::tape::{Gradient, Names, Step, Tape, Tensor, memory};
use crate::units::{product, total};

const ELEMENTWISE: MemoryBoundKind = MemoryBoundKind::Elementwise;

/// ReLU over its input: keeps its result, the same memory.
pub(crate) fn relu_in_place(tape: &mut Tape<'_>, names: Names, x: Tensor) -> Tensor {
    let y = tape.view(x, x.rows, x.width);
    let bytes = x.bytes();
    tape.record(&Step {
        names,
        forward: &[memory(names.op, ELEMENTWISE, bytes, bytes)],
        reads: &[x],
        saves: &[y],
        inputs: &[x],
        outputs: &[y],
        backward: &[memory(names.grad, ELEMENTWISE, product(&[2, bytes]), bytes)],
        scratch: 0,
        gradient: Gradient::New,
        trains: false,
    });
    y
}

/// ReLU6 over its input: keeps a copy of the input.
pub(crate) fn relu6_in_place(tape: &mut Tape<'_>, names: Names, x: Tensor) -> Tensor {
    over_a_copied_input(tape, names, x)
}

/// SiLU over its input: keeps a copy of the input.
pub(crate) fn silu_in_place(tape: &mut Tape<'_>, names: Names, x: Tensor) -> Tensor {
    over_a_copied_input(tape, names, x)
}

fn over_a_copied_input(tape: &mut Tape<'_>, names: Names, x: Tensor) -> Tensor {
    let bytes = x.bytes();
    let write = memory(names.op, ELEMENTWISE, bytes, bytes);
    let y = tape.view(x, x.rows, x.width);
    if !(tape.shape.training && tape.needs_gradient(x)) {
        tape.run(&[write], &[x]);
        return y;
    }
    let copied = tape.tensor(names.output, x.rows, x.width, x.value_bytes);
    tape.record(&Step {
        names,
        forward: &[memory(names.op, MemoryBoundKind::Fill, bytes, bytes), write],
        reads: &[x],
        saves: &[copied],
        inputs: &[x],
        outputs: &[y],
        backward: &[memory(names.grad, ELEMENTWISE, product(&[2, bytes]), bytes)],
        scratch: 0,
        gradient: Gradient::New,
        trains: false,
    });
    y
}

/// `a += b`: keeps nothing, and hands its gradient to both as it is.
pub(crate) fn add_in_place(tape: &mut Tape<'_>, names: Names, a: Tensor, b: Tensor) -> Tensor {
    let b = widened(tape, names, b, a.value_bytes);
    let y = tape.view(a, a.rows, a.width);
    add_into(tape, names, [a, b], y)
}

/// Stochastic depth (Huang et al. 2016): images dropped from a branch at random. Three launches: draw a number for each
/// image, divide it by the probability to stay, multiply. Keeps the numbers. Nothing outside training.
pub(crate) fn stochastic_depth(
    tape: &mut Tape<'_>,
    names: Names,
    x: Tensor,
    images: u64,
    active: bool,
) -> Tensor {
    if !active || !tape.shape.training {
        return x;
    }
    let y = tape.tensor(names.output, x.rows, x.width, x.value_bytes);
    noise_product(tape, names, x, y, [images, 1]);
    y
}

/// Dropout over its input: as [`stochastic_depth`] with a number for each value, in the format of the activations.
pub(crate) fn dropout_in_place(tape: &mut Tape<'_>, names: Names, x: Tensor, active: bool) -> Tensor {
    if !active || !tape.shape.training {
        return x;
    }
    let y = tape.view(x, x.rows, x.width);
    noise_product(tape, names, x, y, [x.rows, x.width]);
    y
}

/// Draws `rows` x `width` numbers, scales them and multiplies `x` by them into `y`.
fn noise_product(tape: &mut Tape<'_>, names: Names, x: Tensor, y: Tensor, [rows, width]: [u64; 2]) {
    let noise = tape.tensor(names.mask, rows, width, x.value_bytes);
    let draw = memory(names.op, ELEMENTWISE, noise.bytes(), product(&[2, noise.bytes()]));
    tape.record(&Step {
        names,
        forward: &[
            Operation { launches: 2, ..draw },
            memory(names.op, ELEMENTWISE, total(&[x.bytes(), noise.bytes()]), y.bytes()),
        ],
        reads: &[x],
        saves: &[noise],
        inputs: &[x],
        outputs: &[y],
        backward: &[memory(names.grad, ELEMENTWISE, total(&[y.bytes(), noise.bytes()]), x.bytes())],
        scratch: 0,
        gradient: Gradient::New,
        trains: false,
    });
}
