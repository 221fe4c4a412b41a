//! Tensors cut into columns and put together from columns.

use crate::operation::MemoryBoundKind;
use crate::tape::{Gradient, Names, Step, Tape, Tensor, memory};
use crate::units::{product, total};

/// Views of the columns of `x`, as wide as `widths` say (`torch.split`). Their gradients are concatenated.
pub(crate) fn split<const N: usize>(
    tape: &mut Tape<'_>,
    names: Names,
    x: Tensor,
    widths: [u64; N],
) -> [Tensor; N] {
    let views = widths.map(|width| tape.view(x, x.rows, width));
    tape.record(&Step {
        names,
        forward: &[],
        reads: &[],
        saves: &[],
        inputs: &[x],
        outputs: &views,
        backward: &[memory(names.grad, MemoryBoundKind::Fill, x.bytes(), x.bytes())],
        scratch: 0,
        gradient: Gradient::New,
        trains: false,
    });
    views
}

/// Columns put side by side (`torch.cat`): a copy. The parts' gradients are views.
pub(crate) fn join_columns(tape: &mut Tape<'_>, names: Names, parts: [Tensor; 2]) -> Tensor {
    let [a, b] = parts;
    let y = tape.result(names.output, a.rows, total(&[a.width, b.width]), &parts);
    tape.record(&Step {
        names,
        forward: &[memory(names.op, MemoryBoundKind::Fill, y.bytes(), y.bytes())],
        reads: &parts,
        saves: &[],
        inputs: &parts,
        outputs: &[y],
        backward: &[],
        scratch: 0,
        gradient: Gradient::Passed,
        trains: false,
    });
    y
}

/// A row seen by each of several heads: a view. Its gradient is summed over them.
pub(crate) fn expand(tape: &mut Tape<'_>, names: Names, x: Tensor, heads: u64) -> Tensor {
    let y = tape.view(x, x.rows, product(&[x.width, heads]));
    tape.record(&Step {
        names,
        forward: &[],
        reads: &[],
        saves: &[],
        inputs: &[x],
        outputs: &[y],
        backward: &[memory(names.grad, MemoryBoundKind::Reduction, y.bytes(), x.bytes())],
        scratch: 0,
        gradient: Gradient::New,
        trains: false,
    });
    y
}
