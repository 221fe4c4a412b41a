//! Conversions that `torch.autocast` makes around an operation: kernels of their own in both directions, whose results
//! autograd keeps.
//!
//! Converted weights are kept by autocast's cache until its region ends, so that each is converted once a forward; a
//! converted activation is kept by the operation that asked for it, and each operation asks anew. Where the formats are
//! uniform nothing here does anything.

use super::pointwise::cast;
use crate::operation::{Dtype, MemoryBoundKind, Operation};
use crate::tape::{Gradient, Names, Step, Tape, Tensor, memory};

/// The tensor as a product, a convolution or fused attention takes it: in 16 bits.
pub(super) fn narrow(tape: &mut Tape<'_>, names: Names, x: Tensor) -> Tensor {
    if !tape.shape.autocasts() {
        return x;
    }
    let format = tape.activation_bytes();
    convert(tape, names, x, format)
}

/// The tensor as an operation in `value_bytes` takes it.
pub(super) fn convert(tape: &mut Tape<'_>, names: Names, x: Tensor, value_bytes: u64) -> Tensor {
    cast(tape, Names { op: names.cast, output: names.cast, grad: names.grad_cast, ..names }, x, value_bytes)
}

/// The copy of a weight of `rows` x `width` values, or of `pieces` weights as large together, in the format of
/// `value_bytes`; its gradient is converted back. None where the weight has that format already.
pub(super) fn cast_weight(
    tape: &mut Tape<'_>,
    names: Names,
    [rows, width, pieces]: [u64; 3],
    value_bytes: u64,
    trains: bool,
) -> Option<Tensor> {
    if !tape.shape.autocasts() || tape.parameter_bytes() == value_bytes {
        return None;
    }
    let copied = tape.tensor(names.weight_cast, rows, width, value_bytes);
    let whole = copied.values() * tape.parameter_bytes();
    let launches = u32::try_from(pieces).unwrap_or(u32::MAX);
    let convert =
        |name, from, to| Operation { launches, ..memory(name, MemoryBoundKind::Elementwise, from, to) };
    tape.record(&Step {
        forward: &[convert(names.weight_cast, whole, copied.bytes())],
        outputs: &[copied],
        backward: &[convert(names.grad_cast, copied.bytes(), whole)],
        trains,
        ..Step::of(names)
    });
    Some(copied)
}

/// The tensor as the summand of one of `value_bytes` a value: the addition reads it as it is, but its gradient comes back
/// in the sum's format and is converted.
pub(super) fn widened(tape: &mut Tape<'_>, names: Names, x: Tensor, value_bytes: u64) -> Tensor {
    if !tape.shape.autocasts() || x.value_bytes == value_bytes {
        return x;
    }
    let y = tape.view(x, x.rows, x.width);
    let convert = memory(names.grad_cast, MemoryBoundKind::Elementwise, x.values() * value_bytes, x.bytes());
    tape.record(&Step {
        inputs: &[x],
        outputs: &[y],
        backward: &[convert],
        gradient: Gradient::New,
        ..Step::of(names)
    });
    y
}

/// The tensor as a softmax in 32 bits takes it: its kernels read fp16 as it is, other formats are converted first
/// (PyTorch, `aten/src/ATen/native/SoftMax.cpp`).
pub(super) fn widen_for_softmax(tape: &mut Tape<'_>, names: Names, x: Tensor) -> Tensor {
    if !tape.shape.autocasts() || tape.shape.activation == Dtype::Fp16 {
        return x;
    }
    convert(tape, names, x, Dtype::Fp32.bytes())
}
