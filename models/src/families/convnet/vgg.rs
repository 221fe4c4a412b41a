//! VGG (Simonyan and Zisserman 2014), with or without batch norms.

use std::sync::Arc;

use super::{Common, FEATURE_CHANNELS, HEAD, Module, Named, STAGES, classify, result};
use crate::blocks::{
    Convolution, Feature, Linear, Window, adaptive_average_pool, batch_norm, conv2d, convolution_names,
    dropout, linear, max_pool, relu_in_place,
};
use crate::document::Section;
use crate::error::ModelError;
use crate::families::{Architecture, limits};
use crate::model::LayerRole;
use crate::tape::{Tape, names};

/// Pixels a side that the classifier takes.
const CLASSIFIER_GRID: u64 = 7;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// Convolutions of one width and the pooling after them; `first` is the number of the first module.
    Group {
        first: u64,
        convolutions: u64,
        width: u64,
        normed: bool,
    },
    Head {
        hidden: u64,
        classes: u64,
        dropout: bool,
    },
}

/// Fields: `convolutions` and `widths` of each group, `batch_norm`, `hidden` width of the classifier, `dropout`, and
/// the common ones. The first group takes the part of the stem.
pub(in crate::families) fn read(section: &Section) -> Result<Arc<dyn Architecture>, ModelError> {
    let own = ["convolutions", "widths", "batch_norm", "hidden", "dropout"];
    section.only(&[&own[..], &Common::FIELDS].concat())?;
    let common = Common::read(section)?;
    let convolutions = section.counts("convolutions", 1 << 6, [1, STAGES])?;
    let widths = section.counts("widths", FEATURE_CHANNELS, [1, STAGES])?;
    if widths.len() != convolutions.len() {
        let allowed = format!("{} numbers, one for each of `convolutions`", convolutions.len());
        return Err(section.refuse("widths", format!("a list of {}", widths.len()), allowed));
    }
    let normed = section.flag("batch_norm", false)?;
    let hidden = section.range("hidden", 1, limits::WIDTH)?.unwrap_or(4096);
    let dropout = section.flag("dropout", true)?;
    let mut layers: Vec<Named<Part>> = Vec::new();
    let mut first = 0;
    for (&convolutions, width) in convolutions.iter().zip(widths) {
        let role = if first == 0 { LayerRole::Embedding } else { LayerRole::Block };
        let pooling = first + convolutions * modules(normed);
        let part = Part::Group { first, convolutions, width, normed };
        layers.push((format!("features.{first}-{pooling}"), role, part));
        first = pooling + 1;
    }
    let head = Part::Head { hidden, classes: common.classes, dropout };
    layers.push((HEAD.to_owned(), LayerRole::Head, head));
    common.chain(section, layers)
}

/// Modules of one convolution with what follows it.
const fn modules(normed: bool) -> u64 {
    if normed { 3 } else { 2 }
}

impl Module for Part {
    fn forward(&self, tape: &mut Tape<'_>, x: Feature) -> Feature {
        match *self {
            Self::Group { first, convolutions, width, normed } => {
                let mut x = x;
                for number in 0..convolutions {
                    let module = first + number * modules(normed);
                    x = convolution(tape, module, width, normed, x);
                }
                max_pool(tape, names!("max_pool"), Window::square(2, 2, 0), x)
            }
            Self::Head { hidden, classes, dropout: drops } => {
                let pooled = adaptive_average_pool(tape, names!("head.pool"), [CLASSIFIER_GRID; 2], x);
                let mut features = pooled.flat();
                if classes > 0 {
                    for module in ["classifier.0", "classifier.3"] {
                        let layer = Linear::new(module, names!("head.hidden"), hidden).bias(true);
                        features = linear(tape, layer, features);
                        features = relu_in_place(tape, names!("head.relu"), features);
                        features = dropout(tape, names!("head.dropout"), features, drops);
                    }
                }
                let logits = classify(tape, "classifier.6", classes, features);
                result(x, logits)
            }
        }
    }
}

/// A 3x3 convolution with bias, perhaps a batch norm, and ReLU in place. Here batch norms follow biased convolutions.
fn convolution(tape: &mut Tape<'_>, module: u64, width: u64, normed: bool, x: Feature) -> Feature {
    let name = format!("features.{module}");
    let names = &convolution_names!("convolution");
    let layer = Convolution::new(&name, names.convolution, width, Window::same(3, 1)).biased();
    let mut y = conv2d(tape, &layer, x);
    if normed {
        y = batch_norm(tape, &format!("features.{}", module + 1), names.norm, y);
    }
    y.with(relu_in_place(tape, names.activation, y.tensor))
}
