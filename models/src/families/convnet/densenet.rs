//! DenseNet (Huang et al. 2016), not the memory-efficient variant: every layer joins all features before it anew.

use std::sync::Arc;

use super::{Common, FEATURE_CHANNELS, HEAD, Module, Named, STAGE_BLOCKS, STAGES, STEM, classify, result};
use crate::blocks::{
    Convolution, Feature, InPlace, Normed, Window, activate, append, average_pool, batch_norm, concatenate,
    conv_norm, conv2d, convolution_names, dropout, global_average_pool, max_pool, relu_in_place,
};
use crate::document::Section;
use crate::error::ModelError;
use crate::families::Architecture;
use crate::model::LayerRole;
use crate::tape::{Tape, names};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Stem {
        width: u64,
    },
    /// Joins `features` tensors and adds one of `growth` channels to their list.
    Dense {
        features: u32,
        growth: u64,
        bottleneck: u64,
        drops: bool,
    },
    /// Joins the features of a block, halves their channels and, each way, their pixels.
    Transition {
        features: u32,
    },
    Head {
        features: u32,
        classes: u64,
    },
}

/// Fields: `blocks` (layers of each dense block), `growth`, `stem_width`, `bottleneck` (width of a layer's 1x1
/// convolution over `growth`), `dropout`, and the common ones.
pub(in crate::families) fn read(section: &Section) -> Result<Arc<dyn Architecture>, ModelError> {
    let own = ["blocks", "growth", "stem_width", "bottleneck", "dropout"];
    section.only(&[&own[..], &Common::FIELDS].concat())?;
    let common = Common::read(section)?;
    let blocks = section.counts("blocks", STAGE_BLOCKS, [1, STAGES])?;
    let growth = section.count("growth", FEATURE_CHANNELS)?;
    let width = section.count("stem_width", FEATURE_CHANNELS)?;
    let bottleneck = section.range("bottleneck", 1, 1 << 8)?.unwrap_or(4) * growth;
    let drops = section.flag("dropout", false)?;
    let mut layers: Vec<Named<Part>> = vec![(STEM.to_owned(), LayerRole::Embedding, Part::Stem { width })];
    let mut last = 1;
    for (index, &count) in blocks.iter().enumerate() {
        let block = index + 1;
        // The block's input and one tensor for each layer before.
        for features in 1..=count as u32 {
            let part = Part::Dense { features, growth, bottleneck, drops };
            layers.push((format!("features.denseblock{block}.denselayer{features}"), LayerRole::Block, part));
        }
        last = count as u32 + 1;
        if block < blocks.len() {
            let part = Part::Transition { features: last };
            layers.push((format!("features.transition{block}"), LayerRole::Block, part));
        }
    }
    let head = Part::Head { features: last, classes: common.classes };
    layers.push((HEAD.to_owned(), LayerRole::Head, head));
    common.chain(section, layers)
}

impl Module for Part {
    fn forward(&self, tape: &mut Tape<'_>, x: Feature) -> Feature {
        match *self {
            Self::Stem { width } => {
                let layer = Normed::new(width, Window::same(7, 2), InPlace::Relu);
                let modules = ["features.conv0", "features.norm0"];
                let x = conv_norm(tape, modules, &convolution_names!("stem.conv"), &layer, x);
                max_pool(tape, names!("stem.max_pool"), Window::square(3, 2, 1), x)
            }
            Self::Dense { features, growth, bottleneck, drops } => {
                let list = x.with(x.tensor.as_list(features));
                let joined = join(tape, list);
                let y = norm_relu(tape, "norm1", joined);
                let narrow = Normed::new(bottleneck, Window::PIXEL, InPlace::Relu);
                let y = conv_norm(tape, ["conv1", "norm2"], &convolution_names!("conv1"), &narrow, y);
                let layer = Convolution::new("conv2", names!("conv2"), growth, Window::same(3, 1));
                let y = conv2d(tape, &layer, y);
                let y = y.with(dropout(tape, names!("dropout"), y.tensor, drops));
                append(tape, names!("append"), list, y)
            }
            Self::Transition { features } => {
                let joined = join(tape, x.with(x.tensor.as_list(features)));
                let y = norm_relu(tape, "norm", joined);
                let layer = Convolution::new("conv", names!("conv"), x.channels / 2, Window::PIXEL);
                let y = conv2d(tape, &layer, y);
                average_pool(tape, names!("average_pool"), Window::square(2, 2, 0), y)
            }
            Self::Head { features, classes } => {
                let joined = join(tape, x.with(x.tensor.as_list(features)));
                let y = batch_norm(tape, "features.norm5", names!("head.norm"), joined);
                let y = y.with(relu_in_place(tape, names!("head.relu"), y.tensor));
                let pooled = global_average_pool(tape, names!("head.pool"), y);
                let logits = classify(tape, "classifier", classes, pooled.flat());
                result(x, logits)
            }
        }
    }
}

/// All features so far as one tensor, copied even if they are one already.
fn join(tape: &mut Tape<'_>, list: Feature) -> Feature {
    concatenate(tape, names!("concatenate"), list, &[])
}

/// Batch norm and ReLU in place, before a convolution.
fn norm_relu(tape: &mut Tape<'_>, module: &str, x: Feature) -> Feature {
    let y = batch_norm(tape, module, names!("norm"), x);
    activate(tape, names!("norm.relu"), InPlace::Relu, y)
}
