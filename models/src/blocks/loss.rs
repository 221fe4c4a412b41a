//! Classification loss.

use super::autocast::widen_for_softmax;
use super::linear::{Linear, linear};
use super::pointwise::{cast, softcap};
use super::tensor_parallel::enter_tensor_parallel;
use crate::operation::{Dtype, ExchangeKind, MemoryBoundKind, Operation};
use crate::tape::{Gradient, Step, Tape, Tensor, exchange, memory, names};
use crate::units::{product, total};
use crate::work_shape::CrossEntropy;

/// Cross-entropy of logits (rows x classes) against labels, as `F.cross_entropy`: logits converted to 32 bits, log
/// softmax (keeps its result), negative log-likelihood. Returns the loss, one value.
///
/// The labels belong to the sample and are not counted again.
///
/// Of logits that a tensor-parallel group divides by classes, the largest, the label's, and the sum of exponentials of
/// each row are all-reduced, one 32-bit value a row each (Megatron-LM, `vocab_parallel_cross_entropy`).
pub(crate) fn cross_entropy(tape: &mut Tape<'_>, logits: Tensor, divided: bool) -> Tensor {
    let loss = match tape.shape.cross_entropy {
        CrossEntropy::VocabularyParallel if divided => vocabulary_parallel(tape, logits),
        CrossEntropy::VocabularyParallelCompiled if divided => compiled(tape, logits),
        CrossEntropy::Fused if divided => fused(tape, logits),
        CrossEntropy::FlashAttn if divided => flash_attn(tape, logits),
        _ => entropy_with_gradient(tape, logits, divided),
    };
    for _ in 0..tape.shape.loss_metrics {
        metric(tape, logits);
    }
    loss
}

