//! Routed experts in a Python loop: labml's `SwitchFeedForward`, all experts on each GPU.
//!
//! One call runs, for T tokens of width d, E experts of hidden width f and a capacity of C = floor(T / E) tokens an
//! expert:
//!
//! ```text
//! route_prob = softmax(switch(x));  route_prob_max, routes = max(route_prob)
//! indexes    = [eq(routes, i).nonzero() for i in experts]          # the host waits for each count
//! final      = zeros;  counts = new_tensor([len(...) for ...])     # copied from the host, which waits
//! for i over capacity:  indexes[i] = indexes[i][randperm(...)]     # permutation copied from the host, which waits
//! outputs    = [expert[i](x[indexes[i], :]) for i in experts]
//! for i in experts:  final[indexes[i], :] = outputs[i]
//! final[dropped, :] = x[dropped, :];  result = final * route_prob_max
//! ```
//!
//! The router is taken as balanced in expectation: every expert computes C tokens, and as counts scatter around
//! their mean, half of the experts are over capacity and pay for dropping. What makes the loop slow is not its
//! arithmetic but its launches, about 12 forward and 20 backward an expert, one or two waits of the host, and
//! full-size passes: in backward each `x[indexes]` yields a zero-filled gradient of *all* tokens that is added to
//! the others, and each assignment to `final` copies the whole gradient once.

use super::kept_result::{softmax_gradient, softmax_scratch};
use super::linear::{Linear, linear};
use super::pointwise::{Function, activation, dropout};
use crate::operation::{Dtype, Kernel, MemoryBoundKind, Operation};
use crate::tape::{Gradient, Names, Step, Tape, Tensor, memory, names, single};
use crate::units::{Bytes, product, total};

const INDEX: u64 = Dtype::Int64.bytes();

/// Kernels of `index_put(accumulate=True)` (ATen, `index_put_with_sort_kernel`): indices wrapped, multiplied by the
/// stride and divided by the row's width (3), a range (1), a sort of the indices with the range (1, as they fit one
/// tile), the sums (1).
const ACCUMULATE_LAUNCHES: u32 = 6;

/// Kernels and copies of `nonzero` of a vector (ATen, `nonzero_cuda_out_impl`): count (1), copy of the count to the
/// host (1), start and run of the selection (2).
const NONZERO_LAUNCHES: u32 = 4;

/// Shape of the routed feed-forward.
#[derive(Clone, Copy)]
pub(crate) struct Switch {
    pub(crate) experts: u64,
    /// Hidden width of an expert.
    pub(crate) hidden: u64,
    pub(crate) dropout: bool,
}

impl Switch {
    /// Tokens that an expert computes: floor(tokens / experts) at a capacity factor of 1. At least one, so that a
    /// tiny batch keeps kernels of a shape.
    pub(crate) fn capacity(&self, tokens: u64) -> u64 {
        (tokens / self.experts).max(1)
    }

    /// Experts that exceed their capacity: half of them, see the module's description.
    fn over_capacity(&self) -> u64 {
        self.experts / 2
    }
}

/// The routed feed-forward of the tokens `x`.
pub(crate) fn switch_feed_forward(tape: &mut Tape<'_>, switch: &Switch, x: Tensor) -> Tensor {
    let probability = route(tape, switch, x);
    let capacity = switch.capacity(x.rows);
    let indices = dispatch(tape, switch, x, capacity);
    let outputs: Vec<Tensor> = indices
        .iter()
        .enumerate()
        .map(|(number, &chosen)| {
            tape.as_expert(switch.experts, 1, |tape| {
                tape.expert_number(number as u64);
                expert(tape, switch, number, x, chosen)
            })
        })
        .collect();
    let mut result = tape.activation("switch.result", x.rows, x.width);
    tape.run(&[memory("switch.zeros", MemoryBoundKind::Fill, 0, result.bytes())], &[]);
    for (number, (&chosen, &output)) in indices.iter().zip(&outputs).enumerate() {
        result = assign(tape, names!("switch.assign"), result, chosen, output, number > 0);
    }
    if switch.over_capacity() > 0 {
        result = pass_dropped(tape, switch, x, result);
    }
    scale_by_probability(tape, names!("switch.scale"), result, probability)
}

