//! Typed reading of a section: every key is asked for by name, what nobody asked for is an error.

use std::cell::RefCell;

use indexmap::IndexMap;

use crate::error::{InputError, nearest};
use crate::origin::Origin;
use crate::tree::{Node, Value};

/// Names of other tools that mean the same as a key here.
pub(crate) type Aliases = &'static [(&'static str, &'static str)];

/// A key under the name that the file gives it, and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct KeyPlace {
    /// Where the value was written, or where its section begins.
    pub(crate) origin: Origin,
    /// The key with its section.
    pub(crate) key: String,
}

impl KeyPlace {
    /// The key has a value that cannot be.
    pub(crate) fn conflict(&self, message: impl Into<String>) -> InputError {
        InputError::Conflict { origin: self.origin.clone(), key: self.key.clone(), message: message.into() }
    }
}

/// A section while it is being read.
pub(crate) struct Section<'a> {
    name: &'static str,
    table: Option<&'a IndexMap<String, Node>>,
    origin: Origin,
    aliases: Aliases,
    asked: RefCell<Vec<&'static str>>,
}

impl<'a> Section<'a> {
    /// The section `name` of a document; an absent one reads as empty.
    pub(crate) fn of(root: &'a Node, name: &'static str, aliases: Aliases) -> Result<Self, InputError> {
        let Value::Table(document) = &root.value else {
            return Err(wrong(&root.origin, name, &root.value, "a table"));
        };
        match document.get(name) {
            None => Ok(Self::new(name, None, root.origin.clone(), aliases)),
            Some(Node { value: Value::Table(table), origin, .. }) => {
                Ok(Self::new(name, Some(table), origin.clone(), aliases))
            }
            Some(other) => Err(wrong(&other.origin, name, &other.value, "a table")),
        }
    }

    /// A table that is the value of a key; `name` is the key with its section.
    pub(crate) fn inner(node: &'a Node, name: &'static str) -> Result<Self, InputError> {
        match &node.value {
            Value::Table(table) => Ok(Self::new(name, Some(table), node.origin.clone(), &[])),
            other => Err(wrong(&node.origin, name, other, "a table")),
        }
    }

    /// The keys of the document itself.
    pub(crate) fn top(root: &'a Node) -> Result<Self, InputError> {
        match &root.value {
            Value::Table(table) => Ok(Self::new("", Some(table), root.origin.clone(), &[])),
            other => Err(wrong(&root.origin, "scenario", other, "a table")),
        }
    }

    fn new(
        name: &'static str,
        table: Option<&'a IndexMap<String, Node>>,
        origin: Origin,
        aliases: Aliases,
    ) -> Self {
        Self { name, table, origin, aliases, asked: RefCell::new(Vec::new()) }
    }

    /// Where the section begins.
    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Whether the file has the section.
    pub(crate) fn is_present(&self) -> bool {
        self.table.is_some()
    }

    /// The key with the section's name before it, as the file writes it: messages should show what the user knows.
    pub(crate) fn full(&self, key: &str) -> String {
        let written = self.find(key).ok().flatten().map_or(key, |(name, _)| name);
        if self.name.is_empty() { written.to_owned() } else { format!("{}.{written}", self.name) }
    }

    /// Where a key was written, or where its section begins.
    pub(crate) fn place(&self, key: &str) -> Origin {
        self.find(key).ok().flatten().map_or_else(|| self.origin.clone(), |(_, node)| node.origin.clone())
    }

    /// A key as errors that show up later name it.
    pub(crate) fn key_place(&self, key: &str) -> KeyPlace {
        KeyPlace { origin: self.place(key), key: self.full(key) }
    }

    /// A key's value under its own name or another tool's, with that name; both at once is an error.
    fn find(&self, key: &str) -> Result<Option<(&'a str, &'a Node)>, InputError> {
        let Some(table) = self.table else { return Ok(None) };
        let mut names = vec![key];
        names.extend(self.aliases.iter().filter(|(_, own)| *own == key).map(|(alias, _)| *alias));
        let present: Vec<&str> = names.into_iter().filter(|name| table.contains_key(*name)).collect();
        if let [first, second, ..] = present[..] {
            return Err(InputError::Conflict {
                origin: table[second].origin.clone(),
                key: self.full(second),
                message: format!("means the same as `{first}`, which is also given; keep one"),
            });
        }
        Ok(present
            .first()
            .and_then(|name| table.get_key_value(*name))
            .map(|(name, node)| (name.as_str(), node)))
    }

