//! Files: outputs appear whole or not at all.

use std::fs;
use std::io::Write;
use std::path::Path;

use crate::failure::Failure;

fn failure(path: &Path, error: &std::io::Error) -> Failure {
    Failure::File { path: path.to_owned(), message: error.to_string() }
}

/// Reads a text file.
pub(crate) fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| failure(path, &error))
}

/// Writes a file beside its final place and moves it there when it is complete.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(|error| failure(folder, &error))?;
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(|error| failure(folder, &error))?;
    file.write_all(bytes).map_err(|error| failure(path, &error))?;
    file.as_file().sync_all().map_err(|error| failure(path, &error))?;
    file.persist(path).map_err(|error| failure(path, &error.error))?;
    Ok(())
}

/// Writes a value as JSON, indented, with a line break at the end.
pub(crate) fn write_json<T: serde::Serialize>(path: &Path, value: &T) -> Result<(), Failure> {
    write(path, json(value)?.as_bytes())
}

/// A value as JSON, indented, with a line break at the end.
pub(crate) fn json<T: serde::Serialize>(value: &T) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failure::Message(error.to_string()))?;
    Ok(text + "\n")
}
