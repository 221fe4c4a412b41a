//! Reads tables of constants: units in the strings, a source for each, positions for errors.

use std::ops::Range;

use steptime_models::{Bytes, Dimension, Place, parse_quantity};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{CatalogueError, nearest, nearest_hint};
use crate::coefficients::{Coefficient, CoefficientUnit};
use crate::fact::{Basis, Constant, Fact, FactId};

/// A table of a catalogue file with its own `source` and `basis`.
pub(super) struct Section<'a> {
    text: &'a str,
    path: String,
    table: &'a DeTable<'a>,
    span: Range<usize>,
    source: Option<&'a str>,
    basis: Basis,
}

/// Keys that every table may have besides its own.
const COMMON: [&str; 2] = ["source", "basis"];
const BASES: [(&str, Basis); 3] =
    [("measured", Basis::Measured), ("fitted", Basis::Fitted), ("data-sheet", Basis::DataSheet)];

/// One value with its place and provenance.
struct Entry<'a> {
    value: &'a DeValue<'a>,
    span: Range<usize>,
    source: Option<&'a str>,
    basis: Basis,
}

/// Parses a document.
///
/// # Errors
/// [`CatalogueError::Invalid`] with the place of the first error of syntax.
pub(super) fn parse(text: &str) -> Result<Spanned<DeTable<'_>>, CatalogueError> {
    DeTable::parse(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        invalid(text, start, String::new(), format!("not TOML: {}", error.message()))
    })
}

impl<'a> Section<'a> {
    /// The whole document, whose keys must be among `keys`.
    pub(super) fn root(
        text: &'a str,
        document: &'a Spanned<DeTable<'a>>,
        keys: &[&str],
    ) -> Result<Self, CatalogueError> {
        Self::new(text, String::new(), document.get_ref(), document.span(), keys, (None, Basis::DataSheet))
    }

    fn new(
        text: &'a str,
        path: String,
        table: &'a DeTable<'a>,
        span: Range<usize>,
        keys: &[&str],
        (source, basis): (Option<&'a str>, Basis),
    ) -> Result<Self, CatalogueError> {
        let mut section = Self { text, path, table, span, source, basis };
        section.check_keys(keys)?;
        section.source = section.source_in(table, &section.path)?.or(source);
        section.basis = section.basis_in(table, &section.path)?.unwrap_or(basis);
        Ok(section)
    }

    /// The first key in the file that is not allowed is an error.
    fn check_keys(&self, keys: &[&str]) -> Result<(), CatalogueError> {
        let allowed = || keys.iter().chain(&COMMON).copied();
        let unknown = self.table.keys().filter(|key| !allowed().any(|name| name == key.get_ref()));
        let Some(first) = unknown.min_by_key(|key| key.span().start) else {
            return Ok(());
        };
        let hint = nearest_hint(nearest(first.get_ref(), allowed()));
        let key = self.key(first.get_ref());
        let place = if self.path.is_empty() { String::new() } else { format!(" in [{}]", self.path) };
        let problem = format!(
            "unknown key `{}`{place}{hint}; allowed: {}",
            first.get_ref(),
            allowed().collect::<Vec<_>>().join(", ")
        );
        Err(invalid(self.text, first.span().start, key, problem))
    }

    /// A table below this one; it needs sources of its own.
    pub(super) fn section(&self, key: &str, keys: &[&str]) -> Result<Self, CatalogueError> {
        self.optional_section(key, keys)?.ok_or_else(|| {
            let path = self.key(key);
            self.error(&self.span, path.clone(), format!("the table [{path}] is missing"))
        })
    }

    /// The same, if it is there.
    pub(super) fn optional_section(&self, key: &str, keys: &[&str]) -> Result<Option<Self>, CatalogueError> {
        let Some(value) = lookup(self.table, key) else {
            return Ok(None);
        };
        let path = self.key(key);
        let DeValue::Table(table) = value.get_ref() else {
            let found = describe(value.get_ref());
            let problem = format!("`{path}`: found {found}, expected a table [{path}]");
            return Err(self.error(&value.span(), path, problem));
        };
        Self::new(self.text, path, table, value.span(), keys, (None, Basis::DataSheet)).map(Some)
    }

    /// The elements of an array of tables; each may rely on this table's source.
    pub(super) fn sections(&self, key: &str, keys: &[&str]) -> Result<Vec<Self>, CatalogueError> {
        let Some(value) = lookup(self.table, key) else {
            return Ok(Vec::new());
        };
        let path = self.key(key);
        let wrong = |span: &Range<usize>, found: &DeValue<'_>| {
            let problem = format!("`{path}`: found {}, expected an array of tables", describe(found));
            self.error(span, path.clone(), problem)
        };
        let DeValue::Array(items) = value.get_ref() else {
            return Err(wrong(&value.span(), value.get_ref()));
        };
        let read = |(index, item): (usize, &'a Spanned<DeValue<'a>>)| match item.get_ref() {
            DeValue::Table(table) => {
                let path = format!("{path}[{index}]");
                Self::new(self.text, path, table, item.span(), keys, (self.source, self.basis))
            }
            other => Err(wrong(&item.span(), other)),
        };
        items.iter().enumerate().map(read).collect()
    }

