//! Networks of inverted residuals: MobileNet v2 (Sandler et al. 2018) and EfficientNet, v1 and v2 (Tan and Le 2019,
//! 2021), as torchvision writes them, with the two blocks in which PyTorch Image Models' own variants differ.

use std::sync::Arc;

use super::{Common, FEATURE_CHANNELS, HEAD, Module, Named, STAGE_BLOCKS, STAGES, STEM, classify, result};
use crate::blocks::{
    ConvolutionNames, Feature, InPlace, Normed, Window, add, add_in_place, conv_norm, convolution_names,
    dropout, dropout_in_place, global_average_pool, squeeze_excitation, stochastic_depth,
};
use crate::document::Section;
use crate::error::ModelError;
use crate::families::Architecture;
use crate::model::LayerRole;
use crate::tape::{Tape, names};

/// Channels of MobileNet and EfficientNet are multiples of this.
const DIVISOR: u64 = 8;
/// Channels of a block's input over those that its squeeze leaves.
const SQUEEZE: u64 = 4;

/// Whose code runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// ReLU6; the sum of a residual is a new tensor; dropout is not in place.
    Mobilenet,
    /// SiLU; residual and dropout in place.
    Efficientnet,
}

/// What a block does between its ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// 1x1 to wide, depthwise, 1x1 to narrow. Not widened, it begins with the depthwise convolution.
    Inverted,
    /// A full convolution to wide, 1x1 to narrow. Not widened, it is the one convolution.
    Fused,
    /// The same with the second convolution even where nothing is widened.
    Edge,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Block {
    style: Style,
    shape: Shape,
    expand: u64,
    kernel: u64,
    stride: u64,
    width: u64,
    squeeze: bool,
    drops: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Stem {
        style: Style,
        width: u64,
    },
    Block(Block),
    /// The 1x1 convolution before the classifier.
    Last {
        style: Style,
        width: u64,
    },
    Head {
        style: Style,
        classes: u64,
        drops: bool,
    },
}

/// Family `mobilenet`: `stem_width`, `last_width`, `dropout`, tables `[[architecture.stage]]` with `expand`, `width`,
/// `blocks` and `stride`, and the common fields.
pub(in crate::families) fn read_mobilenet(section: &Section) -> Result<Arc<dyn Architecture>, ModelError> {
    section.only(&[&["stem_width", "last_width", "dropout", "stage"][..], &Common::FIELDS].concat())?;
    let mut stages = Vec::new();
    for stage in section.sections("stage")? {
        stage.only(&["expand", "width", "blocks", "stride"])?;
        stages.push(read_stage(&stage, Style::Mobilenet)?);
    }
    chain(section, Style::Mobilenet, &stages)
}

/// Family `efficientnet`: the same and `stochastic_depth` (in all blocks but the first, whose probability is zero);
/// stages also have `block` ("inverted", "fused" or "edge"), `kernel`, and `squeeze` (squeeze and excitation, to a
/// quarter of the block's input).
pub(in crate::families) fn read_efficientnet(section: &Section) -> Result<Arc<dyn Architecture>, ModelError> {
    let own = ["stem_width", "last_width", "dropout", "stochastic_depth", "stage"];
    section.only(&[&own[..], &Common::FIELDS].concat())?;
    let mut stages = Vec::new();
    for stage in section.sections("stage")? {
        stage.only(&["block", "expand", "kernel", "width", "blocks", "stride", "squeeze"])?;
        let (count, block) = read_stage(&stage, Style::Efficientnet)?;
        let shape = match stage.choice("block", &["inverted", "fused", "edge"])? {
            0 => Shape::Inverted,
            1 => Shape::Fused,
            _ => Shape::Edge,
        };
        let kernel = stage.range("kernel", 1, 31)?.unwrap_or(3);
        if kernel.is_multiple_of(2) {
            return Err(stage.refuse("kernel", kernel, "odd"));
        }
        let squeeze = stage.flag("squeeze", false)?;
        if squeeze && shape != Shape::Inverted {
            return Err(stage.refuse("squeeze", squeeze, "false but in \"inverted\" blocks"));
        }
        stages.push((count, Block { shape, kernel, squeeze, ..block }));
    }
    chain(section, Style::Efficientnet, &stages)
}

