//! `steptime completions`.

use clap::CommandFactory;

use crate::cli::{Cli, CompletionsArguments};
use crate::failure::{Answer, Failure};

/// Prints a completion script.
#[allow(clippy::unnecessary_wraps, reason = "every command has the same form")]
pub(crate) fn completions(arguments: &CompletionsArguments) -> Result<Answer, Failure> {
    clap_complete::generate(arguments.shell, &mut Cli::command(), "steptime", &mut std::io::stdout());
    Ok(Answer::Yes)
}
