//! From token ids and images to activations.

use super::autocast::{cast_weight, convert, widened};
use super::pointwise::add;
use super::tensor_parallel::leave_tensor_parallel;
use crate::operation::{Kernel, MemoryBoundKind, Operation, Pass};
use crate::parameter::Split;
use crate::shape::{ConvolutionPass, ConvolutionShape};
use crate::tape::{Gradient, Names, Step, Tape, Tensor, memory, names, single};
use crate::units::{Bytes, product, total};

/// From this many ids on, PyTorch sorts them before it adds their gradients up.
const SORTED_FROM: u64 = 3073;

/// Rows of a table for token ids: keeps the ids.
///
/// Backward makes a gradient of the whole table: a zero fill and one kernel for few ids; for more than 3,072 a zero
/// fill, about four launches of a radix sort, and about seven that find segments, sum them and scatter the sums.
///
/// A tensor-parallel group divides the rows of the table; each rank looks its own up, leaves zeros for the others, and
/// the ranks' results are summed (Shoeybi et al. 2019, section 3).
pub(crate) fn lookup(
    tape: &mut Tape<'_>,
    module: &str,
    ids: Tensor,
    [vocabulary, width]: [u64; 2],
) -> Tensor {
    tape.weight(module, "weight", &[vocabulary, width], Split::Tensor);
    token_rows(tape, ids, [vocabulary, width])
}

/// The same with the table of another embedding (a decoder's, shared with its encoder).
pub(crate) fn shared_lookup(tape: &mut Tape<'_>, module: &str, ids: Tensor, sizes: [u64; 2]) -> Tensor {
    tape.tied_weight(module, &sizes, Split::Tensor);
    token_rows(tape, ids, sizes)
}

fn token_rows(tape: &mut Tape<'_>, ids: Tensor, [vocabulary, width]: [u64; 2]) -> Tensor {
    let format = tape.parameter_bytes();
    let y = tape.tensor("embedding.tokens.output", ids.values(), width, format);
    let part = tape.shape.tensor.part(vocabulary);
    rows_of_table(tape, names!("embedding.tokens"), &[ids], y, part);
    leave_tensor_parallel(tape, y)
}

/// Rows of a table of token types, added to `x`. The ids are a constant of the model where the sample has none.
pub(crate) fn type_lookup(tape: &mut Tape<'_>, module: &str, x: Tensor, table: u64) -> Tensor {
    tape.weight(module, "weight", &[table, x.width], Split::Whole);
    let format = tape.parameter_bytes();
    let rows = tape.tensor("embedding.types.output", x.rows, x.width, format);
    rows_of_table(tape, names!("embedding.types"), &[], rows, table);
    add(tape, names!("embedding.add_types"), x, rows)
}

/// Learned positions of a sequence, added to each sequence of the batch. The ids are a constant of the model. The
/// gradient is summed over the batch before it goes to the table. Under sequence parallelism a rank adds the positions
/// of its own tokens.
pub(crate) fn position_lookup(
    tape: &mut Tape<'_>,
    module: &str,
    x: Tensor,
    length: u64,
    table: u64,
) -> Tensor {
    tape.weight(module, "weight", &[table, x.width], Split::Whole);
    let length = tape.shape.tensor.rows(length);
    let format = tape.parameter_bytes();
    let rows = tape.tensor("embedding.positions.output", length, x.width, format);
    rows_of_table(tape, names!("embedding.positions"), &[], rows, table);
    let names = names!("embedding.positions.expand");
    let expanded = tape.view(rows, rows.rows, rows.width);
    let sum = memory(names.grad, MemoryBoundKind::Reduction, x.bytes(), rows.bytes());
    let one_sequence = x.rows == length;
    tape.record(&Step {
        names,
        forward: &[],
        reads: &[],
        saves: &[],
        inputs: &[rows],
        outputs: &[expanded],
        backward: if one_sequence { &[] } else { std::slice::from_ref(&sum) },
        scratch: 0,
        gradient: if one_sequence { Gradient::Passed } else { Gradient::New },
        trains: false,
    });
    add(tape, names!("embedding.add_positions"), x, expanded)
}

/// Fills `y` from a table of `vocabulary` rows, by `ids` that are kept.
pub(super) fn rows_of_table(tape: &mut Tape<'_>, names: Names, ids: &[Tensor], y: Tensor, vocabulary: u64) {
    let (tokens, width, dtype) = (y.rows, y.width, tape.shape.parameters());
    let kernel = |pass| Kernel::Embedding { tokens, width, vocabulary, pass, dtype };
    let trains = tape.trains();
    let launches = if tokens < SORTED_FROM { 2 } else { 12 };
    tape.record(&Step {
        names,
        forward: &[single(names.op, kernel(Pass::Forward))],
        reads: ids,
        saves: if trains { ids } else { &[] },
        inputs: &[],
        outputs: &[y],
        backward: &[Operation { launches, ..single(names.grad_weight, kernel(Pass::Backward)) }],
        scratch: 0,
        gradient: Gradient::New,
        trains,
    });
}

/// The grid of patches of an image.
#[derive(Clone, Copy)]
pub(crate) struct Patches {
    pub(crate) channels: u64,
    /// Pixels a side of a patch.
    pub(crate) size: u64,
    /// Patches a side of the image.
    pub(crate) side: u64,
    pub(crate) width: u64,
}

