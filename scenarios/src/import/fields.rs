//! Typed reading of a table of the input: every key is asked for, ignored by name, or an error.

use std::cell::RefCell;
use std::collections::BTreeSet;

use indexmap::IndexMap;

use super::node::{Node, Value};
use super::report::{Ignored, Log};
use super::source::Source;
use crate::error::{InputError, nearest};
use crate::origin::Origin;
use crate::section::list;

/// Why a key is ignored.
pub(super) mod reason {
    pub(in crate::import) const NO_EFFECT: &str = "does not change time or memory";
    pub(in crate::import) const NOT_MODELLED: &str = "not modelled";
    pub(in crate::import) const STEADY: &str = "happens outside the steps that are predicted";
    pub(in crate::import) const UNTIMED: &str = "its time is not modelled, and it keeps nothing";
    pub(in crate::import) const LABEL: &str = "a name or a record of where the file comes from";
}

/// A table while it is being read.
pub(super) struct Fields<'a, 't> {
    source: &'a Source<'t>,
    table: &'a IndexMap<String, Node>,
    /// The tables around it and itself, each with a dot behind; `--` before the arguments of a program.
    path: String,
    /// Whether the input has `_` in its keys where they are asked for with `-`.
    underscores: bool,
    at: usize,
    log: &'a RefCell<Log>,
    /// Keys that enter the result.
    asked: RefCell<BTreeSet<String>>,
    /// Keys that are ignored by name.
    known: RefCell<BTreeSet<String>>,
}

impl<'a, 't> Fields<'a, 't> {
    /// The document itself.
    pub(super) fn root(
        source: &'a Source<'t>,
        root: &'a Node,
        log: &'a RefCell<Log>,
    ) -> Result<Self, InputError> {
        match &root.value {
            Value::Table(table) => Ok(Self {
                source,
                table,
                path: String::new(),
                underscores: false,
                at: root.at,
                log,
                asked: RefCell::default(),
                known: RefCell::default(),
            }),
            other => {
                Err(source.syntax(root.at, format!("found {}, allowed: a table of keys", other.describe())))
            }
        }
    }

    /// The same, whose keys are arguments of a program: `--key` on a command line, `key_` in a YAML file.
    pub(super) fn arguments(mut self, command_line: bool) -> Self {
        if command_line {
            "--".clone_into(&mut self.path);
        }
        self.underscores = !command_line;
        self
    }

    /// A table within this one; null counts as absent.
    pub(super) fn section(&self, key: &str) -> Result<Option<Self>, InputError> {
        let Some(node) = self.find(key) else { return Ok(None) };
        let Value::Table(table) = &node.value else { return Err(self.wrong(key, node, "a table")) };
        Ok(Some(Self {
            source: self.source,
            table,
            path: format!("{}{key}.", self.path),
            underscores: self.underscores,
            at: node.at,
            log: self.log,
            asked: RefCell::default(),
            known: RefCell::default(),
        }))
    }

    /// A note about the whole import.
    pub(super) fn note(&self, text: impl Into<String>) {
        self.log.borrow_mut().note(text);
    }

