//! Linear layers, whole or divided among the ranks of a tensor-parallel group, with low-rank adapters beside them.

use super::autocast::{cast_weight, narrow};
use super::low_precision::{converted_gradient, converted_input, is_low};
use super::pointwise::{add, dropout, scale};
use crate::operation::{Kernel, MemoryBoundKind, Operation};
use crate::parameter::Split;
use crate::tape::{Names, Step, Tape, Tensor, memory, names, single};
use crate::units::product;

/// How a tensor-parallel group divides a linear layer (Shoeybi et al. 2019, section 3).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Divided {
    No,
    /// Each rank computes a part of the outputs.
    Columns,
    /// Each rank holds a part of the inputs; the ranks' results are to be summed.
    Rows,
}

/// A linear layer: its module's name, the names of its operations, and its sizes.
#[derive(Clone, Copy)]
pub(crate) struct Linear<'n> {
    module: &'n str,
    names: Names,
    width: u64,
    bias: bool,
    divided: Divided,
    tied: bool,
    listed: bool,
    output: bool,
    /// Computes in the activations' format, whatever others do.
    wide: bool,
    /// Heads that its outputs are made of, where they are divided by whole ones.
    pieces: Option<u64>,
}

impl<'n> Linear<'n> {
    /// A whole layer of `width` outputs without bias.
    pub(crate) const fn new(module: &'n str, names: Names, width: u64) -> Self {
        Self {
            module,
            names,
            width,
            bias: false,
            divided: Divided::No,
            tied: false,
            listed: true,
            output: false,
            wide: false,
            pieces: None,
        }
    }

    /// With a bias, or not.
    pub(crate) const fn bias(self, bias: bool) -> Self {
        Self { bias, ..self }
    }

    /// Its outputs divided among the tensor group: the result has this rank's part of `width`.
    pub(crate) const fn columns(self) -> Self {
        Self { divided: Divided::Columns, ..self }
    }

    /// Like [`Linear::columns`], in whole heads: a rank has at least one of `heads`.
    pub(crate) const fn heads(self, heads: u64) -> Self {
        Self { divided: Divided::Columns, pieces: Some(heads), ..self }
    }

    /// How a parameter whose outputs are divided is held.
    const fn columns_split(&self) -> Split {
        match self.pieces {
            Some(pieces) => Split::Pieces(pieces),
            None => Split::Tensor,
        }
    }

    /// Its inputs divided among the tensor group: the input is this rank's part.
    pub(crate) const fn rows(self) -> Self {
        Self { divided: Divided::Rows, ..self }
    }

    /// Its weight's values are the embedding's.
    pub(crate) const fn tied(self, tied: bool) -> Self {
        Self { tied, ..self }
    }

    /// It is the model's output projection: `all-linear` leaves it out, and it computes in the activations' format
    /// (Transformer Engine replaces the linear layers of blocks only).
    pub(crate) const fn output(self) -> Self {
        Self { output: true, wide: true, ..self }
    }

    /// It computes in the activations' format where others have 8 or 4 bits (routers).
    pub(crate) const fn wide(self) -> Self {
        Self { wide: true, ..self }
    }

    /// Its parameters are listed elsewhere under other names (a part of a packed projection).
    pub(crate) const fn unlisted(self) -> Self {
        Self { listed: false, ..self }
    }

    /// Lists the parameters; returns whether they are trained.
    fn weights(&self, tape: &mut Tape<'_>, inputs: u64) -> bool {
        if !self.listed {
            return tape.trains();
        }
        let whole = if self.divided == Divided::Rows { inputs * tape.shape.tensor.ways() } else { inputs };
        let split = match self.divided {
            Divided::No => Split::Whole,
            Divided::Columns => self.columns_split(),
            Divided::Rows => Split::Tensor,
        };
        let trained = if self.tied {
            tape.tied_weight(self.module, &[self.width, whole], split)
        } else {
            tape.weight(self.module, "weight", &[self.width, whole], split)
        };
        if self.bias {
            let split = if self.divided == Divided::Columns { self.columns_split() } else { Split::Whole };
            tape.weight(self.module, "bias", &[self.width], split);
        }
        trained
    }
}

/// `y = x W^T + b`: one GEMM with the bias in its epilogue. Keeps `x` if `W` is trained.
///
/// Backward: a GEMM for the gradient of `x` if something before it is trained; if `W` is, one for its gradient and a
/// sum over the rows for that of `b`.
pub(crate) fn linear(tape: &mut Tape<'_>, layer: Linear<'_>, x: Tensor) -> Tensor {
    let trains = layer.weights(tape, x.width);
    let y = plain(tape, &layer, x, trains);
    let Some((rank, drops)) = tape.adapter(layer.module, layer.output).map(|lora| (lora.rank, lora.dropout))
    else {
        return y;
    };
    adapter(tape, &layer, x, y, rank, drops)
}