    /// Whether the table has the key.
    pub(super) fn has(&self, key: &str) -> bool {
        lookup(self.table, key).is_some()
    }

    /// Whether the key holds a table rather than a value.
    pub(super) fn has_table(&self, key: &str) -> bool {
        lookup(self.table, key).is_some_and(|value| matches!(value.get_ref(), DeValue::Table(_)))
    }

    /// The table's own source.
    pub(super) fn own_source(&self) -> Result<&'a str, CatalogueError> {
        self.source.ok_or_else(|| {
            let problem = "the file has no source; write `source = \"...\"` at its top".to_owned();
            self.error(&self.span, "source".to_owned(), problem)
        })
    }

    /// A plain text that needs no source (names).
    pub(super) fn name(&self, key: &str) -> Result<&'a str, CatalogueError> {
        let value = self.required(key)?;
        match value.get_ref() {
            DeValue::String(text) => Ok(text),
            other => Err(self.expected(key, &value.span(), other, "a text in quotes")),
        }
    }

    /// A list of plain texts that need no source.
    pub(super) fn names(&self, key: &str) -> Result<Vec<&'a str>, CatalogueError> {
        let value = self.required(key)?;
        let wrong = |found: &Spanned<DeValue<'a>>| {
            self.expected(key, &found.span(), found.get_ref(), "a list of texts, e.g. [\"a40\", \"l4\"]")
        };
        let DeValue::Array(items) = value.get_ref() else { return Err(wrong(value)) };
        let text = |item: &'a Spanned<DeValue<'a>>| match item.get_ref() {
            DeValue::String(text) => Ok(text.as_ref()),
            _ => Err(wrong(item)),
        };
        items.iter().map(text).collect()
    }

    /// One of a list of words.
    pub(super) fn choice<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Result<T, CatalogueError> {
        let word = self.name(key)?;
        words.iter().find(|(name, _)| *name == word).map(|&(_, value)| value).ok_or_else(|| {
            let names = words.iter().map(|&(name, _)| name);
            let hint = nearest_hint(nearest(word, names.clone()));
            let allowed = names.collect::<Vec<_>>().join(", ");
            let path = self.key(key);
            let problem = format!("`{path}`: unknown `{word}`{hint}; allowed: {allowed}");
            self.error_at(key, problem)
        })
    }

    /// A positive amount with its unit, in SI units.
    pub(super) fn quantity(
        &self,
        key: &str,
        dimension: Dimension,
        facts: &mut Vec<Fact>,
    ) -> Result<Constant, CatalogueError> {
        let entry = self.entry(key)?;
        let example = dimension.example();
        let DeValue::String(written) = entry.value else {
            let expected = format!("an amount and its unit in quotes, e.g. {example}");
            return Err(self.expected(key, &entry.span, entry.value, &expected));
        };
        let path = self.key(key);
        let value = parse_quantity(written, dimension)
            .map_err(|error| self.error(&entry.span, path.clone(), format!("`{path}`: {error}")))?;
        if !(value > 0.0 && value.is_finite()) {
            let problem = format!("`{path}`: found \"{written}\", expected more than zero, e.g. {example}");
            return Err(self.error(&entry.span, path, problem));
        }
        self.record(key, &entry, value, written.to_string(), facts)
    }

    /// An amount of memory.
    pub(super) fn bytes(&self, key: &str, facts: &mut Vec<Fact>) -> Result<Bytes, CatalogueError> {
        let amount = self.quantity(key, Dimension::Bytes, facts)?.value;
        Ok(Bytes((amount + 0.5) as u64))
    }

    /// A share, more than 0 and at most 1.
    pub(super) fn fraction(&self, key: &str, facts: &mut Vec<Fact>) -> Result<Constant, CatalogueError> {
        let entry = self.entry(key)?;
        let number = match entry.value {
            DeValue::Float(number) => number.as_str().parse().ok(),
            DeValue::Integer(number) => number.as_str().parse().ok(),
            _ => None,
        };
        match number {
            Some(value) if value > 0.0 && value <= 1.0 => {
                self.record(key, &entry, value, format!("{value}"), facts)
            }
            _ => {
                Err(self.expected(key, &entry.span, entry.value, "a number above 0 and at most 1, e.g. 0.75"))
            }
        }
    }

    /// A count from 1.
    pub(super) fn count(&self, key: &str, facts: &mut Vec<Fact>) -> Result<u32, CatalogueError> {
        let entry = self.entry(key)?;
        let number = match entry.value {
            DeValue::Integer(number) => u32::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        let Some(count) = number.filter(|&count| count > 0) else {
            return Err(self.expected(key, &entry.span, entry.value, "a whole number from 1"));
        };
        self.record(key, &entry, f64::from(count), count.to_string(), facts)?;
        Ok(count)
    }

    /// A coefficient of a kernel model as number and as written; its source is the table's.
    pub(super) fn coefficient(&self, wanted: &Coefficient) -> Result<(f64, String), CatalogueError> {
        let value = self.required(wanted.key)?;
        let (number, written) = match (wanted.unit, value.get_ref()) {
            (CoefficientUnit::Number, DeValue::Float(number)) => {
                (number.as_str().parse().ok(), number.as_str())
            }
            (CoefficientUnit::Number, DeValue::Integer(number)) => {
                (number.as_str().parse().ok(), number.as_str())
            }
            (CoefficientUnit::Seconds, DeValue::String(text)) => {
                (parse_quantity(text, Dimension::Seconds).ok(), text.as_ref())
            }
            _ => (None, ""),
        };
        match number {
            Some(number) if (wanted.least..=wanted.most).contains(&number) => {
                Ok((number, written.to_owned()))
            }
            _ => Err(self.expected(wanted.key, &value.span(), value.get_ref(), &range(wanted))),
        }
    }

    /// The table's own source and basis, for values that share them.
    pub(super) fn provenance(&self) -> Result<(&'a str, Basis), CatalogueError> {
        let source = self.source.ok_or_else(|| {
            let problem = format!(
                "[{}] has no source; write `source = \"...\"` or `borrowed_from = \"...\"`",
                self.path
            );
            self.error(&self.span, self.key("source"), problem)
        })?;
        Ok((source, self.basis))
    }

    /// An error at the value of a key.
    pub(super) fn error_at(&self, key: &str, problem: String) -> CatalogueError {
        let span = lookup(self.table, key).map_or_else(|| self.span.clone(), Spanned::span);
        self.error(&span, self.key(key), problem)
    }

    /// Path of a key below this table.
    pub(super) fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn error(&self, span: &Range<usize>, key: String, problem: String) -> CatalogueError {
        invalid(self.text, span.start, key, problem)
    }

    fn expected(
        &self,
        key: &str,
        span: &Range<usize>,
        found: &DeValue<'_>,
        expected: &str,
    ) -> CatalogueError {
        let path = self.key(key);
        let problem = format!("`{path}`: found {}, expected {expected}", describe(found));
        self.error(span, path, problem)
    }

    fn required(&self, key: &str) -> Result<&'a Spanned<DeValue<'a>>, CatalogueError> {
        lookup(self.table, key).ok_or_else(|| {
            let place = if self.path.is_empty() { "the file".to_owned() } else { format!("[{}]", self.path) };
            self.error(&self.span, self.key(key), format!("`{key}` is missing in {place}"))
        })
    }

    /// The value of a key, written alone or as `{ value = ..., source = "...", basis = "..." }`.
    fn entry(&self, key: &str) -> Result<Entry<'a>, CatalogueError> {
        let value = self.required(key)?;
        let DeValue::Table(table) = value.get_ref() else {
            let (source, basis) = (self.source, self.basis);
            return Ok(Entry { value: value.get_ref(), span: value.span(), source, basis });
        };
        let inner =
            Self::new(self.text, self.key(key), table, value.span(), &["value"], (self.source, self.basis))?;
        let value = inner.required("value")?;
        let (source, basis) = (inner.source, inner.basis);
        Ok(Entry { value: value.get_ref(), span: value.span(), source, basis })
    }

    fn record(
        &self,
        key: &str,
        entry: &Entry<'_>,
        value: f64,
        written: String,
        facts: &mut Vec<Fact>,
    ) -> Result<Constant, CatalogueError> {
        let path = self.key(key);
        let Some(source) = entry.source else {
            let place = if self.path.is_empty() { "its file".to_owned() } else { format!("[{}]", self.path) };
            let problem = format!(
                "`{path}` has no source; write `source = \"...\"` in {place}, \
                 or `{key} = {{ value = ..., source = \"...\" }}`"
            );
            return Err(self.error(&entry.span, path, problem));
        };
        let fact = FactId(facts.len());
        facts.push(Fact { what: path, value: written, source: source.to_owned(), basis: entry.basis });
        Ok(Constant { value, fact, basis: entry.basis })
    }

    fn source_in(&self, table: &'a DeTable<'a>, path: &str) -> Result<Option<&'a str>, CatalogueError> {
        let Some(value) = lookup(table, "source") else {
            return Ok(None);
        };
        match value.get_ref() {
            DeValue::String(text) if !text.trim().is_empty() => Ok(Some(text)),
            other => {
                let key = if path.is_empty() { "source".to_owned() } else { format!("{path}.source") };
                let problem =
                    format!("`{key}`: found {}, expected where the values come from", describe(other));
                Err(self.error(&value.span(), key, problem))
            }
        }
    }

    fn basis_in(&self, table: &'a DeTable<'a>, path: &str) -> Result<Option<Basis>, CatalogueError> {
        let Some(value) = lookup(table, "basis") else {
            return Ok(None);
        };
        let found = match value.get_ref() {
            DeValue::String(word) => BASES.iter().find(|(name, _)| name == word),
            _ => None,
        };
        found.map(|&(_, basis)| Some(basis)).ok_or_else(|| {
            let key = if path.is_empty() { "basis".to_owned() } else { format!("{path}.basis") };
            let found = describe(value.get_ref());
            let problem = format!("`{key}`: found {found}, allowed: measured, fitted, data-sheet");
            self.error(&value.span(), key, problem)
        })
    }
}

fn range(wanted: &Coefficient) -> String {
    let Coefficient { unit, least, most, meaning, .. } = wanted;
    match unit {
        CoefficientUnit::Number => format!("a number from {least} to {most} ({meaning})"),
        CoefficientUnit::Seconds => {
            format!("a time from {} to {} us in quotes, e.g. \"2.5 us\" ({meaning})", least * 1e6, most * 1e6)
        }
    }
}

fn lookup<'a>(table: &'a DeTable<'a>, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
    table.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value)
}

fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the text \"{text}\""),
        DeValue::Integer(number) => format!("the number {}", number.as_str()),
        DeValue::Float(number) => format!("the number {}", number.as_str()),
        DeValue::Boolean(value) => format!("{value}"),
        DeValue::Datetime(value) => format!("the date {value}"),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// An error at a byte of the text.
fn invalid(text: &str, start: usize, key: String, problem: String) -> CatalogueError {
    let before = text.get(..start).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    CatalogueError::Invalid {
        place: Place {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        },
        key,
        problem,
    }
}
