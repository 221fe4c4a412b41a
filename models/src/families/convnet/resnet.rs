//! ResNet (He et al. 2015), ResNeXt (Xie et al. 2016) and Wide ResNet (Zagoruyko and Komodakis 2016), the stride of a
//! bottleneck in its 3x3 convolution (torchvision's version 1.5).

use std::sync::Arc;

use super::detector::detector;
use super::{Common, FEATURE_CHANNELS, HEAD, Module, Named, STAGE_BLOCKS, STAGES, STEM, classify, result};
use crate::blocks::{
    Feature, InPlace, Normed, Window, add_in_place, conv_norm, convolution_names, global_average_pool,
    max_pool, relu_in_place,
};
use crate::document::Section;
use crate::error::ModelError;
use crate::families::Architecture;
use crate::model::LayerRole;
use crate::tape::{Tape, names};

/// Channels out of a bottleneck over those of its stage.
const EXPANSION: u64 = 4;
/// Most channels anywhere: far above anything built, and parameters stay within 64 bits.
const WIDEST: u64 = 1 << 20;
/// Width of a stage against which `group_width` counts.
const BASE_WIDTH: u64 = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Stem {
        width: u64,
    },
    /// Two 3x3 convolutions.
    Basic {
        width: u64,
        stride: u64,
    },
    /// 1x1, 3x3 in groups, 1x1.
    Bottleneck {
        inner: u64,
        groups: u64,
        out: u64,
        stride: u64,
    },
    Head {
        classes: u64,
    },
    /// The head of a single-shot detector.
    Detector {
        classes: u64,
    },
}

/// Fields: `block` ("basic" or "bottleneck"), `blocks` of each stage, `width` of the stem and of the first stage's
/// blocks (each stage doubles it), for bottlenecks `groups` and `group_width` (channels of a group in the first stage,
/// where the stage is 64 wide), `last_stride` (1 or 2) of the last stage, `head` ("classifier" or "detector"), and the
/// common ones.
pub(in crate::families) fn read(section: &Section) -> Result<Arc<dyn Architecture>, ModelError> {
    let own = ["block", "blocks", "width", "groups", "group_width", "last_stride", "head"];
    section.only(&[&own[..], &Common::FIELDS].concat())?;
    let common = Common::read(section)?;
    let bottleneck = section.choice("block", &["basic", "bottleneck"])? == 1;
    // Every stage doubles the width.
    let blocks = section.counts("blocks", STAGE_BLOCKS, [1, STAGES / 2])?;
    let width = section.range("width", 1, FEATURE_CHANNELS)?.unwrap_or(64);
    let groups = section.range("groups", 1, FEATURE_CHANNELS)?.unwrap_or(1);
    let group_width = section.range("group_width", 1, FEATURE_CHANNELS)?.unwrap_or(BASE_WIDTH);
    for (name, found, usual) in [("groups", groups, 1), ("group_width", group_width, BASE_WIDTH)] {
        if !bottleneck && found != usual {
            return Err(section.refuse(name, found, format!("{usual} with basic blocks")));
        }
    }
    if width * group_width < BASE_WIDTH {
        return Err(section.refuse("group_width", group_width, "enough for one channel of a group"));
    }
    let last = width << (blocks.len() - 1);
    let widest = (last * EXPANSION).max(last * group_width / BASE_WIDTH * groups);
    if widest > WIDEST {
        let allowed = format!("such that no convolution has more than {WIDEST} channels, not {widest}");
        return Err(section.refuse("width", width, allowed));
    }
    let mut layers: Vec<Named<Part>> = vec![(STEM.to_owned(), LayerRole::Embedding, Part::Stem { width })];
    let last_stride = section.range("last_stride", 1, 2)?.unwrap_or(2);
    let detects = section.choice_or("head", &["classifier", "detector"], 0)? == 1;
    if detects && common.classes == 0 {
        return Err(section.refuse("classes", 0, "at least 1 with the head of a detector"));
    }
    for (stage, &count) in blocks.iter().enumerate() {
        let planes = width << stage;
        for block in 0..count {
            let stride = match (stage, block) {
                (1.., 0) if stage + 1 == blocks.len() => last_stride,
                (1.., 0) => 2,
                _ => 1,
            };
            let part = if bottleneck {
                let inner = planes * group_width / BASE_WIDTH * groups;
                Part::Bottleneck { inner, groups, out: planes * EXPANSION, stride }
            } else {
                Part::Basic { width: planes, stride }
            };
            layers.push((format!("layer{}.{block}", stage + 1), LayerRole::Block, part));
        }
    }
    let classes = common.classes;
    let head = if detects { Part::Detector { classes } } else { Part::Head { classes } };
    layers.push((HEAD.to_owned(), LayerRole::Head, head));
    common.chain(section, layers)
}

impl Module for Part {
    fn forward(&self, tape: &mut Tape<'_>, x: Feature) -> Feature {
        match *self {
            Self::Stem { width } => {
                let layer = Normed::new(width, Window::same(7, 2), InPlace::Relu);
                let x = conv_norm(tape, ["conv1", "bn1"], &convolution_names!("stem.conv"), &layer, x);
                max_pool(tape, names!("stem.max_pool"), Window::square(3, 2, 1), x)
            }
            Self::Basic { width, stride } => {
                let first = Normed::new(width, Window::same(3, stride), InPlace::Relu);
                let second = Normed::new(width, Window::same(3, 1), InPlace::None);
                let y = conv_norm(tape, ["conv1", "bn1"], &convolution_names!("conv1"), &first, x);
                let y = conv_norm(tape, ["conv2", "bn2"], &convolution_names!("conv2"), &second, y);
                residual(tape, x, y, stride)
            }
            Self::Bottleneck { inner, groups, out, stride } => {
                let first = Normed::new(inner, Window::PIXEL, InPlace::Relu);
                let second = Normed { groups, ..Normed::new(inner, Window::same(3, stride), InPlace::Relu) };
                let third = Normed::new(out, Window::PIXEL, InPlace::None);
                let y = conv_norm(tape, ["conv1", "bn1"], &convolution_names!("conv1"), &first, x);
                let y = conv_norm(tape, ["conv2", "bn2"], &convolution_names!("conv2"), &second, y);
                let y = conv_norm(tape, ["conv3", "bn3"], &convolution_names!("conv3"), &third, y);
                residual(tape, x, y, stride)
            }
            Self::Head { classes } => {
                // The last block's ReLU keeps it.
                tape.hold_input();
                let pooled = global_average_pool(tape, names!("head.pool"), x);
                let logits = classify(tape, "fc", classes, pooled.flat());
                result(x, logits)
            }
            Self::Detector { classes } => {
                tape.hold_input();
                detector(tape, classes, x)
            }
        }
    }
}

/// `y += x`, projected where the sizes differ, and ReLU, all in the memory of `y`.
fn residual(tape: &mut Tape<'_>, x: Feature, y: Feature, stride: u64) -> Feature {
    let identity = if stride == 1 && x.channels == y.channels {
        x
    } else {
        let layer = Normed::new(y.channels, Window::square(1, stride, 0), InPlace::None);
        conv_norm(tape, ["downsample.0", "downsample.1"], &convolution_names!("downsample"), &layer, x)
    };
    let sum = add_in_place(tape, names!("residual"), y.tensor, identity.tensor);
    y.with(relu_in_place(tape, names!("residual.relu"), sum))
}
