//! The multi-box head of SSD (Liu et al. 2016, SSD: Single Shot MultiBox Detector) for a backbone of stride 8, as
//! published with a ResNet-50 for 300 pixels (NVIDIA Deep Learning Examples, SSD300 v1.1): five coarser feature maps
//! behind the backbone's, and on each of the six a 3x3 convolution for the boxes' coordinates and one for their classes.

use super::result;
use crate::blocks::{
    Convolution, Feature, InPlace, Normed, Window, concatenate_rows, conv_norm, conv2d, convolution_names,
    cross_entropy,
};
use crate::operation::{Dtype, MemoryBoundKind, Operation};
use crate::tape::{Step, Tape, Tensor, memory, names};
use crate::units::{product, total};

/// Coordinates of a box.
const COORDINATES: u64 = 4;

/// Default boxes at each pixel of the six maps.
const BOXES: [u64; 6] = [4, 6, 6, 6, 4, 4];

/// Channels inside and out of the blocks that make the five coarser maps.
const COARSER: [(u64, u64); 5] = [(256, 512), (256, 512), (128, 256), (128, 256), (128, 256)];
/// How many of them halve the map; the others only lose its border.
const HALVING: usize = 3;

/// Elementary steps of the boxes' part of the loss: offsets of both kinds, smooth L1, mask, sums (17 kernels over
/// the coordinates in 32 bits, with a result each).
const OFFSET_STEPS: u64 = 17;
/// Passes of a radix sort over 32-bit keys with 64-bit places, 8 bits each, and of the one over the places.
const SORT_PASSES: u64 = 4 + 8;

/// Maps, predictions and, in training, the loss.
pub(super) fn detector(tape: &mut Tape<'_>, classes: u64, x: Feature) -> Feature {
    let (mut locations, mut confidences) = (Vec::new(), Vec::new());
    let mut map = x;
    for (index, boxes) in BOXES.into_iter().enumerate() {
        if let Some((inner, out)) = index.checked_sub(1).and_then(|block| COARSER.get(block)).copied() {
            map = coarser(tape, index - 1, inner, out, map);
        }
        let near = Window::same(3, 1);
        let (loc, conf) = (format!("loc.{index}"), format!("conf.{index}"));
        let place = Convolution::new(&loc, names!("location"), boxes * COORDINATES, near).biased();
        let class = Convolution::new(&conf, names!("confidence"), boxes * classes, near).biased();
        let (place, class) = (conv2d(tape, &place, map), conv2d(tape, &class, map));
        locations.push(by_box(place, boxes, COORDINATES));
        confidences.push(by_box(class, boxes, classes));
    }
    let locations = concatenate_rows(tape, names!("locations"), &locations);
    let confidences = concatenate_rows(tape, names!("confidences"), &confidences);
    let output = if tape.shape.training { loss(tape, locations, confidences) } else { confidences };
    // Of an image too small for the coarsest map nothing is left.
    let y = result(x, output);
    if map.is_empty() { Feature { height: 0, ..y } } else { y }
}

/// 1x1 convolution and 3x3 convolution with stride or without padding.
fn coarser(tape: &mut Tape<'_>, block: usize, inner: u64, out: u64, x: Feature) -> Feature {
    let module = |part: u64| format!("additional_blocks.{block}.{part}");
    let window = if block < HALVING { Window::same(3, 2) } else { Window::square(3, 1, 0) };
    let first = Normed::new(inner, Window::PIXEL, InPlace::Relu);
    let second = Normed::new(out, window, InPlace::Relu);
    let y = conv_norm(tape, [&module(0), &module(1)], &convolution_names!("coarser.conv1"), &first, x);
    conv_norm(tape, [&module(3), &module(4)], &convolution_names!("coarser.conv2"), &second, y)
}

/// A row for each default box.
fn by_box(x: Feature, boxes: u64, width: u64) -> Tensor {
    x.tensor.reshaped(product(&[x.images, x.height, x.width, boxes]), width)
}

/// Cross-entropy of every box, of which the hardest without an object are kept: losses are sorted twice; smooth L1 of
/// the coordinates.
fn loss(tape: &mut Tape<'_>, locations: Tensor, confidences: Tensor) -> Tensor {
    let classes = cross_entropy(tape, confidences, false);
    let sorted = product(&[confidences.rows, Dtype::Fp32.bytes() + Dtype::Int64.bytes()]);
    let sort = memory(
        "loss.mining",
        MemoryBoundKind::Indexing,
        product(&[SORT_PASSES, sorted]),
        product(&[SORT_PASSES, sorted]),
    );
    tape.run(&[Operation { launches: 2 * SORT_PASSES as u32, ..sort }], &[classes]);
    let names = names!("loss.locations");
    let values = product(&[locations.rows, locations.width, Dtype::Fp32.bytes()]);
    let kind = MemoryBoundKind::Elementwise;
    let steps = |name, count: u64| {
        let moved = product(&[count, values]);
        Operation { launches: count as u32, ..memory(name, kind, moved, moved) }
    };
    let sum = tape.tensor(names.output, 1, 1, Dtype::Fp32.bytes());
    // What backward needs of the coordinates: their differences.
    let differences = tape.tensor("loss.differences", locations.rows, locations.width, Dtype::Fp32.bytes());
    tape.record(&Step {
        forward: &[steps(names.op, OFFSET_STEPS)],
        reads: &[locations],
        saves: &[differences],
        inputs: &[locations, classes],
        outputs: &[sum],
        backward: &[memory(names.grad, kind, product(&[2, values]), total(&[values, locations.bytes()]))],
        ..Step::of(names)
    });
    sum
}
