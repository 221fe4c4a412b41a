//! What ends a command early, and what a finished command says through its exit code.

use std::path::PathBuf;
use std::process::ExitCode;

use steptime_plots::PlotError;
use steptime_scenarios::InputError;

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

impl From<PlotError> for Failure {
    fn from(error: PlotError) -> Self {
        Self::Plot(error)
    }
}
