//! Element-by-element operations and copies.

use super::autocast::widened;
use crate::operation::{MemoryBoundKind, Operation};
use crate::tape::{Gradient, Names, Step, Tape, Tensor, memory, names};
use crate::units::{product, total};

const ELEMENTWISE: MemoryBoundKind = MemoryBoundKind::Elementwise;

/// A function of one value with some arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Function {
    /// Exact or by its tanh form.
    Gelu,
    /// `x / (1 + exp(-x))`.
    Silu,
    /// A handful of instructions, which no GPU waits for.
    Simple,
}

impl Function {
    /// Instructions of a thread for one value, forward and backward, with those that load, convert, and store it: four
    /// values at once in addresses (5 a value, 7 backward, which reads two) and one each to widen and to round (2, 3).
    ///
    /// GELU: the error function of CUDA's mathematical library chooses seven coefficients of two polynomials by the size of its
    /// argument and evaluates one (15), and goes on with an exponential, the sign, and a choice (10); a scale, a sum and
    /// two products (4). Its derivative has the density beside it (exponential of the square 6, sum and products 5). The tanh
    /// form's cubic, exponential and quotient are as many. SiLU: exponential (4), sum, a quotient that is rounded right (9),
    /// and for the derivative four products and sums.
    const fn instructions(self) -> (u64, u64) {
        match self {
            Self::Gelu => (36, 50),
            Self::Silu => (21, 28),
            Self::Simple => (0, 0),
        }
    }

    /// Of a tensor.
    pub(super) fn instructions_of(self, x: Tensor) -> (u64, u64) {
        let (forward, backward) = self.instructions();
        (product(&[forward, x.values()]), product(&[backward, x.values()]))
    }
}

/// GELU or SiLU: keeps its input.
pub(crate) fn activation(tape: &mut Tape<'_>, names: Names, function: Function, x: Tensor) -> Tensor {
    let y = tape.result(names.output, x.rows, x.width, &[x]);
    let (forward, backward) = function.instructions_of(x);
    let back = memory(names.grad, ELEMENTWISE, total(&[y.bytes(), x.bytes()]), x.bytes());
    tape.record(&Step {
        names,
        forward: &[memory(names.op, ELEMENTWISE, x.bytes(), y.bytes()).with_instructions(forward)],
        reads: &[x],
        saves: &[x],
        inputs: &[x],
        outputs: &[y],
        backward: &[back.with_instructions(backward)],
        scratch: 0,
        gradient: Gradient::New,
        trains: false,
    });
    y
}

/// ReLU, tanh or the logistic function: keeps its result.
pub(crate) fn activation_by_result(tape: &mut Tape<'_>, names: Names, x: Tensor) -> Tensor {
    let y = tape.tensor(names.output, x.rows, x.width, x.value_bytes);
    tape.record(&Step {
        names,
        forward: &[memory(names.op, ELEMENTWISE, x.bytes(), y.bytes())],
        reads: &[x],
        saves: &[y],
        inputs: &[x],
        outputs: &[y],
        backward: &[memory(names.grad, ELEMENTWISE, total(&[y.bytes(), y.bytes()]), x.bytes())],
        scratch: 0,
        gradient: Gradient::New,
        trains: false,
    });
    y
}

/// `c * tanh(x / c)`: a division, tanh (keeps its result) and a product.
pub(crate) fn softcap(tape: &mut Tape<'_>, names: Names, x: Tensor) -> Tensor {
    let bounded = tape.tensor(names.statistics, x.rows, x.width, x.value_bytes);
    let y = tape.tensor(names.output, x.rows, x.width, x.value_bytes);
    let (bytes, three) = (x.bytes(), product(&[3, x.bytes()]));
    tape.record(&Step {
        names,
        forward: &[Operation { launches: 3, ..memory(names.op, ELEMENTWISE, three, three) }],
        reads: &[x],
        saves: &[bounded],
        inputs: &[x],
        outputs: &[y],
        backward: &[Operation {
            launches: 3,
            ..memory(names.grad, ELEMENTWISE, total(&[three, bytes]), three)
        }],
        scratch: bytes,
        gradient: Gradient::New,
        trains: false,
    });
    y
}

