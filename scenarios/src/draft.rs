//! A scenario as it was written, with values that can be changed before it is checked again.

use crate::error::InputError;
use crate::files::Files;
use crate::origin::Origin;
use crate::scenario::Scenario;
use crate::section::Aliases;
use crate::tree::{self, Node, Value};
use crate::{parallelism, workload};

/// A parsed scenario that is not checked yet.
#[derive(Clone, Debug)]
pub struct Draft {
    root: Node,
}

impl Draft {
    /// Parses a scenario. `file` is how errors name it; `options` are `--set` options in order.
    ///
    /// # Errors
    /// The text is not TOML, or an option not of the form `section.key=value`.
    pub fn read(file: &str, text: &str, options: &[String]) -> Result<Self, InputError> {
        let mut root = tree::parse(file, text)?;
        for option in options {
            tree::set(&mut root, option)?;
        }
        Ok(Self { root })
    }

    /// The checked scenario.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn scenario(&self, files: &dyn Files) -> Result<Scenario, InputError> {
        Scenario::from_tree(&self.root, files)
    }

    /// The same with a key of a section in place of whatever the section says of it, under any of its names.
    pub(crate) fn with(mut self, section: &str, key: &str, value: Value) -> Self {
        let origin = Origin::Option { text: format!("{section}.{key}={}", written(&value)) };
        self.remove(section, key);
        if let Some(table) = self.section(section) {
            table.insert(key.to_owned(), Node { value, origin: origin.clone(), key_origin: origin });
        }
        self
    }

    /// The same without a key, under any of its names.
    pub(crate) fn without(mut self, section: &str, key: &str) -> Self {
        self.remove(section, key);
        self
    }

    fn remove(&mut self, section: &str, key: &str) {
        let aliases: Aliases = match section {
            "workload" => workload::ALIASES,
            "parallelism" => parallelism::ALIASES,
            _ => &[],
        };
        let Some(table) = self.section(section) else { return };
        table.shift_remove(key);
        for (alias, _) in aliases.iter().filter(|(_, name)| *name == key) {
            table.shift_remove(*alias);
        }
    }

    /// The table of a section, made where the document has none.
    fn section(&mut self, name: &str) -> Option<&mut indexmap::IndexMap<String, Node>> {
        let origin = self.root.origin.clone();
        let Value::Table(document) = &mut self.root.value else { return None };
        let empty = || Node {
            value: Value::Table(indexmap::IndexMap::new()),
            origin: origin.clone(),
            key_origin: origin.clone(),
        };
        match &mut document.entry(name.to_owned()).or_insert_with(empty).value {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }
}

/// A value as a scenario has it.
pub(crate) fn written(value: &Value) -> String {
    match value {
        Value::Integer(value) => value.to_string(),
        Value::Float(value) => format!("{value:?}"),
        Value::Boolean(value) => value.to_string(),
        Value::Text(value) => format!("\"{value}\""),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| written(&item.value)).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Table(table) => {
            let entry = |(key, node): (&String, &Node)| format!("{key} = {}", written(&node.value));
            let entries: Vec<String> = table.iter().map(entry).collect();
            format!("{{ {} }}", entries.join(", "))
        }
    }
}
