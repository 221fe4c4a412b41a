//! Normalization over the last dimension.

use crate::operation::MemoryBoundKind;
use crate::tape::{Gradient, Names, Step, Tape, Tensor, memory};
use crate::units::{product, total};

/// LayerNorm with weight and bias: one kernel. Keeps its input and the mean and reciprocal deviation of each row.
pub(crate) fn layer_norm(tape: &mut Tape<'_>, names: Names, x: Tensor) -> Tensor {
    norm(tape, names, x, 2, 2)
}

/// RMSNorm with weight: one kernel that computes in 32 bits and rounds its result, as `torch.nn.RMSNorm` (fused since
/// PyTorch 2.8) and the fused ones of Apex, Transformer Engine and flash-attn. Keeps its input and the reciprocal
/// root mean square of each row.
///
/// A module that spells it out (cast, square, mean, rsqrt, two products) would launch about eight kernels and keep
/// 32-bit copies of the input instead.
pub(crate) fn rms_norm(tape: &mut Tape<'_>, names: Names, x: Tensor) -> Tensor {
    norm(tape, names, x, 1, 1)
}

/// Backward: one kernel for the gradient of the input, one for those of the parameters.
fn norm(tape: &mut Tape<'_>, names: Names, x: Tensor, parameters: u64, statistics: u64) -> Tensor {
    let y = tape.activation(names.output, x.rows, x.width);
    let kept = tape.tensor(names.statistics, x.rows, statistics, 4);
    let kind = MemoryBoundKind::Norm;
    let weights = product(&[parameters, x.width, tape.activation_bytes()]);
    let read_back = total(&[y.bytes(), x.bytes(), kept.bytes()]);
    tape.record(&Step {
        names,
        forward: &[memory(names.op, kind, total(&[x.bytes(), weights]), total(&[y.bytes(), kept.bytes()]))],
        reads: &[x],
        saves: &[x, kept],
        inputs: &[x],
        outputs: &[y],
        backward: &[
            memory(names.grad_input, kind, total(&[read_back, weights]), x.bytes()),
            memory(names.grad_weight, kind, read_back, weights),
        ],
        scratch: 0,
        gradient: Gradient::New,
    });
    y
}
