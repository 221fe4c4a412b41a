//! Writing TOML: keys in the order in which they are given, the same text on every machine.

use toml::Value;

/// A document while it is being written.
#[derive(Clone, Debug, Default)]
pub(super) struct Document(String);

impl Document {
    /// A document that begins with a comment of one line.
    pub(super) fn with_comment(comment: &str) -> Self {
        Self(format!("# {comment}\n"))
    }

    /// A key and its value in the section that was begun last.
    pub(super) fn entry(&mut self, key: &str, value: impl Into<Value>) -> &mut Self {
        self.0 += &format!("{key} = {}\n", value.into());
        self
    }

    /// The same, if there is a value.
    pub(super) fn optional<V: Into<Value>>(&mut self, key: &str, value: Option<V>) -> &mut Self {
        match value {
            Some(value) => self.entry(key, value),
            None => self,
        }
    }

    /// Begins `[name]`.
    pub(super) fn section(&mut self, name: &str) -> &mut Self {
        self.heading(&format!("[{name}]"))
    }

    /// Begins the next table of `[[name]]`.
    pub(super) fn table_of(&mut self, name: &str) -> &mut Self {
        self.heading(&format!("[[{name}]]"))
    }

    fn heading(&mut self, text: &str) -> &mut Self {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        self.0 += text;
        self.0.push('\n');
        self
    }

    pub(super) fn text(&self) -> String {
        self.0.clone()
    }
}

/// A whole number as TOML has it.
pub(super) fn whole(value: u64) -> Value {
    // Larger numbers never get here: every count of the input has its limit.
    Value::Integer(i64::try_from(value).unwrap_or(i64::MAX))
}

/// A table on one line, as `{ a = 1 }`.
pub(super) fn inline<'a>(entries: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    Value::Table(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}
