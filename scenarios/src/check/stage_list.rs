//! A list of stages as Alpa's `ManualStageOption` has it, as keys of a scenario.
//!
//! `forward_stage_layer_ids` lists the layers of each stage, numbered from 0; `submesh_physical_shapes` the hosts and devices of
//! each, `submesh_logical_shapes` the data- and tensor-parallel ranks (alpa/pipeline_parallel/stage_construction.py).

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::Claim;
use crate::error::InputError;
use crate::origin::Origin;

/// What a stage list says.
#[derive(Clone, Debug, PartialEq)]
pub struct StageList {
    /// Keys of a scenario, as `section.key=value` of `--set`.
    pub set: Vec<String>,
    /// Layers that are missing, there twice, or out of order: what makes the list no plan.
    pub violations: Vec<String>,
    /// Its author's numbers.
    pub claim: Claim,
}

fn syntax(file: &str, line: usize, message: impl Into<String>) -> InputError {
    InputError::Syntax { origin: Origin::at(file, line, 1), message: message.into() }
}

/// Reads a stage list for a model of so many blocks.
///
/// # Errors
/// The text is no stage list, or one whose stages are unequal: stages of different shapes cannot be played.
pub fn stage_list(file: &str, text: &str, blocks: u64) -> Result<StageList, InputError> {
    let document: Json = serde_json::from_str(text)
        .map_err(|error| syntax(file, error.line(), format!("not JSON: {error}")))?;
    let known = [
        "forward_stage_layer_ids",
        "submesh_physical_shapes",
        "submesh_logical_shapes",
        "submesh_autosharding_option_dicts",
        "num_micro_batches",
        "batch_size",
        "claim",
    ];
    let table = document.as_object().ok_or_else(|| syntax(file, 1, "found no table"))?;
    if let Some(key) = table.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(syntax(file, 1, format!("{key}: unknown key, allowed: {}", known.join(", "))));
    }
    let stages = lists(file, table.get(known[0]), known[0])?;
    let logical = lists(file, table.get(known[2]).or_else(|| table.get(known[1])), known[2])?;
    if logical.len() != stages.len() {
        let message = format!("{} stages, but {} shapes", stages.len(), logical.len());
        return Err(syntax(file, 1, message));
    }
    let shape = match logical.first().map(Vec::as_slice) {
        Some(&[data, tensor]) if data > 0 && tensor > 0 => (data, tensor),
        _ => return Err(syntax(file, 1, format!("{}: a shape is [data, tensor]", known[2]))),
    };
    if let Some(other) = logical.iter().position(|other| other != &logical[0]) {
        let message = format!(
            "{}: stage {other} is {:?} and stage 0 {:?}; stages of different shapes cannot be played",
            known[2], logical[other], logical[0]
        );
        return Err(syntax(file, 1, message));
    }
    let counts: Vec<String> = stages.iter().map(|stage| stage.len().to_string()).collect();
    let mut set = vec![
        format!("parallelism.pipeline={}", stages.len()),
        format!("parallelism.data={}", shape.0),
        format!("parallelism.tensor={}", shape.1),
        format!("parallelism.stages=[{}]", counts.join(", ")),
    ];
    let number = |key: &str| match table.get(key) {
        None => Ok(None),
        Some(value) => value
            .as_u64()
            .map(Some)
            .ok_or_else(|| syntax(file, 1, format!("{key}: found {value}, allowed: a whole number"))),
    };
    if let Some(count) = number("num_micro_batches")? {
        set.push(format!("workload.gradient_accumulation_steps={count}"));
        if let Some(batch) = number("batch_size")? {
            let each = count.saturating_mul(shape.0).max(1);
            if batch % each != 0 {
                let message =
                    format!("batch_size {batch} is no multiple of {count} micro-batches x {} ranks", shape.0);
                return Err(syntax(file, 1, message));
            }
            set.push(format!("workload.micro_batch_size={}", batch / each));
        }
    }
    let claim = table.get("claim");
    let claimed = |key: &str| claim.and_then(|claim| claim.get(key)?.as_f64());
    let claim =
        Claim { step_time_s: claimed("step_time_s"), peak_memory_bytes: claimed("peak_memory_bytes") };
    Ok(StageList { set, violations: violations(&stages, blocks), claim })
}

fn lists(file: &str, node: Option<&Json>, key: &str) -> Result<Vec<Vec<u64>>, InputError> {
    let numbers = |item: &Json| item.as_array()?.iter().map(Json::as_u64).collect::<Option<Vec<u64>>>();
    let found =
        node.and_then(Json::as_array).and_then(|items| items.iter().map(numbers).collect::<Option<Vec<_>>>());
    found.filter(|lists| !lists.is_empty()).ok_or_else(|| {
        syntax(file, 1, format!("{key}: found none, allowed: a list of lists of whole numbers"))
    })
}

/// Every layer once, in order.
fn violations(stages: &[Vec<u64>], blocks: u64) -> Vec<String> {
    let mut found = Vec::new();
    // Stages by layer, each once.
    let mut placed: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (index, stage) in stages.iter().enumerate() {
        for layer in stage {
            let places = placed.entry(*layer).or_default();
            if places.last() != Some(&index) {
                places.push(index);
            }
        }
    }
    for layer in 0..blocks {
        let places = placed.get(&layer).map_or(&[][..], Vec::as_slice);
        match places.len() {
            0 => found.push(format!("layer {layer} is on no stage")),
            1 => {}
            count => {
                let places: Vec<String> = places.iter().map(ToString::to_string).collect();
                found.push(format!("layer {layer} is placed {count} times, on stages {}", places.join(", ")));
            }
        }
    }
    let all: Vec<u64> = stages.iter().flatten().copied().collect();
    if let Some(layer) = all.iter().find(|&&layer| layer >= blocks) {
        found.push(format!("layer {layer} does not exist: the model has {blocks} blocks, numbered from 0"));
    }
    if found.is_empty() && all.windows(2).any(|pair| pair[0] >= pair[1]) {
        found.push("layers are not in the model's order".to_owned());
    }
    found
}
