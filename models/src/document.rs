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
    /// What stands before the names of its fields in messages: `experts.` in a table within the architecture.
    prefix: String,
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
        let fields = convert_table(&lines, table.get_ref());
        Ok(Self::of("the file", fields, None))
    }

    fn of(name: &str, fields: Vec<Field>, place: Option<Place>) -> Self {
        Self { name: name.to_owned(), prefix: String::new(), fields, place }
    }

    /// Sets fields from outside; the last value of a field counts. A name with a dot sets a field of a table within
    /// this one, `experts.count`, and makes the table if it is absent.
    pub(crate) fn apply(&mut self, overrides: &Overrides) {
        for (name, value) in overrides.iter() {
            set(&mut self.fields, name, value);
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
            Some(field) => Err(self.bad(field, allowed)),
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
            _ => Err(self.bad(field, &whole_number(least, most))),
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
            return Err(self.bad(field, &allowed));
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
            Err(self.bad(field, &allowed))
        }
    }

    /// A switch, with what it is when absent.
    pub(crate) fn flag(&self, name: &str, default: bool) -> Result<bool, ModelError> {
        match self.find(name) {
            None => Ok(default),
            Some(Field { value: Value::Scalar(FieldValue::Bool(value)), .. }) => Ok(*value),
            Some(field) => Err(self.bad(field, "true or false")),
        }
    }

    /// One of some words, as its index.
    pub(crate) fn choice(&self, name: &str, words: &[&str]) -> Result<usize, ModelError> {
        self.choice_if_given(name, words)?.ok_or_else(|| self.missing(name, &one_of(words)))
    }

    /// One of some words, as its index, if it is given.
    pub(crate) fn choice_if_given(&self, name: &str, words: &[&str]) -> Result<Option<usize>, ModelError> {
        let Some(field) = self.find(name) else {
            return Ok(None);
        };
        let index = match &field.value {
            Value::Scalar(FieldValue::Text(text)) => words.iter().position(|word| word == text),
            _ => None,
        };
        index.map(Some).ok_or_else(|| self.bad(field, &one_of(words)))
    }

    /// A number between `least` and `most`, whole or with a fraction, if it is given.
    pub(crate) fn number(&self, name: &str, least: f64, most: f64) -> Result<Option<f64>, ModelError> {
        let Some(field) = self.find(name) else {
            return Ok(None);
        };
        let found = match field.value {
            Value::Scalar(FieldValue::Integer(value)) => Some(value as f64),
            Value::Scalar(FieldValue::Float(value)) => Some(value),
            _ => None,
        };
        match found {
            Some(value) if (least..=most).contains(&value) => Ok(Some(value)),
            _ => Err(self.bad(field, &format!("a number from {least} to {most}"))),
        }
    }

    /// Whole numbers in a list, at least one, if it is given.
    pub(crate) fn integers(&self, name: &str) -> Result<Option<Vec<i64>>, ModelError> {
        let Some(field) = self.find(name) else {
            return Ok(None);
        };
        let wrong = || self.bad(field, "a list of whole numbers, at least one");
        let Value::List(items) = &field.value else {
            return Err(wrong());
        };
        let whole = |(value, _): &(Value, Place)| match value {
            Value::Scalar(FieldValue::Integer(value)) => Ok(*value),
            _ => Err(wrong()),
        };
        let found: Vec<i64> = items.iter().map(whole).collect::<Result<_, _>>()?;
        if found.is_empty() { Err(wrong()) } else { Ok(Some(found)) }
    }

    /// Refuses a field that would change nothing: unless it `acts`, it must not be given. `with` says when it acts.
    pub(crate) fn only_with(&self, name: &str, acts: bool, with: &str) -> Result<(), ModelError> {
        match self.find(name) {
            Some(field) if !acts => Err(self.bad(field, &format!("left out: it acts only with {with}"))),
            _ => Ok(()),
        }
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
        found.filter(|numbers: &Vec<u64>| !numbers.is_empty()).ok_or_else(|| self.bad(field, &allowed))
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
            return Err(self.bad(field, &allowed()));
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
            return Err(self.bad(field, allowed));
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
            None => Ok(Self::of(name, Vec::new(), None)),
            Some(Field { value: Value::Section(fields), place, .. }) => {
                Ok(Self::of(name, fields.clone(), *place))
            }
            Some(field) => Err(self.bad(field, &format!("a table, [{name}]"))),
        }
    }

    /// A table within a table, if it is given. Messages about its fields name it too.
    pub(crate) fn table(&self, name: &str) -> Result<Option<Self>, ModelError> {
        let full = format!("{}.{name}", self.name);
        match self.find(name) {
            None => Ok(None),
            Some(Field { value: Value::Section(fields), place, .. }) => {
                Ok(Some(Self { prefix: format!("{name}."), ..Self::of(&full, fields.clone(), *place) }))
            }
            Some(field) => Err(self.bad(field, &format!("a table, [{full}]"))),
        }
    }

    /// An array of tables, at least one.
    pub(crate) fn sections(&self, name: &str) -> Result<Vec<Self>, ModelError> {
        let allowed = format!("at least one table [[{name}]]");
        let field = self.find(name).ok_or_else(|| self.missing(name, &allowed))?;
        let Value::List(items) = &field.value else {
            return Err(self.bad(field, &allowed));
        };
        if items.is_empty() {
            return Err(self.bad(field, &allowed));
        }
        items
            .iter()
            .map(|(value, place)| match value {
                Value::Section(fields) => Ok(Self::of(name, fields.clone(), Some(*place))),
                _ => Err(self.bad(field, &allowed)),
            })
            .collect()
    }

    /// An error about a field whose value, or whose absence, contradicts another field.
    pub(crate) fn contradict(&self, name: &str, allowed: &str) -> ModelError {
        self.find(name).map_or_else(|| self.missing(name, allowed), |field| self.bad(field, allowed))
    }

    /// An error about the value of a field, for checks between fields.
    pub(crate) fn refuse(&self, name: &str, found: impl Display, allowed: impl Into<String>) -> ModelError {
        ModelError::BadValue {
            field: format!("{}{name}", self.prefix),
            found: found.to_string(),
            allowed: allowed.into(),
            place: self.place_of(name),
        }
    }

    fn bad(&self, field: &Field, allowed: &str) -> ModelError {
        ModelError::BadValue {
            field: format!("{}{}", self.prefix, field.name),
            found: field.value.shown(),
            allowed: allowed.to_owned(),
            place: field.place,
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

/// Sets `name`, or for `table.name` the field of a table, if `table` is one or nothing yet.
fn set(fields: &mut Vec<Field>, name: &str, value: &FieldValue) {
    if let Some((table, inner)) = name.split_once('.') {
        if fields.iter().all(|field| field.name != table) {
            fields.push(Field { name: table.to_owned(), value: Value::Section(Vec::new()), place: None });
        }
        let found = fields.iter_mut().find(|field| field.name == table);
        if let Some(Field { value: Value::Section(within), .. }) = found {
            return replace(within, inner, value);
        }
    }
    replace(fields, name, value);
}

fn replace(fields: &mut Vec<Field>, name: &str, value: &FieldValue) {
    fields.retain(|field| field.name != name);
    fields.push(Field { name: name.to_owned(), value: Value::Scalar(value.clone()), place: None });
}

fn one_of(words: &[&str]) -> String {
    format!("one of {}", words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", "))
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
