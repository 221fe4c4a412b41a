//! Products of feature maps with one factor a channel: squeeze and excitation, layer scale.

use super::autocast::widened;
use super::convolution::{Convolution, conv2d};
use super::feature::{Feature, Window};
use super::in_place::silu_in_place;
use super::kept_result::sigmoid;
use super::pooling::global_average_pool;
use crate::operation::MemoryBoundKind;
use crate::parameter::Split;
use crate::tape::{Gradient, Step, Tape, memory, names};
use crate::units::{product, total};

const ELEMENTWISE: MemoryBoundKind = MemoryBoundKind::Elementwise;

/// Squeeze and excitation (Hu et al. 2018): the mean of each channel through two 1x1 convolutions, `squeeze` channels
/// between them, SiLU in place and a sigmoid, then times the feature map. `modules` are the names of the two.
pub(crate) fn squeeze_excitation(
    tape: &mut Tape<'_>,
    [first, second]: [&str; 2],
    squeeze: u64,
    x: Feature,
) -> Feature {
    let mean = global_average_pool(tape, names!("squeeze.mean"), x);
    let narrow = Convolution::new(first, names!("squeeze.fc1"), squeeze, Window::PIXEL).biased();
    let narrow = conv2d(tape, &narrow, mean);
    let narrow = narrow.with(silu_in_place(tape, names!("squeeze.silu"), narrow.tensor));
    let wide = Convolution::new(second, names!("squeeze.fc2"), x.channels, Window::PIXEL).biased();
    let wide = conv2d(tape, &wide, narrow);
    let factor = sigmoid(tape, names!("squeeze.sigmoid"), wide.tensor);
    let names = names!("squeeze.scale");
    let y = x.output(tape, names.output, x.channels, x.grid());
    let (x, bytes) = (x.tensor, x.tensor.bytes());
    tape.record(&Step {
        names,
        forward: &[memory(names.op, ELEMENTWISE, total(&[bytes, factor.bytes()]), bytes)],
        reads: &[x, factor],
        saves: &[x, factor],
        inputs: &[x, factor],
        outputs: &[y.tensor],
        backward: &[
            memory(names.grad_input, ELEMENTWISE, total(&[bytes, factor.bytes()]), bytes),
            memory(names.grad_weight, ELEMENTWISE, product(&[2, bytes]), bytes),
            memory(names.grad_weight, MemoryBoundKind::Reduction, bytes, factor.bytes()),
        ],
        scratch: bytes,
        gradient: Gradient::New,
        trains: false,
    });
    y
}

/// A learned factor for each channel (Touvron et al. 2021). Keeps its input if the factors are trained.
pub(crate) fn layer_scale(tape: &mut Tape<'_>, parameter: &str, x: Feature) -> Feature {
    let names = names!("layer_scale");
    let trains = tape.weight(parameter, "", &[x.channels, 1, 1], Split::Whole);
    // The factors are parameters; where these have more bits, so has the product.
    let format = if tape.shape.autocasts() { tape.parameter_bytes() } else { x.tensor.value_bytes };
    let format = format.max(x.tensor.value_bytes);
    let x = x.with(widened(tape, names, x.tensor, format));
    let y = x.with(tape.tensor(names.output, x.tensor.rows, x.channels, format));
    let factors = product(&[x.channels, tape.parameter_bytes()]);
    let (x, bytes, wide) = (x.tensor, x.tensor.bytes(), y.tensor.bytes());
    let mut backward = Vec::new();
    if tape.needs_gradient(x) {
        backward.push(memory(names.grad_input, ELEMENTWISE, total(&[wide, factors]), bytes));
    }
    if trains {
        backward.push(memory(names.grad_weight, ELEMENTWISE, total(&[wide, bytes]), wide));
        backward.push(memory(names.grad_weight, MemoryBoundKind::Reduction, wide, factors));
    }
    tape.record(&Step {
        names,
        forward: &[memory(names.op, ELEMENTWISE, total(&[bytes, factors]), wide)],
        reads: &[x],
        saves: if trains { std::slice::from_ref(&x) } else { &[] },
        inputs: &[x],
        outputs: &[y.tensor],
        backward: &backward,
        scratch: if trains { wide } else { 0 },
        gradient: Gradient::New,
        trains,
    });
    y
}
