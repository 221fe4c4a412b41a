//! Families of architectures: the fields of each, its layers with their parameters, and the code of its modules.

mod components;
mod gpt;
mod llama;
mod vit;

use std::fmt;
use std::sync::Arc;

use crate::component::ComponentGraph;
use crate::document::Section;
use crate::error::ModelError;
use crate::model::{Layer, LayerRole, Parameter, Sample, WorkShape};
use crate::operation::LayerWork;
use crate::quantity::nearest;
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
}

impl Family {
    /// All of them, in the order of their names' introduction.
    pub const ALL: [Self; 5] = [Self::Components, Self::Vit, Self::SwitchVit, Self::Gpt, Self::Llama];

    /// Name as model files write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Components => "components",
            Self::Vit => "vit",
            Self::SwitchVit => "switch-vit",
            Self::Gpt => "gpt",
            Self::Llama => "llama",
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
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a family knows of one model.
#[derive(Clone, Debug)]
pub(crate) enum Architecture {
    Components(ComponentGraph),
    Vit(vit::Vit),
    Gpt(gpt::Gpt),
    Llama(llama::Llama),
}

impl Architecture {
    /// Reads `[architecture]`, overrides already applied; component models have their tables in the file itself.
    pub(crate) fn read(family: Family, file: &Section, architecture: &Section) -> Result<Self, ModelError> {
        Ok(match family {
            Family::Components => {
                architecture.only(&[])?;
                Self::Components(ComponentGraph::read(file)?)
            }
            Family::Vit => Self::Vit(vit::Vit::read_dense(architecture)?),
            Family::SwitchVit => Self::Vit(vit::Vit::read_switch(architecture)?),
            Family::Gpt => Self::Gpt(gpt::Gpt::read(architecture)?),
            Family::Llama => Self::Llama(llama::Llama::read(architecture)?),
        })
    }

    pub(crate) fn layers(&self) -> Vec<Layer> {
        match self {
            Self::Components(graph) => components::layers(graph),
            Self::Vit(vit) => vit.layers(),
            Self::Gpt(gpt) => gpt.layers(),
            Self::Llama(llama) => llama.layers(),
        }
    }

    pub(crate) fn sample(&self) -> Sample {
        match self {
            Self::Components(_) => Sample::Opaque,
            Self::Vit(vit) => vit.sample(),
            Self::Gpt(gpt) => Sample::Tokens { default_length: gpt.positions },
            Self::Llama(llama) => Sample::Tokens { default_length: llama.positions },
        }
    }

    /// Channels of an image; 0 for models that take none.
    pub(crate) fn channels(&self) -> u64 {
        match self {
            Self::Vit(vit) => vit.channels,
            Self::Components(_) | Self::Gpt(_) | Self::Llama(_) => 0,
        }
    }

    /// Work of the layer at `index`, whose role is `role`.
    pub(crate) fn work(&self, index: usize, role: LayerRole, shape: &WorkShape) -> LayerWork {
        match self {
            Self::Components(graph) => components::work(graph, index, shape),
            Self::Vit(vit) => vit.work(role, shape),
            Self::Gpt(gpt) => gpt.work(role, shape),
            Self::Llama(llama) => llama.work(role, shape),
        }
    }
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

/// Parameters by name and size.
struct Parameters(Vec<Parameter>);

impl Parameters {
    fn new() -> Self {
        Self(Vec::new())
    }

    fn add(&mut self, name: impl Into<String>, count: u64) -> &mut Self {
        self.0.push(Parameter { name: name.into(), count, tied: false });
        self
    }

    /// Weight and, if there is one, bias of a linear layer.
    fn linear(&mut self, name: &str, from: u64, to: u64, bias: bool) -> &mut Self {
        self.add(format!("{name}.weight"), from * to);
        if bias {
            self.add(format!("{name}.bias"), to);
        }
        self
    }

    /// Weight and bias of a LayerNorm.
    fn layer_norm(&mut self, name: &str, width: u64) -> &mut Self {
        self.add(format!("{name}.weight"), width).add(format!("{name}.bias"), width)
    }

    /// A weight shared with the embedding if `tied`.
    fn output_projection(&mut self, name: &str, count: u64, tied: bool) -> &mut Self {
        self.0.push(Parameter { name: name.to_owned(), count, tied });
        self
    }
}

/// Embedding, `blocks` equal blocks, head. A token uses all parameters of a block unless `active` says how many.
fn stack(
    embedding: Parameters,
    block: Parameters,
    head: Parameters,
    blocks: u64,
    active: Option<u64>,
) -> Vec<Layer> {
    let layer = |name: String, role, signature, parameters: Arc<[Parameter]>| {
        let mut layer =
            Layer { name, role, signature, parameters, active_parameters: 0, stated_memory: Bytes(0) };
        layer.active_parameters = layer.parameter_count();
        layer
    };
    let shared: Arc<[Parameter]> = block.0.into();
    let mut layers = vec![layer("embedding".to_owned(), LayerRole::Embedding, 0, embedding.0.into())];
    for number in 0..blocks {
        let mut block = layer(format!("block.{number}"), LayerRole::Block, 1, Arc::clone(&shared));
        block.active_parameters = active.unwrap_or(block.active_parameters);
        layers.push(block);
    }
    layers.push(layer("head".to_owned(), LayerRole::Head, 2, head.0.into()));
    layers
}
