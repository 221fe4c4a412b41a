//! Reading a model file: TOML whose every key and value knows its place, and typed access with exact errors.

use std::fmt::Display;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{ModelError, Place};
use crate::overrides::{FieldValue, Overrides};
use crate::quantity::{Dimension, nearest, parse_quantity};

/// A value of the file.
#[derive(Clone, Debug)]
enum Value {
    Scalar(FieldValue),
    List(Vec<(Value, Place)>),
    Section(Vec<Field>),
    /// Valid TOML that no field takes (dates, integers beyond 64 bits), as a phrase for messages.
    Other(String),
}

impl Value {
    /// As a message shows it.
    fn shown(&self) -> String {
        match self {
            Self::Scalar(value) => value.to_string(),
            Self::List(_) => "a list".to_owned(),
            Self::Section(_) => "a table".to_owned(),
            Self::Other(what) => what.clone(),
        }
    }
}

/// A key with its value. Without a place if it was set by an override.
#[derive(Clone, Debug)]
struct Field {
    name: String,
    value: Value,
    place: Option<Place>,
}

/// A table of the file. Reading a field checks its type and range; [`Section::only`] checks the names.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    name: String,
    fields: Vec<Field>,
    place: Option<Place>,
}

impl Section {
    /// Parses a whole file.
    pub(crate) fn parse(text: &str) -> Result<Self, ModelError> {
        let table = DeTable::parse(text).map_err(|error| {
            let place = Lines::of(text).place(error.span().map_or(0, |span| span.start));
            ModelError::BadToml {
                line: place.line,
                column: place.column,
                message: error.message().to_owned(),
            }
        })?;
        let lines = Lines::of(text);
        Ok(Self { name: "the file".to_owned(), fields: convert_table(&lines, table.get_ref()), place: None })
    }

    /// Sets fields from outside; the last value of a field counts.
    pub(crate) fn apply(&mut self, overrides: &Overrides) {
        for (name, value) in overrides.iter() {
            self.fields.retain(|field| field.name != name);
            self.fields.push(Field {
                name: name.to_owned(),
                value: Value::Scalar(value.clone()),
                place: None,
            });
        }
    }

    /// The same section under another name in messages.
    pub(crate) fn renamed(self, name: impl Into<String>) -> Self {
        Self { name: name.into(), ..self }
    }

    /// Where the section begins.
    pub(crate) fn place(&self) -> Option<Place> {
        self.place
    }

    /// Where a field stands.
    pub(crate) fn place_of(&self, name: &str) -> Option<Place> {
        self.find(name).and_then(|field| field.place)
    }

    /// Refuses the first field that is not among `allowed`.
    pub(crate) fn only(&self, allowed: &[&str]) -> Result<(), ModelError> {
        match self.fields.iter().find(|field| !allowed.contains(&field.name.as_str())) {
            None => Ok(()),
            Some(field) => Err(ModelError::UnknownField {
                section: self.name.clone(),
                field: field.name.clone(),
                allowed: allowed.iter().map(|&name| name.to_owned()).collect(),
                nearest: nearest(&field.name, allowed.iter().copied()),
                place: field.place,
            }),
        }
    }

    /// A word or sentence, not empty.
    pub(crate) fn text(&self, name: &str) -> Result<&str, ModelError> {
        let allowed = "a text that is not empty";
        match self.find(name) {
            Some(Field { value: Value::Scalar(FieldValue::Text(text)), .. }) if !text.trim().is_empty() => {
                Ok(text)
            }
            Some(field) => Err(bad(field, allowed)),
            None => Err(self.missing(name, allowed)),
        }
    }

    /// A whole number between 1 and `most`.
    pub(crate) fn count(&self, name: &str, most: u64) -> Result<u64, ModelError> {
        self.required_range(name, 1, most)
    }

    /// A whole number between `least` and `most`, which must be given.
    pub(crate) fn required_range(&self, name: &str, least: u64, most: u64) -> Result<u64, ModelError> {
        self.range(name, least, most)?.ok_or_else(|| self.missing(name, &whole_number(least, most)))
    }

    /// A whole number between `least` and `most`, if it is given.
    pub(crate) fn range(&self, name: &str, least: u64, most: u64) -> Result<Option<u64>, ModelError> {
        let Some(field) = self.find(name) else {
            return Ok(None);
        };
        let found = match field.value {
            Value::Scalar(FieldValue::Integer(value)) => u64::try_from(value).ok(),
            _ => None,
        };
        match found {
            Some(value) if (least..=most).contains(&value) => Ok(Some(value)),
            _ => Err(bad(field, &whole_number(least, most))),
        }
    }

