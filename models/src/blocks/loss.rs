//! Classification loss.

use super::pointwise::cast;
use crate::operation::{Dtype, MemoryBoundKind, Operation};
use crate::tape::{Gradient, Step, Tape, Tensor, memory, names};
use crate::units::{product, total};

/// Cross-entropy of logits (rows x classes) against labels, as `F.cross_entropy`: logits converted to 32 bits, log
/// softmax (keeps its result), negative log-likelihood. Returns the loss, one value.
///
/// The labels belong to the sample and are not counted again.
pub(crate) fn cross_entropy(tape: &mut Tape<'_>, logits: Tensor) -> Tensor {
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
    });
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
    });
    loss
}
