//! Two-dimensional convolutions, with what usually follows one.

use super::autocast::{cast_weight, narrow};
use super::batch_norm::batch_norm;
use super::feature::{Feature, Window};
use super::in_place::{relu_in_place, relu6_in_place, silu_in_place};
use crate::operation::{Kernel, MemoryBoundKind};
use crate::parameter::Split;
use crate::shape::{ConvolutionPass, ConvolutionShape};
use crate::tape::{Gradient, Names, Step, Tape, Tensor, memory, single};
use crate::units::{Bytes, product, total};

/// A convolution: its module's name, the names of its operations, and its sizes.
#[derive(Clone, Copy)]
pub(crate) struct Convolution<'n> {
    module: &'n str,
    names: Names,
    channels: u64,
    window: Window,
    groups: u64,
    bias: bool,
}

impl<'n> Convolution<'n> {
    /// One group of `channels` filters without bias.
    pub(crate) const fn new(module: &'n str, names: Names, channels: u64, window: Window) -> Self {
        Self { module, names, channels, window, groups: 1, bias: false }
    }

    /// In groups of channels that do not see each other.
    pub(crate) const fn groups(self, groups: u64) -> Self {
        Self { groups, ..self }
    }

    /// With a bias.
    pub(crate) const fn biased(self) -> Self {
        Self { bias: true, ..self }
    }
}

/// One convolution kernel, with its bias in it. Keeps its input if its filter is trained.
///
/// Backward: a kernel for the gradient of the input if something before it is trained; if the filter is, one for its
/// gradient and a sum over images and pixels for that of the bias. Traffic is that of the two tensors and the filter
/// in all three; copies into another layout and cuDNN's workspace are not counted.
pub(crate) fn conv2d(tape: &mut Tape<'_>, layer: &Convolution<'_>, x: Feature) -> Feature {
    let (names, window) = (layer.names, layer.window);
    let [height, width] = window.size;
    let inputs = x.channels / layer.groups.max(1);
    let trains = tape.weight(layer.module, "weight", &[layer.channels, inputs, height, width], Split::Whole);
    if layer.bias {
        tape.weight(layer.module, "bias", &[layer.channels], Split::Whole);
    }
    let x = x.with(narrow(tape, names, x.tensor));
    let value = tape.activation_bytes();
    let filter_sizes = [layer.channels, product(&[inputs, height, width]), 1];
    let bias_sizes = layer.bias.then_some([layer.channels, 1, 1]);
    let converted: Vec<Tensor> = std::iter::once(filter_sizes)
        .chain(bias_sizes)
        .filter_map(|sizes| cast_weight(tape, names, sizes, value, trains))
        .collect();
    let y = x.output(tape, names.output, layer.channels, window.over(x.grid()));
    let filter = product(&[layer.channels, inputs, height, width, value]);
    let (dtype, format) = (tape.convolution_products(), tape.shape.convolutions.format);
    let kernel = |pass| {
        Kernel::Convolution(ConvolutionShape {
            batch: x.images,
            in_channels: x.channels,
            out_channels: layer.channels,
            out_height: y.height,
            out_width: y.width,
            kernel_height: height,
            kernel_width: width,
            groups: layer.groups,
            stride: window.stride,
            pass,
            format,
            traffic: Bytes(total(&[x.tensor.bytes(), filter, y.tensor.bytes()])),
            dtype,
        })
    };
    let (mut backward, mut saves) = (Vec::new(), Vec::new());
    if tape.needs_gradient(x.tensor) {
        saves.extend(converted.first());
        backward.push(single(names.grad_input, kernel(ConvolutionPass::GradInput)));
    }
    if trains {
        saves.push(x.tensor);
        backward.push(single(names.grad_weight, kernel(ConvolutionPass::GradWeight)));
        if layer.bias {
            let gradient = product(&[layer.channels, value]);
            backward.push(memory(names.grad_bias, MemoryBoundKind::Reduction, y.tensor.bytes(), gradient));
        }
    }
    let tensors: Vec<Tensor> = std::iter::once(x.tensor).chain(converted).collect();
    tape.record(&Step {
        names,
        forward: &[single(names.op, kernel(ConvolutionPass::Forward))],
        reads: &tensors,
        saves: &saves,
        inputs: &tensors,
        outputs: &[y.tensor],
        backward: &backward,
        scratch: 0,
        gradient: Gradient::New,
        trains,
    });
    y
}

/// Names of the operations of a convolution and of what follows it.
#[derive(Clone, Copy)]
pub(crate) struct ConvolutionNames {
    pub(crate) convolution: Names,
    pub(crate) norm: Names,
    pub(crate) activation: Names,
}

/// `convolution_names!("conv1")`: the operations `conv1`, `conv1.norm` and `conv1.activation`.
macro_rules! convolution_names {
    ($name:literal) => {
        $crate::blocks::ConvolutionNames {
            convolution: $crate::tape::names!($name),
            norm: $crate::tape::names!($name, ".norm"),
            activation: $crate::tape::names!($name, ".activation"),
        }
    };
}
pub(crate) use convolution_names;

/// An activation written over its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InPlace {
    None,
    Relu,
    /// ReLU that stops at 6.
    Relu6,
    Silu,
}

/// Sizes of a convolution that is followed by a batch norm.
#[derive(Clone, Copy)]
pub(crate) struct Normed {
    pub(crate) channels: u64,
    pub(crate) window: Window,
    pub(crate) groups: u64,
    pub(crate) activation: InPlace,
}

impl Normed {
    /// One group.
    pub(crate) const fn new(channels: u64, window: Window, activation: InPlace) -> Self {
        Self { channels, window, groups: 1, activation }
    }

    /// A filter of its own for each of the channels.
    pub(crate) const fn depthwise(channels: u64, window: Window, activation: InPlace) -> Self {
        Self { channels, window, groups: channels, activation }
    }
}

/// Convolution without bias, batch norm, and an activation in place. `modules` are the names of the first two.
pub(crate) fn conv_norm(
    tape: &mut Tape<'_>,
    [convolution, norm]: [&str; 2],
    names: &ConvolutionNames,
    layer: &Normed,
    x: Feature,
) -> Feature {
    let filter = Convolution::new(convolution, names.convolution, layer.channels, layer.window);
    let y = conv2d(tape, &filter.groups(layer.groups), x);
    let y = batch_norm(tape, norm, names.norm, y);
    activate(tape, names.activation, layer.activation, y)
}

/// An activation in place.
pub(crate) fn activate(tape: &mut Tape<'_>, names: Names, activation: InPlace, x: Feature) -> Feature {
    x.with(match activation {
        InPlace::None => x.tensor,
        InPlace::Relu => relu_in_place(tape, names, x.tensor),
        InPlace::Relu6 => relu6_in_place(tape, names, x.tensor),
        InPlace::Silu => silu_in_place(tape, names, x.tensor),
    })
}