    /// Whole numbers from 1 to `most` in a list of `least_length` to `longest` of them.
    pub(crate) fn counts(
        &self,
        name: &str,
        most: u64,
        [least_length, longest]: [usize; 2],
    ) -> Result<Vec<u64>, ModelError> {
        let allowed =
            format!("a list of {least_length} to {longest} numbers, each {}", whole_number(1, most));
        let field = self.find(name).ok_or_else(|| self.missing(name, &allowed))?;
        let Value::List(items) = &field.value else {
            return Err(bad(field, &allowed));
        };
        let numbers: Result<Vec<u64>, ModelError> = items
            .iter()
            .map(|(value, place)| {
                let number = match value {
                    Value::Scalar(FieldValue::Integer(number)) => u64::try_from(*number).ok(),
                    _ => None,
                };
                number.filter(|number| (1..=most).contains(number)).ok_or_else(|| ModelError::BadValue {
                    field: name.to_owned(),
                    found: format!("a list with {}", value.shown()),
                    allowed: allowed.clone(),
                    place: Some(*place),
                })
            })
            .collect();
        let numbers = numbers?;
        if (least_length..=longest).contains(&numbers.len()) {
            Ok(numbers)
        } else {
            Err(bad(field, &allowed))
        }
    }

    /// A switch, with what it is when absent.
    pub(crate) fn flag(&self, name: &str, default: bool) -> Result<bool, ModelError> {
        match self.find(name) {
            None => Ok(default),
            Some(Field { value: Value::Scalar(FieldValue::Bool(value)), .. }) => Ok(*value),
            Some(field) => Err(bad(field, "true or false")),
        }
    }

    /// One of some words, as its index.
    pub(crate) fn choice(&self, name: &str, words: &[&str]) -> Result<usize, ModelError> {
        let allowed = format!("one of {}", quoted(words));
        let field = self.find(name).ok_or_else(|| self.missing(name, &allowed))?;
        let index = match &field.value {
            Value::Scalar(FieldValue::Text(text)) => words.iter().position(|word| word == text),
            _ => None,
        };
        index.ok_or_else(|| bad(field, &allowed))
    }

    /// Whether the field is given.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// Whether the field is given and a list.
    pub(crate) fn is_list(&self, name: &str) -> bool {
        self.find(name).is_some_and(|field| matches!(field.value, Value::List(_)))
    }

    /// Words of a list, each one of `words`, as their indices.
    pub(crate) fn choices(&self, name: &str, words: &[&str]) -> Result<Vec<usize>, ModelError> {
        let index_of = |(text, place): (&str, Place)| {
            words.iter().position(|word| *word == text).ok_or_else(|| ModelError::BadValue {
                field: name.to_owned(),
                found: format!("a list with {text:?}"),
                allowed: format!("a list of {}", quoted(words)),
                place: Some(place),
            })
        };
        self.texts(name)?.into_iter().map(index_of).collect()
    }

    /// Whole numbers between `least` and `most`, at least one: a list of them, or a single one.
    pub(crate) fn numbers(&self, name: &str, least: u64, most: u64) -> Result<Vec<u64>, ModelError> {
        let allowed = format!("{}, or a list of such", whole_number(least, most));
        let field = self.find(name).ok_or_else(|| self.missing(name, &allowed))?;
        let number = |value: &Value| match value {
            Value::Scalar(FieldValue::Integer(value)) => {
                u64::try_from(*value).ok().filter(|value| (least..=most).contains(value))
            }
            _ => None,
        };
        let found = match &field.value {
            Value::List(items) => items.iter().map(|(value, _)| number(value)).collect(),
            single => number(single).map(|number| vec![number]),
        };
        found.filter(|numbers: &Vec<u64>| !numbers.is_empty()).ok_or_else(|| bad(field, &allowed))
    }

    /// One of some words, as its index, with what it is when absent.
    pub(crate) fn choice_or(&self, name: &str, words: &[&str], default: usize) -> Result<usize, ModelError> {
        if self.has(name) { self.choice(name, words) } else { Ok(default) }
    }

    /// A number with a unit, in the base unit of `dimension`.
    pub(crate) fn quantity(&self, name: &str, dimension: Dimension) -> Result<f64, ModelError> {
        let allowed = || format!("a text with a unit, like {}", dimension.example());
        let field = self.find(name).ok_or_else(|| self.missing(name, &allowed()))?;
        let Value::Scalar(FieldValue::Text(text)) = &field.value else {
            return Err(bad(field, &allowed()));
        };
        parse_quantity(text, dimension).map_err(|error| ModelError::BadValue {
            field: name.to_owned(),
            found: field.value.shown(),
            allowed: format!("{} ({error})", allowed()),
            place: field.place,
        })
    }

    /// Texts in a list, each with its place.
    pub(crate) fn texts(&self, name: &str) -> Result<Vec<(&str, Place)>, ModelError> {
        let allowed = "a list of texts";
        let field = self.find(name).ok_or_else(|| self.missing(name, allowed))?;
        let Value::List(items) = &field.value else {
            return Err(bad(field, allowed));
        };
        items
            .iter()
            .map(|(value, place)| match value {
                Value::Scalar(FieldValue::Text(text)) => Ok((text.as_str(), *place)),
                other => Err(ModelError::BadValue {
                    field: name.to_owned(),
                    found: format!("a list with {}", other.shown()),
                    allowed: allowed.to_owned(),
                    place: Some(*place),
                }),
            })
            .collect()
    }

