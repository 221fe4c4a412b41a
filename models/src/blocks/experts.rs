//! Routed experts run together: tokens sorted by expert, one grouped product for each linear layer of all experts, and
//! the results summed into their tokens (the token permutation and grouped products of Megatron-LM's and MegaBlocks'
//! dropless layers; the experts' code of Hugging Face's models computes the same in a loop).
//!
//! For T tokens of width h, E experts and k of them a token:
//!
//! ```text
//! scores  = softmax(router(x)) in 32 bits, or sigmoid            # T x E
//! p, chosen = topk(scores, k);  p = p / sum(p)                    # T x k
//! order   = argsort(chosen);  counts = histogram(chosen)          # T k; the host waits for the counts
//! rows    = x[order / k]                                          # T k x h
//! rows    = experts(rows) * p[order]
//! y       = zeros;  y.index_add(order / k, rows)                  # T x h
//! ```
//!
//! Megatron-LM, which spreads experts over ranks and fuses SwiGLU, multiplies by `p` in the middle of the experts,
//! where rows are narrower and nothing more is kept.
//!
//! The router is taken as balanced in expectation unless the work says otherwise: each expert has T k / E rows (rounded
//! up). With a capacity factor
//! every expert has that many times the factor, tokens beyond it are dropped and missing ones padded; then no size
//! depends on the routing and the host waits for nothing.

use super::expert_parallel::{combine, dispatch, exchange_counts};
use super::grouped::{Group, Grouped, grouped_linear};
use super::kept_result::{softmax_gradient, softmax_scratch};
use super::linear::{Linear, linear};
use super::mlp::{Dense, EXPERTS, FeedForward, Part, SHARED_EXPERT, dense_feed_forward, feed_forward};
use super::pointwise::{activation_by_result, add, cast};
use super::routing::scale_by_probability;
use super::tensor_parallel::{enter_tensor_parallel, leave_tensor_parallel};
use crate::division::ExpertParallel;
use crate::operation::{Dtype, Kernel, MemoryBoundKind, Operation};
use crate::tape::{Gradient, Names, Step, Tape, Tensor, memory, names, single};
use crate::units::{Bytes, product, total};
use crate::work_shape::{Fusion, WorkShape};

const INDEX: u64 = Dtype::Int64.bytes();
const SCORE: u64 = Dtype::Fp32.bytes();

/// How a router makes probabilities of its logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scoring {
    Softmax,
    /// The logistic function of each logit, chosen by its sum with a correction that gets no gradient (DeepSeek-V3).
    CorrectedSigmoid,
}

/// Shape of the routed feed-forward.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moe {
    pub(crate) experts: u64,
    pub(crate) top_k: u64,
    /// Hidden width of an expert.
    pub(crate) middle: u64,
    pub(crate) scoring: Scoring,
    /// The router is a linear layer with a bias.
    pub(crate) router_bias: bool,
    /// The experts' linear layers have biases.
    pub(crate) expert_bias: bool,
    /// 0: no token is dropped.
    pub(crate) capacity_factor: f64,
    /// Width of the shared experts together; 0 for none.
    pub(crate) shared: u64,
    /// The shared expert's result is scaled by a gate of its own (Qwen2-MoE).
    pub(crate) shared_gate: bool,
}