/// Router: a linear layer, softmax over the experts, the largest probability of each token and its expert. Keeps the
/// softmax's result and the experts chosen. Returns the probability of each token.
///
/// Backward of the maximum fills the gradient with zeros and sets one value a token. The sum of probabilities over
/// the tokens is returned for logging and gets no gradient.
fn route(tape: &mut Tape<'_>, switch: &Switch, x: Tensor) -> Tensor {
    let logits = linear(
        tape,
        Linear::new("feed_forward.switch", names!("switch.router"), switch.experts).bias(true),
        x,
    );
    let names = names!("switch.softmax");
    let kind = MemoryBoundKind::Softmax;
    let p = tape.activation(names.output, x.rows, switch.experts);
    let backward = softmax_gradient(tape, names, p, logits);
    tape.record(&Step {
        names,
        forward: &[memory(names.op, kind, logits.bytes(), p.bytes())],
        reads: &[logits],
        saves: &[p],
        inputs: &[logits],
        outputs: &[p],
        backward: &backward,
        scratch: softmax_scratch(tape, p),
        gradient: Gradient::New,
        trains: false,
    });
    let names = names!("switch.max");
    let largest = tape.activation(names.output, x.rows, 1);
    let routes = tape.tensor("switch.routes", x.rows, 1, INDEX);
    let found = total(&[largest.bytes(), routes.bytes()]);
    let scatter = memory(names.grad, MemoryBoundKind::Indexing, found, total(&[p.bytes(), largest.bytes()]));
    tape.record(&Step {
        names,
        forward: &[memory(names.op, MemoryBoundKind::Reduction, p.bytes(), found)],
        reads: &[p],
        saves: &[routes],
        inputs: &[p],
        outputs: &[largest],
        backward: &[Operation { launches: 2, ..scatter }],
        scratch: 0,
        gradient: Gradient::New,
        trains: false,
    });
    let sums = product(&[switch.experts, p.value_bytes]);
    tape.run(&[memory("switch.probability_sum", MemoryBoundKind::Reduction, p.bytes(), sums)], &[p]);
    largest
}

/// Finds each expert's tokens, tells the device the counts, and cuts experts over capacity down to it. Returns the
/// indices of each expert.
fn dispatch(tape: &mut Tape<'_>, switch: &Switch, x: Tensor, capacity: u64) -> Vec<Tensor> {
    let (tokens, indices) = (x.rows, product(&[capacity, INDEX]));
    let compare =
        memory("switch.eq", MemoryBoundKind::Elementwise, product(&[tokens, INDEX]), product(&[tokens, 1]));
    let search = Operation {
        launches: NONZERO_LAUNCHES,
        host_sync: true,
        // Read for the count and again for the selection.
        ..memory("switch.nonzero", MemoryBoundKind::Indexing, product(&[2, tokens]), indices)
    };
    let found: Vec<Tensor> = (0..switch.experts)
        .map(|_| {
            let chosen = tape.tensor("switch.indices", capacity, 1, INDEX);
            tape.run(&[compare, search], &[]);
            chosen
        })
        .collect();
    let counts = product(&[switch.experts, x.value_bytes]);
    tape.run(&[from_host("switch.counts", counts)], &[]);
    for _ in 0..switch.over_capacity() {
        let shuffle = memory("switch.shuffle", MemoryBoundKind::Indexing, product(&[2, indices]), indices);
        tape.run(&[from_host("switch.permutation", indices), shuffle], &[]);
    }
    found
}

/// A copy of a few values from pageable host memory: the host waits until the device has them.
fn from_host(name: &'static str, bytes: u64) -> Operation {
    Operation { host_sync: true, ..single(name, Kernel::HostCopy { bytes: Bytes(bytes), pinned: false }) }
}

/// One expert on its tokens: gather, linear, GELU, dropout, linear (labml's `FeedForward`), and as in the published
/// Switch-ViT (anand-vishwakarma-1/switch-vit, `vit.py`) dropout once more.
fn expert(tape: &mut Tape<'_>, switch: &Switch, number: usize, x: Tensor, chosen: Tensor) -> Tensor {
    let name = |layer| format!("feed_forward.experts.{number}.{layer}");
    let rows = gather(tape, names!("switch.gather"), x, chosen);
    let hidden =
        linear(tape, Linear::new(&name("layer1"), names!("expert.layer1"), switch.hidden).bias(true), rows);
    let hidden = activation(tape, names!("expert.gelu"), Function::Gelu, hidden);
    let hidden = dropout(tape, names!("expert.hidden_dropout"), hidden, switch.dropout);
    let rows =
        linear(tape, Linear::new(&name("layer2"), names!("expert.layer2"), x.width).bias(true), hidden);
    dropout(tape, names!("expert.dropout"), rows, switch.dropout)
}

