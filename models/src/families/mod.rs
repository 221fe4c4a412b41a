//! Families of architectures: the fields of each, its layers, and the code of its modules.

mod blocks;
mod components;
mod convnet;
mod gpt;
mod llama;
mod rat;
mod transformer;
mod vit;

use std::fmt;
use std::sync::Arc;

use crate::component::ComponentGraph;
use crate::document::Section;
use crate::error::ModelError;
use crate::model::{LayerRole, Sample};
use crate::quantity::nearest;
use crate::tape::{Trace, Traced};
use crate::units::Bytes;

/// A kind of architecture; decides which fields a model file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// Components known from outside only, grouped into partitions.
    Components,
    /// Vision transformer: patches, class token, pre-norm encoder, classifier.
    Vit,
    /// The same with a routed feed-forward in each block, all experts on each GPU.
    SwitchVit,
    /// Decoder with learned positions, LayerNorm, biases and GELU (GPT-2, GPT-3, Megatron's GPT).
    Gpt,
    /// Decoder with rotary positions, RMSNorm, grouped queries and SwiGLU, without biases.
    Llama,
    /// Residual network: ResNet, ResNeXt, Wide ResNet.
    Resnet,
    /// Plain convolutions in groups, a pooling after each.
    Vgg,
    /// Layers that each take the features of all before.
    Densenet,
    /// Inception v3.
    Inception,
    /// Inverted residuals with ReLU6: MobileNet v2.
    Mobilenet,
    /// Inverted and fused residuals with SiLU and squeeze-and-excitation: EfficientNet v1 and v2.
    Efficientnet,
    /// Depthwise convolutions and feed-forwards with layer norms.
    Convnext,
    /// Resolution-aware transformer over the pixels of images.
    Rat,
    /// Layers of blocks that the file itself spells out.
    Blocks,
    /// Any transformer of text: decoder, encoder or both, dense or with routed experts.
    Transformer,
}

impl Family {
    /// All of them, in the order of their names' introduction.
    pub const ALL: [Self; 15] = [
        Self::Components,
        Self::Vit,
        Self::SwitchVit,
        Self::Gpt,
        Self::Llama,
        Self::Resnet,
        Self::Vgg,
        Self::Densenet,
        Self::Inception,
        Self::Mobilenet,
        Self::Efficientnet,
        Self::Convnext,
        Self::Rat,
        Self::Blocks,
        Self::Transformer,
    ];

