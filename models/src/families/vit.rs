//! Vision transformers, dense and with routed experts, as torchvision and as labml write them.
//!
//! torchvision: batch first, one packed projection for queries, keys and values (`nn.MultiheadAttention`), class
//! token before positions, the last norm over all tokens, no dropout by default. labml: sequence first, three
//! projections, einsum attention, positions before the class token, the last norm over the class token only.

use super::{Parameters, hidden_and_heads, limits, stack};
use crate::blocks::{
    Attention, Patches, Switch, activation, add, attention, cast, class_token, copy, cross_entropy, dropout,
    first_token, layer_norm, linear, patches, positions, split_in_projection, switch_feed_forward,
};
use crate::document::Section;
use crate::error::ModelError;
use crate::model::{Layer, LayerRole, Sample, WorkShape};
use crate::operation::{Dtype, LayerWork};
use crate::tape::{Tape, Tensor, names};
use crate::units::product;

/// Whose code runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Implementation {
    Torchvision,
    Labml,
}

/// Fields of `[architecture]`, defaults filled in.
#[derive(Clone, Debug)]
pub(crate) struct Vit {
    implementation: Implementation,
    image_size: u64,
    patch_size: u64,
    pub(super) channels: u64,
    layers: u64,
    hidden: u64,
    heads: u64,
    /// Hidden width of the dense feed-forward or of one expert.
    feed_forward: u64,
    /// Rows of the table of learned positions.
    positions: u64,
    /// Hidden width of a two-layer classifier; 0 for a single layer.
    head_hidden: u64,
    classes: u64,
    dropout: bool,
    /// Routed experts of each block; 0 for a dense feed-forward.
    experts: u64,
}

/// Fields that both families have.
const COMMON: [&str; 11] = [
    "implementation",
    "image_size",
    "patch_size",
    "channels",
    "layers",
    "hidden",
    "heads",
    "positions",
    "head_hidden",
    "classes",
    "dropout",
];

impl Vit {
    /// Family `vit`: the common fields and `feed_forward`.
    pub(super) fn read_dense(section: &Section) -> Result<Self, ModelError> {
        section.only(&[&COMMON[..], &["feed_forward"]].concat())?;
        let feed_forward = section.count("feed_forward", limits::FEED_FORWARD)?;
        Self::read(section, feed_forward, 0)
    }

    /// Family `switch-vit`: the common fields, `experts`, `dense_feed_forward` (that of the dense model it is
    /// compared with) and `feed_forward` of one expert, which follows from the two by the source's rule
    /// `dense - experts // 2 + 2` unless it is given.
    pub(super) fn read_switch(section: &Section) -> Result<Self, ModelError> {
        section.only(&[&COMMON[..], &["experts", "dense_feed_forward", "feed_forward"]].concat())?;
        let experts = section.count("experts", limits::EXPERTS)?;
        let dense = section.count("dense_feed_forward", limits::FEED_FORWARD)?;
        let feed_forward = match section.range("feed_forward", 1, limits::FEED_FORWARD)? {
            Some(given) => given,
            None => (dense + 2).checked_sub(experts / 2).filter(|&width| width > 0).ok_or_else(|| {
                let allowed = format!(
                    "less than {}, so that dense_feed_forward - experts / 2 + 2 is positive",
                    2 * (dense + 2)
                );
                section.refuse("experts", experts, allowed)
            })?,
        };
        let vit = Self::read(section, feed_forward, experts)?;
        if vit.implementation == Implementation::Labml {
            return Ok(vit);
        }
        Err(section.refuse(
            "implementation",
            "\"torchvision\"",
            "\"labml\", the only one with routed experts",
        ))
    }

    fn read(section: &Section, feed_forward: u64, experts: u64) -> Result<Self, ModelError> {
        let implementation = match section.choice("implementation", &["torchvision", "labml"])? {
            0 => Implementation::Torchvision,
            _ => Implementation::Labml,
        };
        let image_size = section.count("image_size", limits::PIXELS)?;
        let patch_size = section.count("patch_size", limits::PIXELS)?;
        if !image_size.is_multiple_of(patch_size) {
            let allowed = format!("a multiple of patch_size ({patch_size})");
            return Err(section.refuse("image_size", image_size, allowed));
        }
        let (hidden, heads) = hidden_and_heads(section)?;
        let patches = (image_size / patch_size).pow(2);
        let positioned = match implementation {
            Implementation::Torchvision => patches + 1,
            Implementation::Labml => patches,
        };
        let positions = section.range("positions", 1, limits::POSITIONS)?.unwrap_or(positioned);
        if positions < positioned {
            let allowed =
                format!("at least the {positioned} tokens of an image of {image_size} pixels a side");
            return Err(section.refuse("positions", positions, allowed));
        }
        Ok(Self {
            implementation,
            image_size,
            patch_size,
            channels: section.range("channels", 1, limits::CHANNELS)?.unwrap_or(3),
            layers: section.count("layers", limits::LAYERS)?,
            hidden,
            heads,
            feed_forward,
            positions,
            head_hidden: section.range("head_hidden", 0, limits::FEED_FORWARD)?.unwrap_or(0),
            classes: section.count("classes", limits::VOCABULARY)?,
            dropout: section.flag("dropout", false)?,
            experts,
        })
    }

