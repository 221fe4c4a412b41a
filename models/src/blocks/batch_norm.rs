//! Batch normalization.

use super::feature::Feature;
use crate::operation::MemoryBoundKind;
use crate::parameter::Split;
use crate::tape::{Gradient, Names, Step, Tape, memory};
use crate::units::{product, total};

/// Bytes of a counter of batches and of a statistic.
const COUNTER: u64 = 8;
const STATISTIC: u64 = 4;

/// Normalization of each channel over images and pixels, with weight and bias. Keeps its input and the mean and
/// reciprocal deviation of each channel, 32-bit floats whatever the activations.
///
/// Training counts the batch on the device (a launch of its own), then reads the input twice, for the statistics and
/// for the result; the running statistics follow in the same kernel. They are buffers, not parameters. Backward reads
/// input and gradient twice, for the two sums and for the gradient of the input, and yields all three gradients.
/// Evaluation reads the input once and keeps nothing.
pub(crate) fn batch_norm(tape: &mut Tape<'_>, module: &str, names: Names, x: Feature) -> Feature {
    let trains = tape.weight(module, "weight", &[x.channels], Split::Whole);
    tape.weight(module, "bias", &[x.channels], Split::Whole);
    let kind = MemoryBoundKind::BatchNorm;
    let weights = product(&[2, x.channels, tape.parameter_bytes()]);
    let running = product(&[2, x.channels, STATISTIC]);
    let training = tape.shape.training;
    let y = x.output(tape, names.output, x.channels, x.grid());
    let bytes = x.tensor.bytes();
    if !training {
        let reads = total(&[bytes, weights, running]);
        // A product and a sum with constants of each channel: as fast as any element-wise kernel.
        tape.run(&[memory(names.op, MemoryBoundKind::Elementwise, reads, y.tensor.bytes())], &[x.tensor]);
        return y;
    }
    let statistics = tape.tensor(names.statistics, x.channels, 2, STATISTIC);
    let count = memory(names.op, MemoryBoundKind::Elementwise, COUNTER, COUNTER);
    let normalize = memory(
        names.op,
        kind,
        total(&[product(&[2, bytes]), weights, running]),
        total(&[y.tensor.bytes(), statistics.bytes(), running]),
    );
    let read_back =
        total(&[product(&[2, bytes]), product(&[2, y.tensor.bytes()]), statistics.bytes(), weights]);
    tape.record(&Step {
        names,
        forward: &[count, normalize],
        reads: &[x.tensor],
        saves: &[x.tensor, statistics],
        inputs: &[x.tensor],
        outputs: &[y.tensor],
        backward: &[memory(names.grad, kind, read_back, total(&[bytes, weights]))],
        scratch: 0,
        gradient: Gradient::New,
        trains,
    });
    y
}
