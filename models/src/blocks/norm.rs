//! Normalization over the last dimension.

use super::autocast::{cast_weight, convert};
use crate::operation::MemoryBoundKind;
use crate::parameter::Split;
use crate::tape::{Gradient, Names, Step, Tape, Tensor, memory};
use crate::units::{product, total};

/// LayerNorm with weight and, where it has one, bias: one kernel. Keeps its input and the mean and reciprocal
/// deviation of each row. Autocast has it in 32 bits unless it is of the low-precision kind.
pub(crate) fn layer_norm(tape: &mut Tape<'_>, module: &str, names: Names, x: Tensor, bias: bool) -> Tensor {
    let format = if tape.shape.autocasts() { tape.shape.norm_bytes() } else { x.value_bytes };
    let x = convert(tape, names, x, format);
    norm(tape, module, names, x, if bias { &["weight", "bias"] } else { &["weight"] }, 2)
}

/// RMSNorm with weight: one kernel that computes in 32 bits and rounds its result, as `torch.nn.RMSNorm` (fused since
/// PyTorch 2.8) and the fused ones of Apex, Transformer Engine and flash-attn. Keeps its input and the reciprocal
/// root mean square of each row.
///
/// A module that spells it out (cast, square, mean, rsqrt, two products) would launch about eight kernels and keep
/// 32-bit copies of the input instead.
pub(crate) fn rms_norm(tape: &mut Tape<'_>, module: &str, names: Names, x: Tensor) -> Tensor {
    norm(tape, module, names, x, &["weight"], 1)
}

/// Kernels go over a row twice, for its statistics and for its result (PyTorch, `layer_norm_kernel.cu`).
///
/// Backward: one kernel for the gradient of the input, one for those of the parameters if these are trained. `x` may
/// be many narrow rows (heads); the parameters are as long as a row. Nothing is kept where nothing is trained.
fn norm(
    tape: &mut Tape<'_>,
    module: &str,
    names: Names,
    x: Tensor,
    leaves: &[&str],
    statistics: u64,
) -> Tensor {
    for leaf in leaves {
        tape.weight(module, leaf, &[x.width], Split::Whole);
    }
    let trains = tape.trains();
    let y = tape.result(names.output, x.rows, x.width, &[x]);
    // Weights come in the format of the input, converted where they are kept in another.
    let pieces = leaves.len() as u64;
    let converted = cast_weight(tape, names, [x.width, pieces, pieces], x.value_bytes, trains);
    let kept = tape.tensor(names.statistics, x.rows, statistics, 4);
    let kind = MemoryBoundKind::Norm;
    let weights = product(&[pieces, x.width, y.value_bytes]);
    let read_back = total(&[y.bytes(), x.bytes(), kept.bytes()]);
    // A row of the gradient and one of the input come in, one goes out.
    let row_back = product(&[x.width, total(&[y.value_bytes, 2 * x.value_bytes])]);
    let grad_input = memory(names.grad_input, kind, total(&[read_back, weights]), x.bytes());
    let mut backward = vec![grad_input.over_rows(row_back)];
    if trains {
        backward.push(memory(names.grad_weight, kind, read_back, weights));
    }
    let forward = memory(names.op, kind, total(&[x.bytes(), weights]), total(&[y.bytes(), kept.bytes()]));
    let row = product(&[x.width, total(&[x.value_bytes, y.value_bytes])]);
    let inputs: Vec<Tensor> = std::iter::once(x).chain(converted).collect();
    tape.record(&Step {
        names,
        forward: &[forward.over_rows(row)],
        reads: &inputs,
        saves: &[&inputs[..], &[kept]].concat(),
        inputs: &inputs,
        outputs: &[y],
        backward: &backward,
        scratch: 0,
        gradient: Gradient::New,
        trains,
    });
    y
}