/// Residual addition. Keeps nothing, and hands its gradient to both sides as it is.
pub(crate) fn add(tape: &mut Tape<'_>, names: Names, a: Tensor, b: Tensor) -> Tensor {
    let value_bytes = a.value_bytes.max(b.value_bytes);
    let [a, b] = [a, b].map(|summand| widened(tape, names, summand, value_bytes));
    let y = tape.result(names.output, a.rows, a.width, &[a, b]);
    add_into(tape, names, [a, b], y)
}

/// The sum of two tensors in `y`, a tensor of its own or a view of the first.
pub(super) fn add_into(tape: &mut Tape<'_>, names: Names, [a, b]: [Tensor; 2], y: Tensor) -> Tensor {
    tape.record(&Step {
        forward: &[memory(names.op, ELEMENTWISE, total(&[a.bytes(), b.bytes()]), y.bytes())],
        reads: &[a, b],
        inputs: &[a, b],
        outputs: &[y],
        gradient: Gradient::Passed,
        ..Step::of(names)
    });
    y
}

/// Product of two tensors of one shape: keeps both. Backward is a product for each.
pub(crate) fn multiply(tape: &mut Tape<'_>, names: Names, a: Tensor, b: Tensor) -> Tensor {
    let y = tape.result(names.output, a.rows, a.width, &[a, b]);
    let bytes = y.bytes();
    let both = memory(names.grad, ELEMENTWISE, product(&[4, bytes]), product(&[2, bytes]));
    tape.record(&Step {
        names,
        forward: &[memory(names.op, ELEMENTWISE, total(&[a.bytes(), b.bytes()]), bytes)],
        reads: &[a, b],
        saves: &[a, b],
        inputs: &[a, b],
        outputs: &[y],
        backward: &[Operation { launches: 2, ..both }],
        scratch: 0,
        gradient: Gradient::New,
        trains: false,
    });
    y
}

/// Dropout: keeps a mask of one byte a value. Nothing at all outside training or where the model has none
/// (PyTorch returns the input itself for a probability of zero).
pub(crate) fn dropout(tape: &mut Tape<'_>, names: Names, x: Tensor, active: bool) -> Tensor {
    if !active || !tape.shape.training {
        return x;
    }
    let y = tape.tensor(names.output, x.rows, x.width, x.value_bytes);
    let mask = tape.tensor(names.mask, x.rows, x.width, 1);
    tape.record(&Step {
        names,
        forward: &[memory(names.op, ELEMENTWISE, x.bytes(), total(&[y.bytes(), mask.bytes()]))],
        reads: &[x],
        saves: &[mask],
        inputs: &[x],
        outputs: &[y],
        backward: &[memory(names.grad, ELEMENTWISE, total(&[y.bytes(), mask.bytes()]), x.bytes())],
        scratch: 0,
        gradient: Gradient::New,
        trains: false,
    });
    y
}

/// Multiplication by a constant, out of place or in place. Keeps nothing.
pub(crate) fn scale(tape: &mut Tape<'_>, names: Names, x: Tensor, in_place: bool) -> Tensor {
    let y = if in_place {
        tape.view(x, x.rows, x.width)
    } else {
        tape.tensor(names.output, x.rows, x.width, x.value_bytes)
    };
    same_shape(tape, names, x, y, 0);
    y
}

/// Causal mask over score rows (`torch.where` or an added mask of `mask_bytes`). The mask is shared by all layers,
/// so nothing is kept.
pub(super) fn mask(tape: &mut Tape<'_>, names: Names, x: Tensor, mask_bytes: u64) -> Tensor {
    let y = tape.tensor(names.output, x.rows, x.width, x.value_bytes);
    same_shape(tape, names, x, y, mask_bytes);
    y
}

/// One element-wise kernel forward and one backward, nothing kept, `extra` bytes of a constant read in both.
fn same_shape(tape: &mut Tape<'_>, names: Names, x: Tensor, y: Tensor, extra: u64) {
    tape.record(&Step {
        names,
        forward: &[memory(names.op, ELEMENTWISE, total(&[x.bytes(), extra]), y.bytes())],
        reads: &[x],
        saves: &[],
        inputs: &[x],
        outputs: &[y],
        backward: &[memory(names.grad, ELEMENTWISE, total(&[y.bytes(), extra]), x.bytes())],
        scratch: 0,
        gradient: Gradient::New,
        trains: false,
    });
}

