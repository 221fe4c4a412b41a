//! Classification loss.

use super::autocast::widen_for_softmax;
use super::linear::{Linear, linear};
use super::pointwise::{cast, softcap};
use super::tensor_parallel::enter_tensor_parallel;
use crate::operation::{Dtype, ExchangeKind, MemoryBoundKind, Operation};
use crate::tape::{Gradient, Step, Tape, Tensor, exchange, memory, names};
use crate::units::{product, total};

/// Cross-entropy of logits (rows x classes) against labels, as `F.cross_entropy`: logits converted to 32 bits, log
/// softmax (keeps its result), negative log-likelihood. Returns the loss, one value.
///
/// The labels belong to the sample and are not counted again.
///
/// Of logits that a tensor-parallel group divides by classes, the largest, the label's, and the sum of exponentials of
/// each row are all-reduced, one 32-bit value a row each (Megatron-LM, `vocab_parallel_cross_entropy`).
pub(crate) fn cross_entropy(tape: &mut Tape<'_>, logits: Tensor, divided: bool) -> Tensor {
    let loss = entropy_with_gradient(tape, logits, divided);
    for _ in 0..tape.shape.loss_metrics {
        metric(tape, logits);
    }
    loss
}

/// The cross-entropy of the same logits once more as a metric, without a gradient: conversion to 32 bits, log softmax,
/// negative log-likelihood, count of the labels, two sums.
fn metric(tape: &mut Tape<'_>, logits: Tensor) {
    let full = Dtype::Fp32.bytes();
    let wide = tape.tensor("metric.upcast", logits.rows, logits.width, full);
    let log = tape.tensor("metric.log_softmax", logits.rows, logits.width, full);
    if logits.value_bytes < full {
        let upcast = memory("metric.upcast", MemoryBoundKind::Elementwise, logits.bytes(), wide.bytes());
        tape.run(&[upcast], &[logits, wide]);
    }
    tape.run(
        &[memory("metric.log_softmax", MemoryBoundKind::Softmax, wide.bytes(), log.bytes())],
        &[wide, log],
    );
    let picked = product(&[log.rows, full + Dtype::Int64.bytes()]);
    let sums = memory("metric.sums", MemoryBoundKind::Indexing, picked, full);
    tape.run(&[Operation { launches: 5, ..sums }], &[log]);
}

fn entropy_with_gradient(tape: &mut Tape<'_>, logits: Tensor, divided: bool) -> Tensor {
    let logits = if tape.shape.autocasts() {
        widen_for_softmax(tape, names!("loss.log_softmax"), logits)
    } else {
        cast(tape, names!("loss.upcast"), logits, Dtype::Fp32.bytes())
    };
    let names = names!("loss.log_softmax");
    let kind = MemoryBoundKind::Softmax;
    let log = tape.tensor(names.output, logits.rows, logits.width, Dtype::Fp32.bytes());
    tape.record(&Step {
        names,
        forward: &[memory(names.op, kind, logits.bytes(), log.bytes())],
        reads: &[logits],
        saves: &[log],
        inputs: &[logits],
        outputs: &[log],
        backward: &[memory(names.grad, kind, product(&[2, log.bytes()]), logits.bytes())],
        scratch: 0,
        gradient: Gradient::New,
        trains: false,
    });
    if divided && tape.shape.tensor.ways() > 1 {
        let sums = exchange(
            "loss.vocabulary_parallel",
            ExchangeKind::AllReduce,
            product(&[log.rows, Dtype::Fp32.bytes()]),
        );
        tape.run(&[sums, sums, sums], &[log]);
    }
    let names = names!("loss.nll");
    let loss = tape.tensor(names.output, 1, 1, Dtype::Fp32.bytes());
    // One value and one label a row. Backward fills the gradient with zeros and sets one value a row.
    let picked = product(&[log.rows, Dtype::Fp32.bytes() + Dtype::Int64.bytes()]);
    let scatter = memory(names.grad, MemoryBoundKind::Fill, picked, total(&[log.bytes(), picked]));
    tape.record(&Step {
        names,
        forward: &[memory(names.op, MemoryBoundKind::Indexing, picked, loss.bytes())],
        reads: &[log],
        saves: &[],
        inputs: &[log],
        outputs: &[loss],
        backward: &[Operation { launches: 2, ..scatter }],
        scratch: 0,
        gradient: Gradient::New,
        trains: false,
    });
    loss
}

/// Output projection of a language model and, in training, its loss. A tensor-parallel group divides the vocabulary. With
/// `capped` the logits are squeezed by `c * tanh(logits / c)`.
pub(crate) fn language_loss(tape: &mut Tape<'_>, projection: Linear<'_>, capped: bool, x: Tensor) -> Tensor {
    let x = enter_tensor_parallel(tape, x);
    let logits = linear(tape, projection.columns().output(), x);
    let logits = if capped { softcap(tape, names!("head.softcap"), logits) } else { logits };
    if tape.shape.training { cross_entropy(tape, logits, true) } else { logits }
}
