//! What backward recomputes: `workload.activation_checkpointing` and the keys that say of what.

use steptime_models::AttentionKind;
use steptime_plans::{CheckpointedBlocks, Checkpointing, Execution, RecomputedModule, RecomputedModules};

use crate::error::{InputError, nearest};
use crate::section::{Section, wrong};
use crate::tree::Value;

/// Blocks of a chunk that a group may have.
const MOST_BLOCKS: u64 = 1 << 16;

/// Reads them.
pub(crate) fn read(
    section: &Section<'_>,
    attention: AttentionKind,
    execution: Execution,
) -> Result<(Checkpointing, CheckpointedBlocks), InputError> {
    let kinds = [
        ("none", Checkpointing::None),
        ("selective", Checkpointing::Selective),
        ("full", Checkpointing::Full),
    ];
    let kind = section.choice("activation_checkpointing", &kinds)?.unwrap_or(Checkpointing::None);
    let modules = modules(section)?;
    let blocks = blocks(section, kind)?;
    let kind = match (kind, modules) {
        (kind, None) => kind,
        (Checkpointing::Selective, Some(_)) if execution == Execution::Compiled => {
            let message = "needs the modules' own kernels, which execution = \"compiled\" fuses across them";
            return Err(section.conflict("recompute_modules", message));
        }
        (Checkpointing::Selective, Some(modules)) => Checkpointing::Modules(modules),
        (_, Some(_)) => {
            let message = "names what selective recomputation makes again, needs activation_checkpointing = \"selective\"";
            return Err(section.conflict("recompute_modules", message));
        }
    };
    if kind == Checkpointing::Selective && attention.is_fused() {
        return Err(section.conflict(
            "activation_checkpointing",
            "\"selective\" drops the scores of eager attention, of which flash attention keeps none, allowed: \
             \"none\", \"full\", attention = \"eager\", or recompute_modules with other modules",
        ));
    }
    Ok((kind, blocks))
}

/// `recompute_modules = ["core_attn", "layernorm"]`.
fn modules(section: &Section<'_>) -> Result<Option<RecomputedModules>, InputError> {
    let Some(node) = section.node("recompute_modules")? else { return Ok(None) };
    let names: Vec<&str> = RecomputedModule::ALL.iter().map(|(name, _)| *name).collect();
    let allowed = format!("a list of modules, at least one of {}", names.join(", "));
    let refused =
        |node: &crate::tree::Node| wrong(&node.origin, "workload.recompute_modules", &node.value, &allowed);
    let Value::Array(items) = &node.value else { return Err(refused(node)) };
    if items.is_empty() {
        return Err(refused(node));
    }
    let mut modules = RecomputedModules::default();
    for item in items {
        let Value::Text(text) = &item.value else { return Err(refused(item)) };
        let known = RecomputedModule::ALL.iter().find(|(name, _)| name == text);
        let Some((_, module)) = known else {
            return Err(InputError::Value {
                origin: item.origin.clone(),
                key: "workload.recompute_modules".to_owned(),
                found: format!("\"{text}\""),
                allowed,
                nearest: nearest(text, names),
            });
        };
        modules = modules.with(*module);
    }
    Ok(Some(modules))
}

/// `recompute_method` and `recompute_num_layers`, Megatron-LM's.
fn blocks(section: &Section<'_>, kind: Checkpointing) -> Result<CheckpointedBlocks, InputError> {
    let methods = [("uniform", true), ("block", false)];
    let uniform = section.choice("recompute_method", &methods)?;
    let count = section.count("recompute_num_layers", MOST_BLOCKS)?;
    let given = [("recompute_method", uniform.is_some()), ("recompute_num_layers", count.is_some())];
    if kind != Checkpointing::Full
        && let Some((key, _)) = given.iter().find(|(_, given)| *given)
    {
        let message = "says which whole blocks are recomputed, needs activation_checkpointing = \"full\"";
        return Err(section.conflict(key, message));
    }
    match (uniform, count) {
        (None, Some(_)) => {
            let message =
                "needs recompute_method, which says what it counts, allowed: \"uniform\", \"block\"";
            Err(section.conflict("recompute_num_layers", message))
        }
        (None, None) => Ok(CheckpointedBlocks::Each),
        (Some(true), count) if count.unwrap_or(1) == 1 => Ok(CheckpointedBlocks::Each),
        (Some(true), count) => Ok(CheckpointedBlocks::Groups(count.unwrap_or(1))),
        (Some(false), count) => Ok(CheckpointedBlocks::First(count.unwrap_or(1))),
    }
}
