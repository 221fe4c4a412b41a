//! What of a model is trained: all of it, or low-rank adapters beside frozen linear layers.

use crate::error::ModelError;
use crate::model::{Layer, LayerRole};

/// Low-rank adapters (Hu et al. 2021, LoRA): beside the frozen `W` of a linear layer a trained product `B A` of inner
/// width `rank`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lora {
    /// Inner width of the two matrices.
    pub rank: u64,
    /// Linear layers that get one: a layer's whole name or the end of it behind a dot, as PEFT matches
    /// `target_modules`; `all-linear` stands for every one but the output projection.
    pub targets: Vec<String>,
    /// Whether the adapter's input goes through dropout.
    pub dropout: bool,
}

/// What of a model is trained.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trainable {
    /// Every parameter.
    #[default]
    All,
    /// Adapters; the model's own parameters are frozen.
    Lora(Lora),
}

impl Trainable {
    /// Word that stands for every linear layer of the blocks.
    pub const ALL_LINEAR: &'static str = "all-linear";

    /// Whether the module's own parameters are trained.
    pub(crate) const fn trains_base(&self) -> bool {
        matches!(self, Self::All)
    }

    /// The adapter beside a linear layer, if it gets one; `output` says whether it is the output projection.
    pub(crate) fn adapter(&self, module: &str, output: bool) -> Option<&Lora> {
        match self {
            Self::All => None,
            Self::Lora(lora) => {
                lora.targets.iter().any(|target| matches(module, target, output)).then_some(lora)
            }
        }
    }
}

impl Lora {
    /// Whether every target got an adapter.
    pub(crate) fn check(&self, layers: &[Layer]) -> Result<(), ModelError> {
        let adapted = |target: &str| {
            let names = layers.iter().flat_map(|layer| layer.parameters.iter().map(|it| it.name.as_str()));
            let mut modules = names.filter_map(|name| name.strip_suffix(".lora_A.weight"));
            modules.any(|module| matches(module, target, false))
        };
        match self.targets.iter().find(|target| !adapted(target)) {
            None => Ok(()),
            Some(target) => {
                Err(ModelError::NoSuchLinear { target: target.clone(), known: linear_layers(layers) })
            }
        }
    }
}

/// Last parts of the names of everything that has a matrix, each once.
fn linear_layers(layers: &[Layer]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let layers = layers.iter().filter(|layer| layer.role != LayerRole::Embedding);
    for parameter in layers.flat_map(|layer| layer.parameters.iter()) {
        let Some(module) = parameter.name.strip_suffix(".weight").filter(|_| parameter.dimensions.len() == 2)
        else {
            continue;
        };
        let last = module.rsplit('.').next().unwrap_or(module);
        if !names.iter().any(|name| name == last) {
            names.push(last.to_owned());
        }
    }
    names
}

fn matches(module: &str, target: &str, output: bool) -> bool {
    if target == Trainable::ALL_LINEAR {
        return !output;
    }
    module.strip_suffix(target).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_match_whole_names_behind_a_dot() {
        let lora = |targets: &[&str]| {
            let targets = targets.iter().map(|&target| target.to_owned()).collect();
            Trainable::Lora(Lora { rank: 8, targets, dropout: false })
        };
        assert!(lora(&["q_proj"]).adapter("self_attn.q_proj", false).is_some());
        assert!(lora(&["q_proj"]).adapter("q_proj", false).is_some());
        assert!(lora(&["proj"]).adapter("self_attn.q_proj", false).is_none());
        assert!(lora(&["all-linear"]).adapter("mlp.up_proj", false).is_some());
        assert!(lora(&["all-linear"]).adapter("lm_head", true).is_none());
        assert!(lora(&["lm_head"]).adapter("lm_head", true).is_some());
        assert!(Trainable::All.adapter("q_proj", false).is_none());
    }
}
