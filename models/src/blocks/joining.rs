//! Joining tensors: along the channels of feature maps, along the rows of tokens, or as a list.

use super::feature::Feature;
use crate::operation::{MemoryBoundKind, Operation};
use crate::tape::{Gradient, Names, Step, Tape, Tensor, memory};
use crate::units::total;

/// Feature maps of one size joined along the channels: a copy. Keeps nothing; the gradients are views of its own.
pub(crate) fn concatenate(tape: &mut Tape<'_>, names: Names, first: Feature, others: &[Feature]) -> Feature {
    let parts = || std::iter::once(&first).chain(others);
    let tensors: Vec<Tensor> = parts().map(|part| part.tensor).collect();
    let channels = parts().map(|part| part.channels).sum();
    let y = first.output(tape, names.output, channels, first.grid());
    join(tape, names, &[copied(names, y.tensor)], &tensors, y.tensor);
    y
}

/// Rows of several tensors of one width behind one another: a copy. Keeps nothing; the gradients are views of its own.
pub(crate) fn concatenate_rows(tape: &mut Tape<'_>, names: Names, parts: &[Tensor]) -> Tensor {
    let rows = parts.iter().fold(0, |sum, part| total(&[sum, part.rows]));
    let y = tape.result(names.output, rows, parts.first().map_or(0, |part| part.width), parts);
    join(tape, names, &[copied(names, y)], parts, y);
    y
}

/// Puts a feature map behind those of a list: no work and no copy, the list only grows. Its gradient is handed to both.
pub(crate) fn append(tape: &mut Tape<'_>, names: Names, list: Feature, more: Feature) -> Feature {
    let y = list.output(tape, names.output, list.channels + more.channels, list.grid());
    let both = [list.tensor, more.tensor];
    join(tape, names, &[], &both, y.tensor);
    y
}

/// The copy that fills a joined tensor.
fn copied(names: Names, y: Tensor) -> Operation {
    memory(names.op, MemoryBoundKind::Fill, y.bytes(), y.bytes())
}

/// A step whose gradient is handed to all parts.
fn join(tape: &mut Tape<'_>, names: Names, forward: &[Operation], parts: &[Tensor], y: Tensor) {
    tape.record(&Step {
        forward,
        reads: parts,
        inputs: parts,
        outputs: &[y],
        gradient: Gradient::Passed,
        ..Step::of(names)
    });
}
