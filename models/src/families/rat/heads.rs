//! The heads of RAT: segmentation of every pixel, and detection by learned queries.

use super::block::Pyramid;
use super::{Rat, limits};
use crate::blocks::{
    Feature, Grouping, Linear, add, cast, copy, cross_entropy, linear, query_attention, relu_in_place,
    resize_bilinear, sigmoid,
};
use crate::document::Section;
use crate::error::ModelError;
use crate::operation::{Dtype, MemoryBoundKind, Operation};
use crate::parameter::Split;
use crate::tape::{Names, Step, Tape, Tensor, Trace, Traced, memory, names};
use crate::units::product;

/// Heads of the detection head's attention, whatever the blocks have.
const QUERY_HEADS: u64 = 8;
/// Values of a box.
const BOX: u64 = 4;

/// What the model predicts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Head {
    /// Classes of every pixel.
    Segmentation { classes: u64 },
    /// A class, background among them, and a box for each query.
    Detection { classes: u64, queries: u64 },
}

impl Head {
    pub(super) fn read(section: &Section, dims: u64) -> Result<Self, ModelError> {
        let kinds = ["segmentation", "detection"];
        if section.choice_or("head", &kinds, 0)? == 0 {
            if let Some(queries) = section.range("queries", 1, limits::POSITIONS)? {
                return Err(section.refuse(
                    "queries",
                    queries,
                    "left out: only a detection head has queries",
                ));
            }
            return Ok(Self::Segmentation { classes: section.count("classes", limits::VOCABULARY)? });
        }
        if !dims.is_multiple_of(QUERY_HEADS) {
            let allowed = format!("a multiple of {QUERY_HEADS}, the heads of a detection head");
            return Err(section.refuse("dims", dims, allowed));
        }
        Ok(Self::Detection {
            classes: section.count("classes", limits::VOCABULARY)?,
            queries: section.range("queries", 1, limits::POSITIONS)?.unwrap_or(100),
        })
    }

    /// Bytes of a sample's labels: a 32-bit mask of every image, or a 64-bit class and a box for each query.
    pub(super) fn label_bytes(self, pixels: u64) -> u64 {
        match self {
            Self::Segmentation { .. } => product(&[pixels, Dtype::Fp32.bytes()]),
            Self::Detection { queries, .. } => {
                product(&[queries, Dtype::Int64.bytes() + BOX * Dtype::Fp32.bytes()])
            }
        }
    }
}

impl Rat {
    /// The head with its loss.
    pub(super) fn predict(&self, trace: Trace<'_>) -> Traced {
        let last = self.pyramids.last().map(|it| it.scales.as_slice()).unwrap_or_default();
        let scales = last.iter().map(|scale| scale.next(self.strider(), false)).collect();
        let (mut tape, received) = self.receive(&Pyramid { sparse: false, first: false, scales }, trace);
        let tape = &mut tape;
        let outputs = match self.head {
            Head::Segmentation { classes } => self.segment(tape, &received.tokens, classes),
            Head::Detection { classes, queries } => match received.tokens.first() {
                Some(&tokens) => self.detect(tape, tokens, classes, queries),
                None => Vec::new(),
            },
        };
        tape.finish_with(&outputs, &[])
    }

    /// Three linear layers on the coarsest grid and an enlargement to the image, at each scale; the loss is the mean over
    /// the scales of the binary cross-entropy.
    fn segment(&self, tape: &mut Tape<'_>, scales: &[Tensor], classes: u64) -> Vec<Tensor> {
        let batch = tape.shape.micro_batch;
        let predictions: Vec<Tensor> = scales
            .iter()
            .zip(&self.scales)
            .map(|(&tokens, &side)| {
                let layer = |module, names, width| Linear::new(module, names, width).bias(true);
                let x = linear(tape, layer("decoder.0", names!("head.fc1"), self.dims / 2), tokens);
                let x = relu_in_place(tape, names!("head.relu1"), x);
                let x = linear(tape, layer("decoder.2", names!("head.fc2"), self.dims / 4), x);
                let x = relu_in_place(tape, names!("head.relu2"), x);
                let logits = linear(tape, layer("decoder.4", names!("head.classifier"), classes), x);
                let grid = (tokens.rows / batch.max(1)).isqrt();
                let logits = Feature::new(logits, batch, [grid; 2]);
                resize_bilinear(tape, names!("head.resize"), [side; 2], logits).tensor
            })
            .collect();
        if !tape.shape.training {
            return predictions;
        }
        let losses = predictions.into_iter().map(|logits| {
            let logits = cast(tape, names!("loss.upcast"), logits, Dtype::Fp32.bytes());
            elementwise_loss(tape, names!("loss.binary_cross_entropy"), logits)
        });
        sum_losses(losses.collect::<Vec<_>>(), tape)
    }