/// How many blocks, and what the two families' stages have in common.
fn read_stage(stage: &Section, style: Style) -> Result<(u64, Block), ModelError> {
    let width = stage.count("width", FEATURE_CHANNELS)?;
    let blocks = stage.count("blocks", STAGE_BLOCKS)?;
    let expand = stage.range("expand", 1, 64)?.unwrap_or(1);
    let stride = stage.range("stride", 1, 2)?.unwrap_or(1);
    let (shape, kernel, squeeze, drops) = (Shape::Inverted, 3, false, false);
    Ok((blocks, Block { style, shape, expand, kernel, stride, width, squeeze, drops }))
}

fn chain(
    section: &Section,
    style: Style,
    stages: &[(u64, Block)],
) -> Result<Arc<dyn Architecture>, ModelError> {
    let common = Common::read(section)?;
    if stages.len() > STAGES {
        return Err(section.refuse("stage", format!("{} tables", stages.len()), format!("at most {STAGES}")));
    }
    let width = section.count("stem_width", FEATURE_CHANNELS)?;
    let last = section.count("last_width", FEATURE_CHANNELS)?;
    let dropout = section.flag("dropout", true)?;
    let drops = style == Style::Efficientnet && section.flag("stochastic_depth", false)?;
    let mut layers: Vec<Named<Part>> =
        vec![(STEM.to_owned(), LayerRole::Embedding, Part::Stem { style, width })];
    let mut module = 1;
    for (stage, &(count, first)) in stages.iter().enumerate() {
        for number in 0..count {
            let stride = if number == 0 { first.stride } else { 1 };
            let drops = drops && layers.len() > 1;
            let name = match style {
                Style::Mobilenet => format!("features.{module}"),
                Style::Efficientnet => format!("features.{}.{number}", stage + 1),
            };
            module += 1;
            layers.push((name, LayerRole::Block, Part::Block(Block { stride, drops, ..first })));
        }
    }
    let module = if style == Style::Mobilenet { module } else { stages.len() as u32 + 1 };
    layers.push((format!("features.{module}"), LayerRole::Block, Part::Last { style, width: last }));
    let head = Part::Head { style, classes: common.classes, drops: dropout };
    layers.push((HEAD.to_owned(), LayerRole::Head, head));
    common.chain(section, layers)
}

impl Style {
    const fn activation(self) -> InPlace {
        match self {
            Self::Mobilenet => InPlace::Relu6,
            Self::Efficientnet => InPlace::Silu,
        }
    }

    /// Channels after widening.
    fn wide(self, channels: u64, expand: u64) -> u64 {
        match self {
            Self::Mobilenet => channels * expand,
            Self::Efficientnet => divisible(channels * expand),
        }
    }
}

/// The nearest multiple of [`DIVISOR`], at least one, and not below nine tenths.
fn divisible(channels: u64) -> u64 {
    let nearest = ((channels + DIVISOR / 2) / DIVISOR * DIVISOR).max(DIVISOR);
    if nearest * 10 < channels * 9 { nearest + DIVISOR } else { nearest }
}

