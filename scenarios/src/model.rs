//! The `[model]` section.

use steptime_models::{FieldValue, Model, ModelError, Overrides, Sample};

use crate::error::{InputError, nearest};
use crate::files::Files;
use crate::import;
use crate::origin::Origin;
use crate::section::{KeyPlace, Section, wrong};
use crate::tree::{Node, Value};

/// The model of a scenario, and the sequence length to run it at where one is given.
pub(crate) struct ModelSection {
    pub(crate) model: Model,
    pub(crate) sequence_length: Option<u64>,
    pub(crate) sequence_key: KeyPlace,
    /// The key that names the model.
    pub(crate) named: KeyPlace,
}

/// Reads the model that a scenario names. `image_size` is an architecture field like those of `overrides`.
pub(crate) fn read(root: &Node, files: &dyn Files) -> Result<ModelSection, InputError> {
    let section = Section::of(root, "model", &[])?;
    if !section.is_present() {
        return Err(section.missing("name", "a model of the catalogue (`steptime models` lists them)"));
    }
    let name = section.text("name")?;
    let file = section.text("file")?;
    let config = section.text("hf")?;
    let mut overrides = Overrides::none();
    let sequence_length = section.count("sequence_length", 1 << 24)?;
    if let Some(size) = section.count("image_size", 1 << 16)? {
        overrides.set("image_size", FieldValue::Integer(size.cast_signed()));
    }
    if let Some(node) = section.node("overrides")? {
        read_overrides(node, "", &mut overrides)?;
    }
    let named = section.key_place(match (&file, &config) {
        (Some(_), _) => "file",
        (None, Some(_)) => "hf",
        (None, None) => "name",
    });
    let at = Place {
        overrides: section.place("overrides"),
        image_size: section.place("image_size"),
        named: named.origin.clone(),
    };
    let read = |key: &str, path: &str, origin| {
        files.read(path).map_err(|message| InputError::Conflict { origin, key: section.full(key), message })
    };
    let model = match (name, file, config) {
        (Some((name, _)), None, None) => {
            Model::from_catalogue(&name, &overrides).map_err(|e| at.error(e, "name"))?
        }
        (None, Some((path, origin)), None) => {
            let text = read("file", &path, origin)?;
            Model::from_toml(&text, &overrides).map_err(|e| at.error(e, "file"))?
        }
        (None, None, Some((path, origin))) => {
            let text = read("hf", &path, origin)?;
            let imported = import::hf(&path, &text)?;
            let model = imported.file("model.toml").unwrap_or_default();
            Model::from_toml(model, &overrides).map_err(|e| at.error(e, "hf"))?
        }
        (Some(_), Some(_), _) => {
            return Err(section.conflict("file", "contradicts `name`: keep one of the two"));
        }
        (Some(_), None, Some(_)) => {
            return Err(section.conflict("hf", "contradicts `name`: keep one of the two"));
        }
        (None, Some(_), Some(_)) => {
            return Err(section.conflict("hf", "contradicts `file`: keep one of the two"));
        }
        (None, None, None) => {
            return Err(section.missing("name", "a model of the catalogue (`steptime models` lists them)"));
        }
    };
    if sequence_length.is_some() && !matches!(model.sample, Sample::Tokens { .. }) {
        let message = format!("{} takes no sequences; leave it out", model.name);
        return Err(section.conflict("sequence_length", message));
    }
    let sequence_key = section.key_place("sequence_length");
    section.finish()?;
    Ok(ModelSection { model, sequence_length, sequence_key, named })
}

/// Fields of the architecture; those of its tables as `experts.count` or in a table of their own.
fn read_overrides(node: &Node, inside: &str, overrides: &mut Overrides) -> Result<(), InputError> {
    let Value::Table(table) = &node.value else {
        return Err(wrong(&node.origin, "model.overrides", &node.value, "a table such as { layers = 12 }"));
    };
    for (key, node) in table {
        let field = if inside.is_empty() { key.clone() } else { format!("{inside}.{key}") };
        let value = match &node.value {
            Value::Integer(value) => FieldValue::Integer(*value),
            Value::Float(value) => FieldValue::Float(*value),
            Value::Boolean(value) => FieldValue::Bool(*value),
            Value::Text(value) => FieldValue::Text(value.clone()),
            Value::Table(fields) if inside.is_empty() && !fields.is_empty() => {
                read_overrides(node, &field, overrides)?;
                continue;
            }
            other => {
                let allowed = "a number, text, true or false";
                return Err(wrong(&node.origin, &format!("model.overrides.{field}"), other, allowed));
            }
        };
        overrides.set(field, value);
    }
    Ok(())
}

struct Place {
    named: Origin,
    overrides: Origin,
    image_size: Origin,
}

impl Place {
    fn error(&self, error: ModelError, key: &str) -> InputError {
        match error {
            ModelError::UnknownModel { name, known, .. } => InputError::Value {
                origin: self.named.clone(),
                key: "model.name".to_owned(),
                found: format!("\"{name}\""),
                allowed: "a model of the catalogue (`steptime models` lists them)".to_owned(),
                nearest: nearest(&name, known.iter().map(String::as_str)),
            },
            other => {
                let text = other.to_string();
                let origin = if text.contains("image_size") { &self.image_size } else { &self.overrides };
                // An imported configuration is written by the importer: what is wrong comes from overrides.
                let origin = if key == "file" { &self.named } else { origin };
                InputError::Conflict { origin: origin.clone(), key: "model".to_owned(), message: text }
            }
        }
    }
}
