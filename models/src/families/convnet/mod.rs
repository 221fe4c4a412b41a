//! Convolutional networks: chains of modules, each a layer, over feature maps whose sizes follow from the image's.
//!
//! The code is torchvision's, and so are the names of layers and parameters. Padding and rounding are those of its
//! modules, so any image size works that leaves a pixel everywhere. Running statistics of batch norms are buffers and
//! no parameters. Tensor parallelism does not divide convolutions: every rank of a tensor group does all the work.

mod convnext;
mod densenet;
mod detector;
mod inception;
mod inverted_residual;
mod resnet;
mod vgg;

pub(super) use convnext::read as convnext;
pub(super) use densenet::read as densenet;
pub(super) use inception::read as inception;
pub(super) use inverted_residual::{read_efficientnet as efficientnet, read_mobilenet as mobilenet};
pub(super) use resnet::read as resnet;
pub(super) use vgg::read as vgg;

use std::fmt;
use std::sync::Arc;

use super::{Architecture, LayerPlan, limits};
use crate::blocks::{Feature, Linear, cast, cross_entropy, linear};
use crate::document::Section;
use crate::error::ModelError;
use crate::model::{LayerRole, Sample};
use crate::operation::Dtype;
use crate::tape::{Tape, Tensor, Trace, Traced, names};
use crate::trainable::Trainable;
use crate::units::product;
use crate::work_shape::WorkShape;

/// Name of the layer that turns the image into features, and of the last one.
const STEM: &str = "stem";
const HEAD: &str = "head";

/// Most stages, and blocks of a stage, that a model file may ask for.
const STAGES: usize = 16;
const STAGE_BLOCKS: u64 = 1 << 8;

/// Widest feature map that a field may ask for; what families multiply it by stays far from 64 bits.
const FEATURE_CHANNELS: u64 = 1 << 14;

/// The code of one layer: sizes that do not depend on the image.
trait Module: Copy + Eq + fmt::Debug + Send + Sync + 'static {
    /// Records the layer's forward. Of a head the result is the logits or, in training, the loss.
    fn forward(&self, tape: &mut Tape<'_>, x: Feature) -> Feature;

    /// Bytes of a value that the layer receives from the one before, which convolutions and batch norms leave in the
    /// activations' format.
    fn input_bytes(&self, shape: &WorkShape) -> u64 {
        shape.activation.bytes()
    }
}

/// A layer with the size of what it takes.
#[derive(Clone, Debug)]
struct Placed<M> {
    plan: LayerPlan,
    module: M,
    channels: u64,
    grid: [u64; 2],
}

/// A chain of modules that begins with an image.
#[derive(Debug)]
struct Convnet<M> {
    image_size: u64,
    channels: u64,
    layers: Vec<Placed<M>>,
}

/// A module with its layer's name and role.
type Named<M> = (String, LayerRole, M);

/// Fields that every convolutional network has.
struct Common {
    image_size: u64,
    channels: u64,
    /// 0 for none: the features are the result.
    classes: u64,
}

impl Common {
    const FIELDS: [&'static str; 3] = ["image_size", "channels", "classes"];

    fn read(section: &Section) -> Result<Self, ModelError> {
        Ok(Self {
            image_size: section.count("image_size", limits::PIXELS)?,
            channels: section.range("channels", 1, limits::CHANNELS)?.unwrap_or(3),
            classes: section.required_range("classes", 0, limits::VOCABULARY)?,
        })
    }

    /// Places the modules of a network behind each other.
    ///
    /// # Errors
    /// An image of which nothing is left somewhere.
    fn chain<M: Module>(
        &self,
        section: &Section,
        modules: Vec<Named<M>>,
    ) -> Result<Arc<dyn Architecture>, ModelError> {
        let mut net = Convnet { image_size: self.image_size, channels: self.channels, layers: Vec::new() };
        let (mut channels, mut grid) = (self.channels, [self.image_size; 2]);
        let mut sizes: Vec<(u64, [u64; 2])> = Vec::new();
        for (name, role, module) in modules {
            let like = |it: &Placed<M>| it.module == module && it.channels == channels && it.grid == grid;
            let known = net.layers.iter().position(like);
            let kind = known.unwrap_or(net.layers.len());
            let plan = LayerPlan::new(name, role, kind as u32);
            net.layers.push(Placed { plan, module, channels, grid });
            let size = match known {
                Some(index) => sizes[index],
                None => net.size_after(kind),
            };
            if size.1.contains(&0) {
                let allowed =
                    format!("larger: nothing is left of the image in {:?}", net.layers[kind].plan.name);
                return Err(section.refuse("image_size", self.image_size, allowed));
            }
            sizes.push(size);
            (channels, grid) = size;
        }
        Ok(Arc::new(net))
    }
}

impl<M: Module> Convnet<M> {
    /// Channels, rows and columns of a layer's result.
    fn size_after(&self, layer: usize) -> (u64, [u64; 2]) {
        let shape = WorkShape::smallest();
        let trace = Trace {
            shape: &shape,
            trainable: &Trainable::All,
            input_needs_gradient: false,
            lists_parameters: false,
        };
        let (_, y) = self.run(layer, trace);
        (y.channels, y.grid())
    }

    fn run<'t>(&self, layer: usize, trace: Trace<'t>) -> (Tape<'t>, Feature) {
        let placed = &self.layers[layer];
        let (images, [height, width]) = (trace.shape.micro_batch, placed.grid);
        let received = placed.module.input_bytes(trace.shape);
        let activation = trace.shape.activation.bytes();
        let value = if layer == 0 { Dtype::Fp32.bytes() } else { received };
        let (mut tape, x) = Tape::start(trace, product(&[images, height, width]), placed.channels, value);
        // Loaders deliver images in 32 bits.
        let format = if layer == 0 { activation } else { received };
        let tensor = cast(&mut tape, names!("image.cast"), x, format);
        let x = Feature { tensor, images, channels: placed.channels, height, width };
        let y = placed.module.forward(&mut tape, x);
        (tape, y)
    }
}

impl<M: Module> Architecture for Convnet<M> {
    fn sample(&self) -> Sample {
        Sample::Image { size: self.image_size, channels: self.channels, tokens: 1 }
    }

    fn layers(&self) -> Vec<LayerPlan> {
        self.layers.iter().map(|layer| layer.plan.clone()).collect()
    }

    fn follows_autocast(&self) -> bool {
        true
    }

    fn trace(&self, kind: u32, trace: Trace<'_>) -> Traced {
        let (mut tape, y) = self.run(kind as usize, trace);
        tape.finish(y.tensor)
    }
}

/// Classifier and, in training, its loss. Without classes the features are the logits.
fn classify(tape: &mut Tape<'_>, module: &str, classes: u64, features: Tensor) -> Tensor {
    let logits = if classes == 0 {
        features
    } else {
        linear(tape, Linear::new(module, names!("head.classifier"), classes).bias(true).output(), features)
    };
    if tape.shape.training { cross_entropy(tape, logits, false) } else { logits }
}

/// What a head hands on: its classes as channels of one pixel.
fn result(of: Feature, tensor: Tensor) -> Feature {
    Feature { tensor, channels: tensor.width, height: 1, width: 1, ..of }
}
