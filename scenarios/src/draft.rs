//! A scenario as it was written, with values that can be changed before it is checked again.

use crate::error::InputError;
use crate::files::Files;
use crate::origin::Origin;
use crate::scenario::Scenario;
use crate::section::Aliases;
use crate::tree::{self, Node, Value};
use crate::{input, parallelism, workload};

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

    /// Names the scenario by all that it says: 128 bits of its values, not of comments and spaces, and of the files that it
    /// names.
    pub fn digest(&self, files: &dyn Files) -> String {
        crate::sweep::digest(crate::sweep::texts(self, files))
    }

    /// The scenario's name, if the document gives one.
    pub(crate) fn name(&self) -> Option<String> {
        match &self.root.value {
            Value::Table(document) => match &document.get("name")?.value {
                Value::Text(name) => Some(name.clone()),
                _ => None,
            },
            _ => None,
        }
    }

    /// The same with `--set` options.
    ///
    /// # Errors
    /// An option is not of the form `section.key=value`.
    pub fn set(mut self, options: &[String]) -> Result<Self, InputError> {
        for option in options {
            tree::set(&mut self.root, option)?;
        }
        Ok(self)
    }

    /// The document as TOML: what options have set stands in its place, comments are gone. Reading the text gives the same
    /// scenario.
    pub fn toml(&self) -> String {
        let Value::Table(document) = &self.root.value else { return String::new() };
        let is_section = |node: &&Node| matches!(node.value, Value::Table(_));
        let mut text = String::new();
        for (key, node) in document.iter().filter(|(_, node)| !is_section(node)) {
            text += &format!("{} = {}\n", written_key(key), written(&node.value));
        }
        for (section, node) in document {
            let Value::Table(table) = &node.value else { continue };
            let gap = if text.is_empty() { "" } else { "\n" };
            text += &format!("{gap}[{}]\n", written_key(section));
            for (key, node) in table {
                text += &format!("{} = {}\n", written_key(key), written(&node.value));
            }
        }
        text
    }

    /// The document.
    pub(crate) fn root(&self) -> &Node {
        &self.root
    }

    /// The same without a section, and the section.
    pub(crate) fn take(mut self, section: &str) -> (Self, Option<Node>) {
        let node = match &mut self.root.value {
            Value::Table(document) => document.shift_remove(section),
            _ => None,
        };
        (self, node)
    }

    /// The same with a value at a path of keys, in place of what the document says there under any of its names. `named` is
    /// how errors name the path.
    ///
    /// # Errors
    /// The path leads through something that is not a table.
    pub(crate) fn at(mut self, path: &[String], node: Node, named: &str) -> Result<Self, InputError> {
        if let [section, key] = path {
            let own =
                aliases(section).iter().find(|(alias, _)| alias == key).map_or(key.as_str(), |(_, own)| own);
            self.remove(section, own);
        }
        let keys: Vec<&str> = path.iter().map(String::as_str).collect();
        let origin = node.key_origin.clone();
        let refuse = |message| InputError::Conflict { origin, key: named.to_owned(), message };
        tree::insert(&mut self.root, &keys, node).map_err(refuse)?;
        Ok(self)
    }

    fn remove(&mut self, section: &str, key: &str) {
        let aliases = aliases(section);
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

/// Names of other tools for the keys of a section.
fn aliases(section: &str) -> Aliases {
    match section {
        "workload" => workload::ALIASES,
        "parallelism" => parallelism::ALIASES,
        "input" => input::ALIASES,
        _ => &[],
    }
}

/// A value as a scenario has it.
pub(crate) fn written(value: &Value) -> String {
    match value {
        Value::Integer(value) => value.to_string(),
        Value::Float(value) => format!("{value:?}"),
        Value::Boolean(value) => value.to_string(),
        Value::Text(value) => toml::Value::String(value.clone()).to_string(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| written(&item.value)).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Table(table) => {
            let entry =
                |(key, node): (&String, &Node)| format!("{} = {}", written_key(key), written(&node.value));
            let entries: Vec<String> = table.iter().map(entry).collect();
            format!("{{ {} }}", entries.join(", "))
        }
    }
}

/// A key as a scenario has it: quoted unless it is made of letters, digits, `_` and `-`.
fn written_key(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !key.is_empty() && key.chars().all(bare) {
        key.to_owned()
    } else {
        toml::Value::String(key.to_owned()).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_reads_as_it_was_written() {
        let text = "name = 'a \"quoted\" name'\nlist = [1, 2.5]\n\n[model]\nname = \"bert-base\"\n\
                    overrides = { layers = 12, \"odd key\" = true }\n\n[sweep]\n\"workload.micro_batch_size\" = [1, 2]\n";
        let draft = Draft::read("a.toml", text, &[]).unwrap();
        assert_eq!(draft.toml(), text);
    }

    #[test]
    fn options_stand_where_they_belong() {
        let options = ["workload.micro_batch_size=8".to_owned(), "name=other".to_owned()];
        let draft =
            Draft::read("a.toml", "name = \"one\"\n[workload]\nprecision = \"bf16\"\n", &options).unwrap();
        assert_eq!(
            draft.toml(),
            "name = \"other\"\n\n[workload]\nprecision = \"bf16\"\nmicro_batch_size = 8\n"
        );
    }
}
