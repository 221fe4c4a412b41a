//! Changes to a model's architecture that a scenario asks for.

use std::fmt;

/// The value of an architecture field.
#[derive(Clone, Debug, PartialEq)]
pub enum FieldValue {
    /// A whole number.
    Integer(i64),
    /// A number with a fraction.
    Float(f64),
    /// A switch.
    Bool(bool),
    /// A word.
    Text(String),
}

impl FieldValue {
    /// A value from a command line: a whole number, a number with a fraction, true, false, or else a word.
    pub fn from_word(word: &str) -> Self {
        if let Ok(value) = word.parse() {
            return Self::Integer(value);
        }
        match (word, word.parse::<f64>()) {
            ("true", _) => Self::Bool(true),
            ("false", _) => Self::Bool(false),
            (_, Ok(value)) if value.is_finite() => Self::Float(value),
            _ => Self::Text(word.to_owned()),
        }
    }
}

impl fmt::Display for FieldValue {
    /// As TOML writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value:?}"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Text(value) => write!(f, "{value:?}"),
        }
    }
}

/// Architecture fields to set before a model is built, in the order given; the last value of a field counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overrides(Vec<(String, FieldValue)>);

impl Overrides {
    /// The model as its file describes it.
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// Sets one field.
    pub fn set(&mut self, field: impl Into<String>, value: FieldValue) {
        self.0.push((field.into(), value));
    }

    /// Sets one whole-number field, for building in one expression: `Overrides::none().with("layers", 12)`.
    pub fn with(mut self, field: &str, value: i64) -> Self {
        self.set(field, FieldValue::Integer(value));
        self
    }

    /// Fields and values in the order given.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &FieldValue)> {
        self.0.iter().map(|(field, value)| (field.as_str(), value))
    }

    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(String, FieldValue)> for Overrides {
    fn from_iter<I: IntoIterator<Item = (String, FieldValue)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}