/// Copy into another layout; so is its backward.
pub(crate) fn copy(tape: &mut Tape<'_>, names: Names, x: Tensor) -> Tensor {
    let y = tape.tensor(names.output, x.rows, x.width, x.value_bytes);
    let fill = |name, from: Tensor, to: Tensor| memory(name, MemoryBoundKind::Fill, from.bytes(), to.bytes());
    moved(tape, names, [x, y], fill(names.op, x, y), fill(names.grad, y, x));
    y
}

/// Conversion to a format of `value_bytes`; nothing if it is of that size already. Its gradient is converted back.
pub(crate) fn cast(tape: &mut Tape<'_>, names: Names, x: Tensor, value_bytes: u64) -> Tensor {
    if x.value_bytes == value_bytes {
        return x;
    }
    let y = tape.tensor(names.output, x.rows, x.width, value_bytes);
    same_shape(tape, names, x, y, 0);
    y
}

/// Rotary position embedding of queries or keys, as Llama's code spells it: `x * cos + rotate_half(x) * sin`.
///
/// Forward, 5 launches: product with cos, negation of one half, concatenation, product with sin, sum. Backward, 9:
/// product with sin; negation of one half; a zero fill and a copy for each of the two slices, and their sum;
/// product with cos; sum of the two branches. In units of `x`, forward reads 5.5 and writes 4.5 times, backward
/// reads and writes 7.5 times. The tables of cos and sin are shared by all layers; nothing is kept.
///
/// Only the first `rotated` values of a row (of each head its share) turn; where some are left over, the two slices are
/// concatenated again: one launch more forward and five backward, each slice's gradient filled into zeros and the two
/// added.
pub(crate) fn rotary(tape: &mut Tape<'_>, names: Names, x: Tensor, rotated: u64) -> Tensor {
    let y = tape.result(names.output, x.rows, x.width, &[x]);
    let part = product(&[x.rows, rotated, x.value_bytes]);
    let times = |halves: u64| product(&[halves, part / 2]);
    let (mut forward, mut backward) = ((5, times(11), times(9)), (9, times(15), times(15)));
    if rotated < x.width {
        let whole = x.bytes();
        forward = (6, total(&[forward.1, whole]), total(&[forward.2, whole]));
        let more = product(&[3, whole]);
        backward = (14, total(&[backward.1, more]), total(&[backward.2, more, whole]));
    }
    let operation =
        |name, (launches, read, written)| Operation { launches, ..memory(name, ELEMENTWISE, read, written) };
    tape.record(&Step {
        names,
        forward: &[operation(names.op, forward)],
        reads: &[x],
        saves: &[],
        inputs: &[x],
        outputs: &[y],
        backward: &[operation(names.grad, backward)],
        scratch: 0,
        gradient: Gradient::New,
        trains: false,
    });
    y
}

/// Mean over the tokens of each of `batch` sequences, padding left out: the tokens masked, summed, and divided by their
/// number.
pub(crate) fn mean_pool(tape: &mut Tape<'_>, x: Tensor, batch: u64) -> Tensor {
    let masked = mask(tape, names!("head.pool_mask"), x, x.rows);
    let names = names!("head.mean");
    let y = tape.result(names.output, batch, x.width, &[x]);
    let (few, bytes) = (y.bytes(), masked.bytes());
    let sum = memory(names.op, MemoryBoundKind::Reduction, total(&[bytes, few]), product(&[2, few]));
    let expand = memory(names.grad, ELEMENTWISE, product(&[2, few]), total(&[bytes, few]));
    tape.record(&Step {
        names,
        forward: &[Operation { launches: 2, ..sum }],
        reads: &[masked],
        saves: &[],
        inputs: &[masked],
        outputs: &[y],
        backward: &[Operation { launches: 2, ..expand }],
        scratch: 0,
        gradient: Gradient::New,
        trains: false,
    });
    y
}

/// Values that only move: nothing is kept, and the gradient moves back.
pub(super) fn moved(
    tape: &mut Tape<'_>,
    names: Names,
    [x, y]: [Tensor; 2],
    forward: Operation,
    backward: Operation,
) {
    tape.record(&Step {
        forward: &[forward],
        reads: &[x],
        inputs: &[x],
        outputs: &[y],
        backward: &[backward],
        ..Step::of(names)
    });
}
