//! RAT, the resolution-aware transformer (rhoadesScholar/resolution-aware-transformer, commit 29f4723, with
//! spatial-grouping-attention 2025.9.17.1506 and RoSE 2025.9.11.1918): a convolution makes every pixel a token; each
//! block lets the cells of a grid about three times as coarse attend to the tokens of the finer one, and then the tokens
//! of all scales to each other; a head segments or detects.
//!
//! Every block hands on, for each scale and next to its tokens, two maps that trace its groups back to the first grid.
//! A block's own maps stay in memory for its backward; the products made from the second block on are counted as parts
//! of the layer's output, so that they live until backward begins with the layer that received them.

mod block;
mod heads;

use super::{Architecture, LayerPlan, limits};
use crate::blocks::{Convolution, Feature, Window, cast, conv2d};
use crate::document::Section;
use crate::error::ModelError;
use crate::model::{LayerRole, Sample};
use crate::operation::Dtype;
use crate::tape::{Tape, Trace, Traced, names};
use crate::units::{Bytes, product};
use block::{Pyramid, Scale};
use heads::Head;

/// Pixels a side of the first convolution's filter.
const PROJECTION: u64 = 7;
/// Tokens that a group sees under sparse attention: a neighbourhood of 3 x 3.
const NEIGHBOURHOOD: u64 = 9;
const CHANNELS: u64 = 3;

/// Fields of `[architecture]`, and what follows from them for each block.
#[derive(Clone, Debug)]
pub(crate) struct Rat {
    dims: u64,
    heads: u64,
    /// Pixels a side of the filter that coarsens a grid.
    kernel: u64,
    /// Times that each block's groups attend.
    iterations: u64,
    /// Hidden width of the feed-forwards.
    feed_forward: u64,
    dropout: bool,
    /// Pixels a side of the images of a sample.
    scales: Vec<u64>,
    head: Head,
    /// Of each block, in order.
    pyramids: Vec<Pyramid>,
}

impl Rat {
    pub(super) fn read(section: &Section) -> Result<Self, ModelError> {
        section.only(&[
            "dims",
            "blocks",
            "heads",
            "kernel",
            "iterations",
            "mlp_ratio",
            "dropout",
            "image_size",
            "scales",
            "attention",
            "head",
            "classes",
            "queries",
        ])?;
        let dims = section.count("dims", limits::WIDTH)?;
        let heads = read_heads(section, dims)?;
        let kernel = section.range("kernel", 1, limits::PIXELS)?.unwrap_or(7);
        if kernel % 2 == 0 {
            return Err(section.refuse("kernel", kernel, "an odd number of pixels"));
        }
        let blocks = section.count("blocks", limits::LAYERS)?;
        let sparse = read_attention(section, blocks)?;
        let scales = read_scales(section)?;
        let ratio = section.range("mlp_ratio", 1, 64)?.unwrap_or(4);
        let rat = Self {
            dims,
            heads,
            kernel,
            iterations: section.range("iterations", 1, 100)?.unwrap_or(3),
            feed_forward: product(&[dims, ratio]),
            dropout: section.flag("dropout", false)?,
            scales,
            head: Head::read(section, dims)?,
            pyramids: Vec::new(),
        };
        let pyramids = rat.pyramids(&sparse);
        Ok(Self { pyramids, ..rat })
    }

    /// The window that coarsens a grid: stride half a filter, so a filter of 3 does not coarsen.
    fn strider(&self) -> Window {
        Window::same(self.kernel, (self.kernel / 2).max(1))
    }

    fn pyramids(&self, sparse: &[bool]) -> Vec<Pyramid> {
        let mut scales: Vec<Scale> = self.scales.iter().map(|&side| Scale::first(side)).collect();
        let mut pyramids: Vec<Pyramid> = Vec::new();
        for &sparse in sparse {
            for scale in &mut scales {
                *scale = scale.next(self.strider(), sparse);
            }
            pyramids.push(Pyramid { sparse, first: pyramids.is_empty(), scales: scales.clone() });
        }
        pyramids
    }

