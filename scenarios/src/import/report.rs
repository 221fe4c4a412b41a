//! What an importer returns.

use serde::Serialize;

/// A file in the form that a scenario refers to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ImportedFile {
    /// Its name: `model.toml`, `cluster.toml` or `scenario.toml`.
    pub name: String,
    /// Its text.
    pub toml: String,
}

/// A key of the input that does not enter the result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ignored {
    /// The key with the tables around it, as the input writes it.
    pub key: String,
    /// Its value.
    pub found: String,
    /// Line of the input, from 1.
    pub line: usize,
    /// Why it does not matter, or why it cannot be kept.
    pub reason: String,
}

/// The result of an import.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Imported {
    /// What the input was: `hf`, `safetensors`, `swift`, `deepspeed`, `megatron` or `torchtitan`.
    pub kind: &'static str,
    /// One file, or several that belong together.
    pub files: Vec<ImportedFile>,
    /// Keys of the input that do not enter the files, in the order of the input.
    pub ignored: Vec<Ignored>,
    /// What the importer assumed or could not find out.
    pub notes: Vec<String>,
}

impl Imported {
    /// The text of a file, by its name.
    pub fn file(&self, name: &str) -> Option<&str> {
        self.files.iter().find(|file| file.name == name).map(|file| file.toml.as_str())
    }
}

/// What a scenario needs besides what a launcher's configuration says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Catalogue name of the model.
    pub model: Option<String>,
    /// Catalogue name of the cluster.
    pub cluster: Option<String>,
}

/// Ignored keys and notes while an import runs.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) ignored: Vec<Ignored>,
    pub(super) notes: Vec<String>,
}

impl Log {
    pub(super) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// The result, with what was ignored in the order of the input.
    pub(super) fn finish(mut self, kind: &'static str, files: Vec<(&str, String)>) -> Imported {
        self.ignored.sort_by_key(|ignored| ignored.line);
        let files =
            files.into_iter().map(|(name, toml)| ImportedFile { name: name.to_owned(), toml }).collect();
        Imported { kind, files, ignored: self.ignored, notes: self.notes }
    }
}
