//! ConvNeXt (Liu et al. 2022). From its first norm on, activations lie with the channels innermost, so that the
//! permutations around norms and linear layers are views.

use std::sync::Arc;

use super::{Common, FEATURE_CHANNELS, HEAD, Module, Named, STAGE_BLOCKS, STAGES, STEM, classify, result};
use crate::blocks::{
    Convolution, Feature, Function, Linear, Window, activation, add_in_place, conv2d, copy,
    global_average_pool, layer_norm, layer_scale, linear, stochastic_depth,
};
use crate::document::Section;
use crate::error::ModelError;
use crate::families::Architecture;
use crate::model::LayerRole;
use crate::tape::{Tape, names};
use crate::work_shape::WorkShape;

/// Hidden width of a block over its own.
const EXPANSION: u64 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Stem { width: u64 },
    Block { drops: bool },
    Downsample { width: u64 },
    Head { classes: u64 },
}

/// Fields: `blocks` and `widths` of each stage, `stochastic_depth` (in all blocks but the first, whose probability is
/// zero), and the common ones.
pub(in crate::families) fn read(section: &Section) -> Result<Arc<dyn Architecture>, ModelError> {
    section.only(&[&["blocks", "widths", "stochastic_depth"][..], &Common::FIELDS].concat())?;
    let common = Common::read(section)?;
    let blocks = section.counts("blocks", STAGE_BLOCKS, [1, STAGES])?;
    let widths = section.counts("widths", FEATURE_CHANNELS, [1, STAGES])?;
    if widths.len() != blocks.len() {
        let allowed = format!("{} numbers, one for each of `blocks`", blocks.len());
        return Err(section.refuse("widths", format!("a list of {}", widths.len()), allowed));
    }
    let drops = section.flag("stochastic_depth", false)?;
    let mut layers: Vec<Named<Part>> = Vec::new();
    for (stage, (&count, &width)) in blocks.iter().zip(&widths).enumerate() {
        layers.push(if stage == 0 {
            (STEM.to_owned(), LayerRole::Embedding, Part::Stem { width })
        } else {
            (format!("features.{}", 2 * stage), LayerRole::Block, Part::Downsample { width })
        });
        for block in 0..count {
            let first = stage == 0 && block == 0;
            let name = format!("features.{}.{block}", 2 * stage + 1);
            layers.push((name, LayerRole::Block, Part::Block { drops: drops && !first }));
        }
    }
    layers.push((HEAD.to_owned(), LayerRole::Head, Part::Head { classes: common.classes }));
    common.chain(section, layers)
}

impl Module for Part {
    /// Norms and layer scale make the residuals 32-bit under autocast (the one that a downsampling convolution begins
    /// anew with 16 bits included, for simplicity).
    fn input_bytes(&self, shape: &WorkShape) -> u64 {
        match self {
            Self::Block { .. } | Self::Downsample { .. } | Self::Head { .. } => {
                shape.norm_bytes().max(shape.parameters().bytes())
            }
            Self::Stem { .. } => shape.activation.bytes(),
        }
    }

    fn forward(&self, tape: &mut Tape<'_>, x: Feature) -> Feature {
        match *self {
            Self::Stem { width } => {
                let window = Window::square(4, 4, 0);
                let layer = Convolution::new("features.0.0", names!("stem.conv"), width, window).biased();
                let y = conv2d(tape, &layer, x);
                let y = y.with(copy(tape, names!("stem.layout"), y.tensor));
                y.with(layer_norm(tape, "features.0.1", names!("stem.norm"), y.tensor, true))
            }
            Self::Block { drops } => block(tape, x, drops),
            Self::Downsample { width } => {
                let y = x.with(layer_norm(tape, "0", names!("downsample.norm"), x.tensor, true));
                let window = Window::square(2, 2, 0);
                conv2d(tape, &Convolution::new("1", names!("downsample.conv"), width, window).biased(), y)
            }
            Self::Head { classes } => {
                let pooled = global_average_pool(tape, names!("head.pool"), x);
                let normed = layer_norm(tape, "classifier.0", names!("head.norm"), pooled.flat(), true);
                let logits = classify(tape, "classifier.2", classes, normed);
                result(x, logits)
            }
        }
    }
}

/// Depthwise 7x7 convolution, norm, two linear layers with GELU between them, layer scale, residual in place.
fn block(tape: &mut Tape<'_>, x: Feature, drops: bool) -> Feature {
    let width = x.channels;
    let depthwise = Convolution::new("block.0", names!("depthwise"), width, Window::same(7, 1));
    let y = conv2d(tape, &depthwise.groups(width).biased(), x);
    let normed = layer_norm(tape, "block.2", names!("norm"), y.tensor, true);
    let first = Linear::new("block.3", names!("mlp.fc1"), EXPANSION * width).bias(true);
    let wide = linear(tape, first, normed);
    let wide = activation(tape, names!("mlp.gelu"), Function::Gelu, wide);
    let narrow = linear(tape, Linear::new("block.5", names!("mlp.fc2"), width).bias(true), wide);
    let y = layer_scale(tape, "layer_scale", y.with(narrow));
    let kept = stochastic_depth(tape, names!("stochastic_depth"), y.tensor, x.images, drops);
    y.with(add_in_place(tape, names!("residual"), kept, x.tensor))
}
