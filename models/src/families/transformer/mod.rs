//! Transformers of text: decoders, encoders, and both together, with everything in which published ones differ as a
//! field. The families `gpt` and `llama` are two of them under fewer fields.
//!
//! Kernels are those of plain PyTorch modules as Hugging Face's library spells them, with fused norms; routed experts
//! run as grouped products (see [`crate::blocks::experts`]).

mod attend;
mod ends;
mod fields;
mod form;
mod latent;
mod naming;
mod prediction;

pub(super) use form::{Head, Norm, Placement, Position, QueryKeyNorm, Transformer};
pub(super) use naming::{MEGATRON, Naming};

use super::{Architecture, BLOCK, EMBEDDING, HEAD, LayerPlan, stack};
use crate::blocks::{
    Bias, Dense, FeedForward, MLP, add, dense_feed_forward, dropout, enter_tensor_parallel, experts,
    layer_norm, leave_tensor_parallel, maw, relative_bias, rms_norm,
};
use crate::model::{LayerRole, Sample};
use crate::tape::{Names, Tape, Tensor, Trace, Traced, names};
use crate::units::product;
use form::Block;

/// Operations around a half of a block.
struct Half {
    norm: Names,
    post_norm: Names,
    dropout: Names,
    residual: Names,
}

macro_rules! half {
    ($scope:literal, $dropout:literal) => {
        Half {
            norm: names!($scope, ".norm"),
            post_norm: names!($scope, ".post_norm"),
            dropout: names!($dropout),
            residual: names!($scope, ".residual"),
        }
    };
}

const ATTENTION: Half = half!("attention", "attention.output_dropout");
const CROSS_ATTENTION: Half = half!("cross_attention", "cross_attention.output_dropout");
const FEED_FORWARD: Half = half!("mlp", "mlp.dropout");

/// What a block of a stack gets beside its input.
struct Around {
    naming: &'static Naming,
    block: Block,
    bias: Bias,
    /// What the encoder made, for a decoder that attends to it.
    encoded: Option<Tensor>,
}

impl Transformer {
    /// Starts a layer that receives the stream of residuals. After norms that follow the addition, or one behind the
    /// embedding, it has their format.
    fn start<'t>(&self, trace: Trace<'t>) -> (Tape<'t>, Tensor) {
        let shape = trace.shape;
        let format = shape.residual_bytes();
        let format = match self.placement {
            Placement::Post => shape.norm_bytes(),
            _ if self.embedding_norm => format.max(shape.norm_bytes()),
            _ => format,
        };
        Tape::start(trace, shape.token_rows(), self.hidden, format)
    }

    fn block(&self, block: Block, trace: Trace<'_>) -> Traced {
        let needs_gradient = trace.input_needs_gradient;
        let (mut tape, x) = self.start(trace);
        let tape = &mut tape;
        let naming = if block.cross { &naming::T5_DECODER } else { self.naming };
        let (x, encoded) = match (block.cross, block.first) {
            (false, _) => (x, None),
            (true, false) => {
                let encoded = tape.outside(x.rows, x.width, x.value_bytes, needs_gradient);
                (x, Some(encoded))
            }
            (true, true) => {
                let encoded = self.finish_encoder(tape, x);
                (self.decoder_embedding(tape), Some(encoded))
            }
        };
        let bias = self.score_bias(tape, naming, block.first);
        let around = Around { naming, block, bias, encoded };
        if block.prediction {
            let output = self.predict(tape, &around, x);
            return tape.finish(output);
        }
        let x = self.halves(tape, &around, x);
        let x = match &self.maw {
            Some((module, _)) if block.maw => maw(tape, module, x),
            _ => x,
        };
        tape.finish(x)
    }

    /// Attention and feed-forward in the order of the model.
    fn halves(&self, tape: &mut Tape<'_>, around: &Around, x: Tensor) -> Tensor {
        if self.placement == Placement::Parallel {
            self.side_by_side(tape, around, x)
        } else {
            self.one_by_one(tape, around, x)
        }
    }

    /// What is added to the scores. T5's biases are made by the first block of a stack for all of its blocks.
    fn score_bias(&self, tape: &mut Tape<'_>, naming: &Naming, first: bool) -> Bias {
        let shape = tape.shape;
        match self.position {
            Position::Alibi => Bias::Linear,
            Position::Relative(buckets) if first => {
                let sizes = [buckets, self.heads];
                Bias::Tensor(relative_bias(tape, naming.relative, sizes, shape.sequence_length))
            }
            Position::Relative(_) => {
                let rows = product(&[shape.tensor.part(self.heads), shape.sequence_length]);
                let trained = tape.trains();
                Bias::Tensor(tape.outside(rows, shape.sequence_length, shape.parameters().bytes(), trained))
            }
            Position::Learned(_) | Position::Rotary(_) | Position::None => Bias::None,
        }
    }

    /// Attention, in a decoder attention to the encoder, feed-forward.
    fn one_by_one(&self, tape: &mut Tape<'_>, around: &Around, x: Tensor) -> Tensor {
        let naming = around.naming;
        let modules = [naming.attention_norm, naming.attention_post_norm];
        let x = self.half(tape, &ATTENTION, modules, x, |tape, x| {
            divided(tape, x, |tape, x| self.attention(tape, around, x))
        });
        let x = match around.encoded {
            None => x,
            Some(encoded) => {
                let norm = naming::CROSS[0];
                self.half(tape, &CROSS_ATTENTION, [norm, norm], x, |tape, x| {
                    divided(tape, x, |tape, x| self.cross_attention(tape, x, encoded))
                })
            }
        };
        let modules = [naming.mlp_norm, naming.mlp_post_norm];
        self.half(tape, &FEED_FORWARD, modules, x, |tape, x| {
            if around.block.experts && tape.shape.expert.is_some() {
                // The experts' groups gather tokens themselves.
                return self.feed_forward(tape, around, x);
            }
            divided(tape, x, |tape, x| self.feed_forward(tape, around, x))
        })
    }

    /// Attention and feed-forward on the same input, their sum divided and dropped out as one.
    fn side_by_side(&self, tape: &mut Tape<'_>, around: &Around, x: Tensor) -> Tensor {
        let normed = self.norm(tape, around.naming.attention_norm, ATTENTION.norm, x);
        let normed = enter_tensor_parallel(tape, normed);
        let attended = self.attention(tape, around, normed);
        let normed = self.norm(tape, around.naming.mlp_norm, FEED_FORWARD.norm, x);
        let normed = enter_tensor_parallel(tape, normed);
        let fed = self.feed_forward(tape, around, normed);
        let both = add(tape, names!("mlp.add_attention"), attended, fed);
        let both = leave_tensor_parallel(tape, both);
        let both = dropout(tape, FEED_FORWARD.dropout, both, self.dropout);
        add(tape, FEED_FORWARD.residual, x, both)
    }

    /// A half of a block: norms where they stand, its work, dropout and residual.
    fn half(
        &self,
        tape: &mut Tape<'_>,
        names: &Half,
        [module, post_module]: [&str; 2],
        x: Tensor,
        run: impl FnOnce(&mut Tape<'_>, Tensor) -> Tensor,
    ) -> Tensor {
        let post = self.placement == Placement::Post;
        let normed = if post { x } else { self.norm(tape, module, names.norm, x) };
        let y = run(tape, normed);
        let y = dropout(tape, names.dropout, y, self.dropout);
        let y = match self.placement {
            Placement::Both => self.norm(tape, post_module, names.post_norm, y),
            Placement::Pre | Placement::Post | Placement::Parallel => y,
        };
        let x = add(tape, names.residual, x, y);
        if post { self.norm(tape, module, names.norm, x) } else { x }
    }

    fn norm(&self, tape: &mut Tape<'_>, module: &str, names: Names, x: Tensor) -> Tensor {
        match self.norm {
            Norm::Rms => rms_norm(tape, module, names, x),
            Norm::Layer { bias } => layer_norm(tape, module, names, x, bias),
        }
    }

    /// The second half, dense or routed, as this rank's summand.
    fn feed_forward(&self, tape: &mut Tape<'_>, around: &Around, x: Tensor) -> Tensor {
        let naming = around.naming;
        let dropout = self.dropout && self.is_t5();
        let form = FeedForward { activation: self.activation, gated: self.gated, dropout };
        match &self.routed {
            Some(routed) if around.block.experts => experts(tape, &routed.moe, form, &naming.moe, x),
            _ => {
                let up = if self.gated { naming.gated_up } else { naming.up };
                let modules = [naming.gate, up, naming.down];
                let (middle, width, bias) = (self.feed_forward, self.hidden, self.mlp_bias);
                let packed = naming.packed_gate.filter(|_| self.gated);
                dense_feed_forward(tape, form, &MLP, Dense { modules, packed, middle, width, bias }, x)
            }
        }
    }
}

