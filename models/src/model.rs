//! Architectures as lists of layers with exact parameters, and the work of each layer.

use std::sync::Arc;

use crate::catalogue;
use crate::component::ComponentGraph;
use crate::document::Section;
use crate::error::ModelError;
use crate::families::{Architecture, Family};
use crate::operation::{Dtype, LayerWork};
use crate::overrides::Overrides;
use crate::parameter::Parameter;
use crate::tape::{Trace, Traced};
use crate::trainable::Trainable;
use crate::units::{Bytes, Flops, product, total};
use crate::work_shape::WorkShape;

/// What one sample is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sample {
    /// A sequence of this many tokens unless the scenario says otherwise.
    Tokens {
        /// Default sequence length.
        default_length: u64,
    },
    /// A square image.
    Image {
        /// Pixels a side.
        size: u64,
        /// Colours.
        channels: u64,
        /// Tokens it becomes.
        tokens: u64,
    },
    /// A sample of a component model; nothing is known of its inside.
    Opaque,
}

/// What a layer is for; decides where a pipeline may cut and what a checkpoint covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LayerRole {
    /// Turns the sample into activations (embedding, patch projection).
    Embedding,
    /// One of the repeated blocks.
    Block,
    /// Final norm, output projection and loss.
    Head,
    /// A partition of a component model.
    Component,
}

/// One layer of a model.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Name, e.g. `block.7`.
    pub name: String,
    /// What it is for.
    pub role: LayerRole,
    /// Layers with the same number have the same parameters and work.
    pub signature: u32,
    /// Parameter tensors in the order of their first use.
    pub parameters: Arc<[Parameter]>,
    /// Values among [`Layer::parameter_count`] that one token uses: all of them unless experts are routed.
    pub active_parameters: u64,
    /// Memory that the source states for a component as a whole (0 for layers that are known inside).
    pub stated_memory: Bytes,
}

impl Layer {
    /// A layer without its name.
    fn of(traced: Traced, signature: u32, stated_memory: Bytes) -> Self {
        let own = |expert: bool| {
            let own = traced.parameters.iter().filter(|it| !it.tied && it.expert.is_some() == expert);
            own.map(|parameter| parameter.count).fold(0, u64::saturating_add)
        };
        let (experts, used) = traced.routing;
        // Experts are equal, so the share is exact.
        let active_parameters = own(false).saturating_add(own(true) / experts.max(1) * used);
        Self {
            name: String::new(),
            role: LayerRole::Block,
            signature,
            parameters: traced.parameters.into(),
            active_parameters,
            stated_memory,
        }
    }

    /// Values in this layer's own parameters, tied ones left out.
    pub fn parameter_count(&self) -> u64 {
        self.count(|parameter| !parameter.tied)
    }

    /// Values that a pipeline stage without the embedding must hold for this layer.
    pub fn held_parameter_count(&self) -> u64 {
        self.count(|_| true)
    }

    /// Those of [`Layer::parameter_count`] that are trained.
    pub fn trainable_count(&self) -> u64 {
        self.count(|parameter| parameter.trainable && !parameter.tied)
    }

    /// Those of [`Layer::held_parameter_count`] that are trained.
    pub fn held_trainable_count(&self) -> u64 {
        self.count(|parameter| parameter.trainable)
    }

    fn count(&self, chosen: impl Fn(&Parameter) -> bool) -> u64 {
        self.parameters.iter().filter(|it| chosen(it)).map(|it| it.count).fold(0, u64::saturating_add)
    }
}

/// An architecture with exact parameters, able to say what each of its layers does.
#[derive(Clone, Debug)]
pub struct Model {
    /// Name of the catalogue entry or of the user's file.
    pub name: String,
    /// Kind of architecture.
    pub family: Family,
    /// Where the architecture is published.
    pub source: String,
    /// What one sample is.
    pub sample: Sample,
    /// Layers in the order of forward.
    pub layers: Vec<Layer>,
    trainable: Trainable,
    architecture: Arc<dyn Architecture>,
    /// Of each layer the architecture's kind, and whether its input needs a gradient.
    kinds: Vec<(u32, bool)>,
}

impl Model {
    /// A model of the embedded catalogue, with some of its architecture's fields changed.
    ///
    /// # Errors
    /// No such entry, no such field, or a value that the field cannot have.
    pub fn from_catalogue(name: &str, overrides: &Overrides) -> Result<Self, ModelError> {
        Self::from_toml(catalogue::text_of(name)?, overrides).map_err(ModelError::without_place)
    }