    /// A key's value; null counts as absent.
    pub(super) fn find(&self, key: &str) -> Option<&'a Node> {
        self.asked.borrow_mut().insert(key.to_owned());
        self.table.get(key).filter(|node| !matches!(node.value, Value::Null))
    }

    /// The name that errors give the input.
    pub(super) fn file(&self) -> &'t str {
        self.source.file()
    }

    /// Whether a key is there at all, be it with null.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Whether a key has a value, without reading it.
    pub(super) fn is_given(&self, key: &str) -> bool {
        self.table.get(key).is_some_and(|node| !matches!(node.value, Value::Null))
    }

    /// Where a key's value stands, or where the table begins.
    pub(super) fn place(&self, key: &str) -> Origin {
        self.source.origin(self.table.get(key).map_or(self.at, |node| node.at))
    }

    /// A whole number from `least` to `most`.
    pub(super) fn count(&self, key: &str, least: u64, most: u64) -> Result<Option<u64>, InputError> {
        let Some(node) = self.find(key) else { return Ok(None) };
        match node.value.whole() {
            Some(value) if (least..=most).contains(&value) => Ok(Some(value)),
            _ => Err(self.wrong(key, node, &format!("a whole number from {least} to {most}"))),
        }
    }

    /// A whole number that must be there.
    pub(super) fn need(&self, key: &str, most: u64) -> Result<u64, InputError> {
        self.count(key, 1, most)?
            .ok_or_else(|| self.missing(key, &format!("must be a whole number from 1 to {most}")))
    }

    /// True or false.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, InputError> {
        match self.find(key) {
            None => Ok(None),
            Some(Node { value: Value::Bool(value), .. }) => Ok(Some(*value)),
            Some(node) => Err(self.wrong(key, node, "true or false")),
        }
    }

    /// A number.
    pub(super) fn number(&self, key: &str) -> Result<Option<f64>, InputError> {
        match self.find(key) {
            None => Ok(None),
            Some(Node { value: Value::Number(value), .. }) => Ok(Some(*value)),
            Some(Node { value: Value::Integer(value), .. }) => Ok(Some(*value as f64)),
            Some(node) => Err(self.wrong(key, node, "a number")),
        }
    }

    /// Text.
    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>, InputError> {
        match self.find(key) {
            None => Ok(None),
            Some(Node { value: Value::Text(text), .. }) => Ok(Some(text)),
            Some(node) => Err(self.wrong(key, node, "text in quotes")),
        }
    }

    /// One of some words, each of which stands for a value.
    pub(super) fn choice<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Result<Option<T>, InputError> {
        let Some(node) = self.find(key) else { return Ok(None) };
        if let Value::Text(text) = &node.value {
            if let Some(&(_, value)) = words.iter().find(|(word, _)| word == text) {
                return Ok(Some(value));
            }
            return Err(InputError::Value {
                origin: self.source.origin(node.at),
                key: self.full(key),
                found: node.value.describe(),
                allowed: list(words.iter().map(|(word, _)| *word)),
                nearest: nearest(text, words.iter().map(|(word, _)| *word)),
            });
        }
        Err(self.wrong(key, node, &list(words.iter().map(|(word, _)| *word))))
    }

    /// Puts a key on the list of what is ignored, if it is there and did not enter the result.
    pub(super) fn ignore(&self, key: &str, reason: &str) {
        if self.is_read(key) {
            return;
        }
        self.known.borrow_mut().insert(key.to_owned());
        if let Some(node) = self.table.get(key).filter(|node| !matches!(node.value, Value::Null)) {
            self.log.borrow_mut().ignored.push(Ignored {
                key: self.full(key),
                found: node.value.shown(),
                line: self.source.place(node.key_at).0,
                reason: reason.to_owned(),
            });
        }
    }

    /// Puts each of some keys on the list of what is ignored.
    pub(super) fn ignore_all(&self, keys: &[&str], reason: &str) {
        for key in keys {
            self.ignore(key, reason);
        }
    }

    /// Puts every key that nobody asked for and for which there is a reason on the list of what is ignored.
    pub(super) fn ignore_where(&self, reason: impl Fn(&str) -> Option<&'static str>) {
        for key in self.table.keys() {
            if let Some(reason) = reason(key) {
                self.ignore(key, reason);
            }
        }
    }

    /// Puts every key that nobody asked for on the list of what is ignored.
    pub(super) fn ignore_rest(&self, reason: &str) {
        let rest: Vec<String> = self.table.keys().filter(|key| !self.is_read(key)).cloned().collect();
        for key in rest {
            self.ignore(&key, reason);
        }
    }

    /// Refuses keys that nobody asked for.
    pub(super) fn finish(self) -> Result<(), InputError> {
        let Some((key, node)) = self.table.iter().find(|(key, _)| !self.is_read(key)) else { return Ok(()) };
        let spelled = |keys: &BTreeSet<String>| keys.iter().map(|key| self.spelled(key)).collect::<Vec<_>>();
        let (asked, known) = (spelled(&self.asked.borrow()), spelled(&self.known.borrow()));
        Err(InputError::UnknownKey {
            origin: self.source.origin(node.key_at),
            key: self.full(key),
            allowed: list(asked.iter().map(String::as_str)),
            nearest: nearest(&self.spelled(key), asked.iter().chain(&known).map(String::as_str)),
        })
    }

    /// The key as the input writes it.
    fn spelled(&self, key: &str) -> String {
        if self.underscores { key.replace('-', "_") } else { key.to_owned() }
    }

    fn is_read(&self, key: &str) -> bool {
        self.asked.borrow().contains(key) || self.known.borrow().contains(key)
    }

    /// The key with the tables around it.
    pub(super) fn full(&self, key: &str) -> String {
        format!("{}{}", self.path, self.spelled(key))
    }

    /// A value of the wrong kind, or out of range.
    pub(super) fn wrong(&self, key: &str, node: &Node, allowed: &str) -> InputError {
        InputError::Value {
            origin: self.source.origin(node.at),
            key: self.full(key),
            found: node.value.describe(),
            allowed: allowed.to_owned(),
            nearest: None,
        }
    }

    /// A key that must be there is not, or has a value that was set aside.
    pub(super) fn missing(&self, key: &str, needed: &str) -> InputError {
        let key = self.full(key);
        let log = self.log.borrow();
        let aside = log.ignored.iter().find(|ignored| ignored.key == key);
        let needed = match aside {
            None => needed.to_owned(),
            Some(ignored) => format!("{needed}; found {} ({})", ignored.found, ignored.reason),
        };
        InputError::Missing { origin: self.source.origin(self.at), key, needed }
    }

    /// A key has a value that cannot be.
    pub(super) fn conflict(&self, key: &str, message: impl Into<String>) -> InputError {
        InputError::Conflict { origin: self.place(key), key: self.full(key), message: message.into() }
    }
}
