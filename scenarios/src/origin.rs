//! Where something in the input was written.

use std::fmt;

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In a file, at a line and column from 1.
    File {
        /// The file as the user named it.
        file: String,
        /// Line.
        line: usize,
        /// Column, in characters.
        column: usize,
    },
    /// In a `--set` option.
    Option {
        /// The option's text.
        text: String,
    },
}

impl Origin {
    /// A place in a file.
    pub(crate) fn at(file: &str, line: usize, column: usize) -> Self {
        Self::File { file: file.to_owned(), line, column }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Self::Option { text } => write!(f, "--set {text}"),
        }
    }
}