    /// A model from the text of a file of the catalogue's form: `name`, `family`, `source`, and `[architecture]`
    /// with the family's fields (or `[[component]]` and `[[partition]]` for the family `components`, `[input]` and
    /// `[[layer]]` for the family `blocks`).
    ///
    /// # Errors
    /// Everything that can be wrong with the text or with the overrides, each with what was found and what is
    /// allowed, and for the text with its place.
    pub fn from_toml(text: &str, overrides: &Overrides) -> Result<Self, ModelError> {
        let file = Section::parse(text)?;
        let family = Family::read(&file)?;
        match family {
            Family::Components => file.only(&["name", "family", "source", "component", "partition"])?,
            Family::Blocks => file.only(&["name", "family", "source", "input", "layer"])?,
            _ => file.only(&["name", "family", "source", "architecture"])?,
        }
        let mut fields = file.section("architecture")?;
        fields.apply(overrides);
        let architecture = family.architecture(&file, &fields)?;
        let mut model = Self {
            name: file.text("name")?.to_owned(),
            family,
            source: file.text("source")?.to_owned(),
            sample: architecture.sample(),
            layers: Vec::new(),
            trainable: Trainable::All,
            architecture,
            kinds: Vec::new(),
        };
        model.list_layers();
        Ok(model)
    }

    /// The model with only a part of it trained.
    ///
    /// # Errors
    /// An adapter of rank 0, or a target that is no linear layer of the model.
    pub fn with_trainable(mut self, trainable: Trainable) -> Result<Self, ModelError> {
        self.trainable = trainable;
        self.list_layers();
        if let Trainable::Lora(lora) = &self.trainable {
            lora.check(&self.layers)?;
        }
        Ok(self)
    }

    /// What of the model is trained.
    pub fn trainable(&self) -> &Trainable {
        &self.trainable
    }

    /// Fills in the layers with their parameters, each kind traced once.
    fn list_layers(&mut self) {
        let shape = WorkShape::smallest();
        let mut known: Vec<((u32, bool), Layer)> = Vec::new();
        let mut needs_gradient = false;
        self.layers.clear();
        self.kinds.clear();
        for plan in self.architecture.layers() {
            let kind = (plan.kind, needs_gradient);
            let found = known.iter().position(|(other, _)| *other == kind);
            let index = found.unwrap_or_else(|| {
                let trace = Trace {
                    shape: &shape,
                    trainable: &self.trainable,
                    input_needs_gradient: needs_gradient,
                    lists_parameters: true,
                };
                let traced = self.architecture.trace(plan.kind, trace);
                let stated = self.architecture.stated_memory(plan.kind);
                known.push((kind, Layer::of(traced, known.len() as u32, stated)));
                known.len() - 1
            });
            let layer = Layer { name: plan.name, role: plan.role, ..known[index].1.clone() };
            needs_gradient |= layer.trainable_count() > 0;
            self.kinds.push(kind);
            self.layers.push(layer);
        }
    }

    /// Values in all parameters, shared ones counted once.
    pub fn parameters(&self) -> u64 {
        self.layers.iter().map(Layer::parameter_count).fold(0, u64::saturating_add)
    }

    /// Values in all parameters that are trained, shared ones counted once.
    pub fn trainable_parameters(&self) -> u64 {
        self.layers.iter().map(Layer::trainable_count).fold(0, u64::saturating_add)
    }

    /// Values that one token uses: all of them unless experts are routed; then the dense part, the routers, and of
    /// each layer the experts that a token is sent to.
    pub fn active_parameters(&self) -> u64 {
        self.layers.iter().map(|layer| layer.active_parameters).fold(0, u64::saturating_add)
    }

    /// Work of one layer, by its index into [`Model::layers`], on one micro-batch. Empty beyond the last layer.
    ///
    /// Layers of one [`Layer::signature`] have equal work: ask once for each.
    pub fn work(&self, layer: usize, shape: &WorkShape) -> LayerWork {
        let Some(&(kind, input_needs_gradient)) = self.kinds.get(layer) else {
            return LayerWork::default();
        };
        let trainable = &self.trainable;
        let trace = Trace { shape, trainable, input_needs_gradient, lists_parameters: false };
        self.architecture.trace(kind, trace).work
    }

    /// Tokens that a sample becomes: the sequence length, the patches of an image and its class token, or 1 for a
    /// sample of unknown inside.
    pub fn tokens_per_sample(&self, shape: &WorkShape) -> u64 {
        match self.sample {
            Sample::Tokens { .. } => shape.sequence_length,
            Sample::Image { tokens, .. } => tokens,
            Sample::Opaque => 1,
        }
    }

