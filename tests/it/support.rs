//! Running the program.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The checkout.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// All scenario files, sorted by name.
pub(crate) fn scenario_files() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(root().join("scenarios"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .filter(|path| path.file_name().is_some_and(|name| name != "Cargo.toml"))
        .collect();
    files.sort();
    files
}

/// Runs the program in the checkout.
pub(crate) fn steptime(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_steptime"))
        .args(arguments)
        .current_dir(root())
        .env("NO_COLOR", "1")
        .output()
        .unwrap()
}

/// Runs a scenario and parses its report. The exit code must be 0 or 1.
pub(crate) fn report(arguments: &[&str]) -> serde_json::Value {
    let output = steptime(&[&["run", "--json"], arguments].concat());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(0 | 1)), "{arguments:?}: {error}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A number of a report.
pub(crate) fn number(value: &serde_json::Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is not a number"))
}

/// The folder with measured data, if it is there. In continuous integration it must be.
pub(crate) fn shared() -> Option<PathBuf> {
    let folder = root().join("../shared");
    if folder.is_dir() {
        return Some(folder);
    }
    assert!(std::env::var_os("CI").is_none(), "{} is missing", folder.display());
    eprintln!("SKIPPED: {} is not there", folder.display());
    None
}

/// A scenario in a folder of its own, played with some keys changed.
pub(crate) struct Case {
    folder: tempfile::TempDir,
}

impl Case {
    /// Writes the scenario.
    pub(crate) fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("case.toml"), text).unwrap();
        Self { folder }
    }

    /// The scenario's file.
    pub(crate) fn path(&self) -> String {
        self.file("case.toml").display().to_string()
    }

    /// A file beside it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The report with these keys.
    pub(crate) fn report(&self, keys: &[&str]) -> serde_json::Value {
        let path = self.path();
        let mut arguments = vec![path.as_str()];
        arguments.extend(keys.iter().flat_map(|key| ["--set", key]));
        report(&arguments)
    }

    /// The message with these keys, which are refused; without the folder.
    pub(crate) fn error(&self, keys: &[&str]) -> String {
        let path = self.path();
        let mut arguments = vec!["run", path.as_str()];
        arguments.extend(keys.iter().flat_map(|key| ["--set", key]));
        let output = steptime(&arguments);
        assert_eq!(output.status.code(), Some(2), "{keys:?}");
        let error = String::from_utf8(output.stderr).unwrap();
        error.replace(&format!("{}/", self.folder.path().display()), "").trim().to_owned()
    }
}
