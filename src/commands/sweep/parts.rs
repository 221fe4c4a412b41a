//! Parts of sweeps in folders.

use std::fs;
use std::path::{Path, PathBuf};

use crate::failure::Failure;

fn failure(path: &Path, error: &std::io::Error) -> Failure {
    Failure::File { path: path.to_owned(), message: error.to_string() }
}

/// Files to merge: those given, and of folders their parts, finished or not, in the order of their names.
pub(super) fn find(given: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for path in given {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let mut inside = Vec::new();
        for entry in fs::read_dir(path).map_err(|error| failure(path, &error))? {
            let file = entry.map_err(|error| failure(path, &error))?.path();
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let ending = file.extension().unwrap_or_default();
            let part = name.starts_with("sweep-") && (ending == "jsonl" || ending == "journal");
            if part {
                inside.push(file);
            }
        }
        if inside.is_empty() {
            return Err(Failure::File { path: path.clone(), message: "has no parts of a sweep".to_owned() });
        }
        inside.sort();
        files.extend(inside);
    }
    Ok(files)
}
