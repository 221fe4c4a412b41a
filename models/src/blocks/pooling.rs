//! Pooling and resizing of feature maps.

use super::feature::{Feature, Window};
use crate::operation::{Dtype, MemoryBoundKind, Operation};
use crate::tape::{Gradient, Names, Step, Tape, Tensor, memory};
use crate::units::{product, total};

/// Pooling is a stencil: element by element as far as traffic goes.
const STENCIL: MemoryBoundKind = MemoryBoundKind::Elementwise;

/// Largest value of each window. Keeps its input and, in 64 bits, where each value stood.
///
/// Backward fills the input's gradient with zeros and adds each value at its place.
pub(crate) fn max_pool(tape: &mut Tape<'_>, names: Names, window: Window, x: Feature) -> Feature {
    let y = x.output(tape, names.output, x.channels, window.over(x.grid()));
    let indices = tape.tensor(names.mask, y.tensor.rows, y.tensor.width, Dtype::Int64.bytes());
    let (input, output) = (x.tensor.bytes(), total(&[y.tensor.bytes(), indices.bytes()]));
    tape.record(&Step {
        names,
        forward: &[memory(names.op, STENCIL, input, output)],
        reads: &[x.tensor],
        saves: &[x.tensor, indices],
        inputs: &[x.tensor],
        outputs: &[y.tensor],
        backward: &[
            memory(names.grad, MemoryBoundKind::Fill, 0, input),
            memory(names.grad, STENCIL, output, input),
        ],
        scratch: 0,
        gradient: Gradient::New,
        trains: false,
    });
    y
}

/// Mean of each window. Keeps its input, though only its size is needed.
pub(crate) fn average_pool(tape: &mut Tape<'_>, names: Names, window: Window, x: Feature) -> Feature {
    let y = x.output(tape, names.output, x.channels, window.over(x.grid()));
    pool(tape, names, STENCIL, x, y, &[x.tensor]);
    y
}

/// Means of as many windows as the result has pixels, whatever the image's size. Keeps its input.
pub(crate) fn adaptive_average_pool(
    tape: &mut Tape<'_>,
    names: Names,
    grid: [u64; 2],
    x: Feature,
) -> Feature {
    let y = x.output(tape, names.output, x.channels, grid);
    pool(tape, names, STENCIL, x, y, &[x.tensor]);
    y
}

/// Mean over all pixels: an adaptive pooling to one pixel is a `mean`, which keeps nothing. Backward spreads the
/// gradient out.
pub(crate) fn global_average_pool(tape: &mut Tape<'_>, names: Names, x: Feature) -> Feature {
    let y = x.output(tape, names.output, x.channels, [1, 1]);
    pool(tape, names, MemoryBoundKind::Reduction, x, y, &[]);
    y
}

fn pool(tape: &mut Tape<'_>, names: Names, kind: MemoryBoundKind, x: Feature, y: Feature, saves: &[Tensor]) {
    let (input, output) = (x.tensor.bytes(), y.tensor.bytes());
    tape.record(&Step {
        names,
        forward: &[memory(names.op, kind, input, output)],
        reads: &[x.tensor],
        saves,
        inputs: &[x.tensor],
        outputs: &[y.tensor],
        backward: &[memory(names.grad, STENCIL, output, input)],
        scratch: 0,
        gradient: Gradient::New,
        trains: false,
    });
}

/// Bilinear enlargement or reduction to a grid; nothing if the images have it. Keeps nothing. Backward fills the input's
/// gradient with zeros and adds to it what each pixel gives to those around its place.
pub(crate) fn resize_bilinear(tape: &mut Tape<'_>, names: Names, grid: [u64; 2], x: Feature) -> Feature {
    if x.grid() == grid {
        return x;
    }
    let y = x.output(tape, names.output, x.channels, grid);
    let (input, output) = (x.tensor.bytes(), y.tensor.bytes());
    let scatter = memory(names.grad, MemoryBoundKind::Indexing, output, product(&[2, input]));
    tape.record(&Step {
        forward: &[memory(names.op, STENCIL, input, output)],
        reads: &[x.tensor],
        inputs: &[x.tensor],
        outputs: &[y.tensor],
        backward: &[Operation { launches: 2, ..scatter }],
        ..Step::of(names)
    });
    y
}