    /// A table within this one; an empty one if it is absent.
    pub(crate) fn section(&self, name: &str) -> Result<Self, ModelError> {
        match self.find(name) {
            None => Ok(Self { name: name.to_owned(), fields: Vec::new(), place: None }),
            Some(Field { value: Value::Section(fields), place, .. }) => {
                Ok(Self { name: name.to_owned(), fields: fields.clone(), place: *place })
            }
            Some(field) => Err(bad(field, &format!("a table, [{name}]"))),
        }
    }

    /// An array of tables, at least one.
    pub(crate) fn sections(&self, name: &str) -> Result<Vec<Self>, ModelError> {
        let allowed = format!("at least one table [[{name}]]");
        let field = self.find(name).ok_or_else(|| self.missing(name, &allowed))?;
        let Value::List(items) = &field.value else {
            return Err(bad(field, &allowed));
        };
        if items.is_empty() {
            return Err(bad(field, &allowed));
        }
        items
            .iter()
            .map(|(value, place)| match value {
                Value::Section(fields) => {
                    Ok(Self { name: name.to_owned(), fields: fields.clone(), place: Some(*place) })
                }
                _ => Err(bad(field, &allowed)),
            })
            .collect()
    }

    /// An error about the value of a field, for checks between fields.
    pub(crate) fn refuse(&self, name: &str, found: impl Display, allowed: impl Into<String>) -> ModelError {
        ModelError::BadValue {
            field: name.to_owned(),
            found: found.to_string(),
            allowed: allowed.into(),
            place: self.place_of(name),
        }
    }

    fn find(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    fn missing(&self, name: &str, allowed: &str) -> ModelError {
        ModelError::MissingField {
            section: self.name.clone(),
            field: name.to_owned(),
            allowed: allowed.to_owned(),
            place: self.place,
        }
    }
}

fn bad(field: &Field, allowed: &str) -> ModelError {
    ModelError::BadValue {
        field: field.name.clone(),
        found: field.value.shown(),
        allowed: allowed.to_owned(),
        place: field.place,
    }
}

/// Words as a message lists them.
fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ")
}

fn whole_number(least: u64, most: u64) -> String {
    format!("a whole number from {least} to {most}")
}

/// Where the lines of a text begin, so that a place is found without reading the text again.
struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    fn of(text: &'t str) -> Self {
        let after_breaks = text.bytes().enumerate().filter(|&(_, byte)| byte == b'\n').map(|(at, _)| at + 1);
        Self { text, starts: std::iter::once(0).chain(after_breaks).collect() }
    }

    /// The place of a byte offset.
    fn place(&self, offset: usize) -> Place {
        let line = self.starts.partition_point(|&start| start <= offset);
        let start = line.checked_sub(1).and_then(|index| self.starts.get(index)).copied().unwrap_or(0);
        let column = self.text.get(start..offset).map_or(1, |before| before.chars().count() + 1);
        Place { line, column }
    }
}

/// Fields of a table in the order of the file.
fn convert_table(lines: &Lines<'_>, table: &DeTable<'_>) -> Vec<Field> {
    let mut fields: Vec<(usize, Field)> = table
        .iter()
        .map(|(key, value)| {
            let start = key.span().start;
            let place = Some(lines.place(start));
            (start, Field { name: key.get_ref().to_string(), value: convert_value(lines, value), place })
        })
        .collect();
    fields.sort_by_key(|(start, _)| *start);
    fields.into_iter().map(|(_, field)| field).collect()
}

fn convert_value(lines: &Lines<'_>, value: &Spanned<DeValue<'_>>) -> Value {
    match value.get_ref() {
        DeValue::String(value) => Value::Scalar(FieldValue::Text(value.to_string())),
        DeValue::Integer(value) => match i64::from_str_radix(value.as_str(), value.radix()) {
            Ok(number) => Value::Scalar(FieldValue::Integer(number)),
            Err(_) => Value::Other(format!("{value}, which is beyond 64 bits")),
        },
        DeValue::Float(value) => match value.as_str().parse() {
            Ok(number) => Value::Scalar(FieldValue::Float(number)),
            Err(_) => Value::Other(value.to_string()),
        },
        DeValue::Boolean(value) => Value::Scalar(FieldValue::Bool(*value)),
        DeValue::Datetime(value) => Value::Other(format!("the date {value}")),
        DeValue::Array(items) => Value::List(
            items.iter().map(|item| (convert_value(lines, item), lines.place(item.span().start))).collect(),
        ),
        DeValue::Table(table) => Value::Section(convert_table(lines, table)),
    }
}