/// Names of its modules.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MoeModules {
    pub(crate) router: &'static str,
    /// Of the experts, up to their number.
    pub(crate) experts: &'static str,
    /// Gate, up and down within an expert.
    pub(crate) layers: [&'static str; 3],
    /// Gate, up and down of the shared experts.
    pub(crate) shared: [&'static str; 3],
    pub(crate) shared_gate: &'static str,
}

impl Moe {
    /// Rows that each expert computes for so many tokens.
    pub(crate) fn rows(&self, tokens: u64) -> u64 {
        let balanced = product(&[tokens, self.top_k]);
        if self.capacity_factor == 0.0 {
            return balanced.div_ceil(self.experts);
        }
        (balanced as f64 / self.experts as f64 * self.capacity_factor).ceil() as u64
    }
}

impl Moe {
    /// How the experts are spread over ranks of their own. A capacity bounds what popular ones receive.
    fn spread(&self, shape: &WorkShape) -> Option<ExpertParallel> {
        let balanced = |it| ExpertParallel { load_millionths: ExpertParallel::BALANCED, ..it };
        shape.expert.map(|it| if self.capacity_factor > 0.0 { balanced(it) } else { it })
    }
}

/// The routed feed-forward of the tokens `x`, with its shared experts. The tensor group divides the middle of every
/// expert; the result is this rank's summand. Where experts have groups of their own, `x` is what this rank has between
/// the divided layers, and the result is whole.
pub(crate) fn experts(
    tape: &mut Tape<'_>,
    moe: &Moe,
    form: FeedForward,
    modules: &MoeModules,
    x: Tensor,
) -> Tensor {
    let [probabilities, chosen] = route(tape, moe, modules.router, x);
    let order = sort(tape, moe, x, chosen);
    let routed = {
        let rows = select(tape, names!("moe.permute"), x, order);
        let column = probabilities.reshaped(probabilities.values(), 1);
        let picked = select(tape, names!("moe.permute_probabilities"), column, order);
        let spread = moe.spread(tape.shape);
        let local = spread.map_or(moe.experts, |it| moe.experts.div_ceil(it.ways()));
        let sent = rows.rows;
        let rows = match &spread {
            Some(spread) => dispatch(tape, spread, local, rows),
            None => rows,
        };
        let each = match spread {
            Some(_) => rows.rows.div_ceil(local),
            None => moe.rows(x.rows),
        };
        let weighs_inside = spread.is_some() || form.gated && tape.shape.fusion == Fusion::TransformerEngine;
        let picked = match &spread {
            Some(spread) => dispatch(tape, spread, local, picked),
            None => picked,
        };
        let ways = spread.map_or(tape.shape.tensor.ways(), |it| it.tensor_ways());
        let (of, used, prefix) = (moe.experts, moe.top_k, modules.experts);
        let group = Group { count: local, of, ways, used, rows: each, prefix };
        let [gate, up, down] = modules.layers;
        let rows = feed_forward(tape, form, &EXPERTS, rows, |tape, part, names, rows| {
            let rows = if part == Part::Down && weighs_inside {
                scale_by_probability(tape, names!("moe.weigh"), rows, picked)
            } else {
                rows
            };
            let (leaf, width) = match part {
                Part::Gate => (gate, moe.middle),
                Part::Up => (up, moe.middle),
                Part::Down => (down, x.width),
            };
            let layer = Grouped { leaf, names, width, columns: part != Part::Down, bias: moe.expert_bias };
            grouped_linear(tape, group, layer, rows)
        });
        let rows = match &spread {
            Some(spread) => combine(tape, spread, [local, sent], rows),
            None => rows,
        };
        let weighted =
            if weighs_inside { rows } else { scale_by_probability(tape, names!("moe.weigh"), rows, picked) };
        unpermute(tape, x, weighted, order)
    };
    if moe.shared == 0 {
        return routed;
    }
    let apart = tape.shape.expert.is_some();
    let shared_input = if apart { enter_tensor_parallel(tape, x) } else { x };
    let dense =
        Dense { modules: modules.shared, packed: None, middle: moe.shared, width: x.width, bias: false };
    let mut shared = dense_feed_forward(tape, form, &SHARED_EXPERT, dense, shared_input);
    if apart {
        shared = leave_tensor_parallel(tape, shared);
    }
    if moe.shared_gate {
        let gate = linear(tape, Linear::new(modules.shared_gate, names!("moe.shared_gate"), 1), x);
        let gate = activation_by_result(tape, names!("moe.shared_sigmoid"), gate);
        shared = scale_by_probability(tape, names!("moe.shared_scale"), shared, gate);
    }
    add(tape, names!("moe.add_shared"), routed, shared)
}

/// Router: probabilities of each token's experts, and which they are (both T x k). Keeps the scores of all experts in
/// 32 bits, the chosen ones, their scores and their sums.
fn route(tape: &mut Tape<'_>, moe: &Moe, module: &str, x: Tensor) -> [Tensor; 2] {
    let router = Linear::new(module, names!("moe.router"), moe.experts).bias(moe.router_bias).wide();
    let logits = linear(tape, router, x);
    let names = match moe.scoring {
        Scoring::Softmax => names!("moe.softmax"),
        Scoring::CorrectedSigmoid => names!("moe.sigmoid"),
    };
    let kind = match moe.scoring {
        Scoring::Softmax => MemoryBoundKind::Softmax,
        Scoring::CorrectedSigmoid => MemoryBoundKind::Elementwise,
    };
    let scores = tape.tensor(names.output, x.rows, moe.experts, SCORE);
    let (backward, scratch) = match moe.scoring {
        Scoring::Softmax => (softmax_gradient(tape, names, scores, logits), softmax_scratch(tape, scores)),
        Scoring::CorrectedSigmoid => {
            (vec![memory(names.grad, kind, product(&[2, scores.bytes()]), logits.bytes())], 0)
        }
    };
    tape.record(&Step {
        names,
        forward: &[memory(names.op, kind, logits.bytes(), scores.bytes())],
        reads: &[logits],
        saves: &[scores],
        inputs: &[logits],
        outputs: &[scores],
        backward: &backward,
        scratch,
        gradient: Gradient::New,
        trains: false,
    });
    if moe.scoring == Scoring::CorrectedSigmoid {
        // Moved by a rule of its own and not by a gradient.
        tape.own_weight(module, "e_score_correction_bias", &[moe.experts], false);
        let corrected = tape.tensor("moe.correction.output", x.rows, moe.experts, SCORE);
        tape.run(
            &[memory("moe.correction", MemoryBoundKind::Elementwise, scores.bytes(), corrected.bytes())],
            &[scores, corrected],
        );
    }
    let scores = balance_loss(tape, moe, scores);
    let [values, chosen] = top_k(tape, moe, scores);
    let values = if moe.top_k > 1 { normalize(tape, values) } else { values };
    let format = tape.activation_bytes();
    [cast(tape, names!("moe.probability_cast"), values, format), chosen]
}

/// The loss that keeps the router balanced (Fedus et al. 2022, equation 4): mean score and share of tokens of each
/// expert, their product summed. Its gradient joins that of the scores on the way back, as Megatron-LM's does.
fn balance_loss(tape: &mut Tape<'_>, moe: &Moe, scores: Tensor) -> Tensor {
    if !tape.shape.training {
        return scores;
    }
    let names = names!("moe.balance_loss");
    let y = tape.view(scores, scores.rows, scores.width);
    let (bytes, few) = (scores.bytes(), product(&[moe.experts, SCORE]));
    let means = memory(names.op, MemoryBoundKind::Reduction, bytes, few);
    let sum = memory(names.grad, MemoryBoundKind::Elementwise, product(&[2, bytes]), product(&[2, bytes]));
    tape.record(&Step {
        names,
        // Mean of the scores; histogram of the chosen, product, sum, scale.
        forward: &[Operation { launches: 5, ..means }],
        reads: &[scores],
        saves: &[],
        inputs: &[scores],
        outputs: &[y],
        // The means' gradient expanded to all tokens, and added.
        backward: &[Operation { launches: 4, ..sum }],
        scratch: 0,
        gradient: Gradient::New,
        trains: false,
    });
    y
}

/// The largest scores of each token and their experts: a selection and a sort. Keeps the experts; backward fills the
/// gradient with zeros and scatters into it.
fn top_k(tape: &mut Tape<'_>, moe: &Moe, scores: Tensor) -> [Tensor; 2] {
    let names = names!("moe.top_k");
    let values = tape.tensor(names.output, scores.rows, moe.top_k, SCORE);
    let chosen = tape.tensor("moe.chosen", scores.rows, moe.top_k, INDEX);
    let found = total(&[values.bytes(), chosen.bytes()]);
    let select = memory(names.op, MemoryBoundKind::Reduction, scores.bytes(), found);
    let scatter =
        memory(names.grad, MemoryBoundKind::Indexing, found, total(&[scores.bytes(), values.bytes()]));
    tape.record(&Step {
        names,
        forward: &[Operation { launches: 2, ..select }],
        reads: &[scores],
        saves: &[chosen],
        inputs: &[scores],
        outputs: &[values],
        backward: &[Operation { launches: 2, ..scatter }],
        scratch: 0,
        gradient: Gradient::New,
        trains: false,
    });
    [values, chosen]
}

/// Probabilities divided by their sum: keeps both.
fn normalize(tape: &mut Tape<'_>, values: Tensor) -> Tensor {
    let names = names!("moe.normalize");
    let sums = tape.tensor(names.statistics, values.rows, 1, values.value_bytes);
    let y = tape.tensor(names.output, values.rows, values.width, values.value_bytes);
    let bytes = values.bytes();
    let forward = memory(names.op, MemoryBoundKind::Elementwise, product(&[2, bytes]), y.bytes());
    let backward =
        memory(names.grad, MemoryBoundKind::Elementwise, product(&[6, bytes]), product(&[4, bytes]));
    tape.record(&Step {
        names,
        forward: &[Operation { launches: 2, ..forward }],
        reads: &[values],
        saves: &[values, sums],
        inputs: &[values],
        outputs: &[y],
        // A quotient, two products, their sum over the experts, and the addition of the two branches.
        backward: &[Operation { launches: 5, ..backward }],
        scratch: bytes,
        gradient: Gradient::New,
        trains: false,
    });
    y
}

/// The rows in the order of their experts: a radix sort of the chosen experts and a histogram. Without a capacity the
/// host waits for the counts, which the grouped products need.
fn sort(tape: &mut Tape<'_>, moe: &Moe, x: Tensor, chosen: Tensor) -> Tensor {
    let rows =
        if moe.capacity_factor == 0.0 { chosen.values() } else { product(&[moe.rows(x.rows), moe.experts]) };
    let order = tape.tensor("moe.order", rows, 1, INDEX);
    let sort = memory(
        "moe.sort",
        MemoryBoundKind::Indexing,
        product(&[4, chosen.bytes()]),
        product(&[4, order.bytes()]),
    );
    let counts = product(&[moe.experts, INDEX]);
    let histogram = memory("moe.histogram", MemoryBoundKind::Reduction, chosen.bytes(), counts);
    tape.run(&[Operation { launches: 4, ..sort }, histogram], &[chosen]);
    if let Some(spread) = tape.shape.expert {
        exchange_counts(tape, &spread, moe.experts);
    }
    if moe.capacity_factor == 0.0 {
        let copy = single("moe.counts", Kernel::HostCopy { bytes: Bytes(counts), pinned: false });
        tape.run(&[Operation { host_sync: true, ..copy }], &[]);
    }
    order
}

/// `x[order]`: keeps the order. Backward fills a gradient of all tokens with zeros and adds the rows into it.
fn select(tape: &mut Tape<'_>, names: Names, x: Tensor, order: Tensor) -> Tensor {
    let y = tape.tensor(names.output, order.rows, x.width, x.value_bytes);
    let touched = total(&[y.bytes(), order.bytes()]);
    tape.record(&Step {
        names,
        forward: &[memory(names.op, MemoryBoundKind::Indexing, touched, y.bytes())],
        reads: &[x, order],
        saves: &[order],
        inputs: &[x],
        outputs: &[y],
        backward: &[
            memory(names.grad_input, MemoryBoundKind::Fill, 0, x.bytes()),
            memory(names.grad, MemoryBoundKind::Indexing, total(&[touched, y.bytes()]), y.bytes()),
        ],
        scratch: 0,
        gradient: Gradient::New,
        trains: false,
    });
    y
}

/// Zeros with the rows added to their tokens: keeps the order. Backward gathers.
fn unpermute(tape: &mut Tape<'_>, x: Tensor, rows: Tensor, order: Tensor) -> Tensor {
    let names = names!("moe.unpermute");
    let y = tape.activation(names.output, x.rows, x.width);
    let touched = total(&[rows.bytes(), order.bytes()]);
    tape.run(&[memory("moe.zeros", MemoryBoundKind::Fill, 0, y.bytes())], &[]);
    tape.record(&Step {
        names,
        forward: &[memory(
            names.op,
            MemoryBoundKind::Indexing,
            total(&[touched, rows.bytes()]),
            rows.bytes(),
        )],
        reads: &[rows, order],
        saves: &[order],
        inputs: &[rows],
        outputs: &[y],
        backward: &[memory(names.grad, MemoryBoundKind::Indexing, touched, rows.bytes())],
        scratch: 0,
        gradient: Gradient::New,
        trains: false,
    });
    y
}