    /// One input sample with its labels on the device: token ids and labels in 64 bits; or an image in 32-bit
    /// floats, as loaders deliver it, and a 64-bit label, where the architecture does not say otherwise (several
    /// images, masks). 0 for a sample of unknown inside.
    pub fn sample_bytes(&self, shape: &WorkShape) -> Bytes {
        if let Some(bytes) = self.architecture.sample_bytes() {
            return bytes;
        }
        let integer = Dtype::Int64.bytes();
        Bytes(match self.sample {
            Sample::Tokens { .. } => product(&[2, shape.sequence_length, integer]),
            Sample::Image { size, channels, .. } => {
                total(&[product(&[channels, size, size, Dtype::Fp32.bytes()]), integer])
            }
            Sample::Opaque => 0,
        })
    }

    /// Arithmetic of the forward pass over one micro-batch, all layers.
    pub fn forward_flops(&self, shape: &WorkShape) -> Flops {
        let mut known: Option<(u32, Flops)> = None;
        let mut sum = Flops(0);
        for (index, layer) in self.layers.iter().enumerate() {
            let flops = match known {
                Some((signature, flops)) if signature == layer.signature => flops,
                _ => self.work(index, shape).forward_flops(),
            };
            known = Some((layer.signature, flops));
            sum += flops;
        }
        sum
    }

    /// Components and partitions, for models of the family [`Family::Components`].
    pub fn components(&self) -> Option<&ComponentGraph> {
        self.architecture.components()
    }

    /// Whether the formats of its tensors under `torch.autocast` are modelled ([`crate::Formats::Autocast`]): transformers
    /// without routed experts, vision transformers and convolutional networks.
    pub fn follows_autocast(&self) -> bool {
        self.architecture.follows_autocast()
    }

    /// Heads of the attention that a tensor-parallel group can divide among its ranks; None where the layers do not
    /// divide at all.
    pub fn tensor_parallel_heads(&self) -> Option<u64> {
        self.architecture.tensor_parallel_heads()
    }

    /// Why `ranks` tensor-parallel ranks cannot share the layers, in words; None where they can.
    pub fn tensor_parallel_fault(&self, ranks: u64) -> Option<String> {
        let name = &self.name;
        match self.tensor_parallel_heads() {
            _ if ranks == 1 => None,
            Some(heads) if heads.is_multiple_of(ranks) => None,
            Some(heads) => Some(format!("{name} has {heads} heads, which do not divide among {ranks} ranks")),
            None => Some(format!(
                "the layers of {name} (family {}) do not divide among tensor-parallel ranks, allowed: 1",
                self.family
            )),
        }
    }

    /// Experts among which the tokens of a layer are routed, of the layer with most; 0 where none has any.
    pub fn experts(&self) -> u64 {
        let places = self.layers.iter().flat_map(|layer| layer.parameters.iter()).filter_map(|it| it.expert);
        places.map(|place| place.of).max().unwrap_or(0)
    }

    /// Why ranks cannot share sequences, in words; None where they can.
    pub fn context_parallel_fault(&self) -> Option<String> {
        let fault = format!(
            "the sequences of {} (family {}) do not divide among context-parallel ranks, allowed: 1",
            self.name, self.family
        );
        (!self.architecture.context_parallel()).then_some(fault)
    }

    /// Why `ranks` ranks cannot hold a part each of the routed experts, in words; None where they can.
    pub fn expert_parallel_fault(&self, ranks: u64) -> Option<String> {
        let (name, experts) = (&self.name, self.experts());
        if experts == 0 {
            return Some(format!("{name} has no routed experts, allowed: 1"));
        }
        if !self.architecture.expert_parallel() {
            let family = self.family;
            return Some(format!("the experts of {name} (family {family}) stay on one rank, allowed: 1"));
        }
        if !experts.is_multiple_of(ranks.max(1)) {
            return Some(format!("{name} has {experts} experts, which do not divide among {ranks} ranks"));
        }
        None
    }

    /// Values of the widest head of self-attention, of queries and keys or of values; 0 without attention.
    pub fn widest_head(&self) -> u64 {
        self.architecture.widest_head()
    }

    /// Longest sequence that the architecture can take: the table of learned positions. None where nothing limits
    /// it (rotary positions, images, components).
    pub fn longest_sequence(&self) -> Option<u64> {
        self.architecture.longest_sequence()
    }
}
