//! Which activations backward recomputes: none, those of some modules, or whole blocks.

use std::ops::Range;

use steptime_models::{Kernel, LayerRole, LayerWork, Model, Operation, SavedTensor};

use crate::workload::Workload;

/// Which activations are recomputed in backward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checkpointing {
    /// Everything that backward needs is kept.
    None,
    /// The core of attention is recomputed (Korthikanti et al. 2022, section 5).
    Selective,
    /// What some modules make is (Megatron-LM's `recompute_modules`).
    Modules(RecomputedModules),
    /// Only the input of each block is kept.
    Full,
}

/// Of which blocks only the input is kept, with [`Checkpointing::Full`]; counted chunk by chunk of a stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CheckpointedBlocks {
    /// Of each.
    #[default]
    Each,
    /// Of so many from the first on; the others keep everything (Megatron-LM's `recompute_method = "block"`).
    First(u64),
    /// Of the first in each group of so many, which backward recomputes together (`"uniform"`).
    Groups(u64),
}

/// A module that can be recomputed by itself, by Megatron-LM's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecomputedModule {
    /// `core_attn`: scores, softmax and their product with the values, or the fused kernel.
    CoreAttention,
    /// `layernorm`: the norms before attention and feed-forward.
    LayerNorm,
    /// `mla_up_proj`: what latent attention makes of its compressed queries, keys and values.
    UpProjection,
    /// `mlp`: the dense feed-forward.
    Mlp,
    /// `moe`: router, exchange and experts.
    Moe,
    /// `moe_act`: the activation function of routed experts.
    MoeActivation,
    /// `shared_experts`: experts that every token visits.
    SharedExperts,
}

impl RecomputedModule {
    /// All of them with Megatron-LM's names.
    pub const ALL: [(&'static str, Self); 7] = [
        ("core_attn", Self::CoreAttention),
        ("layernorm", Self::LayerNorm),
        ("mla_up_proj", Self::UpProjection),
        ("mlp", Self::Mlp),
        ("moe", Self::Moe),
        ("moe_act", Self::MoeActivation),
        ("shared_experts", Self::SharedExperts),
    ];

    /// Whether an operation of forward belongs to it.
    fn covers(self, operation: &Operation) -> bool {
        let name = operation.name;
        let begins = |words: &[&str]| words.iter().any(|word| name.starts_with(word));
        match self {
            Self::CoreAttention => operation.is_attention_core() || name.starts_with(FUSED_CORE),
            Self::LayerNorm => ["attention.norm", "mlp.norm"].contains(&name),
            // Queries come from compressed ones where there are such, keys and values always.
            Self::UpProjection => {
                begins(&["attention.rotary", "attention.kv_norm", "attention.kv_up"])
                    || ["attention.query_down_norm", "attention.query"].contains(&name)
                    || ["attention.query_join", "attention.key_join"].contains(&name)
            }
            Self::Mlp => {
                name.starts_with("mlp.") && !begins(&["mlp.norm", "mlp.residual", "mlp.dropout", "mlp.post"])
            }
            Self::Moe => name.starts_with("moe."),
            Self::MoeActivation => {
                name.starts_with("moe.experts.") && matches!(operation.kernel, Kernel::MemoryBound { .. })
            }
            Self::SharedExperts => name.starts_with("moe.shared."),
        }
    }
}

/// The fused kernel of attention, whose result the projection keeps in any case.
const FUSED_CORE: &str = "attention.flash";

/// Modules that are recomputed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecomputedModules(u8);

impl RecomputedModules {
    /// With one more.
    #[must_use]
    pub const fn with(self, module: RecomputedModule) -> Self {
        Self(self.0 | 1 << module as u8)
    }

    fn has(self, module: RecomputedModule) -> bool {
        self.0 & (1 << module as u8) != 0
    }

    fn covers(self, operation: &Operation) -> bool {
        RecomputedModule::ALL.iter().any(|&(_, module)| self.has(module) && module.covers(operation))
    }
}

/// What a layer's backward recomputes, by the layer's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recomputed {
    /// Nothing.
    Nothing,
    /// The core of attention.
    Core,
    /// Some modules.
    Modules(RecomputedModules),
    /// All, from the layer's input.
    Whole,
    /// All, from the input of a layer before.
    Inner,
}

impl Recomputed {
    /// Of every layer of a model whose stages' chunks are these layers. Only blocks are checkpointed: the embedding and
    /// the head keep what they need.
    pub(crate) fn of_layers(model: &Model, workload: &Workload, chunks: &[Range<usize>]) -> Vec<Self> {
        let mut all = vec![Self::Nothing; model.layers.len()];
        for chunk in chunks {
            let blocks = chunk.clone().filter(|&layer| model.layers[layer].role == LayerRole::Block);
            for (place, layer) in (0_u64..).zip(blocks) {
                all[layer] = match workload.checkpointing {
                    Checkpointing::None => Self::Nothing,
                    Checkpointing::Selective => Self::Core,
                    Checkpointing::Modules(modules) => Self::Modules(modules),
                    Checkpointing::Full => match workload.checkpointed {
                        CheckpointedBlocks::Each => Self::Whole,
                        CheckpointedBlocks::First(count) if place < count => Self::Whole,
                        CheckpointedBlocks::First(_) => Self::Nothing,
                        CheckpointedBlocks::Groups(size) if place.is_multiple_of(size.max(1)) => Self::Whole,
                        CheckpointedBlocks::Groups(_) => Self::Inner,
                    },
                };
            }
        }
        all
    }

    /// Whether backward runs an operation of forward again.
    pub(crate) fn again(self, operation: &Operation) -> bool {
        match self {
            Self::Nothing => false,
            Self::Core => operation.is_attention_core(),
            Self::Modules(modules) => modules.covers(operation),
            Self::Whole | Self::Inner => true,
        }
    }

    /// Whether forward keeps a tensor for backward.
    pub(crate) fn keeps(self, work: &LayerWork, tensor: &SavedTensor) -> bool {
        match self {
            Self::Nothing => true,
            Self::Core => !tensor.is_attention_core(),
            Self::Modules(modules) => {
                let made = work.forward.get(tensor.born).is_some_and(|operation| modules.covers(operation));
                let handed_on = tensor.name.starts_with(FUSED_CORE) && tensor.name.ends_with(".output");
                tensor.is_layer_input() || !made || handed_on
            }
            Self::Whole => tensor.is_layer_input(),
            Self::Inner => false,
        }
    }

    /// Whether all of the layer is recomputed.
    pub(crate) fn is_whole(self) -> bool {
        matches!(self, Self::Whole | Self::Inner)
    }
}