    /// Tokens of an image, the class token included.
    fn tokens(&self) -> u64 {
        (self.image_size / self.patch_size).pow(2) + 1
    }

    pub(super) fn sample(&self) -> Sample {
        Sample::Image { size: self.image_size, tokens: self.tokens() }
    }

    pub(super) fn layers(&self) -> Vec<Layer> {
        let (h, f) = (self.hidden, self.feed_forward);
        let (mut embedding, mut block, mut head) = (Parameters::new(), Parameters::new(), Parameters::new());
        let filter = self.channels * self.patch_size * self.patch_size;
        match self.implementation {
            Implementation::Torchvision => {
                embedding.add("class_token", h).linear("conv_proj", filter, h, true);
                embedding.add("encoder.pos_embedding", self.positions * h);
                block.layer_norm("ln_1", h);
                block.add("self_attention.in_proj_weight", 3 * h * h);
                block.add("self_attention.in_proj_bias", 3 * h);
                block.linear("self_attention.out_proj", h, h, true).layer_norm("ln_2", h);
                block.linear("mlp.0", h, f, true).linear("mlp.3", f, h, true);
                head.layer_norm("encoder.ln", h);
                self.classifier(&mut head, "heads.pre_logits", "heads.head");
            }
            Implementation::Labml => {
                embedding.add("cls_token_emb", h).linear("patch_emb.conv", filter, h, true);
                embedding.add("pos_emb.positional_encodings", self.positions * h);
                for name in ["query.linear", "key.linear", "value.linear", "output"] {
                    block.linear(&format!("attn.{name}"), h, h, true);
                }
                self.labml_feed_forward(&mut block);
                block.layer_norm("norm_self_attn", h).layer_norm("norm_ff", h);
                head.layer_norm("ln", h);
                self.classifier(&mut head, "classification.linear1", "classification.linear2");
            }
        }
        let held: u64 = block.0.iter().map(|parameter| parameter.count).sum();
        let idle = self.experts.saturating_sub(1) * (2 * h * f + f + h);
        stack(embedding, block, head, self.layers, Some(held - idle))
    }

    fn classifier(&self, head: &mut Parameters, first: &str, last: &str) {
        let mut width = self.hidden;
        if self.head_hidden > 0 {
            head.linear(first, width, self.head_hidden, true);
            width = self.head_hidden;
        }
        head.linear(last, width, self.classes, true);
    }

    fn labml_feed_forward(&self, block: &mut Parameters) {
        let (h, f) = (self.hidden, self.feed_forward);
        let mut pair = |prefix: &str| {
            block.linear(&format!("{prefix}.layer1"), h, f, true);
            block.linear(&format!("{prefix}.layer2"), f, h, true);
        };
        if self.experts == 0 {
            pair("feed_forward");
            return;
        }
        for expert in 0..self.experts {
            pair(&format!("feed_forward.experts.{expert}"));
        }
        block.linear("feed_forward.switch", h, self.experts, true);
    }

    pub(super) fn work(&self, role: LayerRole, shape: &WorkShape) -> LayerWork {
        match role {
            LayerRole::Embedding => self.embedding(shape),
            LayerRole::Head => self.head(shape),
            LayerRole::Block | LayerRole::Component => self.block(shape),
        }
    }

    fn embedding(&self, shape: &WorkShape) -> LayerWork {
        let side = self.image_size / self.patch_size;
        let pixels = product(&[self.channels, self.image_size, self.image_size]);
        let (mut tape, image) = Tape::start(shape, shape.micro_batch, pixels, Dtype::Fp32.bytes());
        let tape = &mut tape;
        let image = cast(tape, names!("patches.cast"), image, shape.activation.bytes());
        let grid = Patches { channels: self.channels, size: self.patch_size, side, width: self.hidden };
        let x = patches(tape, image, &grid);
        let x = match self.implementation {
            Implementation::Torchvision => {
                let x = class_token(tape, x, shape.micro_batch);
                let x = positions(tape, x, self.tokens());
                dropout(tape, names!("embedding.dropout"), x, self.dropout)
            }
            Implementation::Labml => {
                let x = positions(tape, x, side * side);
                class_token(tape, x, shape.micro_batch)
            }
        };
        tape.finish(x)
    }

