//! Functions whose derivative is written in their result: autograd keeps that instead of their input.

use crate::operation::{MemoryBoundKind, Operation};
use crate::tape::{Names, Step, Tape, Tensor, memory};
use crate::units::product;
use crate::work_shape::Fusion;

/// Sigmoid of every value.
pub(crate) fn sigmoid(tape: &mut Tape<'_>, names: Names, x: Tensor) -> Tensor {
    function(tape, names, MemoryBoundKind::Elementwise, x)
}

/// Softmax of every row.
pub(crate) fn softmax(tape: &mut Tape<'_>, names: Names, x: Tensor) -> Tensor {
    let y = tape.tensor(names.output, x.rows, x.width, x.value_bytes);
    let backward = softmax_gradient(tape, names, y, x);
    tape.record(&Step {
        forward: &[memory(names.op, MemoryBoundKind::Softmax, x.bytes(), y.bytes())],
        reads: &[x],
        saves: &[y],
        inputs: &[x],
        outputs: &[y],
        backward: &backward,
        scratch: softmax_scratch(tape, y),
        ..Step::of(names)
    });
    y
}

/// Backward of a softmax with result `y` of `x`. PyTorch's kernels first multiply gradient and result into a tensor of its
/// own, and then go over its rows and the result's (`aten/src/ATen/native/cuda/SoftMax.cu`, `softmax_backward_cuda_out`): six
/// passes over the tensor in two kernels, the first named after what it makes. Fused ones hold the product in registers.
pub(super) fn softmax_gradient(tape: &Tape<'_>, names: Names, y: Tensor, x: Tensor) -> Vec<Operation> {
    let over_rows = memory(names.grad, MemoryBoundKind::Softmax, product(&[2, y.bytes()]), x.bytes());
    match tape.shape.fusion {
        Fusion::None => {
            let both = product(&[2, y.bytes()]);
            vec![memory(names.scratch, MemoryBoundKind::Elementwise, both, y.bytes()), over_rows]
        }
        Fusion::Compiled | Fusion::TransformerEngine => vec![over_rows],
    }
}

/// Bytes of the product that [`softmax_gradient`] makes.
pub(super) fn softmax_scratch(tape: &Tape<'_>, y: Tensor) -> u64 {
    match tape.shape.fusion {
        Fusion::None => y.bytes(),
        Fusion::Compiled | Fusion::TransformerEngine => 0,
    }
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
