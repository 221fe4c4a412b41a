//! Two-dimensional convolution, batch norm, in-place ReLU and pooling over images.

use crate::operation::{Dtype, Kernel, MemoryBoundKind, Operation};
use crate::parameter::Split;
use crate::shape::{ConvolutionPass, ConvolutionShape};
use crate::tape::{Names, Step, Tape, Tensor, memory, single};
use crate::units::{Bytes, product, total};

/// Images on the tape: a row for each pixel of the batch, as wide as there are channels.
#[derive(Clone, Copy)]
pub(crate) struct Image {
    pub(crate) tensor: Tensor,
    pub(crate) height: u64,
    pub(crate) width: u64,
}

impl Image {
    pub(crate) fn channels(&self) -> u64 {
        self.tensor.width
    }

    /// Images in the batch.
    pub(crate) fn batch(&self) -> u64 {
        self.tensor.rows / product(&[self.height, self.width]).max(1)
    }
}

/// A square window that slides over an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) size: u64,
    pub(crate) stride: u64,
    /// Pixels added on each side.
    pub(crate) padding: u64,
}

impl Window {
    /// Positions along a side of `pixels`: floor((pixels + 2 padding - size) / stride) + 1; None where the window
    /// does not fit.
    pub(crate) fn positions(&self, pixels: u64) -> Option<u64> {
        let free = total(&[pixels, product(&[2, self.padding])]).checked_sub(self.size)?;
        Some(free / self.stride.max(1) + 1)
    }

    /// The same of a window known to fit.
    fn cover(&self, pixels: u64) -> u64 {
        self.positions(pixels).unwrap_or(1)
    }
}

/// A convolution: its module's name, the names of its operations, and its sizes.
#[derive(Clone, Copy)]
pub(crate) struct Convolution<'n> {
    pub(crate) module: &'n str,
    pub(crate) names: Names,
    /// Channels out.
    pub(crate) channels: u64,
    pub(crate) window: Window,
    pub(crate) groups: u64,
    pub(crate) bias: bool,
}

/// Convolution, as cuDNN runs it: keeps its input. Backward: a convolution for the gradient of the input if something
/// before it is trained, and where its filter is trained one for the gradient of that and a sum for the bias's.
pub(crate) fn conv2d(tape: &mut Tape<'_>, layer: &Convolution<'_>, x: Image) -> Image {
    let (size, names) = (layer.window.size, layer.names);
    let inputs = x.channels() / layer.groups.max(1);
    let trains = tape.weight(layer.module, "weight", &[layer.channels, inputs, size, size], Split::Whole);
    if layer.bias {
        tape.weight(layer.module, "bias", &[layer.channels], Split::Whole);
    }
    let (height, width) = (layer.window.cover(x.height), layer.window.cover(x.width));
    let y = tape.activation(names.output, product(&[x.batch(), height, width]), layer.channels);
    let filter = product(&[layer.channels, inputs, size, size, tape.activation_bytes()]);
    let shape = ConvolutionShape {
        stride: layer.window.stride,
        pass: ConvolutionPass::Forward,
        batch: x.batch(),
        in_channels: x.channels(),
        out_channels: layer.channels,
        out_height: height,
        out_width: width,
        kernel_height: size,
        kernel_width: size,
        groups: layer.groups,
        traffic: Bytes(total(&[x.tensor.bytes(), filter, y.bytes()])),
        dtype: tape.other_products(),
    };
    let kernel = |pass| Kernel::Convolution(ConvolutionShape { pass, ..shape });
    let mut backward = Vec::new();
    if tape.needs_gradient(x.tensor) {
        backward.push(single(names.grad_input, kernel(ConvolutionPass::GradInput)));
    }
    if trains {
        backward.push(single(names.grad_weight, kernel(ConvolutionPass::GradWeight)));
        if layer.bias {
            let gradient = product(&[layer.channels, tape.activation_bytes()]);
            backward.push(memory(names.grad_bias, MemoryBoundKind::Reduction, y.bytes(), gradient));
        }
    }
    tape.record(&Step {
        forward: &[single(names.op, kernel(ConvolutionPass::Forward))],
        reads: &[x.tensor],
        saves: if trains { std::slice::from_ref(&x.tensor) } else { &[] },
        inputs: &[x.tensor],
        outputs: &[y],
        backward: &backward,
        trains,
        ..Step::of(names)
    });
    Image { tensor: y, height, width }
}

