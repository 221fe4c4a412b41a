//! What ends a command early, and what a finished command says through its exit code.

use std::path::PathBuf;
use std::process::ExitCode;

use steptime_clusters::CatalogueError;
use steptime_models::ModelError;
use steptime_plots::PlotError;
use steptime_scenarios::{InputError, JournalError};

/// The answer of a command that ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Done, and what was asked for fits.
    Yes,
    /// It ran, and the verdict is no.
    No,
}

impl From<Answer> for ExitCode {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Yes => Self::SUCCESS,
            Answer::No => Self::from(1),
        }
    }
}

/// Why a command could not do its work; exit code 2.
#[derive(Debug)]
pub(crate) enum Failure {
    Input(InputError),
    Plot(PlotError),
    File { path: PathBuf, message: String },
    Message(String),
}

impl Failure {
    /// A model that cannot be had. The catalogue is too long to stand in a message.
    pub(crate) fn model(error: &ModelError) -> Self {
        match error {
            ModelError::UnknownModel { name, nearest, .. } => {
                Self::unknown("model", name, nearest.as_deref())
            }
            other => Self::Message(other.to_string()),
        }
    }

    /// A cluster that cannot be had.
    pub(crate) fn cluster(error: &CatalogueError) -> Self {
        match error {
            CatalogueError::UnknownName { name, nearest, .. } => {
                Self::unknown("cluster", name, nearest.as_deref())
            }
            CatalogueError::Invalid { .. } => Self::Message(error.to_string()),
        }
    }

    fn unknown(kind: &str, name: &str, nearest: Option<&str>) -> Self {
        let hint = nearest.map_or_else(String::new, |near| format!(" (did you mean `{near}`?)"));
        Self::Message(format!("the catalogue has no {kind} `{name}`{hint}; `steptime {kind}s` lists them"))
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Input(error) => write!(f, "{error}"),
            Self::Plot(error) => write!(f, "{error}"),
            Self::File { path, message } => write!(f, "{}: {message}", path.display()),
            Self::Message(message) => write!(f, "{message}"),
        }
    }
}

impl From<InputError> for Failure {
    fn from(error: InputError) -> Self {
        Self::Input(error)
    }
}

impl From<JournalError> for Failure {
    fn from(error: JournalError) -> Self {
        Self::Message(error.to_string())
    }
}

impl From<PlotError> for Failure {
    fn from(error: PlotError) -> Self {
        Self::Plot(error)
    }
}
