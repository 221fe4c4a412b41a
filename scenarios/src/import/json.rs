//! JSON as a tree with places.
//!
//! The grammar is serde_json's. It gives no places of values, but it hands out the text of each value untouched
//! ([`RawValue`]), and where that text lies in the whole is the place.

use std::fmt;

use indexmap::IndexMap;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::node::{Node, Value};
use super::source::Source;
use crate::error::InputError;

/// Deepest nesting. Each level is looked through once more, so this bounds time as well.
const DEEPEST: usize = 32;

/// Reads a document.
///
/// # Errors
/// Not JSON (NaN and Infinity are not), a key twice, nesting beyond 32 levels.
pub(super) fn parse(source: &Source<'_>) -> Result<Node, InputError> {
    serde_json::from_str::<IgnoredAny>(source.text).map_err(|error| {
        let at = source.byte(error.line(), error.column());
        source.syntax(at, format!("not JSON: {}", plain(&error)))
    })?;
    let raw: &RawValue =
        serde_json::from_str(source.text).map_err(|error| source.syntax(0, plain(&error)))?;
    node(source, raw, 0)
}

/// What serde_json says, without the place that it appends.
fn plain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message).to_owned()
}

/// Where a part of the text begins in it.
fn offset(source: &Source<'_>, part: &str) -> usize {
    (part.as_ptr() as usize).saturating_sub(source.text.as_ptr() as usize)
}

fn node(source: &Source<'_>, raw: &RawValue, depth: usize) -> Result<Node, InputError> {
    let text = raw.get();
    let at = offset(source, text);
    let broken = |error: serde_json::Error| source.syntax(at, format!("not JSON: {}", plain(&error)));
    if depth > DEEPEST {
        return Err(source.syntax(at, format!("nested deeper than {DEEPEST} levels")));
    }
    let value = match text.as_bytes().first() {
        Some(b'n') => Value::Null,
        Some(b't') => Value::Bool(true),
        Some(b'f') => Value::Bool(false),
        Some(b'"') => Value::Text(serde_json::from_str(text).map_err(broken)?),
        Some(b'[') => {
            let Items(items) = serde_json::from_str(text).map_err(broken)?;
            Value::List(
                items.into_iter().map(|item| node(source, item, depth + 1)).collect::<Result<_, _>>()?,
            )
        }
        Some(b'{') => {
            let Entries(entries) = serde_json::from_str(text).map_err(broken)?;
            Value::Table(table(source, entries, depth)?)
        }
        _ => number(text).ok_or_else(|| source.syntax(at, format!("the number {text} is out of range")))?,
    };
    Ok(Node::new(value, at))
}

fn table(
    source: &Source<'_>,
    entries: Vec<(&RawValue, &RawValue)>,
    depth: usize,
) -> Result<IndexMap<String, Node>, InputError> {
    let mut table = IndexMap::with_capacity(entries.len());
    for (key, value) in entries {
        let key_at = offset(source, key.get());
        let name: String =
            serde_json::from_str(key.get()).map_err(|error| source.syntax(key_at, plain(&error)))?;
        let mut value = node(source, value, depth + 1)?;
        value.key_at = key_at;
        if table.contains_key(&name) {
            return Err(source.syntax(key_at, format!("the key \"{name}\" stands twice in one object")));
        }
        table.insert(name, value);
    }
    Ok(table)
}

/// A number: whole ones that fit as integers, all others as floats if they are finite.
pub(super) fn number(text: &str) -> Option<Value> {
    if let Ok(value) = text.parse::<i64>() {
        return Some(Value::Integer(value));
    }
    text.parse::<f64>().ok().filter(|value| value.is_finite()).map(Value::Number)
}

/// The items of an array, unread.
struct Items<'a>(Vec<&'a RawValue>);

impl<'de> Deserialize<'de> for Items<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Items<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = sequence.next_element()? {
                    items.push(item);
                }
                Ok(Items(items))
            }
        }
        deserializer.deserialize_seq(Reader)
    }
}

/// Keys and values of an object, unread.
struct Entries<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Entries<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_know_their_places() {
        let text = "{\n  \"a\": [1, 2.5],\n  \"ü\": {\"b\": null}\n}";
        let source = Source::new("x", text);
        let root = parse(&source).unwrap();
        let Value::Table(table) = &root.value else { panic!("a table") };
        let Value::List(items) = &table["a"].value else { panic!("a list") };
        assert_eq!(source.place(items[1].at), (2, 12));
        assert_eq!(source.place(table["ü"].key_at), (3, 3));
        assert_eq!(source.place(table["ü"].at), (3, 8));
    }

    #[test]
    fn what_is_not_json_is_refused_quickly() {
        let message = |text: &str| parse(&Source::new("x", text)).unwrap_err().to_string();
        assert_eq!(message("{\"a\": NaN}"), "x:1:7: not JSON: expected value");
        assert_eq!(message("{\"a\": 1"), "x:1:7: not JSON: EOF while parsing an object");
        assert_eq!(message("{\"a\": 1, \"a\": 2}"), "x:1:10: the key \"a\" stands twice in one object");
        assert_eq!(message("{\"a\": 1e999}"), "x:1:7: the number 1e999 is out of range");
        assert_eq!(message(&"[".repeat(1 << 20)), "x:1:1048576: not JSON: EOF while parsing a list");
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(message(&deep), "x:1:34: nested deeper than 32 levels");
    }
}