/// Batch norm. In training it keeps its input, and the mean and reciprocal deviation of each channel; both gradients
/// come from one kernel. Outside training it is element-wise.
pub(crate) fn batch_norm(tape: &mut Tape<'_>, module: &str, names: Names, x: Tensor) -> Tensor {
    let trains = tape.weight(module, "weight", &[x.width], Split::Whole);
    tape.weight(module, "bias", &[x.width], Split::Whole);
    let y = tape.activation(names.output, x.rows, x.width);
    let statistics = tape.tensor(names.statistics, x.width, 2, Dtype::Fp32.bytes());
    let kind = MemoryBoundKind::Norm;
    // Training reads the input once for the statistics and once to normalize.
    let passes = if tape.shape.training { 2 } else { 1 };
    let both = total(&[x.bytes(), y.bytes()]);
    let forward = memory(names.op, kind, product(&[passes, x.bytes()]), y.bytes());
    let backward = memory(names.grad, kind, product(&[2, both]), x.bytes());
    tape.record(&Step {
        forward: &[Operation { launches: u32::from(tape.shape.training) + 1, ..forward }],
        reads: &[x],
        saves: &[x, statistics],
        inputs: &[x],
        outputs: &[y],
        backward: &[Operation { launches: 2, ..backward }],
        trains,
        ..Step::of(names)
    });
    y
}

/// ReLU in place: keeps its result, which lies where its input was.
pub(crate) fn relu_in_place(tape: &mut Tape<'_>, names: Names, x: Tensor) -> Tensor {
    let y = tape.view(x, x.rows, x.width);
    let kind = MemoryBoundKind::Elementwise;
    tape.record(&Step {
        forward: &[memory(names.op, kind, x.bytes(), y.bytes())],
        reads: &[x],
        saves: &[y],
        inputs: &[x],
        outputs: &[y],
        backward: &[memory(names.grad, kind, product(&[2, y.bytes()]), x.bytes())],
        ..Step::of(names)
    });
    y
}

/// Largest value of each window: keeps its input and the 64-bit places of the values. Backward scatters to these.
pub(crate) fn max_pool(tape: &mut Tape<'_>, names: Names, x: Image, window: Window) -> Image {
    pool(tape, names, x, window, true)
}

/// Mean of each window: keeps its input.
pub(crate) fn average_pool(tape: &mut Tape<'_>, names: Names, x: Image, window: Window) -> Image {
    pool(tape, names, x, window, false)
}

fn pool(tape: &mut Tape<'_>, names: Names, x: Image, window: Window, places: bool) -> Image {
    let (height, width) = (window.cover(x.height), window.cover(x.width));
    let rows = product(&[x.batch(), height, width]);
    let y = tape.activation(names.output, rows, x.channels());
    let indices = places.then(|| tape.tensor(names.mask, rows, x.channels(), Dtype::Int64.bytes()));
    let made = total(&[y.bytes(), indices.map_or(0, |it| it.bytes())]);
    let saves: Vec<Tensor> = std::iter::once(x.tensor).chain(indices).collect();
    tape.record(&Step {
        forward: &[memory(names.op, MemoryBoundKind::Reduction, x.tensor.bytes(), made)],
        reads: &[x.tensor],
        saves: &saves,
        inputs: &[x.tensor],
        outputs: &[y],
        backward: &[memory(names.grad, MemoryBoundKind::Indexing, made, x.tensor.bytes())],
        ..Step::of(names)
    });
    Image { tensor: y, height, width }
}

/// Mean over all pixels of each image: a row an image. Keeps nothing.
pub(crate) fn global_average_pool(tape: &mut Tape<'_>, names: Names, x: Image) -> Tensor {
    let y = tape.activation(names.output, x.batch(), x.channels());
    tape.record(&Step {
        forward: &[memory(names.op, MemoryBoundKind::Reduction, x.tensor.bytes(), y.bytes())],
        reads: &[x.tensor],
        inputs: &[x.tensor],
        outputs: &[y],
        backward: &[memory(names.grad, MemoryBoundKind::Elementwise, y.bytes(), x.tensor.bytes())],
        ..Step::of(names)
    });
    y
}

/// Resizes images bilinearly to squares of `side` pixels; nothing if they have that size. Keeps nothing; backward fills
/// a gradient with zeros and adds every pixel's share to it.
pub(crate) fn resize_bilinear(tape: &mut Tape<'_>, names: Names, x: Image, side: u64) -> Image {
    if (x.height, x.width) == (side, side) {
        return x;
    }
    let y = tape.activation(names.output, product(&[x.batch(), side, side]), x.channels());
    let backward = memory(names.grad, MemoryBoundKind::Indexing, y.bytes(), product(&[2, x.tensor.bytes()]));
    tape.record(&Step {
        forward: &[memory(names.op, MemoryBoundKind::Elementwise, x.tensor.bytes(), y.bytes())],
        reads: &[x.tensor],
        inputs: &[x.tensor],
        outputs: &[y],
        backward: &[Operation { launches: 2, ..backward }],
        ..Step::of(names)
    });
    Image { tensor: y, height: side, width: side }
}