    fn block(&self, shape: &WorkShape) -> LayerWork {
        let rows = product(&[shape.micro_batch, self.tokens()]);
        let (mut tape, x) = Tape::start(shape, rows, self.hidden, shape.activation.bytes());
        let tape = &mut tape;
        let normed = layer_norm(tape, names!("attention.norm"), x);
        let attended = self.attend(tape, normed);
        let attended = dropout(tape, names!("attention.output_dropout"), attended, self.dropout);
        let x = add(tape, names!("attention.residual"), x, attended);

        let normed = layer_norm(tape, names!("mlp.norm"), x);
        let fed = self.feed_forward(tape, normed);
        let x = add(tape, names!("mlp.residual"), x, fed);
        tape.finish(x)
    }

    /// Self-attention with its output projection.
    fn attend(&self, tape: &mut Tape<'_>, x: Tensor) -> Tensor {
        let h = self.hidden;
        let [q, k, v] = match self.implementation {
            Implementation::Torchvision => {
                // `batch_first` swaps the first two dimensions, and the projection needs it contiguous.
                let swapped = copy(tape, names!("attention.input_layout"), x);
                let qkv = linear(tape, names!("attention.qkv"), swapped, 3 * h, true);
                split_in_projection(tape, qkv)
            }
            Implementation::Labml => [
                linear(tape, names!("attention.query"), x, h, true),
                linear(tape, names!("attention.key"), x, h, true),
                linear(tape, names!("attention.value"), x, h, true),
            ],
        };
        let shape = Attention {
            batch: tape.shape.micro_batch,
            length: self.tokens(),
            heads: self.heads,
            kv_heads: self.heads,
            head_dim: h / self.heads,
            causal: false,
            dropout: self.dropout,
            softmax_fp32: false,
            sequence_first: self.implementation == Implementation::Labml,
            merges_fused: self.implementation == Implementation::Torchvision,
        };
        let context = attention(tape, &shape, q, k, v);
        linear(tape, names!("attention.projection"), context, h, true)
    }

    /// The second half of a block up to the residual. Both drop out after the activation; the second dropout is
    /// torchvision's MLP's after its last linear layer, and in labml the block's.
    fn feed_forward(&self, tape: &mut Tape<'_>, x: Tensor) -> Tensor {
        if self.experts > 0 {
            let switch = Switch { experts: self.experts, hidden: self.feed_forward, dropout: self.dropout };
            let fed = switch_feed_forward(tape, &switch, x);
            return dropout(tape, names!("mlp.block_dropout"), fed, self.dropout);
        }
        let wide = linear(tape, names!("mlp.fc1"), x, self.feed_forward, true);
        let wide = activation(tape, names!("mlp.gelu"), wide);
        let wide = dropout(tape, names!("mlp.hidden_dropout"), wide, self.dropout);
        let narrow = linear(tape, names!("mlp.fc2"), wide, self.hidden, true);
        let name = match self.implementation {
            Implementation::Torchvision => names!("mlp.output_dropout"),
            Implementation::Labml => names!("mlp.block_dropout"),
        };
        dropout(tape, name, narrow, self.dropout)
    }

    fn head(&self, shape: &WorkShape) -> LayerWork {
        let batch = shape.micro_batch;
        let rows = product(&[batch, self.tokens()]);
        let (mut tape, x) = Tape::start(shape, rows, self.hidden, shape.activation.bytes());
        let tape = &mut tape;
        let class = match self.implementation {
            Implementation::Torchvision => {
                let normed = layer_norm(tape, names!("head.norm"), x);
                first_token(tape, normed, batch)
            }
            Implementation::Labml => {
                let class = first_token(tape, x, batch);
                layer_norm(tape, names!("head.norm"), class)
            }
        };
        let features = if self.head_hidden == 0 {
            class
        } else {
            let wide = linear(tape, names!("head.hidden"), class, self.head_hidden, true);
            // GELU in labml's head keeps its input. torchvision's tanh keeps its output instead, which is the
            // classifier's input anyway: there this is one tensor of a row an image too many.
            activation(tape, names!("head.activation"), wide)
        };
        let logits = linear(tape, names!("head.classifier"), features, self.classes, true);
        let output = if shape.training { cross_entropy(tape, logits) } else { logits };
        tape.finish(output)
    }
}