/// `x[indices, :]`: keeps the indices. Backward fills a gradient of the size of `x` with zeros and accumulates into
/// it by sorted indices.
fn gather(tape: &mut Tape<'_>, names: Names, x: Tensor, indices: Tensor) -> Tensor {
    let y = tape.activation(names.output, indices.rows, x.width);
    let read = total(&[y.bytes(), indices.bytes()]);
    // The sort's keys and values are read and written a few times; next to the rows they weigh nothing.
    let accumulate = memory(names.grad, MemoryBoundKind::Indexing, product(&[2, read]), y.bytes());
    tape.record(&Step {
        names,
        forward: &[memory(names.op, MemoryBoundKind::Indexing, read, y.bytes())],
        reads: &[x, indices],
        saves: &[indices],
        inputs: &[x],
        outputs: &[y],
        backward: &[
            memory(names.grad_input, MemoryBoundKind::Fill, 0, x.bytes()),
            Operation { launches: ACCUMULATE_LAUNCHES, ..accumulate },
        ],
        scratch: 0,
        gradient: Gradient::New,
        trains: false,
    });
    y
}

/// `result[indices, :] = values` in place: keeps the indices. Backward gathers the values' gradient, and, where
/// earlier assignments need one, copies the whole gradient and sets these rows to zero in the copy (a zero fill of
/// the rows and a scatter).
fn assign(
    tape: &mut Tape<'_>,
    names: Names,
    result: Tensor,
    indices: Tensor,
    values: Tensor,
    earlier: bool,
) -> Tensor {
    let after = tape.view(result, result.rows, result.width);
    let touched = total(&[values.bytes(), indices.bytes()]);
    let mut backward = vec![memory(names.grad, MemoryBoundKind::Indexing, touched, values.bytes())];
    let clear = [
        memory(names.grad_input, MemoryBoundKind::Fill, result.bytes(), result.bytes()),
        memory("switch.assign.zeros", MemoryBoundKind::Fill, 0, values.bytes()),
        memory("switch.assign.clear", MemoryBoundKind::Indexing, touched, values.bytes()),
    ];
    if earlier {
        backward.extend(clear);
    }
    let both = [values, result];
    tape.record(&Step {
        names,
        forward: &[memory(names.op, MemoryBoundKind::Indexing, touched, values.bytes())],
        reads: &[result, values, indices],
        saves: &[indices],
        inputs: if earlier { &both } else { &both[..1] },
        outputs: &[after],
        backward: &backward,
        scratch: 0,
        gradient: Gradient::New,
        trains: false,
    });
    after
}

/// Dropped tokens pass through: their indices concatenated, their rows gathered and assigned. The tokens that the
/// balanced split leaves over, and at least one for each expert over capacity.
fn pass_dropped(tape: &mut Tape<'_>, switch: &Switch, x: Tensor, result: Tensor) -> Tensor {
    let computed = product(&[switch.capacity(x.rows), switch.experts]);
    let rows = x.rows.saturating_sub(computed).max(switch.over_capacity());
    let dropped = tape.tensor("switch.dropped", rows, 1, INDEX);
    tape.run(&[memory("switch.dropped", MemoryBoundKind::Fill, dropped.bytes(), dropped.bytes())], &[]);
    let values = gather(tape, names!("switch.gather_dropped"), x, dropped);
    assign(tape, names!("switch.assign_dropped"), result, dropped, values, true)
}

/// `result * probability` with one probability a token: keeps both. Backward: a product for each, and a sum over
/// the width for the probability's.
pub(super) fn scale_by_probability(
    tape: &mut Tape<'_>,
    names: Names,
    result: Tensor,
    probability: Tensor,
) -> Tensor {
    let y = tape.activation(names.output, result.rows, result.width);
    let (bytes, few) = (result.bytes(), probability.bytes());
    let products = memory(
        names.grad_input,
        MemoryBoundKind::Elementwise,
        total(&[product(&[3, bytes]), few]),
        product(&[2, bytes]),
    );
    tape.record(&Step {
        names,
        forward: &[memory(names.op, MemoryBoundKind::Elementwise, total(&[bytes, few]), y.bytes())],
        reads: &[result, probability],
        saves: &[result, probability],
        inputs: &[result, probability],
        outputs: &[y],
        backward: &[
            Operation { launches: 2, ..products },
            memory(names.grad, MemoryBoundKind::Reduction, bytes, few),
        ],
        scratch: bytes,
        gradient: Gradient::New,
        trains: false,
    });
    y
}
