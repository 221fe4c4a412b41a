//! Linear layers of routed experts, run as one grouped product.

use super::linear::{grouped_gemm, record_products};
use super::low_precision::is_low;
use super::pointwise::{add, dropout, scale};
use crate::operation::MemoryBoundKind;
use crate::parameter::Split;
use crate::tape::{Names, Tape, Tensor, memory, names};
use crate::units::product;

/// Experts of this rank, whose rows lie one after the other in a tensor, each with the same number of them.
#[derive(Clone, Copy)]
pub(crate) struct Group<'n> {
    pub(crate) count: u64,
    /// Experts of the model.
    pub(crate) of: u64,
    /// Ranks that share each of them.
    pub(crate) ways: u64,
    /// Experts that a token uses.
    pub(crate) used: u64,
    /// Rows of each expert.
    pub(crate) rows: u64,
    /// Beginning of their modules' names, the number follows: `mlp.experts.`.
    pub(crate) prefix: &'n str,
}

impl Group<'_> {
    fn module(&self, number: u64, leaf: &str) -> String {
        format!("{}{number}.{leaf}", self.prefix)
    }
}

/// One linear layer in each expert.
#[derive(Clone, Copy)]
pub(crate) struct Grouped<'n> {
    /// Name of the layer within the expert.
    pub(crate) leaf: &'n str,
    pub(crate) names: Names,
    pub(crate) width: u64,
    /// Whether the ranks that share it divide the outputs (else the inputs: the result is this rank's summand).
    pub(crate) columns: bool,
    pub(crate) bias: bool,
}

/// `y = x W^T` with the weight of each row's expert. Keeps `x` if the weights are trained. Backward: a
/// grouped product for the gradient of `x`, and one for those of the weights; a sum over the rows for a bias's.
pub(crate) fn grouped_linear(tape: &mut Tape<'_>, group: Group<'_>, layer: Grouped<'_>, x: Tensor) -> Tensor {
    let ways = group.ways;
    let inputs = if layer.columns { x.width } else { product(&[x.width, ways]) };
    tape.as_expert(group.of, group.used, |tape| {
        if tape.lists_parameters() {
            for number in 0..group.of {
                tape.expert_number(number);
                tape.weight(
                    &group.module(number, layer.leaf),
                    "weight",
                    &[layer.width, inputs],
                    Split::Tensor,
                );
                if layer.bias {
                    let split = if layer.columns { Split::Tensor } else { Split::Whole };
                    tape.weight(&group.module(number, layer.leaf), "bias", &[layer.width], split);
                }
            }
        }
    });
    let width = if layer.columns { layer.width.div_ceil(ways) } else { layer.width };
    let trains = tape.trains();
    let y = plain(tape, group, (layer.names, layer.bias), width, x, trains);
    let first = group.module(0, layer.leaf);
    let Some((rank, drops)) = tape.adapter(&first, false).map(|lora| (lora.rank, lora.dropout)) else {
        return y;
    };
    adapter(tape, group, layer, [x, y], rank, drops)
}

/// A low-rank adapter beside the layer of each expert.
fn adapter(
    tape: &mut Tape<'_>,
    group: Group<'_>,
    layer: Grouped<'_>,
    [x, y]: [Tensor; 2],
    rank: u64,
    drops: bool,
) -> Tensor {
    tape.as_expert(group.of, group.used, |tape| {
        if tape.lists_parameters() {
            for number in 0..group.of {
                tape.expert_number(number);
                let module = group.module(number, layer.leaf);
                tape.own_weight(&module, "lora_A.weight", &[rank, x.width], true);
                tape.own_weight(&module, "lora_B.weight", &[layer.width, rank], true);
            }
        }
    });
    let x = dropout(tape, names!("lora.dropout"), x, drops);
    let inner = plain(tape, group, (names!("lora.a"), false), rank, x, true);
    let outer = plain(tape, group, (names!("lora.b"), false), y.width, inner, true);
    let scaled = scale(tape, names!("lora.scale"), outer, false);
    add(tape, names!("lora.add"), y, scaled)
}

fn plain(
    tape: &mut Tape<'_>,
    group: Group<'_>,
    (names, bias): (Names, bool),
    width: u64,
    x: Tensor,
    trains: bool,
) -> Tensor {
    let (count, rows) = (group.count, group.rows);
    let y = tape.activation(names.output, x.rows, width);
    let products = [
        grouped_gemm(tape, names.op, [count, rows, width, x.width]),
        grouped_gemm(tape, names.grad_input, [count, rows, x.width, width]),
        grouped_gemm(tape, names.grad_weight, [count, width, x.width, rows]),
    ];
    let gradient = product(&[count, width, tape.activation_bytes()]);
    let sum = memory(names.grad_bias, MemoryBoundKind::Reduction, y.bytes(), gradient);
    let low = is_low(tape.shape.compute);
    record_products(tape, names, [x, y], &[], products, bias.then_some(sum), [trains, low]);
    y
}
