//! `steptime completions`.

use clap::CommandFactory;

use crate::cli::{Cli, CompletionsArguments};
use crate::failure::{Answer, Failure};
use crate::output;

/// Prints a completion script.
pub(crate) fn completions(arguments: &CompletionsArguments) -> Result<Answer, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "steptime", &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(Answer::Yes)
}