    /// Name as model files write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Components => "components",
            Self::Vit => "vit",
            Self::SwitchVit => "switch-vit",
            Self::Gpt => "gpt",
            Self::Llama => "llama",
            Self::Resnet => "resnet",
            Self::Vgg => "vgg",
            Self::Densenet => "densenet",
            Self::Inception => "inception",
            Self::Mobilenet => "mobilenet",
            Self::Efficientnet => "efficientnet",
            Self::Convnext => "convnext",
            Self::Rat => "rat",
            Self::Blocks => "blocks",
            Self::Transformer => "transformer",
        }
    }

    /// Reads the field `family` of a model file.
    pub(crate) fn read(file: &Section) -> Result<Self, ModelError> {
        let found = file.text("family")?;
        let names = Self::ALL.iter().map(|family| family.name());
        Self::ALL.into_iter().find(|family| family.name() == found).ok_or_else(|| ModelError::UnknownFamily {
            found: found.to_owned(),
            allowed: names.clone().map(str::to_owned).collect(),
            nearest: nearest(found, names),
            place: file.place_of("family"),
        })
    }

    /// Reads `[architecture]`, overrides already applied; component models have their tables in the file itself.
    pub(crate) fn architecture(
        self,
        file: &Section,
        fields: &Section,
    ) -> Result<Arc<dyn Architecture>, ModelError> {
        Ok(match self {
            Self::Components => {
                fields.only(&[])?;
                Arc::new(ComponentGraph::read(file)?)
            }
            Self::Vit => Arc::new(vit::Vit::read_dense(fields)?),
            Self::SwitchVit => Arc::new(vit::Vit::read_switch(fields)?),
            Self::Resnet => convnet::resnet(fields)?,
            Self::Vgg => convnet::vgg(fields)?,
            Self::Densenet => convnet::densenet(fields)?,
            Self::Inception => convnet::inception(fields)?,
            Self::Mobilenet => convnet::mobilenet(fields)?,
            Self::Efficientnet => convnet::efficientnet(fields)?,
            Self::Convnext => convnet::convnext(fields)?,
            Self::Rat => Arc::new(rat::Rat::read(fields)?),
            Self::Blocks => Arc::new(blocks::Blocks::read(file, fields)?),
            Self::Gpt => Arc::new(gpt::read(fields)?),
            Self::Llama => Arc::new(llama::read(fields)?),
            Self::Transformer => Arc::new(transformer::Transformer::read(fields)?),
        })
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a family knows of one model.
pub(crate) trait Architecture: fmt::Debug + Send + Sync {
    /// What a sample is.
    fn sample(&self) -> Sample;

    /// Layers in the order of forward.
    fn layers(&self) -> Vec<LayerPlan>;

    /// Runs the forward code of a layer of one kind on a tape.
    fn trace(&self, kind: u32, trace: Trace<'_>) -> Traced;

    /// Whether the formats of its tensors under autocast are modelled.
    fn follows_autocast(&self) -> bool {
        false
    }

    /// Bytes of one sample with its labels on the device, where they do not follow from [`Architecture::sample`].
    fn sample_bytes(&self) -> Option<Bytes> {
        None
    }

    /// Longest sequence that the architecture can take; None where nothing limits it.
    fn longest_sequence(&self) -> Option<u64> {
        None
    }

    /// Values of the widest head of self-attention, of queries and keys or of values; 0 without attention.
    fn widest_head(&self) -> u64 {
        0
    }

    /// Heads that a tensor-parallel group can divide; None where the layers do not divide.
    fn tensor_parallel_heads(&self) -> Option<u64> {
        None
    }

    /// Whether ranks can hold parts of the sequences.
    fn context_parallel(&self) -> bool {
        false
    }

    /// Whether its routed experts can be spread over ranks with tokens of their own.
    fn expert_parallel(&self) -> bool {
        false
    }

    /// Memory that the source states for a layer of one kind as a whole.
    fn stated_memory(&self, _kind: u32) -> Bytes {
        Bytes(0)
    }

    /// Components and partitions of a component model.
    fn components(&self) -> Option<&ComponentGraph> {
        None
    }
}

/// A layer before its parameters are listed.
#[derive(Clone, Debug)]
pub(crate) struct LayerPlan {
    pub(crate) name: String,
    pub(crate) role: LayerRole,
    /// Layers of one kind have the same code and sizes.
    pub(crate) kind: u32,
}

impl LayerPlan {
    pub(crate) fn new(name: impl Into<String>, role: LayerRole, kind: u32) -> Self {
        Self { name: name.into(), role, kind }
    }
}

/// Kinds of layers of a [`stack`].
const EMBEDDING: u32 = 0;
const BLOCK: u32 = 1;
const HEAD: u32 = 2;

/// Embedding, `blocks` equal blocks, head.
fn stack(blocks: u64) -> Vec<LayerPlan> {
    let mut layers = vec![LayerPlan::new("embedding", LayerRole::Embedding, EMBEDDING)];
    layers
        .extend((0..blocks).map(|number| LayerPlan::new(format!("block.{number}"), LayerRole::Block, BLOCK)));
    layers.push(LayerPlan::new("head", LayerRole::Head, HEAD));
    layers
}

/// Largest values of architecture fields: far above anything built, and low enough that no count of parameters
/// leaves 64 bits.
mod limits {
    pub(super) const LAYERS: u64 = 10_000;
    pub(super) const WIDTH: u64 = 1 << 17;
    pub(super) const FEED_FORWARD: u64 = 1 << 20;
    pub(super) const HEADS: u64 = 1 << 14;
    pub(super) const VOCABULARY: u64 = 1 << 24;
    pub(super) const POSITIONS: u64 = 1 << 24;
    pub(super) const PIXELS: u64 = 1 << 14;
    pub(super) const CHANNELS: u64 = 1 << 12;
    pub(super) const EXPERTS: u64 = 1 << 10;
}

/// Width and heads of a transformer, checked against each other.
fn hidden_and_heads(section: &Section) -> Result<(u64, u64), ModelError> {
    let hidden = section.count("hidden", limits::WIDTH)?;
    let heads = section.count("heads", limits::HEADS)?;
    if hidden.is_multiple_of(heads) {
        return Ok((hidden, heads));
    }
    Err(section.refuse("heads", heads, format!("a divisor of hidden ({hidden})")))
}
