//! YAML and TOML as trees with places.

use indexmap::IndexMap;
use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::json::number;
use super::node::{Node, Value};
use super::source::Source;
use crate::error::InputError;

/// Deepest nesting.
const DEEPEST: usize = 32;

/// Reads a YAML document.
///
/// # Errors
/// Not YAML, a key twice, a second document, nesting beyond 32 levels; anchors and aliases, with which a short text
/// can stand for an endless one, and tags.
pub(super) fn parse(source: &Source<'_>) -> Result<Node, InputError> {
    let mut builder = Builder { source, open: Vec::new(), root: None };
    for event in Parser::new_from_str(source.text) {
        let (event, span) = event.map_err(|error| {
            let at = source.byte_of_characters(error.marker().line(), error.marker().col());
            source.syntax(at, format!("not YAML: {}", error.info()))
        })?;
        builder.event(event, span)?;
    }
    Ok(builder.root.unwrap_or_else(|| Node::new(Value::Table(IndexMap::new()), 0)))
}

/// The entries of a table that is not yet complete, and the key that waits for its value, with its place.
type OpenTable = (IndexMap<String, Node>, Option<(String, usize)>);

/// A list or table that is not yet complete.
struct Open {
    at: usize,
    items: Vec<Node>,
    table: Option<OpenTable>,
}

struct Builder<'a, 't> {
    source: &'a Source<'t>,
    open: Vec<Open>,
    root: Option<Node>,
}

impl Builder<'_, '_> {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), InputError> {
        let at = self.source.byte_of_characters(span.start.line(), span.start.col());
        let refuse = |message: &str| Err(self.source.syntax(at, message));
        match event {
            Event::Alias(_) => refuse("found an alias, allowed: values written out"),
            Event::Scalar(_, _, anchor, _)
            | Event::SequenceStart(anchor, _)
            | Event::MappingStart(anchor, _)
                if anchor != 0 =>
            {
                refuse("found an anchor, allowed: values written out")
            }
            Event::SequenceStart(..) => self.begin(Open { at, items: Vec::new(), table: None }),
            Event::MappingStart(..) => {
                self.begin(Open { at, items: Vec::new(), table: Some((IndexMap::new(), None)) })
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open { at, table: Some((table, _)), .. }) => {
                    self.add(Node::new(Value::Table(table), at))
                }
                Some(Open { at, items, table: None }) => self.add(Node::new(Value::List(items), at)),
                None => Ok(()),
            },
            Event::Scalar(text, style, _, _) => {
                let value =
                    if style == ScalarStyle::Plain { plain(&text) } else { Value::Text(text.into_owned()) };
                self.scalar(value, at)
            }
            Event::DocumentStart(_) if self.root.is_some() => refuse("found a second document, allowed: one"),
            _ => Ok(()),
        }
    }

    fn begin(&mut self, open: Open) -> Result<(), InputError> {
        if self.open.len() >= DEEPEST {
            return Err(self.source.syntax(open.at, format!("nested deeper than {DEEPEST} levels")));
        }
        if matches!(self.open.last(), Some(Open { table: Some((_, None)), .. })) {
            return Err(self.source.syntax(open.at, "found a list or table as a key, allowed: text"));
        }
        self.open.push(open);
        Ok(())
    }

    /// A key of a table that waits for one, or a value.
    fn scalar(&mut self, value: Value, at: usize) -> Result<(), InputError> {
        let Some(Open { table: Some((table, key @ None)), .. }) = self.open.last_mut() else {
            return self.add(Node::new(value, at));
        };
        let name = match value {
            Value::Text(text) => text,
            other => other.shown(),
        };
        if table.contains_key(&name) {
            return Err(self.source.syntax(at, format!("the key \"{name}\" stands twice in one table")));
        }
        *key = Some((name, at));
        Ok(())
    }

    fn add(&mut self, mut node: Node) -> Result<(), InputError> {
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open { items, table: None, .. }) => items.push(node),
            Some(Open { table: Some((table, key)), .. }) => {
                let Some((name, key_at)) = key.take() else {
                    return Err(self.source.syntax(node.at, "found a list or table as a key, allowed: text"));
                };
                node.key_at = key_at;
                table.insert(name, node);
            }
        }
        Ok(())
    }
}

/// A scalar without quotes, by the core schema and the spellings of true and false that Python's YAML takes.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" | "yes" | "on" => Value::Bool(true),
        "false" | "False" | "FALSE" | "no" | "off" => Value::Bool(false),
        _ if text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.')) => {
            number(text).unwrap_or_else(|| Value::Text(text.to_owned()))
        }
        _ => Value::Text(text.to_owned()),
    }
}

/// Reads a TOML document.
///
/// # Errors
/// Not TOML, an integer beyond 64 bits.
pub(super) fn parse_toml(source: &Source<'_>) -> Result<Node, InputError> {
    let table = DeTable::parse(source.text).map_err(|error| {
        source.syntax(error.span().map_or(0, |span| span.start), error.message().to_owned())
    })?;
    Ok(Node::new(toml_table(source, table.get_ref())?, 0))
}

fn toml_table(source: &Source<'_>, table: &DeTable<'_>) -> Result<Value, InputError> {
    // The parser keeps keys sorted; lists of what was ignored should follow the file.
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    let mut map = IndexMap::with_capacity(entries.len());
    for (key, value) in entries {
        let mut node = toml_node(source, value)?;
        node.key_at = key.span().start;
        map.insert(key.get_ref().to_string(), node);
    }
    Ok(Value::Table(map))
}

fn toml_node(source: &Source<'_>, value: &Spanned<DeValue<'_>>) -> Result<Node, InputError> {
    let at = value.span().start;
    let range = |text: &str| source.syntax(at, format!("the number {text} is out of range"));
    let value = match value.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => Value::Integer(
            i64::from_str_radix(number.as_str(), number.radix()).map_err(|_| range(number.as_str()))?,
        ),
        DeValue::Float(number) => Value::Number(number.as_str().parse().map_err(|_| range(number.as_str()))?),
        DeValue::Boolean(value) => Value::Bool(*value),
        DeValue::Datetime(date) => Value::Text(date.to_string()),
        DeValue::Array(items) => {
            Value::List(items.iter().map(|item| toml_node(source, item)).collect::<Result<_, _>>()?)
        }
        DeValue::Table(table) => toml_table(source, table)?,
    };
    Ok(Node::new(value, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_have_their_kinds_and_places() {
        let source = Source::new("x", "ä: [1, -2.5e3, \"3\", True, ~]\nb:\n  c: 1.e-5\n");
        let root = parse(&source).unwrap();
        let Value::Table(table) = &root.value else { panic!("a table") };
        let Value::List(items) = &table["ä"].value else { panic!("a list") };
        let shown: Vec<String> = items.iter().map(|item| item.value.shown()).collect();
        assert_eq!(shown, ["1", "-2500.0", "\"3\"", "true", "null"]);
        assert_eq!(source.place(items[1].at), (1, 8));
        let Value::Table(inner) = &table["b"].value else { panic!("a table") };
        assert_eq!(inner["c"].value.shown(), "1e-5");
        assert_eq!(source.place(inner["c"].key_at), (3, 3));
    }

    #[test]
    fn what_could_be_endless_is_refused() {
        for text in ["a: &x 1\nb: *x\n", "a: 1\n---\nb: 2\n", "? [a]\n: 1\n", "a: 1\na: 2\n"] {
            assert!(parse(&Source::new("x", text)).is_err(), "{text}");
        }
        assert!(parse(&Source::new("x", &"[".repeat(100_000))).is_err());
    }
}