fn plain(tape: &mut Tape<'_>, layer: &Linear<'_>, x: Tensor, trains: bool) -> Tensor {
    let names = layer.names;
    let width = match layer.divided {
        Divided::Columns => {
            let pieces = layer.pieces.unwrap_or(layer.width).max(1);
            product(&[layer.width / pieces, tape.shape.tensor.part(pieces)])
        }
        Divided::No | Divided::Rows => layer.width,
    };
    let x = narrow(tape, names, x);
    let format = tape.activation_bytes();
    let weight = cast_weight(tape, names, [width, x.width, 1], format, trains);
    let bias = if layer.bias { cast_weight(tape, names, [width, 1, 1], format, trains) } else { None };
    let converted: Vec<Tensor> = weight.into_iter().chain(bias).collect();
    let y = tape.activation(names.output, x.rows, width);
    let dtype = if layer.wide { tape.other_products() } else { tape.shape.compute };
    let gemm = |name, [m, n, k]: [u64; 3]| single(name, Kernel::Gemm { batch: 1, m, n, k, dtype });
    // Of an odd width both the gradient of the result and that of the weight have odd rows: the product is written so
    // that its result has.
    let [outer, inner] = if width.is_multiple_of(8) { [width, x.width] } else { [x.width, width] };
    let products = [
        gemm(names.op, [x.rows, width, x.width]),
        gemm(names.grad_input, [x.rows, x.width, width]),
        gemm(names.grad_weight, [outer, inner, x.rows]),
    ];
    let gradient = product(&[width, tape.activation_bytes()]);
    let bias = memory(names.grad_bias, MemoryBoundKind::Reduction, y.bytes(), gradient);
    let bias = layer.bias.then_some(bias);
    record_products(tape, names, [x, y], &converted, products, bias, [trains, is_low(dtype)]);
    y
}

/// Records `y` from `x` and a weight: the product forward, that for the gradient of `x` if something before it is
/// trained, and if the weight is, that for its gradient and the sum for the bias's. The first of the `converted`
/// parameters is the weight, which is kept where the gradient of `x` asks for it. Products of less than 16 bits take
/// converted operands (see [`super::low_precision`]).
pub(super) fn record_products(
    tape: &mut Tape<'_>,
    names: Names,
    [x, y]: [Tensor; 2],
    converted: &[Tensor],
    [forward, grad_input, grad_weight]: [Operation; 3],
    grad_bias: Option<Operation>,
    [trains, low]: [bool; 2],
) {
    let (conversion, kept) = if low { converted_input(tape, x) } else { (None, x) };
    let (mut backward, mut saves) = (Vec::new(), Vec::new());
    if low && (trains || tape.needs_gradient(x)) {
        backward.push(converted_gradient(tape, y));
    }
    if tape.needs_gradient(x) {
        backward.push(grad_input);
        saves.extend(converted.first());
    }
    if trains {
        backward.push(grad_weight);
        backward.extend(grad_bias);
        saves.push(kept);
    }
    let operations = [conversion.unwrap_or(forward), forward];
    let inputs: Vec<Tensor> = std::iter::once(&x).chain(converted).copied().collect();
    let reads: Vec<Tensor> = inputs.iter().chain([&kept]).copied().collect();
    tape.record(&Step {
        forward: if conversion.is_some() { &operations } else { &operations[1..] },
        reads: &reads,
        saves: &saves,
        inputs: &inputs,
        outputs: &[y],
        backward: &backward,
        trains,
        ..Step::of(names)
    });
}

/// `y + B A dropout(x) * alpha / rank`, as PEFT's linear layer runs it. `A` and `B` are trained and whole on every rank.
fn adapter(tape: &mut Tape<'_>, layer: &Linear<'_>, x: Tensor, y: Tensor, rank: u64, drops: bool) -> Tensor {
    tape.own_weight(layer.module, "lora_A.weight", &[rank, x.width], true);
    tape.own_weight(layer.module, "lora_B.weight", &[layer.width, rank], true);
    let x = dropout(tape, names!("lora.dropout"), x, drops);
    let down = Linear::new(layer.module, names!("lora.a"), rank).unlisted();
    let up = Linear::new(layer.module, names!("lora.b"), y.width).unlisted();
    let inner = plain(tape, &down, x, true);
    let outer = plain(tape, &up, inner, true);
    let scaled = scale(tape, names!("lora.scale"), outer, false);
    add(tape, names!("lora.add"), y, scaled)
}

/// `batch` products of an `m` x `k` by a `k` x `n` matrix, sizes in that order, in the format of products that are no
/// linear layers' (attention's).
pub(super) fn gemm(tape: &Tape<'_>, name: &'static str, [batch, m, n, k]: [u64; 4]) -> Operation {
    single(name, Kernel::Gemm { batch, m, n, k, dtype: tape.other_products() })
}

/// The product of a linear layer in each of `batch` experts, as one grouped operation: `batch` pairs of `m` x `k` and
/// `k` x `n` matrices in the format of linear layers.
pub(super) fn grouped_gemm(tape: &Tape<'_>, name: &'static str, [batch, m, n, k]: [u64; 4]) -> Operation {
    single(name, Kernel::Gemm { batch, m, n, k, dtype: tape.shape.compute })
}
