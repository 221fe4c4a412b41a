//! A text that is being imported, and the places in it.

use crate::error::InputError;
use crate::lines::Lines;
use crate::origin::Origin;

/// A text that is being imported, with the name that errors give it.
pub(super) struct Source<'t> {
    file: &'t str,
    pub(super) text: &'t str,
    lines: Lines<'t>,
}

impl<'t> Source<'t> {
    pub(super) fn new(file: &'t str, text: &'t str) -> Self {
        Self { file, text, lines: Lines::new(text) }
    }

    /// The name that errors give the text.
    pub(super) fn file(&self) -> &'t str {
        self.file
    }

    /// Line and column of a byte, both from 1; columns count characters.
    pub(super) fn place(&self, at: usize) -> (usize, usize) {
        self.lines.place(at)
    }

    /// The byte at a line and column from 1, of which the column counts bytes.
    pub(super) fn byte(&self, line: usize, column: usize) -> usize {
        self.lines.byte(line, column)
    }

    /// The byte at a line from 1 and a column from 0, both as the YAML parser counts: in characters.
    pub(super) fn byte_of_characters(&self, line: usize, column: usize) -> usize {
        self.lines.byte_of_characters(line, column)
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