/// The cross-entropy of the same logits once more as a metric, without a gradient: conversion to 32 bits, log softmax,
/// negative log-likelihood, count of the labels, two sums. Its tensors are not counted: trainers compute metrics when
/// backward has freed what the blocks kept, and that was more.
fn metric(tape: &mut Tape<'_>, logits: Tensor) {
    let full = Dtype::Fp32.bytes();
    let wide = tape.elsewhere("metric.upcast", logits.rows, logits.width, full);
    let log = tape.elsewhere("metric.log_softmax", logits.rows, logits.width, full);
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

/// Megatron-LM's `vocab_parallel_cross_entropy`, kernel by kernel. Forward, on a 32-bit copy of the logits (6 bytes a value
/// to make it from 16 bits): the largest of each row (4), subtracted in place (8), exponentials in place (8), their sum (4),
/// quotients in place (8): 32 bytes a value. The quotients are kept; backward sets one value a row and multiplies all in
/// place (8), and the copy's gradient is converted back (6).
fn vocabulary_parallel(tape: &mut Tape<'_>, logits: Tensor) -> Tensor {
    let wide = cast(tape, names!("loss.upcast"), logits, Dtype::Fp32.bytes());
    let names = names!("loss.vocabulary_parallel");
    let bytes = wide.bytes();
    let loss = tape.tensor(names.output, 1, 1, Dtype::Fp32.bytes());
    // The label's logit, the logarithm and the mask: small tensors, each with a kernel.
    let picked = product(&[wide.rows, Dtype::Fp32.bytes() + Dtype::Int64.bytes()]);
    let reductions = memory(names.op, MemoryBoundKind::Reduction, product(&[2, bytes]), 0);
    let elementwise =
        memory(names.op, MemoryBoundKind::Elementwise, product(&[3, bytes]), product(&[3, bytes]));
    let labels = memory(names.op, MemoryBoundKind::Indexing, picked, product(&[2, picked]));
    let scatter = memory(names.grad, MemoryBoundKind::Indexing, picked, picked);
    tape.record(&Step {
        forward: &[
            Operation { launches: 2, ..reductions },
            Operation { launches: 3, ..elementwise },
            Operation { launches: 9, ..labels },
        ],
        reads: &[wide],
        saves: &[wide],
        inputs: &[wide],
        outputs: &[loss],
        backward: &[
            Operation { launches: 4, ..scatter },
            memory(names.grad, MemoryBoundKind::Elementwise, bytes, bytes),
        ],
        gradient: Gradient::InPlace,
        ..Step::of(names)
    });
    exchange_statistics(tape, wide);
    loss
}

/// Megatron-LM's `fused_vocab_parallel_cross_entropy`, three compiled pieces with collectives between them: the 32-bit copy
/// and the largest of each row (10 bytes a value from 16 bits), exponentials beside the copy and their sum (8), quotients
/// in place (8), which are kept. Backward sets one value a row, multiplies and converts (6).
fn compiled(tape: &mut Tape<'_>, logits: Tensor) -> Tensor {
    let wide = cast(tape, names!("loss.upcast"), logits, Dtype::Fp32.bytes());
    let names = names!("loss.compiled");
    let exponentials = tape.tensor(names.output, wide.rows, wide.width, wide.value_bytes);
    let bytes = wide.bytes();
    let loss = tape.tensor(names.output, 1, 1, Dtype::Fp32.bytes());
    let largest = memory(names.op, MemoryBoundKind::Reduction, bytes, 0);
    let exponents = memory(names.op, MemoryBoundKind::Softmax, bytes, bytes);
    let quotients = memory(names.op, MemoryBoundKind::Elementwise, bytes, bytes);
    tape.record(&Step {
        forward: &[largest, exponents, quotients],
        // The variable that named the logits still does.
        reads: &[logits, wide],
        saves: &[exponentials],
        inputs: &[wide],
        outputs: &[loss],
        backward: &[memory(names.grad, MemoryBoundKind::Elementwise, bytes, bytes)],
        gradient: Gradient::InPlace,
        ..Step::of(names)
    });
    exchange_statistics(tape, exponentials);
    loss
}

/// Transformer Engine's `parallel_cross_entropy`: one kernel finds the largest logit and the sum of exponentials of each
/// row, a second reads the logits once more and writes their gradient in 32 bits, which is kept. Backward multiplies it by
/// that of the loss, in place, and converts it to the format of the logits (`transformer_engine/common/triton/
/// cross_entropy.py`).
fn fused(tape: &mut Tape<'_>, logits: Tensor) -> Tensor {
    let names = names!("loss.fused");
    let loss = tape.tensor(names.output, 1, 1, Dtype::Fp32.bytes());
    let kept = tape.tensor(names.statistics, logits.rows, logits.width, Dtype::Fp32.bytes());
    let bytes = kept.bytes();
    let kernels = memory(names.op, MemoryBoundKind::Softmax, product(&[2, logits.bytes()]), bytes);
    let scaled = memory(names.grad, MemoryBoundKind::Elementwise, bytes, bytes);
    let converted = memory(names.grad_cast, MemoryBoundKind::Elementwise, bytes, logits.bytes());
    let wide = logits.value_bytes == Dtype::Fp32.bytes();
    let (operations, gradient) = if wide { (1, Gradient::InPlace) } else { (2, Gradient::New) };
    tape.record(&Step {
        forward: &[Operation { launches: 2, ..kernels }],
        reads: &[logits, kept],
        saves: &[kept],
        inputs: &[logits],
        outputs: &[loss],
        backward: &[scaled, converted][..operations],
        gradient,
        ..Step::of(names)
    });
    exchange_statistics(tape, logits);
    loss
}

/// flash-attn's `CrossEntropyLoss`: forward reads the logits twice, for the largest and the sum of exponentials of each row;
/// backward reads them once more and writes their gradient (`csrc/xentropy`).
fn flash_attn(tape: &mut Tape<'_>, logits: Tensor) -> Tensor {
    let names = names!("loss.flash_attn");
    let loss = tape.tensor(names.output, 1, 1, Dtype::Fp32.bytes());
    let sums = tape.tensor(names.statistics, logits.rows, 1, Dtype::Fp32.bytes());
    let bytes = logits.bytes();
    tape.record(&Step {
        forward: &[memory(names.op, MemoryBoundKind::Softmax, product(&[2, bytes]), sums.bytes())],
        reads: &[logits],
        saves: &[logits, sums],
        inputs: &[logits],
        outputs: &[loss],
        backward: &[memory(names.grad, MemoryBoundKind::Softmax, bytes, bytes)],
        ..Step::of(names)
    });
    exchange_statistics(tape, logits);
    loss
}

/// Of logits that a tensor-parallel group divides: one 32-bit value a row each for the largest, the label's and the sum of
/// exponentials.
fn exchange_statistics(tape: &mut Tape<'_>, logits: Tensor) {
    if tape.shape.tensor.ways() > 1 {
        let bytes = product(&[logits.rows, Dtype::Fp32.bytes()]);
        let sums = exchange("loss.vocabulary_parallel", ExchangeKind::AllReduce, bytes);
        tape.run(&[sums, sums, sums], &[logits]);
    }
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
    if divided {
        exchange_statistics(tape, log);
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
