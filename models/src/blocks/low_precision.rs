//! Linear layers whose products run in 8 or 4 bits (Transformer Engine's recipes; Micikevicius et al. 2022, FP8 Formats
//! for Deep Learning; NVIDIA 2025, Pretraining Large Language Models with NVFP4).
//!
//! A layer's input and the gradient of its result are converted before its products; weights once a step, with the
//! update. In training each conversion writes two copies: one for products along the width, one turned by a quarter for
//! the weight's gradient. What is kept for backward is the turned copy in place of the input. Results stay in the
//! activations' format.
//!
//! | recipe | passes over a tensor | bytes a value |
//! | --- | --- | --- |
//! | fp8, delayed scaling | 1 | 1 |
//! | fp8, current scaling | 2: the largest value, then the conversion | 1 |
//! | fp8, blocks of 128 | 1 | 1 + 4/128 |
//! | mxfp8 | 1 | 1 + 1/32 |
//! | nvfp4 | 2: the largest value, then the conversion (with the rotation and the rounding by chance) | 1/2 + 1/16 |

use crate::operation::{Dtype, MemoryBoundKind, Operation};
use crate::tape::{Names, Tape, Tensor, memory, names};
use crate::units::product;
use crate::work_shape::{Scaling, WorkShape};

const INPUT: Names = names!("linear.convert");

/// Whether linear layers compute in less than 16 bits.
pub(super) const fn is_low(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::Fp8 | Dtype::Fp4)
}

/// The conversion of a tensor, both copies.
fn conversion(shape: &WorkShape, name: &'static str, x: Tensor) -> Operation {
    let looks_first = shape.compute == Dtype::Fp4 || shape.scaling == Scaling::Current;
    let passes = if looks_first { 2 } else { 1 };
    let copies = if shape.training { 2 } else { 1 };
    let read = product(&[u64::from(passes), x.bytes()]);
    let written = product(&[copies, shape.scaling.stored_bytes(shape.compute, x.values())]);
    Operation { launches: passes, ..memory(name, MemoryBoundKind::Elementwise, read, written) }
}

/// The copy of a layer's input that is kept for backward, and the conversion that makes it, unless another layer with the
/// same input has made it.
pub(super) fn converted_input(tape: &mut Tape<'_>, x: Tensor) -> (Option<Operation>, Tensor) {
    let known = tape.converted.iter().find(|(identity, _)| *identity == x.identity());
    if let Some(&(_, copy)) = known {
        return (None, copy);
    }
    let copy =
        tape.tensor(INPUT.output, tape.shape.scaling.stored_bytes(tape.shape.compute, x.values()), 1, 1);
    tape.converted.push((x.identity(), copy));
    (Some(conversion(tape.shape, INPUT.op, x)), copy)
}

/// The conversion of the gradient of a layer's result.
pub(super) fn converted_gradient(tape: &Tape<'_>, y: Tensor) -> Operation {
    conversion(tape.shape, INPUT.grad, y)
}