    fn embedding(&self, trace: Trace<'_>) -> Traced {
        let shape = trace.shape;
        let pixels: u64 = self.scales.iter().map(|&side| product(&[side, side])).sum();
        let batch = shape.micro_batch;
        let (mut tape, images) = Tape::start(trace, product(&[batch, pixels]), CHANNELS, Dtype::Fp32.bytes());
        let tape = &mut tape;
        let images = cast(tape, names!("projection.cast"), images, shape.activation.bytes());
        let window = Window::same(PROJECTION, 1);
        let layer = Convolution::new("init_proj", names!("projection"), self.dims, window).biased();
        let tokens: Vec<_> = self
            .scales
            .iter()
            .map(|&side| {
                let image = tape.view(images, product(&[batch, side, side]), CHANNELS);
                conv2d(tape, &layer, Feature::new(image, batch, [side; 2])).tensor
            })
            .collect();
        tape.finish_with(&tokens, &[])
    }
}

/// Heads: an even number, of which one half is rotated, of an even width, as pairs of values are.
fn read_heads(section: &Section, dims: u64) -> Result<u64, ModelError> {
    let heads = section.count("heads", limits::HEADS)?;
    if heads % 2 == 0 && dims.is_multiple_of(2 * heads) {
        return Ok(heads);
    }
    Err(section.refuse(
        "heads",
        heads,
        format!("an even number, with dims ({dims}) a multiple of twice that"),
    ))
}

/// Whether each block is sparse: one word for all of them, or a list of a word for each.
fn read_attention(section: &Section, blocks: u64) -> Result<Vec<bool>, ModelError> {
    const WORDS: [&str; 2] = ["dense", "sparse"];
    if section.is_list("attention") {
        let words = section.choices("attention", &WORDS)?;
        if words.len() as u64 == blocks {
            return Ok(words.into_iter().map(|word| word == 1).collect());
        }
        let found = format!("a list of {}", words.len());
        return Err(section.refuse(
            "attention",
            found,
            format!("a word, or a list of blocks ({blocks}) words"),
        ));
    }
    let sparse = section.choice_or("attention", &WORDS, 0)? == 1;
    Ok((0..blocks).map(|_| sparse).collect())
}

/// Sizes of the images of a sample: `scales`, or `image_size` alone.
fn read_scales(section: &Section) -> Result<Vec<u64>, ModelError> {
    if !section.has("scales") {
        return Ok(vec![section.count("image_size", limits::PIXELS)?]);
    }
    let scales = section.numbers("scales", 1, limits::PIXELS)?;
    let first = scales.first().copied().unwrap_or(1);
    let size = section.range("image_size", 1, limits::PIXELS)?.unwrap_or(first);
    if size == first {
        return Ok(scales);
    }
    Err(section.refuse("image_size", size, format!("the first of scales ({first}), or left out")))
}

impl Architecture for Rat {
    fn sample(&self) -> Sample {
        let size = self.scales.first().copied().unwrap_or(1);
        let tokens = self.scales.iter().map(|&side| product(&[side, side])).sum();
        Sample::Image { size, channels: CHANNELS, tokens }
    }

    /// Images of all scales in 32-bit floats, and their labels.
    fn sample_bytes(&self) -> Option<Bytes> {
        let pixels: u64 = self.scales.iter().map(|&side| product(&[side, side])).sum();
        let images = product(&[pixels, CHANNELS, Dtype::Fp32.bytes()]);
        Some(Bytes(images.saturating_add(self.head.label_bytes(pixels))))
    }

    /// Blocks of one shape are of one kind; deep models run out of pixels to coarsen.
    fn layers(&self) -> Vec<LayerPlan> {
        let mut layers = vec![LayerPlan::new("init_proj", LayerRole::Embedding, 0)];
        for (index, pyramid) in self.pyramids.iter().enumerate() {
            let alike = self.pyramids.iter().position(|other| other == pyramid).unwrap_or(index);
            layers.push(LayerPlan::new(format!("block.{index}"), LayerRole::Block, alike as u32 + 1));
        }
        layers.push(LayerPlan::new("head", LayerRole::Head, self.pyramids.len() as u32 + 1));
        layers
    }

    fn widest_head(&self) -> u64 {
        self.dims / self.heads
    }

    fn trace(&self, kind: u32, trace: Trace<'_>) -> Traced {
        let Some(index) = (kind as usize).checked_sub(1) else {
            return self.embedding(trace);
        };
        match self.pyramids.get(index) {
            Some(pyramid) => self.block(pyramid, trace),
            None => self.predict(trace),
        }
    }
}