/// A region that the tensor group divides.
fn divided(tape: &mut Tape<'_>, x: Tensor, run: impl FnOnce(&mut Tape<'_>, Tensor) -> Tensor) -> Tensor {
    let x = enter_tensor_parallel(tape, x);
    let y = run(tape, x);
    leave_tensor_parallel(tape, y)
}

impl Architecture for Transformer {
    fn sample(&self) -> Sample {
        Sample::Tokens { default_length: self.default_length }
    }

    fn layers(&self) -> Vec<LayerPlan> {
        let mut layers = stack(0);
        let decoder = if self.encoder_layers > 0 { "decoder" } else { "block" };
        let blocks = |name: &'static str, count: u64, cross: bool| {
            (0..count).map(move |number| {
                let kind = self.block_at(number, cross).kind(BLOCK);
                LayerPlan::new(format!("{name}.{number}"), LayerRole::Block, kind)
            })
        };
        let further = self.prediction_block().kind(BLOCK);
        let further = (0..self.predictions)
            .map(|number| LayerPlan::new(format!("prediction.{number}"), LayerRole::Block, further));
        let inner = blocks("encoder", self.encoder_layers, false)
            .chain(blocks(decoder, self.layers, self.encoder_layers > 0))
            .chain(further);
        layers.splice(1..1, inner);
        layers
    }

    fn follows_autocast(&self) -> bool {
        self.routed.is_none() && self.maw.is_none()
    }

    fn trace(&self, kind: u32, trace: Trace<'_>) -> Traced {
        match kind {
            EMBEDDING => self.embedding(trace),
            HEAD => self.finish(trace),
            block => self.block(Block::of(block), trace),
        }
    }

    fn widest_head(&self) -> u64 {
        self.head_dim.max(self.latent.map_or(0, |latent| latent.value_dim))
    }

    fn tensor_parallel_heads(&self) -> Option<u64> {
        Some(self.heads)
    }

    fn context_parallel(&self) -> bool {
        let by_token = matches!(self.head, Head::Language | Head::MaskedLanguage | Head::None);
        let biased = matches!(self.position, Position::Relative(_));
        by_token && !biased && !self.pooler && self.encoder_layers == 0 && self.maw.is_none()
    }

    fn expert_parallel(&self) -> bool {
        self.routed.is_some() && self.placement != Placement::Parallel
    }

    fn longest_sequence(&self) -> Option<u64> {
        matches!(self.position, Position::Learned(_)).then_some(self.positions)
    }
}
