//! Functions whose derivative is written in their result: autograd keeps that instead of their input.

use crate::operation::MemoryBoundKind;
use crate::tape::{Names, Step, Tape, Tensor, memory};
use crate::units::product;

/// Sigmoid of every value.
pub(crate) fn sigmoid(tape: &mut Tape<'_>, names: Names, x: Tensor) -> Tensor {
    function(tape, names, MemoryBoundKind::Elementwise, x)
}

/// Softmax of every row.
pub(crate) fn softmax(tape: &mut Tape<'_>, names: Names, x: Tensor) -> Tensor {
    function(tape, names, MemoryBoundKind::Softmax, x)
}

/// One kernel forward; backward one that reads the result and its gradient.
fn function(tape: &mut Tape<'_>, names: Names, kind: MemoryBoundKind, x: Tensor) -> Tensor {
    let y = tape.tensor(names.output, x.rows, x.width, x.value_bytes);
    tape.record(&Step {
        forward: &[memory(names.op, kind, x.bytes(), y.bytes())],
        reads: &[x],
        saves: &[y],
        inputs: &[x],
        outputs: &[y],
        backward: &[memory(names.grad, kind, product(&[2, y.bytes()]), x.bytes())],
        ..Step::of(names)
    });
    y
}
