//! What JSON, YAML and TOML have in common: a tree of values that know where they stand.

use indexmap::IndexMap;

/// A value and its place, as bytes from the beginning of the text.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) value: Value,
    /// Where the value begins.
    pub(super) at: usize,
    /// Where its key begins; the same for what has none.
    pub(super) key_at: usize,
}

/// A value of any of the formats.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    Number(f64),
    Text(String),
    List(Vec<Node>),
    Table(IndexMap<String, Node>),
}

impl Node {
    pub(super) fn new(value: Value, at: usize) -> Self {
        Self { value, at, key_at: at }
    }
}

impl Value {
    /// As a message shows it: kind and value.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Integer(value) => format!("the integer {value}"),
            Self::Number(value) => format!("the number {value:?}"),
            Self::Text(text) => format!("\"{}\"", shorten(text)),
            Self::List(items) => format!("a list of {}", items.len()),
            Self::Table(_) => "a table".to_owned(),
        }
    }

    /// As a list of what was ignored shows it: the value alone.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Integer(value) => value.to_string(),
            Self::Number(value) => format!("{value:?}"),
            other => other.describe(),
        }
    }

    /// The whole number that a value is, also where it is written like 2e8.
    pub(super) fn whole(&self) -> Option<u64> {
        match self {
            Self::Integer(value) => u64::try_from(*value).ok(),
            // 2^53: beyond, floats are not exact.
            Self::Number(value)
                if value.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(value) =>
            {
                Some(*value as u64)
            }
            _ => None,
        }
    }
}

/// At most 60 characters of what a user wrote, without control characters.
pub(super) fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(60).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short.escape_debug().to_string()
}
