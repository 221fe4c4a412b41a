//! Vision transformers, dense and with routed experts, as torchvision, PyTorch Image Models (timm) and labml write them.
//!
//! torchvision: batch first, one packed projection for queries, keys and values (`nn.MultiheadAttention`), class
//! token before positions, the last norm over all tokens, no dropout by default. timm: the same with a packed
//! projection of its own, whose parts are views where attention is fused. labml: sequence first, three projections,
//! einsum attention, positions before the class token, the last norm over the class token only.

use super::{Architecture, EMBEDDING, HEAD, LayerPlan, hidden_and_heads, limits, stack};
use crate::blocks::{
    Attention, Function, Linear, Patches, Switch, activation, add, attention, cast, class_token, copy,
    cross_entropy, dropout, first_token, layer_norm, linear, patches, positions, split_heads,
    split_in_projection, split_to_copies, switch_feed_forward,
};
use crate::document::Section;
use crate::error::ModelError;
use crate::model::Sample;
use crate::operation::Dtype;
use crate::parameter::Split;
use crate::tape::{Tape, Tensor, Trace, Traced, names};
use crate::units::product;
use crate::work_shape::AttentionKind;

/// Whose code runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Implementation {
    Torchvision,
    Labml,
    Timm,
}

/// Names of a block's modules.
struct Modules {
    norms: [&'static str; 2],
    projection: &'static str,
    feed_forward: [&'static str; 2],
}

impl Implementation {
    /// As a model file writes it.
    const fn shown(self) -> &'static str {
        match self {
            Self::Torchvision => "\"torchvision\"",
            Self::Labml => "\"labml\"",
            Self::Timm => "\"timm\"",
        }
    }

    const fn modules(self) -> Modules {
        match self {
            Self::Torchvision => Modules {
                norms: ["ln_1", "ln_2"],
                projection: "self_attention.out_proj",
                feed_forward: ["mlp.0", "mlp.3"],
            },
            Self::Labml => Modules {
                norms: ["norm_self_attn", "norm_ff"],
                projection: "attn.output",
                feed_forward: ["feed_forward.layer1", "feed_forward.layer2"],
            },
            Self::Timm => Modules {
                norms: ["norm1", "norm2"],
                projection: "attn.proj",
                feed_forward: ["mlp.fc1", "mlp.fc2"],
            },
        }
    }
}

/// Fields of `[architecture]`, defaults filled in.
#[derive(Clone, Debug)]
pub(crate) struct Vit {
    implementation: Implementation,
    image_size: u64,
    patch_size: u64,
    channels: u64,
    layers: u64,
    hidden: u64,
    heads: u64,
    /// Hidden width of the dense feed-forward or of one expert.
    feed_forward: u64,
    /// Rows of the table of learned positions.
    positions: u64,
    /// Hidden width of a two-layer classifier; 0 for a single layer.
    head_hidden: u64,
    /// 0 for no classifier: the features are the result.
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
            vit.implementation.shown(),
            "\"labml\", the only one with routed experts",
        ))
    }

    fn read(section: &Section, feed_forward: u64, experts: u64) -> Result<Self, ModelError> {
        let implementation = match section.choice("implementation", &["torchvision", "labml", "timm"])? {
            0 => Implementation::Torchvision,
            1 => Implementation::Labml,
            _ => Implementation::Timm,
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
            Implementation::Torchvision | Implementation::Timm => patches + 1,
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
            classes: section.required_range("classes", 0, limits::VOCABULARY)?,
            dropout: section.flag("dropout", false)?,
            experts,
        })
    }

    /// Tokens of an image, the class token included.
    fn tokens(&self) -> u64 {
        (self.image_size / self.patch_size).pow(2) + 1
    }

    fn embedding(&self, trace: Trace<'_>) -> Traced {
        let shape = trace.shape;
        let side = self.image_size / self.patch_size;
        let pixels = product(&[self.channels, self.image_size, self.image_size]);
        let (mut tape, image) = Tape::start(trace, shape.micro_batch, pixels, Dtype::Fp32.bytes());
        let tape = &mut tape;
        let image = cast(tape, names!("patches.cast"), image, shape.activation.bytes());
        let grid = Patches { channels: self.channels, size: self.patch_size, side, width: self.hidden };
        let x = match self.implementation {
            Implementation::Torchvision => {
                let x = patches(tape, "conv_proj", image, &grid);
                let x = class_token(tape, "class_token", x, shape.micro_batch);
                let x = positions(tape, "encoder.pos_embedding", x, [self.tokens(), self.positions]);
                dropout(tape, names!("embedding.dropout"), x, self.dropout)
            }
            Implementation::Timm => {
                let x = patches(tape, "patch_embed.proj", image, &grid);
                let x = class_token(tape, "cls_token", x, shape.micro_batch);
                let x = positions(tape, "pos_embed", x, [self.tokens(), self.positions]);
                dropout(tape, names!("embedding.dropout"), x, self.dropout)
            }
            Implementation::Labml => {
                let x = patches(tape, "patch_emb.conv", image, &grid);
                let x = positions(tape, "pos_emb.positional_encodings", x, [side * side, self.positions]);
                class_token(tape, "cls_token_emb", x, shape.micro_batch)
            }
        };
        tape.finish(x)
    }

    fn block(&self, trace: Trace<'_>) -> Traced {
        let shape = trace.shape;
        let rows = product(&[shape.micro_batch, self.tokens()]);
        let (mut tape, x) = Tape::start(trace, rows, self.hidden, shape.residual_bytes());
        let tape = &mut tape;
        let [first, second] = self.implementation.modules().norms;
        let normed = layer_norm(tape, first, names!("attention.norm"), x, true);
        let attended = self.attend(tape, normed);
        let attended = dropout(tape, names!("attention.output_dropout"), attended, self.dropout);
        let x = add(tape, names!("attention.residual"), x, attended);

        let normed = layer_norm(tape, second, names!("mlp.norm"), x, true);
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
                // `nn.MultiheadAttention` names the packed projection in its own way, and LoRA does not reach it.
                tape.weight("self_attention", "in_proj_weight", &[3 * h, h], Split::Whole);
                tape.weight("self_attention", "in_proj_bias", &[3 * h], Split::Whole);
                let packed = Linear::new("self_attention", names!("attention.qkv"), 3 * h).bias(true);
                let qkv = linear(tape, packed.unlisted(), swapped);
                split_in_projection(tape, qkv)
            }
            Implementation::Timm => {
                let packed = Linear::new("attn.qkv", names!("attention.qkv"), 3 * h).bias(true);
                let qkv = linear(tape, packed, x);
                match tape.shape.attention {
                    AttentionKind::Eager => split_to_copies(tape, qkv),
                    _ => split_heads(tape, qkv),
                }
            }
            Implementation::Labml => [
                Linear::new("attn.query.linear", names!("attention.query"), h),
                Linear::new("attn.key.linear", names!("attention.key"), h),
                Linear::new("attn.value.linear", names!("attention.value"), h),
            ]
            .map(|layer| linear(tape, layer.bias(true), x)),
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
        let module = self.implementation.modules().projection;
        linear(tape, Linear::new(module, names!("attention.projection"), h).bias(true), context)
    }

    /// The second half of a block up to the residual. Both drop out after the activation; the second dropout is
    /// torchvision's MLP's after its last linear layer, and in labml the block's.
    fn feed_forward(&self, tape: &mut Tape<'_>, x: Tensor) -> Tensor {
        if self.experts > 0 {
            let switch = Switch { experts: self.experts, hidden: self.feed_forward, dropout: self.dropout };
            let fed = switch_feed_forward(tape, &switch, x);
            return dropout(tape, names!("mlp.block_dropout"), fed, self.dropout);
        }
        let [first, second] = self.implementation.modules().feed_forward;
        let wide = linear(tape, Linear::new(first, names!("mlp.fc1"), self.feed_forward).bias(true), x);
        let wide = activation(tape, names!("mlp.gelu"), Function::Gelu, wide);
        let wide = dropout(tape, names!("mlp.hidden_dropout"), wide, self.dropout);
        let narrow = linear(tape, Linear::new(second, names!("mlp.fc2"), self.hidden).bias(true), wide);
        let name = match self.implementation {
            Implementation::Torchvision | Implementation::Timm => names!("mlp.output_dropout"),
            Implementation::Labml => names!("mlp.block_dropout"),
        };
        dropout(tape, name, narrow, self.dropout)
    }

    fn head(&self, trace: Trace<'_>) -> Traced {
        let (shape, batch) = (trace.shape, trace.shape.micro_batch);
        let rows = product(&[batch, self.tokens()]);
        let (mut tape, x) = Tape::start(trace, rows, self.hidden, shape.residual_bytes());
        let tape = &mut tape;
        let class = match self.implementation {
            Implementation::Torchvision | Implementation::Timm => {
                let module = if self.implementation == Implementation::Timm { "norm" } else { "encoder.ln" };
                let normed = layer_norm(tape, module, names!("head.norm"), x, true);
                first_token(tape, normed, batch)
            }
            Implementation::Labml => {
                let class = first_token(tape, x, batch);
                layer_norm(tape, "ln", names!("head.norm"), class, true)
            }
        };
        let [first, last] = match self.implementation {
            Implementation::Torchvision => ["heads.pre_logits", "heads.head"],
            Implementation::Labml => ["classification.linear1", "classification.linear2"],
            Implementation::Timm => ["pre_logits.fc", "head"],
        };
        let features = if self.head_hidden == 0 {
            class
        } else {
            let wide =
                linear(tape, Linear::new(first, names!("head.hidden"), self.head_hidden).bias(true), class);
            // GELU in labml's head keeps its input. torchvision's tanh keeps its output instead, which is the
            // classifier's input anyway: there this is one tensor of a row an image too many.
            activation(tape, names!("head.activation"), Function::Gelu, wide)
        };
        let logits = if self.classes == 0 {
            features
        } else {
            let layer = Linear::new(last, names!("head.classifier"), self.classes).bias(true).output();
            linear(tape, layer, features)
        };
        let output = if shape.training { cross_entropy(tape, logits, false) } else { logits };
        tape.finish(output)
    }
}

impl Architecture for Vit {
    fn sample(&self) -> Sample {
        Sample::Image { size: self.image_size, channels: self.channels, tokens: self.tokens() }
    }

    fn layers(&self) -> Vec<LayerPlan> {
        stack(self.layers)
    }

    fn widest_head(&self) -> u64 {
        self.hidden / self.heads
    }

    fn follows_autocast(&self) -> bool {
        self.experts == 0
    }

    fn trace(&self, kind: u32, trace: Trace<'_>) -> Traced {
        match kind {
            EMBEDDING => self.embedding(trace),
            HEAD => self.head(trace),
            _ => self.block(trace),
        }
    }
}
