//! A scenario file as a tree of values that know where they were written.

use indexmap::IndexMap;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::InputError;
use crate::lines::Lines;
use crate::origin::Origin;

/// A value and its origin.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// Where it was written.
    pub origin: Origin,
    /// Where its key was written; the same place for what has no key.
    pub key_origin: Origin,
}

impl Node {
    fn without_key(value: Value, origin: Origin) -> Self {
        Self { value, key_origin: origin.clone(), origin }
    }
}

/// A TOML value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Whole number.
    Integer(i64),
    /// Number with a fraction or exponent.
    Float(f64),
    /// True or false.
    Boolean(bool),
    /// Text in quotes.
    Text(String),
    /// List.
    Array(Vec<Node>),
    /// Keys and values.
    Table(IndexMap<String, Node>),
}

impl Value {
    /// Kind and value in words, for error messages: `the text "abc"`.
    pub fn describe(&self) -> String {
        match self {
            Self::Integer(value) => format!("the integer {value}"),
            // Not `{value}`, which writes 1e300 with 300 zeros.
            Self::Float(value) => format!("the number {value:?}"),
            Self::Boolean(value) => format!("{value}"),
            Self::Text(value) => format!("\"{}\"", shorten(value)),
            Self::Array(items) => format!("a list of {}", items.len()),
            Self::Table(_) => "a table".to_owned(),
        }
    }
}

/// At most 60 characters of what a user wrote.
fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(60).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short.escape_debug().to_string()
}

/// Parses a document.
///
/// # Errors
/// The document is not TOML; the message names line and column.
pub(crate) fn parse(file: &str, text: &str) -> Result<Node, InputError> {
    let place = Place { file, lines: Lines::new(text) };
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        InputError::Syntax { origin: place.of(at), message: error.message().to_owned() }
    })?;
    Ok(Node::without_key(place.table(table.get_ref())?, place.of(0)))
}

/// Applies a `--set section.key=value` option. The value is read as TOML; what is not TOML is taken as text.
///
/// # Errors
/// The option has no `=`, an empty key, or a key that leads through something that is not a table.
pub(crate) fn set(root: &mut Node, option: &str) -> Result<(), InputError> {
    let origin = Origin::Option { text: option.to_owned() };
    let refuse = |message: String| InputError::Syntax { origin: origin.clone(), message };
    let Some((path, text)) = option.split_once('=') else {
        return Err(refuse("found no `=`, allowed: section.key=value".to_owned()));
    };
    let value = parse("--set", &format!("value = {text}"))
        .ok()
        .and_then(|node| match node.value {
            Value::Table(mut table) if table.len() == 1 => table.shift_remove("value"),
            _ => None,
        })
        .map_or_else(|| Value::Text(text.trim().to_owned()), |node| node.value);
    let value = reorigin(value, &origin);
    let keys: Vec<&str> = path.split('.').map(str::trim).collect();
    if keys.iter().any(|key| key.is_empty()) {
        return Err(refuse(format!("found an empty key in `{path}`, allowed: section.key=value")));
    }
    insert(root, &keys, Node::without_key(value, origin.clone())).map_err(refuse)
}

/// Puts a node at a path of keys, making the tables that lead there.
pub(crate) fn insert(node: &mut Node, keys: &[&str], leaf: Node) -> Result<(), String> {
    let Some((key, rest)) = keys.split_first() else {
        *node = leaf;
        return Ok(());
    };
    let Value::Table(table) = &mut node.value else {
        return Err(format!("`{key}` cannot be set inside {}", node.value.describe()));
    };
    let empty = Node::without_key(Value::Table(IndexMap::new()), leaf.origin.clone());
    insert(table.entry((*key).to_owned()).or_insert(empty), rest, leaf)
}

fn reorigin(value: Value, origin: &Origin) -> Value {
    let renew = |node: Node| Node::without_key(reorigin(node.value, origin), origin.clone());
    match value {
        Value::Array(items) => Value::Array(items.into_iter().map(renew).collect()),
        Value::Table(table) => {
            Value::Table(table.into_iter().map(|(key, node)| (key, renew(node))).collect())
        }
        plain => plain,
    }
}

struct Place<'a> {
    file: &'a str,
    lines: Lines<'a>,
}

impl Place<'_> {
    fn of(&self, byte: usize) -> Origin {
        let (line, column) = self.lines.place(byte.min(self.lines.text().len()));
        Origin::at(self.file, line, column)
    }

    fn table(&self, table: &DeTable<'_>) -> Result<Value, InputError> {
        // The parser keeps keys sorted; messages about several keys should follow the file.
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let mut map = IndexMap::with_capacity(entries.len());
        for (key, value) in entries {
            let mut node = self.node(value)?;
            node.key_origin = self.of(key.span().start);
            map.insert(key.get_ref().to_string(), node);
        }
        Ok(Value::Table(map))
    }

    fn node(&self, value: &Spanned<DeValue<'_>>) -> Result<Node, InputError> {
        let origin = self.of(value.span().start);
        let refuse = |message: String| InputError::Syntax { origin: origin.clone(), message };
        let value = match value.get_ref() {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(number) => Value::Integer(
                i64::from_str_radix(number.as_str(), number.radix())
                    .map_err(|_| refuse(format!("the integer {number} is out of range")))?,
            ),
            DeValue::Float(number) => Value::Float(
                number.as_str().parse().map_err(|_| refuse(format!("`{number}` is not a number")))?,
            ),
            DeValue::Boolean(value) => Value::Boolean(*value),
            DeValue::Datetime(_) => {
                return Err(refuse("found a date, which no key takes".to_owned()));
            }
            DeValue::Array(items) => {
                Value::Array(items.iter().map(|item| self.node(item)).collect::<Result<_, _>>()?)
            }
            DeValue::Table(table) => self.table(table)?,
        };
        Ok(Node::without_key(value, origin))
    }
}
