//! What of the model is trained: `workload.trainable` and `workload.lora`.

use steptime_models::{Lora, Model, ModelError, Trainable};
use steptime_plans::Task;

use crate::error::{InputError, nearest};
use crate::section::{Section, wrong};
use crate::tree::{Node, Value};
use crate::workload::read_task;

/// Rank at which an adapter is no longer small beside any layer that is built.
const MOST_RANK: u64 = 1 << 16;

/// `trainable = "all"`, `trainable = { lora = {...} }` or, the same, `lora = {...}`; applied to the model.
pub(crate) fn apply(section: &Section<'_>, model: Model) -> Result<Model, InputError> {
    let Some((key, lora)) = read(section)? else { return Ok(model) };
    if read_task(section)? == Task::Inference {
        return Err(section.conflict(key, "inference trains nothing; leave this key out"));
    }
    if model.components().is_some() {
        let message =
            format!("{} is a component model, without linear layers that could be adapted", model.name);
        return Err(section.conflict(key, message));
    }
    model.with_trainable(Trainable::Lora(lora)).map_err(|error| match error {
        ModelError::NoSuchLinear { target, known } => InputError::Value {
            origin: section.place(key),
            key: "workload.lora.targets".to_owned(),
            found: format!("\"{target}\", which is no linear layer of the model"),
            allowed: format!("\"{}\" or any of {}", Trainable::ALL_LINEAR, known.join(", ")),
            nearest: nearest(&target, known.iter().map(String::as_str)),
        },
        other => section.conflict(key, other.to_string()),
    })
}

fn read(section: &Section<'_>) -> Result<Option<(&'static str, Lora)>, InputError> {
    let direct = section.node("lora")?;
    let trainable = section.node("trainable")?;
    if let (Some(_), Some(_)) = (direct, trainable) {
        return Err(section.conflict("lora", "contradicts `trainable`: keep one of the two"));
    }
    if let Some(node) = direct {
        return Ok(Some(("lora", adapter(node)?)));
    }
    let allowed = "\"all\" or { lora = { rank = 16, targets = [...] } }";
    let Some(node) = trainable else { return Ok(None) };
    match &node.value {
        Value::Text(text) if text == "all" => Ok(None),
        Value::Table(table) => match table.first() {
            Some((key, inner)) if key == "lora" && table.len() == 1 => {
                Ok(Some(("trainable", adapter(inner)?)))
            }
            _ => Err(wrong(&node.origin, "workload.trainable", &node.value, allowed)),
        },
        other => Err(wrong(&node.origin, "workload.trainable", other, allowed)),
    }
}

/// `{ rank = 16, targets = ["q_proj", ...], dropout = 0.05 }`.
fn adapter(node: &Node) -> Result<Lora, InputError> {
    let section = Section::inner(node, "workload.lora")?;
    let needed = "the inner width of the adapters, such as 16";
    let rank = section.count("rank", MOST_RANK)?.ok_or_else(|| section.missing("rank", needed))?;
    let dropout = section.factor("dropout", 0.0, 1.0)?.unwrap_or(0.0) > 0.0;
    let targets = match section.node("targets")? {
        None => vec![Trainable::ALL_LINEAR.to_owned()],
        Some(Node { value: Value::Text(text), .. }) => vec![text.clone()],
        Some(node) => targets(node)?,
    };
    section.finish()?;
    Ok(Lora { rank, targets, dropout })
}

fn targets(node: &Node) -> Result<Vec<String>, InputError> {
    let refused = |node: &Node| {
        let allowed = "a list of names of linear layers, at least one";
        wrong(&node.origin, "workload.lora.targets", &node.value, allowed)
    };
    let Value::Array(items) = &node.value else { return Err(refused(node)) };
    if items.is_empty() {
        return Err(refused(node));
    }
    items
        .iter()
        .map(|item| match &item.value {
            Value::Text(text) if !text.is_empty() => Ok(text.clone()),
            _ => Err(refused(item)),
        })
        .collect()
}
