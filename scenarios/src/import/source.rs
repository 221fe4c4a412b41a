//! A text and the places in it.

use crate::error::InputError;
use crate::origin::Origin;

/// A text that is being imported, with the name that errors give it.
pub(super) struct Source<'t> {
    file: &'t str,
    pub(super) text: &'t str,
    /// Where each line begins, so that a place is found without reading the text again.
    starts: Vec<usize>,
}

impl<'t> Source<'t> {
    pub(super) fn new(file: &'t str, text: &'t str) -> Self {
        let after_breaks = text.bytes().enumerate().filter(|&(_, byte)| byte == b'\n').map(|(at, _)| at + 1);
        Self { file, text, starts: std::iter::once(0).chain(after_breaks).collect() }
    }

    /// The name that errors give the text.
    pub(super) fn file(&self) -> &'t str {
        self.file
    }

    /// Line and column of a byte, both from 1; columns count characters.
    pub(super) fn place(&self, at: usize) -> (usize, usize) {
        let line = self.starts.partition_point(|&start| start <= at).max(1);
        let start = self.starts.get(line - 1).copied().unwrap_or(0);
        let at = self.text.floor_char_boundary(at);
        let column = self.text.get(start..at).map_or(0, |before| before.chars().count());
        (line, column + 1)
    }

    /// The byte at a line and column from 1, of which the column counts bytes.
    pub(super) fn byte(&self, line: usize, column: usize) -> usize {
        self.starts.get(line.saturating_sub(1)).copied().unwrap_or(0) + column.saturating_sub(1)
    }

    /// The byte at a line from 1 and a column from 0, both as the YAML parser counts: in characters.
    pub(super) fn byte_of_characters(&self, line: usize, column: usize) -> usize {
        let start = self.byte(line, 1).min(self.text.len());
        let rest = self.text.get(start..).unwrap_or_default();
        start + rest.char_indices().nth(column).map_or(rest.len(), |(at, _)| at)
    }

    pub(super) fn origin(&self, at: usize) -> Origin {
        let (line, column) = self.place(at);
        Origin::File { file: self.file.to_owned(), line, column }
    }

    /// The text is not of its format.
    pub(super) fn syntax(&self, at: usize, message: impl Into<String>) -> InputError {
        InputError::Syntax { origin: self.origin(at), message: message.into() }
    }
}
