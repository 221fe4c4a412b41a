//! Classification loss.

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
    let logits = cast(tape, names!("loss.upcast"), logits, Dtype::Fp32.bytes());
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