/// Projection of patches by a convolution with a stride of its own size: keeps the image. Images are batch rows of
/// channels * height * width values; the result has a row for each patch.
///
/// Backward: the gradient copied into the convolution's layout, the gradient of the filter, and the sum for that of
/// the bias. An image needs no gradient.
pub(crate) fn patches(tape: &mut Tape<'_>, module: &str, image: Tensor, grid: &Patches) -> Tensor {
    let trains =
        tape.weight(module, "weight", &[grid.width, grid.channels, grid.size, grid.size], Split::Whole);
    tape.weight(module, "bias", &[grid.width], Split::Whole);
    let names = names!("patches.convolution");
    let value = tape.activation_bytes();
    let sizes = [grid.width, product(&[grid.channels, grid.size, grid.size]), 1];
    let converted: Vec<Tensor> = [sizes, [grid.width, 1, 1]]
        .into_iter()
        .filter_map(|sizes| cast_weight(tape, names, sizes, value, trains))
        .collect();
    let y = tape.activation(names.output, product(&[image.rows, grid.side, grid.side]), grid.width);
    let filter = product(&[grid.channels, grid.size, grid.size, grid.width, value]);
    let (dtype, format) = (tape.convolution_products(), tape.shape.convolutions.format);
    let convolution = |pass| {
        Kernel::Convolution(ConvolutionShape {
            batch: image.rows,
            in_channels: grid.channels,
            out_channels: grid.width,
            out_height: grid.side,
            out_width: grid.side,
            kernel_height: grid.size,
            kernel_width: grid.size,
            groups: 1,
            stride: grid.size,
            pass,
            format,
            traffic: Bytes(total(&[image.bytes(), filter, y.bytes()])),
            dtype,
        })
    };
    let bias = product(&[grid.width, value]);
    tape.record(&Step {
        names,
        forward: &[single(names.op, convolution(ConvolutionPass::Forward))],
        reads: &[image],
        saves: &[image],
        inputs: &converted,
        outputs: &[y],
        backward: &[
            memory("patches.convolution.grad_layout", MemoryBoundKind::Fill, y.bytes(), y.bytes()),
            single(names.grad_weight, convolution(ConvolutionPass::GradWeight)),
            memory(names.grad_bias, MemoryBoundKind::Reduction, y.bytes(), bias),
        ],
        scratch: y.bytes(),
        gradient: Gradient::New,
        trains,
    });
    y
}

/// The class token put before the patches of each image: a concatenation. Backward sums the class token's gradient
/// over the batch and hands the rest on as a view.
pub(crate) fn class_token(tape: &mut Tape<'_>, parameter: &str, x: Tensor, batch: u64) -> Tensor {
    let trains = tape.weight(parameter, "", &[1, 1, x.width], Split::Whole);
    let names = names!("embedding.class_token");
    let format = if tape.shape.autocasts() { tape.parameter_bytes() } else { x.value_bytes };
    let x = convert(tape, names, x, format);
    let y = tape.result(names.output, total(&[x.rows, batch]), x.width, &[x]);
    let row = product(&[x.width, y.value_bytes]);
    tape.record(&Step {
        names,
        forward: &[memory(names.op, MemoryBoundKind::Fill, total(&[x.bytes(), row]), y.bytes())],
        reads: &[x],
        saves: &[],
        inputs: &[x],
        outputs: &[y],
        backward: &[memory(names.grad, MemoryBoundKind::Reduction, product(&[batch, row]), row)],
        scratch: 0,
        gradient: Gradient::Passed,
        trains,
    });
    y
}

/// Learned positions, a parameter of `table` rows of which `length` are used, added to each sequence. Backward sums over
/// the batch.
pub(crate) fn positions(
    tape: &mut Tape<'_>,
    parameter: &str,
    x: Tensor,
    [length, table]: [u64; 2],
) -> Tensor {
    let trains = tape.weight(parameter, "", &[1, table, x.width], Split::Whole);
    let names = names!("embedding.add_positions");
    let format = if tape.shape.autocasts() { tape.parameter_bytes() } else { x.value_bytes };
    let x = widened(tape, names, x, format.max(x.value_bytes));
    let y = tape.tensor(names.output, x.rows, x.width, format.max(x.value_bytes));
    let used = product(&[length, x.width, y.value_bytes]);
    tape.record(&Step {
        names,
        forward: &[memory(names.op, MemoryBoundKind::Elementwise, total(&[x.bytes(), used]), y.bytes())],
        reads: &[x],
        saves: &[],
        inputs: &[x],
        outputs: &[y],
        backward: &[memory(names.grad, MemoryBoundKind::Reduction, y.bytes(), used)],
        scratch: 0,
        gradient: Gradient::Passed,
        trains,
    });
    y
}

/// The class token's row of each image: a view forward; backward fills a gradient of all tokens with zeros and
/// copies these rows into it.
pub(crate) fn first_token(tape: &mut Tape<'_>, x: Tensor, batch: u64) -> Tensor {
    let names = names!("head.class_token");
    let y = tape.view(x, batch, x.width);
    let fill = memory(names.grad, MemoryBoundKind::Fill, y.bytes(), total(&[x.bytes(), y.bytes()]));
    tape.record(&Step {
        names,
        forward: &[],
        reads: &[],
        saves: &[],
        inputs: &[x],
        outputs: &[y],
        backward: &[Operation { launches: 2, ..fill }],
        scratch: 0,
        gradient: Gradient::New,
        trains: false,
    });
    y
}
