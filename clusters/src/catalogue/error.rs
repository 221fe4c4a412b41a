//! Errors of catalogue files: where, what was found, what is allowed.

use steptime_models::Place;
use thiserror::Error;

/// What is wrong with a catalogue name or a catalogue file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CatalogueError {
    /// No entry of that name.
    #[error("unknown {kind} `{name}`{}; known: {known}", nearest_hint(nearest.as_deref()))]
    UnknownName {
        /// `cluster` or `GPU`.
        kind: &'static str,
        /// Name asked for.
        name: String,
        /// Entry with the most similar name.
        nearest: Option<String>,
        /// All names, separated by commas.
        known: String,
    },
    /// The text of a file is wrong.
    #[error("{place}: {problem}")]
    Invalid {
        /// Where.
        place: Place,
        /// Path of the key, e.g. `fabric.bandwidth`; empty for errors of syntax.
        key: String,
        /// What was found and what is allowed; names the key.
        problem: String,
    },
}

pub(super) fn nearest_hint(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}

/// The candidate most similar to a name, if any resembles it (Jaro-Winkler similarity above 0.7).
pub(super) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut best: Option<(f64, &str)> = None;
    for candidate in candidates {
        let similarity = strsim::jaro_winkler(name, candidate);
        if similarity > 0.7 && best.is_none_or(|(most, _)| similarity > most) {
            best = Some((similarity, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}