    /// Learned queries attend to the tokens of the first scale (`nn.MultiheadAttention`); a linear layer for the classes
    /// and one for the boxes. Cross-entropy and absolute error, each query matched with a label by its position.
    fn detect(&self, tape: &mut Tape<'_>, x: Tensor, classes: u64, queries: u64) -> Vec<Tensor> {
        let (d, batch) = (self.dims, tape.shape.micro_batch);
        let wanted = repeat_queries(tape, "query_embed", [queries, d]);
        let swapped = copy(tape, names!("cross_attention.input_layout"), x);
        tape.weight("cross_attn", "in_proj_weight", &[3 * d, d], Split::Whole);
        tape.weight("cross_attn", "in_proj_bias", &[3 * d], Split::Whole);
        let part = |names, width| Linear::new("cross_attn", names, width).bias(true).unlisted();
        let q = linear(tape, part(names!("cross_attention.query"), d), wanted);
        let kv = linear(tape, part(names!("cross_attention.key_value"), 2 * d), swapped);
        let kv = copy(tape, names!("cross_attention.key_value_layout"), kv);
        let [k, v] = super::block::halves(tape, kv);
        let tokens = x.rows / batch.max(1);
        let g = Grouping {
            batch,
            heads: QUERY_HEADS,
            head_dim: d / QUERY_HEADS,
            groups: queries,
            tokens,
            seen: tokens,
        };
        let context = query_attention(tape, &g, [q, k, v]);
        let out = Linear::new("cross_attn.out_proj", names!("cross_attention.projection"), d).bias(true);
        let x = linear(tape, out, context);
        let class = Linear::new("class_head", names!("head.classifier"), classes + 1).bias(true);
        let logits = linear(tape, class, x);
        let boxes = linear(tape, Linear::new("bbox_head", names!("head.boxes"), BOX).bias(true), x);
        let boxes = sigmoid(tape, names!("head.sigmoid"), boxes);
        if !tape.shape.training {
            return vec![logits, boxes];
        }
        let boxes = cast(tape, names!("loss.upcast_boxes"), boxes, Dtype::Fp32.bytes());
        let losses =
            vec![cross_entropy(tape, logits, false), elementwise_loss(tape, names!("loss.boxes"), boxes)];
        sum_losses(losses, tape)
    }
}

/// The losses of one step, added up.
fn sum_losses(losses: Vec<Tensor>, tape: &mut Tape<'_>) -> Vec<Tensor> {
    losses.into_iter().reduce(|sum, loss| add(tape, names!("loss.sum"), sum, loss)).into_iter().collect()
}

/// A loss of every value against its label and the mean of it (binary cross-entropy with logits, absolute error): keeps
/// the values. The labels belong to the sample.
fn elementwise_loss(tape: &mut Tape<'_>, names: Names, x: Tensor) -> Tensor {
    let each = tape.tensor(names.scratch, x.rows, x.width, x.value_bytes);
    let loss = tape.tensor(names.output, 1, 1, Dtype::Fp32.bytes());
    let (kind, bytes) = (MemoryBoundKind::Elementwise, x.bytes());
    let forward = [
        Operation { launches: 3, ..memory(names.op, kind, product(&[4, bytes]), product(&[3, bytes])) },
        memory("loss.mean", MemoryBoundKind::Reduction, each.bytes(), loss.bytes()),
    ];
    let backward = memory(names.grad, kind, product(&[4, bytes]), product(&[3, bytes]));
    tape.record(&Step {
        forward: &forward,
        reads: &[x, each],
        saves: &[x],
        inputs: &[x],
        outputs: &[loss],
        backward: &[Operation { launches: 3, ..backward }],
        scratch: bytes,
        ..Step::of(names)
    });
    loss
}

/// The rows of a table of queries for every image. Backward sums over the batch.
fn repeat_queries(tape: &mut Tape<'_>, module: &str, [queries, width]: [u64; 2]) -> Tensor {
    let trains = tape.weight(module, "weight", &[queries, width], Split::Whole);
    let names = names!("head.queries");
    let y = tape.activation(names.output, product(&[tape.shape.micro_batch, queries]), width);
    let table = product(&[queries, width, y.value_bytes]);
    tape.record(&Step {
        forward: &[memory(names.op, MemoryBoundKind::Fill, table, y.bytes())],
        outputs: &[y],
        backward: &[memory(names.grad_weight, MemoryBoundKind::Reduction, y.bytes(), table)],
        trains,
        ..Step::of(names)
    });
    y
}