    /// A key's value, if it is there.
    pub(crate) fn node(&self, key: &'static str) -> Result<Option<&'a Node>, InputError> {
        let mut asked = self.asked.borrow_mut();
        if !asked.contains(&key) {
            asked.push(key);
        }
        drop(asked);
        Ok(self.find(key)?.map(|(_, node)| node))
    }

    /// Text.
    pub(crate) fn text(&self, key: &'static str) -> Result<Option<(String, Origin)>, InputError> {
        match self.node(key)? {
            None => Ok(None),
            Some(Node { value: Value::Text(text), origin, .. }) => Ok(Some((text.clone(), origin.clone()))),
            Some(other) => Err(wrong(&other.origin, &self.full(key), &other.value, "text in quotes")),
        }
    }

    /// Texts, one or a list of them; none where the key is not there.
    pub(crate) fn texts(&self, key: &'static str) -> Result<Vec<(String, Origin)>, InputError> {
        let Some(node) = self.node(key)? else { return Ok(Vec::new()) };
        let items = match &node.value {
            Value::Array(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        let text = |item: &Node| match &item.value {
            Value::Text(text) => Ok((text.clone(), item.origin.clone())),
            other => Err(wrong(&item.origin, &self.full(key), other, "text in quotes, or a list of it")),
        };
        items.iter().map(text).collect()
    }

    /// True or false.
    pub(crate) fn flag(&self, key: &'static str) -> Result<Option<bool>, InputError> {
        match self.node(key)? {
            None => Ok(None),
            Some(Node { value: Value::Boolean(value), .. }) => Ok(Some(*value)),
            Some(other) => Err(wrong(&other.origin, &self.full(key), &other.value, "true or false")),
        }
    }

    /// A whole number from 1 to `most`.
    pub(crate) fn count(&self, key: &'static str, most: u64) -> Result<Option<u64>, InputError> {
        self.number(key, 1, most)
    }

    /// A whole number from `least` to `most`.
    pub(crate) fn number(&self, key: &'static str, least: u64, most: u64) -> Result<Option<u64>, InputError> {
        let Some(node) = self.node(key)? else { return Ok(None) };
        whole(node, least, most)
            .ok_or_else(|| {
                let allowed = format!("a whole number from {least} to {most}");
                wrong(&node.origin, &self.full(key), &node.value, &allowed)
            })
            .map(Some)
    }

    /// A number from `least` to `most`.
    pub(crate) fn factor(&self, key: &'static str, least: f64, most: f64) -> Result<Option<f64>, InputError> {
        let Some(node) = self.node(key)? else { return Ok(None) };
        let value = match node.value {
            Value::Float(value) => value,
            Value::Integer(value) => value as f64,
            _ => f64::NAN,
        };
        if (least..=most).contains(&value) {
            Ok(Some(value))
        } else {
            let allowed = format!("a number from {least} to {most}");
            Err(wrong(&node.origin, &self.full(key), &node.value, &allowed))
        }
    }

    /// A list of whole numbers from 1.
    pub(crate) fn counts(&self, key: &'static str) -> Result<Option<Vec<u64>>, InputError> {
        let Some(node) = self.node(key)? else { return Ok(None) };
        let Value::Array(items) = &node.value else {
            return Err(wrong(&node.origin, &self.full(key), &node.value, "a list of whole numbers"));
        };
        let read = |item: &Node| {
            whole(item, 0, 1 << 32)
                .ok_or_else(|| wrong(&item.origin, &self.full(key), &item.value, "a list of whole numbers"))
        };
        items.iter().map(read).collect::<Result<Vec<_>, _>>().map(Some)
    }

    /// One of a list of words.
    pub(crate) fn choice<T: Copy>(
        &self,
        key: &'static str,
        words: &[(&'static str, T)],
    ) -> Result<Option<T>, InputError> {
        let Some(node) = self.node(key)? else { return Ok(None) };
        let Value::Text(text) = &node.value else {
            let allowed = list(words.iter().map(|(word, _)| *word));
            return Err(wrong(&node.origin, &self.full(key), &node.value, &allowed));
        };
        let known = words.iter().find(|(word, _)| word == text);
        known.map(|&(_, value)| Some(value)).ok_or_else(|| InputError::Value {
            origin: node.origin.clone(),
            key: self.full(key),
            found: node.value.describe(),
            allowed: list(words.iter().map(|(word, _)| *word)),
            nearest: nearest(text, words.iter().map(|(word, _)| *word)),
        })
    }

    /// A key that must be there is not.
    pub(crate) fn missing(&self, key: &str, needed: &str) -> InputError {
        InputError::Missing { origin: self.origin.clone(), key: self.full(key), needed: needed.to_owned() }
    }

    /// A key has a value that cannot be.
    pub(crate) fn conflict(&self, key: &str, message: impl Into<String>) -> InputError {
        self.key_place(key).conflict(message)
    }

    /// Refuses keys that nobody asked for.
    pub(crate) fn finish(self) -> Result<(), InputError> {
        let Some(table) = self.table else { return Ok(()) };
        let asked = self.asked.borrow();
        for (key, node) in table {
            let own =
                self.aliases.iter().find(|(alias, _)| alias == key).map_or(key.as_str(), |(_, own)| own);
            if !asked.contains(&own) {
                return Err(InputError::UnknownKey {
                    origin: node.key_origin.clone(),
                    key: self.full(key),
                    allowed: list(asked.iter().copied()),
                    nearest: nearest(key, asked.iter().copied()),
                });
            }
        }
        Ok(())
    }
}

/// A whole number in a range.
fn whole(node: &Node, least: u64, most: u64) -> Option<u64> {
    match node.value {
        Value::Integer(value) => u64::try_from(value).ok().filter(|value| (least..=most).contains(value)),
        _ => None,
    }
}

/// The tables of a list; none where the key is not there.
pub(crate) fn tables<'a>(section: &Section<'a>, key: &'static str) -> Result<&'a [Node], InputError> {
    match section.node(key)? {
        None => Ok(&[]),
        Some(Node { value: Value::Array(items), .. }) => Ok(items),
        Some(other) => Err(wrong(&other.origin, &section.full(key), &other.value, "a list of tables")),
    }
}

/// A value of the wrong kind, or out of range.
pub(crate) fn wrong(origin: &Origin, key: &str, value: &Value, allowed: &str) -> InputError {
    InputError::Value {
        origin: origin.clone(),
        key: key.to_owned(),
        found: value.describe(),
        allowed: allowed.to_owned(),
        nearest: None,
    }
}

/// Names in a row.
pub(crate) fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().collect::<Vec<_>>().join(", ")
}