impl Module for Part {
    fn forward(&self, tape: &mut Tape<'_>, x: Feature) -> Feature {
        match *self {
            Self::Stem { style, width } => {
                let layer = Normed::new(width, Window::same(3, 2), style.activation());
                let modules = ["features.0.0", "features.0.1"];
                conv_norm(tape, modules, &convolution_names!("stem.conv"), &layer, x)
            }
            Self::Block(block) => block.forward(tape, x),
            Self::Last { style, width } => {
                let layer = Normed::new(width, Window::PIXEL, style.activation());
                conv_norm(tape, ["0", "1"], &convolution_names!("last.conv"), &layer, x)
            }
            Self::Head { style, classes, drops } => {
                let pooled = global_average_pool(tape, names!("head.pool"), x).flat();
                let name = names!("head.dropout");
                let features = match style {
                    Style::Mobilenet => dropout(tape, name, pooled, drops),
                    Style::Efficientnet => dropout_in_place(tape, name, pooled, drops),
                };
                let logits = classify(tape, "classifier.1", classes, features);
                result(x, logits)
            }
        }
    }
}

impl Block {
    fn forward(&self, tape: &mut Tape<'_>, x: Feature) -> Feature {
        let y = match self.shape {
            Shape::Inverted => self.inverted(tape, x),
            Shape::Fused | Shape::Edge => self.fused(tape, x),
        };
        if self.stride != 1 || x.channels != self.width {
            return y;
        }
        let kept = stochastic_depth(tape, names!("stochastic_depth"), y.tensor, x.images, self.drops);
        let names = names!("residual");
        y.with(match self.style {
            Style::Mobilenet => add(tape, names, x.tensor, kept),
            Style::Efficientnet => add_in_place(tape, names, kept, x.tensor),
        })
    }

    fn inverted(&self, tape: &mut Tape<'_>, x: Feature) -> Feature {
        let activation = self.style.activation();
        let wide = self.style.wide(x.channels, self.expand);
        let mut module = 0;
        let mut y = x;
        if wide != x.channels {
            let layer = Normed::new(wide, Window::PIXEL, activation);
            y = self.conv_norm(tape, module, &convolution_names!("expand"), &layer, y);
            module += 1;
        }
        let layer = Normed::depthwise(wide, Window::same(self.kernel, self.stride), activation);
        y = self.conv_norm(tape, module, &convolution_names!("depthwise"), &layer, y);
        module += 1;
        if self.squeeze {
            let modules = ["fc1", "fc2"].map(|layer| format!("block.{module}.{layer}"));
            y = squeeze_excitation(tape, [&modules[0], &modules[1]], (x.channels / SQUEEZE).max(1), y);
            module += 1;
        }
        self.project(tape, module, y)
    }

    fn fused(&self, tape: &mut Tape<'_>, x: Feature) -> Feature {
        let activation = self.style.activation();
        let wide = self.style.wide(x.channels, self.expand);
        let window = Window::same(self.kernel, self.stride);
        let two = wide != x.channels || self.shape == Shape::Edge;
        let layer = Normed::new(if two { wide } else { self.width }, window, activation);
        let y = self.conv_norm(tape, 0, &convolution_names!("fused"), &layer, x);
        if two { self.project(tape, 1, y) } else { y }
    }

    /// The 1x1 convolution at the end, without activation.
    fn project(&self, tape: &mut Tape<'_>, module: u32, x: Feature) -> Feature {
        let layer = Normed::new(self.width, Window::PIXEL, InPlace::None);
        let names = &convolution_names!("project");
        match self.style {
            // MobileNet does not nest the last two modules.
            Style::Mobilenet => {
                let modules = [module, module + 1].map(|module| format!("conv.{module}"));
                conv_norm(tape, [&modules[0], &modules[1]], names, &layer, x)
            }
            Style::Efficientnet => self.conv_norm(tape, module, names, &layer, x),
        }
    }

    fn conv_norm(
        &self,
        tape: &mut Tape<'_>,
        module: u32,
        names: &ConvolutionNames,
        layer: &Normed,
        x: Feature,
    ) -> Feature {
        let list = match self.style {
            Style::Mobilenet => "conv",
            Style::Efficientnet => "block",
        };
        let modules = [0, 1].map(|inner| format!("{list}.{module}.{inner}"));
        conv_norm(tape, [&modules[0], &modules[1]], names, layer, x)
    }
}
